# SPDX-License-Identifier: Apache-2.0
"""Words and figures that the advice on several features shares."""

from __future__ import annotations

from collections.abc import Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.cpus import MAX_STEAL, counts_steal
from cvmtune.observe.load import Load


def overcommitted(load: Load) -> str:
    """Why nothing may poll here; nothing if vCPUs seem to own their CPUs."""
    lost = steal(load)
    if lost <= MAX_STEAL:
        return ""
    return f"this guest is overcommitted: its vCPUs lost {lost:.1%} of a CPU's time to others (steal)"


def time_lost(load: Load) -> str:
    """What a guest's vCPUs lose to others, as a clause."""
    if not counts_steal(load.now):
        return "and whether others take their physical CPUs is not told here (no steal clock): ask the host"
    return f"steal is {steal(load):.1%}"


def steal(load: Load) -> float:
    """The largest share of its time that a CPU lost, from 0 to 1."""
    return max((one.steal for one in load.cpus.values()), default=0.0)


def cpu_list(cpus: Sequence[int]) -> str:
    return CpuMask(frozenset(cpus)).to_list()


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def round_up(number: float, step: int) -> int:
    return -int(-number // step) * step


def between(ends: tuple[int, int], number: int) -> int:
    return max(ends[0], min(ends[1], number))
