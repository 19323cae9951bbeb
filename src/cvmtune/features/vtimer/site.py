# SPDX-License-Identifier: Apache-2.0
"""One guest with its host, and what is measured of its timers there in a round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeVar

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import TIMER_ROW, cyclictest, loaded_module, pingpong, timer_interrupts
from cvmtune.experiments.host import Host
from cvmtune.experiments.path_length import hypercalls
from cvmtune.experiments.rounds import Series
from cvmtune.features.vtimer import metrics
from cvmtune.features.vtimer.statistics import ENTRIES_FILE, FILE, timer_exits
from cvmtune.features.vtimer.switch import TRAVEL_EXITS, Timer
from cvmtune.observe.procfs import parse_named

MODULE = "cvmtune_timer"
DEBUGFS = f"/sys/kernel/debug/{MODULE}"

# A section with interrupts off, in times of an exit and an entry: 60 us on an Ampere Altra (see switch.py).
SECTION_EXITS = 100

_NS_PER_S = 1e9
_NS_PER_US = 1e3
# Of calibration. A disturbed one finds too little work for the time, so the most is right.
_TRIES = 5

# Computes until its CPU, the second argument, has taken so many interrupts of the timer, the first one's row.
# Says how many these were, how many turns it took, and how long. Looking is work too: it looks now and then.
# Where the timer stands still it gives up after so many seconds, the last argument.
_BUSY = """
import sys, time
row, cpu, wanted, limit = sys.argv[1], *map(int, sys.argv[2:])
def taken():
    with open("/proc/interrupts") as file:
        (line,) = (line for line in file if line.rstrip().endswith(" " + row))
    return int(line.split()[1 + cpu])
turns, ticks, first, start = 0, 0, taken(), time.monotonic()
while ticks < wanted and time.monotonic() < start + limit:
    for _ in range(5000):
        pass
    turns += 5000
    ticks = taken() - first
