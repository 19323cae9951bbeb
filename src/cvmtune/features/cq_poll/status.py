# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues on a machine: what the poller found, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cvmtune.core.figure import Figure, Unknown, known
from cvmtune.features.cq_poll.knob import IDLE_US, MOUNTS, OFF, rdma_mounts
from cvmtune.features.cq_poll.settings import CQ_IDLE_US, CQ_POLL
from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.features.status import of_setting
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_counts, parse_named

QUEUES = "/sys/kernel/debug/ib_core_cq_poll/cqs"
TOTALS = "/sys/kernel/debug/ib_core_cq_poll/totals"
_NS_PER_S = 1e9


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return where it polls, how many queues it polls, and what it found."""
    statistics: dict[str, Figure] = {
        name: float(value) for name, value in parse_named(capture.files.get(TOTALS, "")).items()
    }
    queues = parse_counts(capture.files.get(QUEUES, ""))
    for name, column in (("queues", "cq"), ("polled_queues", "polled"), ("completions", "completions")):
        statistics[name] = _summed(capture, queues, column)

    def did() -> Iterator[str]:
        if capture.get(QUEUES):
            polled, completions = (_words(statistics[name]) for name in ("polled_queues", "completions"))
            yield f"{polled} of {_words(statistics['queues'])} queues polled"
            yield f"{completions} completions found"
        if (awake_ns := known(statistics.get("awake_ns", Unknown("")))) is not None:
            yield f"awake {awake_ns / _NS_PER_S:.1f} s"

    return of_setting(capture, CQ_POLL, CQ_IDLE_US, did(), statistics)


def _summed(capture: Capture, queues: Sequence[Mapping[str, int]], column: str) -> Figure:
    """How many queues there are, by column "cq"; how many are polled; or the sum of a column."""
    header, *lines = capture.files.get(QUEUES, "").splitlines() or [""]
    if column not in header.split() or len(lines) != len(queues) or any(column not in row for row in queues):
        return Unknown(f"{column}: {capture.why_not(QUEUES)}")
    if column == "cq":
        return float(len(queues))
    return float(sum(row[column] == 1 if column == "polled" else row[column] for row in queues))


def _words(figure: Figure) -> str:
    return "?" if isinstance(figure, Unknown) else f"{figure:.0f}"


def vendors_risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what a vendor's kernel does with mounts when polling changes."""
    if status.there:
        mounts = rdma_mounts(capture.files.get(MOUNTS, ""))
        what = (
            f"NFS is mounted over RDMA on {', '.join(mounts)}: its I/O hangs if polling is changed now"
            if mounts
            else "this vendor's kernel polls only what is mounted after polling was turned on"
        )
        yield Risk(what, "turn polling on before mounting, and off only after unmounting")


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what is wrong or risky with the poller."""
    cpu = status.settings.get(CQ_POLL.name, OFF)
    if cpu != OFF and status.settings.get(CQ_IDLE_US.name) == 0:
        yield Risk(
            f"the poller on CPU {cpu} never sleeps while there is a queue",
            f"set a window: {IDLE_US}, or profile nfs-client",
        )
