# SPDX-License-Identifier: Apache-2.0
"""How busy this computer is with other things, as the emulator feels it.

The emulator's threads want to run whenever an emulated CPU is not idle. The scheduler counts for each thread
how long it ran, and how long it waited for a CPU meanwhile (Documentation/scheduler/sched-stats.rst, the
first two fields of schedstat). Where this computer is a virtual machine itself, its host may take a CPU while
a thread runs on it: that is counted for all CPUs together (steal, proc_stat(5)), and all of it is taken for
the emulator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cvmtune.observe.procfs import TICKS_PER_S

_NS_PER_S = 1_000_000_000
_PROC = Path("/proc")


@dataclass(frozen=True)
class CpuTime:
    """What each thread of the emulator has run and has waited for so far, in nanoseconds, by its number; and
    what of this computer's CPUs its own host has taken, if it has one."""

    ran: Mapping[int, int]
    waited: Mapping[int, int]
    stolen: int = 0

    @staticmethod
    def of(pid: int | None, proc: Path = _PROC) -> CpuTime | None:
        """Read it of a process of this computer; None if it is gone, or this kernel does not count it."""
        if pid is None:
            return None
        ran, waited = {}, {}
        for thread in (proc / str(pid) / "task").glob("*"):
            try:
                fields = (thread / "schedstat").read_text(encoding="ascii").split()
            except OSError:  # it has ended meanwhile, or there is no such file
                continue
            ran[int(thread.name)], waited[int(thread.name)] = int(fields[0]), int(fields[1])
        # A kernel that does not count it shows zeroes (CONFIG_SCHED_INFO).
        return CpuTime(ran, waited, _stolen_ns(proc)) if any(ran.values()) else None


def waited_share(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """The share of the time that the threads wanted to run in which they had no CPU, from 0 to 1; None if it
    is unknown."""
    if before is None or after is None:
        return None
    # A thread that is new has all its time in between.
    ran = sum(now - before.ran.get(thread, 0) for thread, now in after.ran.items())
    waited = sum(now - before.waited.get(thread, 0) for thread, now in after.waited.items())
    # It looks to the scheduler as if the thread ran.
    stolen = min(max(0, after.stolen - before.stolen), ran)
    return (waited + stolen) / (ran + waited) if ran + waited > 0 else None


def _stolen_ns(proc: Path) -> int:
    """What a hypervisor has taken of all CPUs so far."""
    try:
        fields = (proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0
    return int(fields[8]) * _NS_PER_S // TICKS_PER_S if len(fields) > 8 else 0
