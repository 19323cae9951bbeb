# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues on a machine: what the poller found, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator

from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.cq_poll.knob import IDLE_US, OFF, in_use
from cvmtune.features.cq_poll.settings import CQ_IDLE_US, CQ_POLL
from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.features.status import in_words, of_setting, sums, table
from cvmtune.observe.capture import Capture
from cvmtune.observe.captured import CapturedSystem
from cvmtune.observe.isolation import kept, kept_untold
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_counts, parse_named
from cvmtune.observe.unreadable import is_hidden
from cvmtune.tuning.contract import KnobError

QUEUES = "/sys/kernel/debug/ib_core_cq_poll/cqs"
TOTALS = "/sys/kernel/debug/ib_core_cq_poll/totals"
_TOTALS = ("taken", "given_back", "sleeps", "wakeups", "awake_ns")
_NS_PER_S = 1e9


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return where it polls, how many queues it polls, and what it found."""
    statistics: dict[str, Figure] = {
        name: float(value) for name, value in parse_named(capture.files.get(TOTALS, "")).items()
    }
    totals = table(capture, TOTALS)
    if isinstance(totals, Unknown) and is_hidden(capture, TOTALS):
        statistics = dict.fromkeys(_TOTALS, totals)
    text = table(capture, QUEUES)
    queues = sums(text, ("polled", "completions"), QUEUES)
    statistics["queues"] = text if isinstance(text, Unknown) else float(len(parse_counts(text)))
    statistics |= {"polled_queues": queues["polled"], "completions": queues["completions"]}

    def did() -> Iterator[str]:
        if isinstance(text, Unknown):
            if is_hidden(capture, QUEUES):
                yield f"queues polled and completions found {text}"
        else:
            if isinstance(statistics["polled_queues"], Unknown) or isinstance(statistics["queues"], Unknown):
                yield in_words(statistics["polled_queues"], "queues polled")
            else:
                yield f"{statistics['polled_queues']:.0f} of {statistics['queues']:.0f} queues polled"
            yield in_words(statistics["completions"], "completions found")
        awake = statistics.get("awake_ns")
        if isinstance(awake, Unknown):
            yield f"how long it was awake {awake}"
        elif awake is not None:
            yield f"awake {awake / _NS_PER_S:.1f} s"

    return of_setting(capture, CQ_POLL, CQ_IDLE_US, did(), statistics)


def vendors_risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what a vendor's kernel does with RDMA that is in use when polling changes."""
    if not status.there:
        return
    next_step = "turn polling on before mounting, and off only after unmounting"
    try:
        use = in_use(CapturedSystem(capture))
    except KnobError as error:
        yield Risk(f"{error.what} ({error.where}): its I/O may hang if polling is changed now", next_step)
        return
    if use:
        first = f"{use.next_step}; later {next_step}"
        yield Risk(f"{use.what}: its I/O hangs if polling is changed now", first)
    else:
        yield Risk("this vendor's kernel polls only what is mounted after polling was turned on", next_step)


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what is wrong or risky with the poller."""
    cpu = status.settings.get(CQ_POLL.name, OFF)
    if cpu == OFF:
        return
    window = status.statistics.get(CQ_IDLE_US.name, status.settings.get(CQ_IDLE_US.name))
    next_step = f"set a window: {IDLE_US}, or profile nfs-client"
    if isinstance(window, Unknown):
        yield Risk(f"whether the poller on CPU {cpu} ever sleeps {window}", next_step)
    elif window == 0:
        yield Risk(f"the poller on CPU {cpu} never sleeps while there is a queue", next_step)
    if why := kept(capture).get(cpu):
        move = "move it to another CPU, or off"
        if where.flavour == "vendor":
            move = "move it, or off, while RDMA is not in use: else this vendor's kernel may hang its I/O"
        yield Risk(f"the poller is on CPU {cpu}, which is {why}", move)
    elif hidden := kept_untold(capture):
        yield Risk(
            f"the poller is on CPU {cpu}, and whether that is kept from ordinary tasks cannot be told: "
            f"{hidden}",
            "run as root, on the machine itself",
        )
