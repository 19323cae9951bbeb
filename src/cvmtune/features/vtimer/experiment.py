# SPDX-License-Identifier: Apache-2.0
"""The experiment `vtimer`: what a guest's timer costs it, with a monitor that masks it and one that does not.

It runs in a guest and on its host (any two Systems), with the lab's module cvmtune_timer and helper pingpong
in the guest and our kernel on the host, whose vCPU threads it pins, one a physical CPU. It collects; report/
judges.

A timer exit is an exit that the timer's physical interrupt caused. Where the monitor has the timer, or could
have it, it counts them; an ordinary VM's are the interrupts of that name that the host took.

What a monitor does that does not mask depends on how far a guest gets before the interrupt reaches it again,
compared with an exit and an entry. So both the interrupt's travel time and the length of the sections in
which the guest cannot look after its timer are given in exits and entries, as this machine makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import System
from cvmtune.experiments.guest import (
    Host,
    cyclictest,
    loaded_module,
    named_interrupts,
    pingpong,
    written,
)
from cvmtune.experiments.path_length import hypercalls
from cvmtune.experiments.rounds import RawRun, Round, Series, in_turns

MODULE = "cvmtune_timer"
DEBUGFS = f"/sys/kernel/debug/{MODULE}"
HALT_POLL = "/sys/module/kvm/parameters/halt_poll_ns"
TRAVEL = "/sys/module/kvm/parameters/vtimer_travel_ns"
# What the guest's /proc/interrupts calls the timer.
GUEST_ROW = "arch_timer"

# The state, and the mode of the VM (file vtimer_mode) in which it is measured.
MODES: Mapping[str, str] = {"off": "unmasked", "on": "masked", "HW bit": "hw"}
HW = "HW bit"
# Not of MODES: a VM that is not confidential, whose timer nobody but its host can have.
ORDINARY = "ordinary VM"
# For a host whose VMs are not confidential: of two options of the same name the later wins.
OFF_APPEND = ("kvm-arm.cvm_vtimer=off",)

# The travel of an interrupt, in times of an exit and an entry. On an Ampere Altra it is at most 596 ns, an
# ordinary VM's exit and entry are 306 (kvm-unit-tests, micro-bench: timer_10ms less hvc, and hvc). Those of a
# confidential VM take at least twice as long, as the request for this feature has it of interrupts.
TRAVEL_EXITS = 1.0
# A section with interrupts off, in the same: 60 us there.
SECTION_EXITS = 100

_NS_PER_S = 1e9
_NS_PER_US = 1e3
# Of calibration. A disturbed one finds too little work for the time, so the most is right.
_TRIES = 5


@dataclass(frozen=True)
class Scale:
    """How much is done in a round, on CPU `cpu`; round trips are between it and `other`."""

    cpu: int = 1
    other: int = 0
    timers: int = 300
    interval_us: int = 1000
    busy_s: float = 1.0
    sections: int = 100
    gap_us: int = 1000
    round_trips: int = 300


DEFAULT_SCALE = Scale()
# Where one thread emulates all CPUs, and figures are exact.
PATH_SCALE = Scale(timers=20, sections=9, round_trips=2000)


def collect(
    guest: System,
    machine: str,
    *,
    states: Sequence[str],
    rounds: int,
    host: Host | None,
    tools: str,
    environment: Mapping[str, object],
    scale: Scale = DEFAULT_SCALE,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    """Run `rounds` rounds in each of the states (names of MODES, or ORDINARY).

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `tools` is the directory in the guest with module and helper. `advance` is told what is about to be done.
    In the end the VM's mode and the vCPU threads' CPUs are what they were. UsageError without a host.
    """
    if host is None:
        raise UsageError("the virtual timer is the monitor's, and this machine has none", machine, "use cvm")
    collected: list[Round] = []
    with host.pinned(), _prepared(guest, host, tools, scale) as bench:
        for index, state in in_turns(states, rounds):
            advance(f"{machine}, {state}, round {index + 1} of {rounds}")
            with bench.timer.mode(state):
                series = tuple(bench.round())
            collected.append(Round(state, index, series))
        found = {"exit_and_entry_ns": bench.exit_ns, "section_us": bench.section_us}
    return RawRun("vtimer", machine, tuple(collected), {**environment, **found})


def collect_paths(
    guest: System, host: Host, state: str, *, tools: str, scale: Scale = PATH_SCALE
) -> Iterator[Round]:
    """Count instructions in each of MODES, in a confidential VM whose host was booted with `icount`."""
    with ExitStack() as stack:
        stack.enter_context(host.pinned())
        stack.enter_context(written(host.system, HALT_POLL, "0\n"))
        bench = stack.enter_context(_prepared(guest, host, tools, scale))
        for name, mode in MODES.items():
            with bench.timer.mode(name):
                yield Round(f"{state}, {mode}", 0, tuple(bench.paths(name)))


@contextmanager
def _prepared(guest: System, host: Host, tools: str, scale: Scale) -> Iterator[_Bench]:
    """Measure what all else is given in, and set the model's travel time by it."""
    exit_ns = median(hypercalls(guest, tools))
    with ExitStack() as stack:
        stack.enter_context(loaded_module(guest, tools, MODULE))
        bench = _Bench(guest, host, Timer(host.system, host.vm_folder()), tools, scale, exit_ns)
        stack.enter_context(bench.timer.travel(exit_ns * TRAVEL_EXITS))
        yield replace(bench, work=bench.calibrate())