print(ticks, turns, time.monotonic() - start)
"""
_STANDS_STILL_S = 60

T = TypeVar("T")


@dataclass(frozen=True)
class VtimerScale:
    """How much is done in a round, on CPU `cpu`; round trips are between it and `other`."""

    cpu: int = 1
    other: int = 0
    timers: int = 300
    interval_us: int = 1000
    ticks: int = 50
    sections: int = 100
    gap_us: int = 1000
    round_trips: int = 300


DEFAULT_SCALE = VtimerScale()


@dataclass(frozen=True)
class _Counts:
    """What the host has counted of one vCPU, so far or meanwhile."""

    timer_exits: int
    redundant: int
    exits: int

    def __sub__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.timer_exits - other.timer_exits, self.redundant - other.redundant, self.exits - other.exits
        )


@dataclass(frozen=True)
class _Load:
    """What was counted of a load: by the host, within the timer interrupts that the guest took."""

    name: str
    host: _Counts
    interrupts: int

    def each(self, number: int) -> Iterator[Series]:
        """The same for each of so many."""
        yield metrics.TIMER_EXITS[self.name].value(self.host.timer_exits / number)
        yield metrics.REDUNDANT[self.name].value(self.host.redundant / number)
        yield metrics.BEYOND[self.name].value(max(0, self.host.timer_exits - self.interrupts))
        yield metrics.INTERRUPTS[self.name].value(self.interrupts / number)
        yield metrics.EXITS[self.name].value(self.host.exits / number)


@dataclass(frozen=True)
class Site:
    """One guest with its host, where its vCPUs are pinned, and how much is done."""

    bench: Bench
    host: Host
    timer: Timer
    scale: VtimerScale
    exit_ns: float
    work: int = 0

    @property
    def guest(self) -> System:
        return self.bench.guest

    @property
    def section_us(self) -> int:
        return max(1, round(SECTION_EXITS * self.exit_ns / _NS_PER_US))

    def calibrate(self) -> int:
        """Return how much work takes section_us; the same in all states, or nothing could be compared."""
        scale = self.scale
        line = f"kind=irqoff cpu={scale.cpu} n=1 off_us={self.section_us} gap_us={scale.gap_us}"
        return max(self.run_module(line)["work"] for _ in range(_TRIES))

    def run_module(self, line: str) -> Mapping[str, int]:
        """Have the module do it, from another CPU; return its result. CvmtuneError if a timer failed."""
        result = self._try_module(line)
        if wrong := {name: result[name] for name in ("lost", "early", "twice") if result[name]}:
            raise CvmtuneError(f"timers of the guest failed: {wrong}", line)
        return result

    def _try_module(self, line: str) -> Mapping[str, int]:
        """The same, but timers that failed are in the result."""
        script = f"echo {line} >{DEBUGFS}/run"
        argv = ["taskset", "-c", str(self.scale.other), "sh", "-c", script]
        done = self.guest.run(argv, timeout=600)
        result = parse_named(self.guest.read_text(f"{DEBUGFS}/result"))
        # A lost timer ends the run with an error.
        if not result.get("lost") or result["hung"]:
            done.check()
        return result

    def samples(self) -> tuple[float, ...]:
        return tuple(float(line) for line in self.guest.read_text(f"{DEBUGFS}/samples").split())

    def follow(self) -> None:
        """Have the measured vCPU in the VM's mode, which it takes over when it is entered next."""
        # One that was in its guest is interrupted for that, before it can run this.
        self.guest.run(["taskset", "-c", str(self.scale.cpu), "true"]).check()

    def _read(self) -> _Counts:
        counted, cpu = self.host.statistics((ENTRIES_FILE, FILE)), self.scale.cpu
        timers = counted.files.get(FILE.name)
        return _Counts(
            timer_exits=timer_exits(counted, cpu),
            redundant=timers[cpu]["redundant_exits"] if timers else 0,
            exits=counted.files[ENTRIES_FILE.name][cpu]["entries"],
        )

    def _interrupts(self) -> int:
        return timer_interrupts(self.guest)[self.scale.cpu]

    def _counted(self, name: str, load: Callable[[], T]) -> tuple[_Load, T]:
        """Have a load run; return what was counted meanwhile, and what it says.

        The guest is read first and last, so that at any speed there is an interrupt for each exit, but for
        one. A timer exit tells the host that the timer has expired, and the guest takes its interrupt after
        that exit: of an exit since the host's first reading it is one since the guest's first. Of an exit
        before the host's last reading it is one before the guest's last, or still to come, and that is so of
        one at most: the monitor tells of no other expiry until the guest has looked after this one.
        Interrupts without an exit, of which the host knew by its own clock, make the difference smaller.

        What breaks it is a guest that sets an expired timer anew before it has taken the interrupt, as where
        it stops its tick on the way into idle. That takes an expiry within some instructions.
        """
        taken, before = self._interrupts(), self._read()
        said = load()
        after = self._read()
        return _Load(name, after - before, self._interrupts() - taken), said

    def round(self) -> Iterator[Series]:
        results: list[Mapping[str, int]] = []
        yield from self._oneshot(results)
        yield from self._busy()
        yield from self._sections(results)
        yield metrics.TIMERS_LOST.value(sum(one["lost"] for one in results))
        yield metrics.TIMERS_WRONG.value(sum(one["early"] + one["twice"] for one in results))
        yield from self._latency()

    def _oneshot(self, results: list[Mapping[str, int]]) -> Iterator[Series]:
        """Timers of an idle CPU, one after the other; nothing of them if one was lost."""
        scale = self.scale
        load, result = self._counted("oneshot", lambda: self._try_module(self.timers_line()))
        results.append(result)
        if not result["lost"]:
            yield from load.each(scale.timers)
            yield metrics.ONESHOT_LATE.series(self.samples())
        samples = cyclictest(self.guest, scale.cpu, scale.interval_us, scale.timers)
        yield metrics.CYCLICTEST.series(samples)

    def timers_line(self) -> str:
        """What has the module set one timer after the other on an idle CPU."""
        scale = self.scale
        return f"kind=oneshot cpu={scale.cpu} n={scale.timers} interval_us={scale.interval_us}"

    def _busy(self) -> Iterator[Series]:
        """A CPU that computes, and has its tick meanwhile."""
        cpu, wanted = str(self.scale.cpu), self.scale.ticks
        arguments = [TIMER_ROW, cpu, str(wanted), str(_STANDS_STILL_S)]
        argv = ["taskset", "-c", cpu, "python3", "-I", "-S", "-c", _BUSY, *arguments]
        load, said = self._counted("tick", lambda: self.guest.run(argv, timeout=600).check().stdout)
        # Until it runs, and after it, there are ticks as well.
        yield from load.each(max(1, load.interrupts))
        ticks, turns, seconds = map(float, said.split())
        yield metrics.TICKS.value(min(1.0, ticks / wanted))
        yield metrics.TICKS_PER_S.value(ticks / seconds)
        yield metrics.BUSY_WORK.value(turns / seconds)

    def _sections(self, results: list[Mapping[str, int]]) -> Iterator[Series]:
        """Sections with interrupts off in which a timer expires, so that nobody can look after it; nothing of
        them if one was lost."""
        sections = self.scale.sections
        load, result = self._counted("section", lambda: self._try_module(self.section_line(sections)))
        results.append(result)
        if result["lost"]:
            return
        yield from load.each(sections)
        seconds = (result["section_ns_total"] + result["wait_ns_total"]) / _NS_PER_S
        yield metrics.STORM.value(load.host.timer_exits / seconds)
        yield metrics.SECTION.series(self.samples())

    def section_line(self, sections: int) -> str:
        """What has the module spend so many sections with interrupts off."""
        scale = self.scale
        numbers = f"n={sections} off_us={self.section_us} gap_us={scale.gap_us} work={self.work}"
        return f"kind=irqoff cpu={scale.cpu} {numbers}"

    def _latency(self) -> Iterator[Series]:
        """Wake-ups between vCPUs: alone, and beside those sections on the CPU that is woken."""
        for method, metric in metrics.CROSS_RTT.items():
            yield metric.series(self.trips(method))
        with self._sections_all_the_time():
            samples = self.trips("futex")
        yield metrics.SECTION_RTT.series(samples)

    def trips(self, method: str) -> tuple[float, ...]:
        cpus = (self.scale.other, self.scale.cpu)
        return pingpong(self.guest, self.bench.tools, method, cpus, self.scale.round_trips)

    @contextmanager
    def _sections_all_the_time(self) -> Iterator[None]:
        line = self.section_line(100_000)
        # The write lasts as long as the sections, and a signal ends it: it has a process of its own.
        run = f"sh -c 'echo {line} >{DEBUGFS}/run'"
        script = f"taskset -c {self.scale.other} {run} >/dev/null 2>&1 & echo $!"
        pid = self.guest.run(["sh", "-c", script]).check().stdout.strip()
        try:
            yield
        finally:
            # An error if it has ended by itself: then there were no sections.
            ended = f"kill {pid} && while kill -0 {pid} 2>/dev/null; do sleep 0.05; done"
            self.guest.run(["sh", "-c", ended], timeout=60).check()


@contextmanager
def prepared(bench: Bench, scale: VtimerScale) -> Iterator[Site]:
    """Measure what all else is given in, and set the model's travel time by it; UsageError without a host."""
    host = bench.need_host("the virtual timer is the monitor's", "use cvm")
    with ExitStack() as stack:
        stack.enter_context(host.pinned())
        exit_ns = median(hypercalls(bench.guest, bench.tools))
        stack.enter_context(loaded_module(bench.guest, bench.tools, MODULE))
        site = Site(bench, host, Timer.of(host), scale, exit_ns)
        stack.enter_context(site.timer.travel(exit_ns * TRAVEL_EXITS))
        yield replace(site, work=site.calibrate())
