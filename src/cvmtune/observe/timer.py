# SPDX-License-Identifier: Apache-2.0
"""Whether each CPU of a guest gets the interrupts of its timer: counts decide, not times.

An idle CPU may take none for seconds (nohz), so one that stands still proves nothing unless something ran
there. A program that runs is interrupted by the tick, HZ times a second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import Capture
from cvmtune.observe.isolation import no_tick
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import interrupt_cpus, parse_cpu_times, parse_interrupts
from cvmtune.observe.steal import busy_s

INTERRUPTS = "/proc/interrupts"
# What the rows of a CPU's own timer say (drivers/clocksource/arm_arch_timer.c). Those of guests ("kvm
# guest vtimer") are for others, and so are those of devices ("watchdog-timer").
_TIMER = re.compile(r"(?:^|[^\w-])arch_(?:mem_)?timer\b", re.IGNORECASE)
# The IPI that stands for it where a CPU has none: its row is there on all, and mostly zero.
_BROADCAST = "Timer broadcast interrupts"
# So long a CPU must have been busy to have met some tick: of 100 Hz, the slowest, five.
_BUSY_S = 0.05


def timer_counts(text: str) -> dict[int, int]:
    """Return how many interrupts each CPU took of its timers, of any kind; nothing if no row is a timer's."""
    cpus = interrupt_cpus(text)
    what = {
        name.strip(): " ".join(rest.split()[len(cpus) :])
        for name, _, rest in (line.partition(":") for line in text.splitlines()[1:])
    }
    found = parse_interrupts(text)
    rows = [counts for name, counts in found.items() if _TIMER.search(what.get(name, ""))]
    broadcast = found.get(_BROADCAST, ())
    if any(broadcast):
        rows.append(broadcast)
    return {cpu: sum(counts[column] for counts in rows) for column, cpu in enumerate(cpus)} if rows else {}


@dataclass(frozen=True)
class Timers:
    """CPUs on which the timer's interrupt arrives, and does not; and why that cannot be told of others."""

    arrives: CpuMask
    silent: CpuMask
    unknown: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Visits:
    """Whether the timer's count grew on the CPUs that were visited; and why others could not be."""

    grew: Mapping[int, bool] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    @property
    def arrived(self) -> CpuMask:
        return CpuMask(frozenset(cpu for cpu, grew in self.grew.items() if grew))


class Affinity(Protocol):
    """Where this thread may run (sched_setaffinity(2)); errors are OSError."""

    def get(self) -> frozenset[int]:
        """Return the CPUs."""

    def set(self, cpus: Iterable[int]) -> None:
        """Have it run on these alone, at once."""


@dataclass(frozen=True)
class Visitor:
    """Runs on CPUs in turn, and looks there whether the timer's interrupt comes.

    It never sleeps: on a CPU without a timer it would not wake up. `patience_s` is processor time that it
    spends on a CPU at most: ten ticks of 100 Hz. Most of the time one tick is enough.
    """

    affinity: Affinity
    patience_s: float = 0.1

    def visit(self, cpus: Iterable[int], read: Callable[[], str]) -> Visits:
        """Run on these CPUs, as far as that is allowed; `read` reads /proc/interrupts."""
        grew: dict[int, bool] = {}
        refused: dict[int, str] = {}
        with self._back_again():
            for cpu in cpus:
                try:
                    self.affinity.set({cpu})
                except OSError as error:
                    refused[cpu] = f"this process may not run there ({error.strerror})"
                    continue
                try:
                    grew[cpu] = self._grows(cpu, read)
                except OSError as error:
                    refused[cpu] = f"{INTERRUPTS} cannot be read ({error.strerror})"
        return Visits(grew, refused)

    def _grows(self, cpu: int, read: Callable[[], str]) -> bool:
        first = timer_counts(read()).get(cpu)
        if first is None:
            return False
        end = time.thread_time() + self.patience_s
        while time.thread_time() < end:
            if timer_counts(read()).get(cpu) != first:
                return True
        return False

    @contextmanager
    def kept_on(self, cpus: CpuMask) -> Iterator[None]:
        """Run on these CPUs only, as far as that is allowed: on others a sleep may not end."""
        with self._back_again():
            with suppress(OSError):
                self.affinity.set(self.affinity.get() & cpus.cpus or self.affinity.get())
            yield

    @contextmanager
    def _back_again(self) -> Iterator[None]:
        before = self.affinity.get()
        try:
            yield
        finally:
            with suppress(OSError):
                self.affinity.set(before)


def timers(capture: Capture, where: Platform, visits: Visits) -> Timers:
    """Tell of each online CPU, by what a visitor found there and by what went on meanwhile."""
    earlier = capture.earlier or capture
    then, now = (timer_counts(one.files.get(INTERRUPTS, "")) for one in (earlier, capture))
    busy = _busy(earlier, capture)
    tickless = no_tick(capture)
    arrives: set[int] = set()
    silent: set[int] = set()
    unknown: dict[int, str] = {}
    for cpu in where.online:
        if cpu not in then or cpu not in now:
            unknown[cpu] = f"no row of a timer: {capture.why_not(INTERRUPTS)}"
        elif visits.grew.get(cpu) or now[cpu] != then[cpu]:
            arrives.add(cpu)
        elif cpu in tickless:
            unknown[cpu] = "it may run a program without a tick (nohz_full)"
        elif cpu in visits.grew or busy.get(cpu, 0.0) >= _BUSY_S:
            silent.add(cpu)
        else:
            unknown[cpu] = visits.refused.get(cpu, "it was idle, and its timer with it")
    return Timers(CpuMask(frozenset(arrives)), CpuMask(frozenset(silent)), unknown)


def _busy(before: Capture, after: Capture) -> dict[int, float]:
    """How long CPUs were busy, in s."""
    then, now = (parse_cpu_times(one.files.get("/proc/stat", "")) for one in (before, after))
    return {cpu: busy_s(then[cpu], one) for cpu, one in now.items() if cpu in then}
