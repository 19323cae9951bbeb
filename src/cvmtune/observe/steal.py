# SPDX-License-Identifier: Apache-2.0
"""Where CPUs' time went between two readings; and whether a guest's CPUs lose too much of it to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cvmtune.core.figure import Figure, Unknown, growth
from cvmtune.observe.procfs import TICKS_PER_S, CpuTimes

# Share of its time that a vCPU may lose to others; above it, it does not own its CPU. Recorded in the lab: at
# most 8 % where it does, on a busy computer, and 34 % or more where four vCPUs share one CPU.
MAX_STEAL = 0.1


@dataclass(frozen=True)
class Shares:
    """Shares of a CPU's time from 0 to 1."""

    busy: Figure
    idle: Figure
    steal: Figure


def shares(before: CpuTimes | Unknown, after: CpuTimes | Unknown, cpu: int) -> Shares:
    """Return where a CPU's time went."""
    if isinstance(before, Unknown):
        return Shares(before, before, before)
    if isinstance(after, Unknown):
        return Shares(after, after, after)
    times: list[float] = []
    for name in ("busy", "idle", "steal"):
        grown = growth(getattr(before, name), getattr(after, name), 0, what=f"{name} time of CPU {cpu}")
        if isinstance(grown, Unknown):
            return Shares(grown, grown, grown)
        times.append(grown)
    if not sum(times):
        none = Unknown(f"no time of CPU {cpu} was counted")
        return Shares(none, none, none)
    busy, idle, steal = (one / sum(times) for one in times)
    return Shares(busy, idle, steal)


@dataclass(frozen=True)
class Lost:
    """The most that one of a guest's CPUs lost to others, a share of its time from 0 to 1; `over`: which
    time."""

    share: Figure
    cpu: int
    over: str

    @property
    def too_much(self) -> bool | None:
        """The one judgement of steal; None if it cannot be told."""
        return None if isinstance(self.share, Unknown) else self.share > MAX_STEAL

    def __str__(self) -> str:
        if isinstance(self.share, Unknown):
            return f"what its CPUs lost to others (steal) {self.over} {self.share}"
        return f"CPU {self.cpu} lost {self.share:.1%} of its time to others (steal) {self.over}"


def most(lost: Mapping[int, Figure], over: str) -> Lost:
    """Return the most of what CPUs lost. One that lost too much settles it, whatever another did."""
    known = {cpu: share for cpu, share in lost.items() if not isinstance(share, Unknown)}
    cpu = max(known, key=lambda one: known[one], default=-1)
    if cpu >= 0 and known[cpu] > MAX_STEAL:
        return Lost(known[cpu], cpu, over)
    unknown = next((share for share in lost.values() if isinstance(share, Unknown)), None)
    if unknown or not known:
        return Lost(unknown or Unknown("/proc/stat has no times of CPUs"), -1, over)
    return Lost(known[cpu], cpu, over)


def since_boot(times: Mapping[int, CpuTimes]) -> Lost:
    """Return the most that a CPU lost since boot."""
    none = CpuTimes(0, 0, 0)
    return most({cpu: shares(none, one, cpu).steal for cpu, one in times.items()}, "since boot")


def busy_s(before: CpuTimes, after: CpuTimes) -> float:
    """How long a CPU was busy between two readings, in s; 0 if its times went backwards."""
    return max(0, after.busy - before.busy) / TICKS_PER_S
