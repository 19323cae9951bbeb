# SPDX-License-Identifier: Apache-2.0
"""Words and figures that the advice on several features shares."""

from __future__ import annotations

from collections.abc import Iterable

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown
from cvmtune.observe.cpus import steal_untold
from cvmtune.observe.load import Load
from cvmtune.observe.steal import Lost, most


def overcommitted(load: Load) -> str:
    """Why nothing may poll here; nothing if vCPUs seem to own their CPUs."""
    lost = steal(load)
    if lost.too_much:
        return f"this guest is overcommitted: {lost}"
    # Where a guest does not learn of it at all, it is advised all the same: time_lost() says so.
    if lost.too_much is None and load.place.role == "guest" and not steal_untold(load.now):
        return str(lost)
    return ""


def time_lost(load: Load) -> str:
    """What a guest's vCPUs lose to others, as a clause; nothing of what is no guest."""
    if load.place.role != "guest":
        return ""
    share = steal(load).share
    if isinstance(share, Unknown):
        return f"whether others take its physical CPUs (steal) {share}; ask the host"
    return f"steal is {share:.1%}"


def steal(load: Load) -> Lost:
    """The most that a CPU lost. What is counted as too much is, even where it is not known to be all."""
    over = f"in {load.seconds:.1f} s"
    lost = most({cpu: one.steal for cpu, one in load.cpus.items()}, over)
    why = steal_untold(load.now)
    return Lost(Unknown(why), -1, over) if why and not lost.too_much else lost


def named_cpus(cpus: Iterable[int]) -> str:
    """CPUs by their numbers, as "CPU 3" or "CPUs 2-3"."""
    return _numbered("CPU", cpus)


def named_vcpus(ids: Iterable[int]) -> str:
    """vCPUs by their ids, as "vCPU 3" or "vCPUs 0-1"."""
    return _numbered("vCPU", ids)


def _numbered(noun: str, numbers: Iterable[int]) -> str:
    those = CpuMask(frozenset(numbers))
    return f"{noun}{'' if len(those) == 1 else 's'} {those.to_list()}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def round_up(number: float, step: int) -> int:
    return -int(-number // step) * step


def between(ends: tuple[int, int], number: int) -> int:
    return max(ends[0], min(ends[1], number))
