# SPDX-License-Identifier: Apache-2.0
"""The experiment `vtimer`: what a guest's timer costs it, with a monitor that masks it and one that does not.

It runs in a guest and on its host, with the lab's module cvmtune_timer and helper pingpong in the guest and
our kernel on the host, whose vCPU threads it pins, one a physical CPU. It collects; verdict.py judges.

The length of the sections in which the guest cannot look after its timer is given in exits and entries, as
this machine makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State
from cvmtune.experiments.guest import cyclictest, loaded_module, named_interrupts, pingpong
from cvmtune.experiments.host import Host
from cvmtune.experiments.path_length import hypercalls
from cvmtune.experiments.rounds import Series
from cvmtune.features.vtimer import metrics
from cvmtune.features.vtimer.statistics import ENTRIES_FILE, FILE, timer_exits
from cvmtune.features.vtimer.switch import HW_BIT, MACHINES, MASKED, TRAVEL_EXITS, UNMASKED, Timer
from cvmtune.features.vtimer.verdict import BASELINE
from cvmtune.lab.specs import MachineName

MODULE = "cvmtune_timer"
DEBUGFS = f"/sys/kernel/debug/{MODULE}"
# What the guest's /proc/interrupts calls the timer.
GUEST_ROW = "arch_timer"

# A section with interrupts off, in times of an exit and an entry: 60 us on an Ampere Altra (see switch.py).
SECTION_EXITS = 100

_NS_PER_S = 1e9
_NS_PER_US = 1e3
# Of calibration. A disturbed one finds too little work for the time, so the most is right.
_TRIES = 5


@dataclass(frozen=True)
class VtimerState(State):
    """The mode of the VM in the state; None for one that is not confidential, whose timer nobody but its host
    can have."""

    mode: str | None


HW = BASELINE
ORDINARY = "ordinary VM"
STATES: Mapping[str, VtimerState] = {
    state.name: state
    for state in (
        VtimerState(OFF, UNMASKED),
        VtimerState(ON, MASKED),
        VtimerState(HW, HW_BIT),
        VtimerState(ORDINARY, None),
    )
}


@dataclass(frozen=True)
class VtimerScale:
    """How much is done in a round, on CPU `cpu`; round trips are between it and `other`."""

    cpu: int = 1
    other: int = 0
    timers: int = 300
    interval_us: int = 1000
    busy_s: float = 1.0
    sections: int = 100
    gap_us: int = 1000
    round_trips: int = 300


@dataclass(frozen=True)
class _Reading:
    """What has been counted so far of one vCPU."""

    timer_exits: int
    redundant: int
    exits: int
    interrupts: int


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

    def run_module(self, line: str) -> dict[str, int]:
        """Have the module do it, from another CPU; return its result. CvmtuneError if a timer failed."""
        script = f"echo {line} >{DEBUGFS}/run"
        self.guest.run(["taskset", "-c", str(self.scale.other), "sh", "-c", script], timeout=600).check()
        rows = (row.split() for row in self.guest.read_text(f"{DEBUGFS}/result").splitlines())
        result = {name: int(value) for name, value in rows}
        if wrong := {name: result[name] for name in ("lost", "early", "twice") if result[name]}:
            raise CvmtuneError(f"timers of the guest failed: {wrong}", line)
        return result

    def samples(self) -> tuple[float, ...]:
        return tuple(float(line) for line in self.guest.read_text(f"{DEBUGFS}/samples").split())

    def _read(self) -> _Reading:
        counted, cpu = self.host.statistics((ENTRIES_FILE, FILE)), self.scale.cpu
        timers = counted.files.get(FILE.name)
        return _Reading(
            timer_exits=timer_exits(counted, cpu),
            redundant=timers[cpu]["redundant_exits"] if timers else 0,
            exits=counted.files[ENTRIES_FILE.name][cpu]["entries"],
            interrupts=self._interrupts(self.guest.read_text("/proc/interrupts")),
        )

    def _interrupts(self, text: str) -> int:
        return named_interrupts(text, GUEST_ROW)[self.scale.cpu]

    def round(self) -> Iterator[Series]:
        yield from self._oneshot()
        yield from self._busy()
        yield from self._sections()
        yield from self._latency()

    def _oneshot(self) -> Iterator[Series]:
        """Timers of an idle CPU, one after the other."""
        scale = self.scale
        before = self._read()
        self.run_module(self.timers_line())
        yield from _counts("oneshot", before, self._read(), scale.timers)
        yield metrics.ONESHOT_LATE.series(self.samples())
        samples = cyclictest(self.guest, scale.cpu, scale.interval_us, scale.timers)
        yield metrics.CYCLICTEST.series(samples)

    def timers_line(self) -> str:
        """What has the module set one timer after the other on an idle CPU."""
        scale = self.scale
        return f"kind=oneshot cpu={scale.cpu} n={scale.timers} interval_us={scale.interval_us}"

    def _busy(self) -> Iterator[Series]:
        """A CPU that computes, and has its tick meanwhile."""
        # It looks itself: until it runs, and after it, there are ticks as well.
        script = (
            "import json,sys,time\n"
            "def interrupts():\n"
            " with open('/proc/interrupts') as file: return file.read()\n"
            "n, before, start = 0, interrupts(), time.monotonic()\n"
            "while time.monotonic() < start + float(sys.argv[1]): n += 1\n"
            "seconds, after = time.monotonic() - start, interrupts()\n"
            "print(json.dumps([n, seconds, before, after]))\n"
        )
        argv = ["taskset", "-c", str(self.scale.cpu), "python3", "-I", "-S", "-c", script]
        before = self._read()
        done = self.guest.run([*argv, str(self.scale.busy_s)], timeout=120).check().stdout
        after = self._read()
        turns, seconds, first, last = json.loads(done)
        yield from _counts("tick", before, after, after.interrupts - before.interrupts)
        ticks = self._interrupts(last) - self._interrupts(first)
        yield metrics.TICKS_PER_S.value(ticks / seconds)
        yield metrics.BUSY_WORK.value(turns / seconds)

    def _sections(self) -> Iterator[Series]:
        """Sections with interrupts off in which a timer expires: nobody can look after it."""
        before = self._read()
        result = self.run_module(self.section_line(self.scale.sections))
        after = self._read()
        yield from _counts("section", before, after, self.scale.sections)
        seconds = (result["section_ns_total"] + result["wait_ns_total"]) / _NS_PER_S
        yield metrics.STORM.value((after.timer_exits - before.timer_exits) / seconds)
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


def _counts(load: str, before: _Reading, after: _Reading, number: int) -> Iterator[Series]:
    """What was counted between two readings, for each of so many; CvmtuneError if nothing was."""
    exits = after.timer_exits - before.timer_exits
    interrupts = after.interrupts - before.interrupts
    if number < 1 or interrupts < 1:
        raise CvmtuneError(f"the guest took no interrupt of its timer, or did nothing: {metrics.LOADS[load]}")
    yield metrics.TIMER_EXITS[load].value(exits / number)
    yield metrics.REDUNDANT[load].value((after.redundant - before.redundant) / number)
    yield metrics.TIMER_EXITS_PER_INTERRUPT[load].value(exits / interrupts)
    yield metrics.INTERRUPTS[load].value(interrupts / number)
    yield metrics.EXITS[load].value((after.exits - before.exits) / number)


@dataclass(frozen=True)
class VtimerExperiment(Experiment[Site, VtimerState]):
    """The experiment; in the end the VM's mode and the vCPU threads' CPUs are what they were."""

    scale: VtimerScale = VtimerScale()
    name: ClassVar[str] = "vtimer"
    machines: ClassVar[tuple[MachineName, ...]] = MACHINES

    @property
    def states(self) -> Mapping[str, VtimerState]:
        return STATES

    def form(self, *, brief: bool) -> Form:
        return Form(beside=(HW,)) if brief else Form(3, self._baselines, beside=(HW,))

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        return [Measurement(self.name, MachineName.VM, (ORDINARY,), max(1, rounds // 2))]

    def site(self, bench: Bench, wanted: Measurement, part: str) -> AbstractContextManager[Site]:
        return prepared(bench, self.scale)

    def entered(self, site: Site, state: VtimerState) -> AbstractContextManager[None]:
        return site.timer.mode(state.mode) if state.mode else nullcontext()

    def measure(self, site: Site, state: VtimerState, index: int) -> Iterator[Series]:
        return site.round()

    def findings(self, site: Site) -> Mapping[str, object]:
        return {"exit_and_entry_ns": site.exit_ns, "section_us": site.section_us}


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