@dataclass(frozen=True)
class Timer:
    """The virtual timer of a guest, as its host has it; `folder` is the VM's in debugfs."""

    host: System
    folder: str

    @property
    def mode_file(self) -> str:
        return f"{self.folder}/vtimer_mode"

    @contextmanager
    def mode(self, state: str) -> Iterator[None]:
        """Have the mode of a state of MODES for the `with` block; an ordinary VM has none to set."""
        with ExitStack() as stack:
            if state != ORDINARY:
                stack.enter_context(written(self.host, self.mode_file, f"{MODES[state]}\n"))
            yield

    @contextmanager
    def travel(self, ns: float) -> Iterator[None]:
        """Have interrupts travel for so long, in a mode that is set meanwhile."""
        with ExitStack() as stack:
            # A kernel without the model has none, and no state that needs it.
            if self.host.exists(TRAVEL):
                # A VM has the time that there was when its mode was set: it is set again after the undoing.
                if self.host.exists(self.mode_file):
                    mode = self.host.read_text(self.mode_file)
                    stack.enter_context(written(self.host, self.mode_file, mode))
                stack.enter_context(written(self.host, TRAVEL, f"{ns:.0f}\n"))
            yield


@dataclass(frozen=True)
class _Reading:
    """What has been counted so far of one vCPU."""

    timer_exits: int
    redundant: int
    exits: int
    interrupts: int


