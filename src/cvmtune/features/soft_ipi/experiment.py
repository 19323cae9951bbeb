# SPDX-License-Identifier: Apache-2.0
"""The experiment `ipi`: what an IPI to an idle CPU costs, with soft IPI passthrough off and on.

It runs in a guest, with the lab's module cvmtune_ipi and helper pingpong in it, and reads the host's KVM
counters where there is a host to ask. It collects; verdict.py judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.guest import SGI_ROWS, hackbench, loaded_module, pingpong
from cvmtune.experiments.host import Host
from cvmtune.experiments.rounds import Series
from cvmtune.features.soft_ipi import metrics
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.soft_ipi.status import STATISTICS
from cvmtune.features.soft_ipi.switch import SoftIpiSwitch
from cvmtune.lab.specs import MachineName
from cvmtune.observe.procfs import TICKS_PER_S, parse_interrupts

_MODULE = "cvmtune_ipi"
_DEBUGFS = f"/sys/kernel/debug/{_MODULE}"
_NS_PER_S = 1e9

# Kinds of the module whose IPIs are counted, and the metric each gives.
_CALLS = {"notify": metrics.NOTIFY, "sync": metrics.CALL_SYNC, "many": metrics.CALL_MANY}
NOHLT = "nohlt"
"""All CPUs poll, as a kernel without the feature can be told to: every IPI still goes by hardware."""


@dataclass(frozen=True)
class IpiScale:
    """How much is done in a round. `gap_us` is the mean time between two IPIs: the target must idle again."""

    ipis: int = 500
    gap_us: int = 300
    round_trips: int = 500
    hackbench_loops: int = 40
    sender: int = 0
    target: int = 1


@dataclass(frozen=True)
class IpiState(State):
    """Whether CPUs wait for soft IPIs in the state."""

    on: bool = False


@dataclass(frozen=True)
class IpiExperiment(Experiment[Bench, IpiState]):
    """The experiment, in a guest that is left with the mask it had, and without the module."""

    scale: IpiScale = IpiScale()
    name: ClassVar[str] = "ipi"
    usual: ClassVar[Usual] = Usual(1.0, 6.0)

    @property
    def states(self) -> Mapping[str, IpiState]:
        return {one.name: one for one in (IpiState(OFF), IpiState(ON, on=True), IpiState(NOHLT))}

    def form(self, *, brief: bool) -> Form:
        return Form() if brief else Form(baselines=self._baselines)

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        polling = Measurement(self.name, machine, (NOHLT,), rounds, append=("nohlt",))
        return [*self.on_vm(machine, rounds), polling]

    def prepare(self, bench: Bench) -> AbstractContextManager[None]:
        return loaded_module(bench.guest, bench.tools, _MODULE)

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Bench]:
        yield bench

    def entered(self, site: Bench, state: IpiState) -> AbstractContextManager[None]:
        return SoftIpiSwitch().switched(site, on=state.on, cpu=self.scale.target)

    def measure(self, site: Bench, state: IpiState, index: int) -> Iterator[Series]:
        return _round(site, self.scale)


def _round(bench: Bench, scale: IpiScale) -> Iterator[Series]:
    guest, host = bench.guest, bench.host
    sgis = injected = asked = 0.0
    exits = seconds = 0.0
    for kind, metric in _CALLS.items():
        before = _Counters.read(guest, host)
        seconds += _run_module(guest, kind, scale)
        after = _Counters.read(guest, host)
        yield metric.series(_samples(guest))
        kind_sgis = after.row(SGI_ROWS, scale.target) - before.row(SGI_ROWS, scale.target)
        if kind == "sync":
            yield metrics.SGI_PER_CALL_SYNC.value(kind_sgis / scale.ipis)
        sgis += kind_sgis
        injected += after.row((ROW,), scale.target) - before.row((ROW,), scale.target)
        exits += after.exits - before.exits
        asked += scale.ipis

    yield metrics.SGI_PER_IPI.value(sgis / asked)
    yield metrics.INJECTED_PER_IPI.value(injected / asked)

    _run_module(guest, "wake", scale)
    yield metrics.WAKE.series(_samples(guest))

    yield from _quiet(guest, host, scale, exits, seconds, asked)

    cpus = (scale.sender, scale.target)
    yield metrics.WAKEUP_RTT.series(pingpong(guest, bench.tools, "futex", cpus, scale.round_trips))
    yield metrics.HACKBENCH.value(hackbench(guest, scale.hackbench_loops))


def _quiet(
    guest: System, host: Host | None, scale: IpiScale, exits: float, seconds: float, asked: float
) -> Iterator[Series]:
    """The same span without IPIs: what the feature costs, and the exits that are not the IPIs'."""
    span = quiet_exits = used = idle = polled = 0.0
    # As many spans as had IPIs: that the counters are read makes exits as well.
    for _ in _CALLS:
        before = _Counters.read(guest, host)
        span += _run_module(guest, "none", scale)
        after = _Counters.read(guest, host)
        quiet_exits += after.exits - before.exits
        used += after.vmm_seconds - before.vmm_seconds
        idle += after.idle(scale.target) - before.idle(scale.target)
        polled += after.polled_s(scale.target) - before.polled_s(scale.target)
    if host:
        yield metrics.EXITS_PER_IPI.value((exits - quiet_exits * seconds / span) / asked)
        yield metrics.VCPU_CPU_USE.value(used / span)
    yield metrics.IDLE_CPU_SHARE.value(idle / span)
    yield metrics.POLL_SHARE.value(polled / span)


