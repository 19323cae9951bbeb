# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues on a machine: what the poller found, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator

from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.cq_poll.knob import IDLE_US, MOUNTS, OFF, rdma_mounts
from cvmtune.features.cq_poll.settings import CQ_IDLE_US, CQ_POLL
from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.features.status import in_words, of_setting, sums, table
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
    text = table(capture, QUEUES)
    queues = sums(text, ("polled", "completions"), QUEUES)
    statistics["queues"] = text if isinstance(text, Unknown) else float(len(parse_counts(text)))
    statistics |= {"polled_queues": queues["polled"], "completions": queues["completions"]}

    def did() -> Iterator[str]:
        if QUEUES in capture.files:
            if isinstance(statistics["polled_queues"], Unknown) or isinstance(statistics["queues"], Unknown):
                yield in_words(statistics["polled_queues"], "queues polled")
            else:
                yield f"{statistics['polled_queues']:.0f} of {statistics['queues']:.0f} queues polled"
            yield in_words(statistics["completions"], "completions found")
        awake = statistics.get("awake_ns")
        if awake is not None and not isinstance(awake, Unknown):
            yield f"awake {awake / _NS_PER_S:.1f} s"

    return of_setting(capture, CQ_POLL, CQ_IDLE_US, did(), statistics)


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
