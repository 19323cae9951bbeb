# SPDX-License-Identifier: Apache-2.0
"""The experiment `ipi`: what an IPI to an idle CPU costs, with soft IPI passthrough off and on.

It runs in a guest (any System), with the lab's module cvmtune_ipi and helper pingpong in it, and reads the
host's KVM counters where there is a host to ask. It collects; report/ judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.experiments.guest import (
    SGI_ROWS,
    Host,
    applied,
    hackbench,
    loaded_module,
)
from cvmtune.experiments.rounds import RawRun, Round, Series, in_turns
from cvmtune.features.soft_ipi.knob import ROW as SOFT_IPI_ROW
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.observe.procfs import TICKS_PER_S, parse_interrupts

_MODULE = "cvmtune_ipi"
_DEBUGFS = f"/sys/kernel/debug/{_MODULE}"
_STATS = "/sys/kernel/debug/soft_ipi_passthrough/stats"
_NS_PER_S = 1e9

# Kinds of the module whose IPIs are counted, the metric each gives, and what it means.
_CALLS = {
    "notify": ("notify", "IPI notification: from the sender's store to the handler's first instruction"),
    "sync": ("call_sync", "Synchronous function call to one CPU, as its caller sees it"),
    "many": ("call_many", "Synchronous function call to all other CPUs, as its caller sees it"),
}


@dataclass(frozen=True)
class Scale:
    """How much is done in a round. `gap_us` is the mean time between two IPIs: the target must idle again."""

    ipis: int = 500
    gap_us: int = 300
    round_trips: int = 500
    hackbench_loops: int = 40
    sender: int = 0
    target: int = 1


DEFAULT_SCALE = Scale()


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
    """Run `rounds` rounds in each of the states ("off", "on", or the name of a baseline measured as it is).

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `tools` is the directory in the guest with the module and the helper. `advance` is told what is about to
    be done. The guest's mask is what it was, and the module gone, in the end.
    """
    knob = SoftIpi()
    everyone = CpuMask.from_list(guest.read_text("/sys/devices/system/cpu/online")).to_hex()
    collected: list[Round] = []
    with loaded_module(guest, tools, _MODULE):
        for index, state in in_turns(states, rounds):
            advance(f"{machine}, {state}, round {index + 1} of {rounds}")
            with applied(knob, guest, everyone if state == "on" else "0"):
                series = tuple(_round(guest, host, tools, scale))
            collected.append(Round(state, index, series))
    return RawRun("ipi", machine, tuple(collected), environment)


def _round(guest: System, host: Host | None, tools: str, scale: Scale) -> Iterator[Series]:
    sgis = injected = asked = 0.0
    exits = seconds = 0.0
    for kind, (name, title) in _CALLS.items():
        before = _Counters.read(guest, host)
        seconds += _run_module(guest, kind, scale)
        after = _Counters.read(guest, host)
        yield Series(name, title, "ns", "time", "lower", _samples(guest))
        kind_sgis = after.row(SGI_ROWS, scale.target) - before.row(SGI_ROWS, scale.target)
        if kind == "sync":
            yield _ratio("sgi_per_call_sync", "Hardware SGIs per synchronous call", kind_sgis, scale.ipis)
        sgis += kind_sgis
        injected += after.row((SOFT_IPI_ROW,), scale.target) - before.row((SOFT_IPI_ROW,), scale.target)
        exits += after.exits - before.exits
        asked += scale.ipis

    yield _ratio("sgi_per_ipi", "Hardware SGIs that the target took, per IPI", sgis, asked)
    yield _ratio(
        "injected_per_ipi", "Soft IPIs that the target took, per IPI", injected, asked, better="higher"
    )

    _run_module(guest, "wake", scale)
    title = "Wake-up of a sleeping thread: from the waker's call to the thread's first instruction"
    yield Series("wake", title, "ns", "time", "lower", _samples(guest))

    yield from _quiet(guest, host, scale, exits, seconds, asked)
    yield from _programs(guest, tools, scale)


def _quiet(
    guest: System, host: Host | None, scale: Scale, exits: float, seconds: float, asked: float
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
        title = "Exits of all the guest's vCPUs per IPI, less those of an equal time without IPIs"
        yield _ratio("exits_per_ipi", title, exits - quiet_exits * seconds / span, asked)
        title = "Physical CPUs that the guest uses while one of its CPUs is busy and nobody sends an IPI"
        yield _ratio("vcpu_cpu_use", title, used, span, unit="CPUs")
    title = "Share of its time that the target, waiting for IPIs, counts as idle"
    yield _ratio("idle_cpu_share", title, idle, span, unit="share", better="higher")
    title = "Share of its time that the target, waiting for IPIs, polls"
    yield _ratio("poll_share", title, polled, span, unit="share")


def _programs(guest: System, tools: str, scale: Scale) -> Iterator[Series]:
    """What ordinary programs see of it."""
    argv = [f"{tools}/pingpong", "futex", str(scale.sender), str(scale.target), str(scale.round_trips)]
    rtt = tuple(float(line) for line in guest.run(argv, timeout=300).check().stdout.split())
    yield Series(
        "wakeup_rtt", "Round trip of two threads that wake each other by futex", "ns", "time", "lower", rtt
    )
    title = "hackbench, one group: many threads that pass messages"
    yield Series("hackbench", title, "s", "time", "lower", (hackbench(guest, scale.hackbench_loops),))


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
            soft_stats=guest.read_text(_STATS) if guest.exists(_STATS) else "",
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


def _run_module(guest: System, kind: str, scale: Scale) -> float:
    """Run one measurement of the module; return how long it took, in seconds."""
    command = f"kind={kind} src={scale.sender} dst={scale.target} n={scale.ipis} gap_us={scale.gap_us}"
    # Through a process of its own, as the write lasts as long as the measurement.
    script = f"echo {command} >{_DEBUGFS}/run"
    return guest.run(["sh", "-c", script], timeout=300).check().seconds


def _samples(guest: System) -> tuple[float, ...]:
    return tuple(float(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split())


def _ratio(
    name: str, title: str, amount: float, base: float, *, unit: str = "per IPI", better: str = "lower"
) -> Series:
    return Series(name, title, unit, "count", "higher" if better == "higher" else "lower", (amount / base,))
