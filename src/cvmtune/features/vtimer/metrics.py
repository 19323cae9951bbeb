# SPDX-License-Identifier: Apache-2.0
"""The metrics of the virtual timer."""

from __future__ import annotations

from collections.abc import Mapping

from cvmtune.experiments.measure import Measure
from cvmtune.features.trial import Event, Snapshot
from cvmtune.features.vtimer.statistics import FILE, all_timer_exits, redundant_exits

LOADS: Mapping[str, str] = {
    "oneshot": "timer of an idle CPU",
    "tick": "tick of a busy CPU",
    "section": "section with interrupts off",
}
"""What is counted for each of, by the end of a metric's name."""


def _each(name: str, title: str) -> Measure:
    return Measure(name, title, "each")


TIMER_EXITS = {
    load: _each(f"timer_exits_per_{load}", f"Timer exits per {what}") for load, what in LOADS.items()
}
REDUNDANT = {
    load: _each(f"redundant_per_{load}", f"Redundant timer exits per {what}") for load, what in LOADS.items()
}
BEYOND = {
    load: Measure(
        f"timer_exits_beyond_{load}",
        f"Timer exits beyond the guest's timer interrupts ({what})",
        "exits",
    )
    for load, what in LOADS.items()
}
INTERRUPTS = {
    load: _each(f"interrupts_per_{load}", f"Timer interrupts of the guest per {what}")
    for load, what in LOADS.items()
}
EXITS = {load: _each(f"exits_per_{load}", f"Exits of any kind per {what}") for load, what in LOADS.items()}

TIMERS_LOST = Measure("timers_lost", "Timers that had not fired two seconds after their expiry", "timers")
TIMERS_WRONG = Measure("timers_wrong", "Timers that fired early or twice", "timers")
TICKS = Measure("ticks_taken", "Ticks of a busy CPU, of those that it waits for", "share", better="higher")

ONESHOT_LATE = Measure("oneshot_late", "Timer of an idle CPU: how late its handler is", "ns", "time")
CYCLICTEST = Measure(
    "cyclictest",
    "Timer of an idle CPU: how late the thread is that waits for it (cyclictest)",
    "ns",
    "time",
)
TICKS_PER_S = Measure("ticks_per_s", "Ticks of a busy CPU per second", "per s", "time", better="higher")
BUSY_WORK = Measure(
    "busy_work", "What a busy CPU gets done: turns of a loop", "per s", "time", better="higher"
)
STORM = Measure(
    "storm", "Timer exits per second of sections with interrupts off and an expired timer", "per s", "time"
)
SECTION = Measure(
    "section",
    "A section with interrupts off in which a timer has expired, always the same work",
    "ns",
    "time",
)
CROSS_RTT = {
    "futex": Measure(
        "cross_futex_rtt",
        "Round trip of two threads on two CPUs that wake each other by futex",
        "ns",
        "time",
    ),
    "pipe": Measure(
        "cross_pipe_rtt", "Round trip of two threads on two CPUs that wake each other by pipe", "ns", "time"
    ),
}
SECTION_RTT = Measure(
    "section_rtt",
    "Round trip by futex beside sections with interrupts off in which timers expire",
    "ns",
    "time",
)

SECTION_PATH = Measure(
    "section_path",
    "Instructions of a section with interrupts off in which a timer has expired",
    "instructions",
)
ONESHOT_PATH = Measure(
    "oneshot_path", "Instructions from a timer's expiry on an idle CPU to its handler", "instructions"
)
CROSS_FUTEX_PATH = Measure(
    "cross_futex_path",
    "Instructions of a round trip of two threads on two CPUs by futex",
    "instructions",
)


def _exits_so_far(now: Snapshot) -> float | None:
    return float(all_timer_exits(now.vm)) if now.vm else None


def _redundant_so_far(now: Snapshot) -> float | None:
    found = redundant_exits(now.vm) if now.vm else None
    return None if found is None else float(found)


TIMER_EVENTS = Event(
    "timer_exits", "Exits for the timer", "for the timer", _exits_so_far, of_host=True, file=FILE
)
REDUNDANT_EVENTS = Event(
    "redundant_exits",
    "Redundant exits for the timer",
    "redundantly",
    _redundant_so_far,
    of_host=True,
    file=FILE,
    # Below this no timer expired where the guest could not look after it, or it was masked with all off too.
    least_off=0.1,
    # Of the exits for the timer, with the monitor masking it, those that told nothing new.
    most_on=0.05,
)
