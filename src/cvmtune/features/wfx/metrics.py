# SPDX-License-Identifier: Apache-2.0
"""The metrics of untrapped WFx."""

from __future__ import annotations

from cvmtune.experiments.measure import Measure
from cvmtune.features.trial import Event, Snapshot
from cvmtune.features.wfx.statistics import FILE, wfx_exits

_PER_TIMER = "per timer interrupt"

TIMERS_TAKEN = Measure(
    "timers_taken",
    "Timer interrupts of a vCPU, the one with the fewest, while WFI and WFE exits are counted",
    "each",
    better="higher",
)
WFX_EXITS_NAMED = Measure(
    "wfx_exits_named", "WFI and WFE exits of the named vCPU per timer interrupt", _PER_TIMER
)
WFX_EXITS_OTHER = Measure(
    "wfx_exits_other", "WFI and WFE exits of the vCPU not named per timer interrupt", _PER_TIMER
)
EXITS_NAMED = Measure("exits_named", "Exits of any kind of the named vCPU per timer interrupt", _PER_TIMER)
WFX_EXITS_BACK = Measure(
    "wfx_exits_back",
    "WFI and WFE exits of the vCPU no longer named per timer interrupt",
    _PER_TIMER,
    better="higher",
)

IDLE_WFX_EXITS = Measure("idle_wfx_exits", "WFI and WFE exits of an idle guest", "exits")
IDLE_EXITS = Measure("idle_exits", "Exits of any kind of an idle guest", "per s", "time")
IDLE_CPU_USE = Measure("idle_cpu_use", "Physical CPUs that an idle guest's vCPUs take", "CPUs")

TIMER_WAKE = Measure(
    "timer_wake", "Timer wake-up of an idle CPU: how late the thread is (cyclictest)", "ns", "time"
)
WFX_PER_TIMER = Measure("wfx_per_timer", "WFI and WFE exits per timer wake-up", "per wake-up")
TIMER_CPU_USE = Measure(
    "timer_cpu_use", "Physical CPUs that the vCPUs take while one wakes by timers", "CPUs"
)

FUTEX_RTT = Measure(
    "futex_rtt", "Round trip of two threads on two CPUs that wake each other by futex", "ns", "time"
)
WFX_PER_FUTEX_RTT = Measure(
    "wfx_per_futex_rtt", "WFI and WFE exits per round trip by futex", "per round trip"
)
PIPE_RTT = Measure(
    "pipe_rtt", "Round trip of two threads on two CPUs that wake each other by pipe", "ns", "time"
)
WFX_PER_PIPE_RTT = Measure("wfx_per_pipe_rtt", "WFI and WFE exits per round trip by pipe", "per round trip")

MIXED_TIME = Measure("mixed_time", "hackbench beside timers on all CPUs", "s", "time")
MIXED_WFX_EXITS = Measure("mixed_wfx_exits", "WFI and WFE exits while hackbench runs beside timers", "exits")
NEIGHBOUR_SHARE = Measure(
    "neighbour_share",
    "Share of a physical CPU that a busy task of the host gets beside an idle vCPU",
    "share",
    better="higher",
)


def _path(name: str, what: str) -> Measure:
    return Measure(name, f"Instructions of {what}", "instructions")


WAKE_PATHS = {
    "futex": _path("futex_path", "a round trip of two threads on two CPUs by futex"),
    "pipe": _path("pipe_path", "a round trip of two threads on two CPUs by pipe"),
    "timer": _path("timer_path", "a timer's wake-up of an idle CPU, until its thread runs"),
}
"""By what wakes."""


def _exits_so_far(now: Snapshot) -> float | None:
    return float(wfx_exits(now.vm)) if now.vm else None


WFX_EXITS = Event(
    "wfx_exits",
    "Exits for WFI and WFE",
    "of these for WFx",
    _exits_so_far,
    of_host=True,
    file=FILE,
    # A transaction waits for its storage at least. Below this nobody was trapped, or nobody waited.
    least_off=1.0,
    # With none trapped there are those of the moment in which the mask is set.
    most_on=0.5,
)