@dataclass(frozen=True)
class _Counters:
    """What the guest and its host have counted so far."""

    interrupts: Mapping[str, tuple[int, ...]]
    cpu_times: str
    soft_stats: str
    exits: float
    vmm_seconds: float

    @staticmethod
    def read(guest: System, host: Host | None) -> _Counters:
        return _Counters(
            interrupts=parse_interrupts(guest.read_text("/proc/interrupts")),
            cpu_times=guest.read_text("/proc/stat"),
            soft_stats=guest.read_text(STATISTICS) if guest.exists(STATISTICS) else "",
            exits=host.exits() if host else 0.0,
            vmm_seconds=host.vmm_seconds() if host else 0.0,
        )

    def row(self, names: Sequence[str], cpu: int) -> int:
        """The sum of a CPU's counts in these rows; a kernel without the feature lacks the soft one."""
        return sum(self.interrupts[name][cpu] for name in names if name in self.interrupts)

    def idle(self, cpu: int) -> float:
        for line in self.cpu_times.splitlines():
            fields = line.split()
            if fields[0] == f"cpu{cpu}":
                return int(fields[4]) / TICKS_PER_S
        raise CvmtuneError(f"/proc/stat has no line for CPU {cpu}")

    def polled_s(self, cpu: int) -> float:
        return soft_statistics(self.soft_stats).get(cpu, {}).get("poll_ns", 0) / _NS_PER_S


def soft_statistics(text: str) -> dict[int, dict[str, int]]:
    """Return the feature's statistics (debugfs soft_ipi_passthrough/stats) by CPU and column."""
    if not text:
        return {}
    header, *lines = (line.split() for line in text.splitlines())
    return {
        int(line[0]): {name: int(value) for name, value in zip(header, line, strict=True)} for line in lines
    }


def _run_module(guest: System, kind: str, scale: IpiScale) -> float:
    """Run one measurement of the module; return how long it took, in seconds."""
    command = f"kind={kind} src={scale.sender} dst={scale.target} n={scale.ipis} gap_us={scale.gap_us}"
    # Through a process of its own, as the write lasts as long as the measurement.
    script = f"echo {command} >{_DEBUGFS}/run"
    return guest.run(["sh", "-c", script], timeout=300).check().seconds


def _samples(guest: System) -> tuple[float, ...]:
    return tuple(float(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split())
