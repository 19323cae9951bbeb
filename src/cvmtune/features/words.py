# SPDX-License-Identifier: Apache-2.0
"""Words and figures that the advice on several features shares."""

from __future__ import annotations

from collections.abc import Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.cpus import counts_steal
from cvmtune.observe.load import Load
from cvmtune.observe.steal import Lost, most


def overcommitted(load: Load) -> str:
    """Why nothing may poll here; nothing if vCPUs seem to own their CPUs."""
    lost = steal(load)
    if lost.too_much:
        return f"this guest is overcommitted: {lost}"
    # Where no steal is counted 0 is shown: time_lost() says so.
    if lost.too_much is None and load.place.role == "guest" and counts_steal(load.now):
        return str(lost)
    return ""


def time_lost(load: Load) -> str:
    """What a guest's vCPUs lose to others, as a clause."""
    if not counts_steal(load.now):
        return "and whether others take their physical CPUs is not told here (no steal clock): ask the host"
    return f"steal is {steal(load).share:.1%}"


def steal(load: Load) -> Lost:
    """The most that a CPU lost."""
    return most({cpu: one.steal for cpu, one in load.cpus.items()}, f"in {load.seconds:.1f} s")


def cpu_list(cpus: Sequence[int]) -> str:
    return CpuMask(frozenset(cpus)).to_list()


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def round_up(number: float, step: int) -> int:
    return -int(-number // step) * step


def between(ends: tuple[int, int], number: int) -> int:
    return max(ends[0], min(ends[1], number))