@dataclass(frozen=True)
class _Bench:
    """One guest with its host, where its vCPUs are pinned, and how much is done."""

    guest: System
    host: Host
    timer: Timer
    tools: str
    scale: Scale
    exit_ns: float
    work: int = 0

    @property
    def section_us(self) -> int:
        return max(1, round(SECTION_EXITS * self.exit_ns / _NS_PER_US))

    def calibrate(self) -> int:
        """Return how much work takes section_us; the same in all states, or nothing could be compared."""
        scale = self.scale
        line = f"kind=irqoff cpu={scale.cpu} n=1 off_us={self.section_us} gap_us={scale.gap_us}"
        return max(self._module(line)["work"] for _ in range(_TRIES))

    def _module(self, line: str) -> dict[str, int]:
        """Have the module do it, from another CPU; return its result. CvmtuneError if a timer failed."""
        script = f"echo {line} >{DEBUGFS}/run"
        self.guest.run(["taskset", "-c", str(self.scale.other), "sh", "-c", script], timeout=600).check()
        rows = (row.split() for row in self.guest.read_text(f"{DEBUGFS}/result").splitlines())
        result = {name: int(value) for name, value in rows}
        if wrong := {name: result[name] for name in ("lost", "early", "twice") if result[name]}:
            raise CvmtuneError(f"timers of the guest failed: {wrong}", line)
        return result

    def _samples(self) -> tuple[float, ...]:
        return tuple(float(line) for line in self.guest.read_text(f"{DEBUGFS}/samples").split())

    def _read(self) -> _Reading:
        counted, cpu = self.host.statistics(), self.scale.cpu
        return _Reading(
            timer_exits=counted.timer_exits(cpu),
            redundant=counted.timers[cpu]["redundant_exits"] if counted.timers else 0,
            exits=counted.vcpus[cpu]["entries"],
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
        self._module(f"kind=oneshot cpu={scale.cpu} n={scale.timers} interval_us={scale.interval_us}")
        yield from _counts("oneshot", "timer of an idle CPU", before, self._read(), scale.timers)
        title = "Timer of an idle CPU: how late its handler is"
        yield Series("oneshot_late", title, "ns", "time", "lower", self._samples())
        samples = cyclictest(self.guest, scale.cpu, scale.interval_us, scale.timers)
        title = "Timer of an idle CPU: how late the thread is that waits for it (cyclictest)"
        yield Series("cyclictest", title, "ns", "time", "lower", samples)

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
        yield from _counts("tick", "tick of a busy CPU", before, after, after.interrupts - before.interrupts)
        ticks = self._interrupts(last) - self._interrupts(first)
        title = "Ticks of a busy CPU"
        yield Series("ticks_per_s", title, "per s", "count", "higher", (ticks / seconds,))
        title = "What a busy CPU gets done: turns of a loop"
        yield Series("busy_work", title, "per s", "time", "higher", (turns / seconds,))

    def _sections(self) -> Iterator[Series]:
        """Sections with interrupts off in which a timer expires: nobody can look after it."""
        before = self._read()
        result = self._module(self._section_line(self.scale.sections))
        after = self._read()
        yield from _counts("section", "section with interrupts off", before, after, self.scale.sections)
        title = "Timer exits per second of sections with interrupts off and an expired timer"
        seconds = (result["section_ns_total"] + result["wait_ns_total"]) / _NS_PER_S
        rate = (after.timer_exits - before.timer_exits) / seconds
        yield Series("storm", title, "per s", "count", "lower", (rate,))
        title = "A section with interrupts off in which a timer has expired, always the same work"
        yield Series("section", title, "ns", "time", "lower", self._samples())

    def _section_line(self, sections: int) -> str:
        scale = self.scale
        numbers = f"n={sections} off_us={self.section_us} gap_us={scale.gap_us} work={self.work}"
        return f"kind=irqoff cpu={scale.cpu} {numbers}"

    def _latency(self) -> Iterator[Series]:
        """Wake-ups between vCPUs: alone, and beside those sections on the CPU that is woken."""
        for method, title in (
            ("futex", "Round trip of two threads on two CPUs that wake each other by futex"),
            ("pipe", "The same by pipe, as perf bench sched pipe does it"),
        ):
            yield Series(f"cross_{method}_rtt", title, "ns", "time", "lower", self._trips(method))
        with self._sections_all_the_time():
            samples = self._trips("futex")
        title = "Round trip by futex beside sections with interrupts off in which timers expire"
        yield Series("section_rtt", title, "ns", "time", "lower", samples)

    def _trips(self, method: str) -> tuple[float, ...]:
        cpus = (self.scale.other, self.scale.cpu)
        return pingpong(self.guest, self.tools, method, cpus, self.scale.round_trips)

    @contextmanager
    def _sections_all_the_time(self) -> Iterator[None]:
        line = self._section_line(100_000)
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

    def paths(self, state: str) -> Iterator[Series]:
        """The same in instructions, where one of them is a nanosecond."""
        yield from self._section_path("section_path", "")
        if state == "off":
            # Nobody knows how long an interrupt travels elsewhere.
            for name, factor in (("half", 0.5), ("double", 2.0)):
                with self.timer.travel(self.exit_ns * TRAVEL_EXITS * factor), self.timer.mode(state):
                    yield from self._section_path(
                        f"section_path_{name}", f", with {factor:g} of the travel time"
                    )
        scale = self.scale
        self._module(f"kind=oneshot cpu={scale.cpu} n={scale.timers} interval_us={scale.interval_us}")
        title = "Instructions from a timer's expiry on an idle CPU to its handler"
        yield _instructions("oneshot_path", title, sorted(self._samples())[: scale.timers // 2])
        # What has just ended leaves work on either CPU, beside which round trips are shorter or longer: the
        # first ones are not told, nor the extremes of the others.
        self._trips("futex")
        samples = sorted(self._trips("futex"))
        title = "Instructions of a round trip of two threads on two CPUs by futex"
        yield _instructions("cross_futex_path", title, samples[len(samples) // 4 : -len(samples) // 4])

    def _section_path(self, name: str, conditions: str) -> Iterator[Series]:
        self._module(self._section_line(self.scale.sections))
        # The other CPUs' instructions take their part of the time: those with the least of them.
        samples = sorted(self._samples())[: self.scale.sections // 2 + 1]
        title = f"Instructions of a section with interrupts off in which a timer has expired{conditions}"
        yield _instructions(name, title, samples)


def _counts(name: str, what: str, before: _Reading, after: _Reading, number: int) -> Iterator[Series]:
    """What was counted between two readings, for each of so many; CvmtuneError if nothing was."""
    timer_exits = after.timer_exits - before.timer_exits
    redundant = after.redundant - before.redundant
    exits = after.exits - before.exits
    interrupts = after.interrupts - before.interrupts
    if number < 1 or interrupts < 1:
        raise CvmtuneError(f"the guest took no interrupt of its timer, or did nothing: {what}")
    yield _count(f"timer_exits_per_{name}", f"Timer exits per {what}", timer_exits / number)
    title = f"Timer exits of whose cause the host knew, per {what}"
    yield _count(f"redundant_per_{name}", title, redundant / number)
    title = f"Timer exits per timer interrupt that the guest took, with each {what}"
    yield _count(f"timer_exits_per_interrupt_{name}", title, timer_exits / interrupts)
    title = f"Timer interrupts that the guest took, per {what}"
    yield _count(f"interrupts_per_{name}", title, interrupts / number)
    yield _count(f"exits_per_{name}", f"Exits of any kind per {what}", exits / number)


def _count(name: str, title: str, value: float) -> Series:
    return Series(name, title, "each", "count", "lower", (value,))


def _instructions(name: str, title: str, samples: Sequence[float]) -> Series:
    return Series(name, title, "instructions", "count", "lower", tuple(samples))
