# SPDX-License-Identifier: Apache-2.0
"""The experiment `wfx`: waits of idle vCPUs, with WFI and WFE trapped as KVM does and not.

It runs in a guest and on its host, with the lab's helper pingpong in the guest and our kernel on the host,
whose vCPU threads it pins: one vCPU a physical CPU, as the feature is meant for, or all on one. It collects;
verdict.py judges.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State
from cvmtune.experiments.guest import applied, cyclictest, hackbench, pingpong
from cvmtune.experiments.host import HaltPoll, Host, affinity
from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import Series
from cvmtune.features.trial import Switch
from cvmtune.features.wfx import metrics
from cvmtune.features.wfx.knob import Wfx, WfxGuard
from cvmtune.features.wfx.statistics import FILE, WFX_COLUMNS
from cvmtune.features.wfx.switch import MACHINES
from cvmtune.lab.specs import MachineName
from cvmtune.observe.procfs import parse_table

_NS_PER_S = 1e9

BOOT_POLICY = "untrapped by boot parameter"
"""Measured as off, on a host that was booted with BOOT_POLICY_APPEND."""
BOOT_POLICY_APPEND = ("kvm-arm.wfi_trap_policy=notrap", "kvm-arm.wfe_trap_policy=notrap")


@dataclass(frozen=True)
class WfxState(State):
    """What is on in a state, whether KVM polls before a vCPU sleeps, which others' feature is on, and whether
    all vCPUs share one physical CPU."""

    untrapped: bool = False
    halt_polling: bool = True
    guarded: bool = False
    beside: Switch | None = None
    shared: bool = False


@dataclass(frozen=True)
class WfxScale:
    """How much is done in a round. Of the two vCPUs `named` is the one that is named alone at first."""

    named: int = 1
    other: int = 0
    watch_s: float = 1.0
    wakeups: int = 300
    interval_us: int = 1000
    round_trips: int = 300
    hackbench_loops: int = 20
    neighbour_s: float = 1.0


DEFAULT_SCALE = WfxScale()


@dataclass(frozen=True)
class _Reading:
    """What the host has counted so far: by vCPU (feature 4's wfx_trap_stats), and in seconds."""

    vcpus: Mapping[int, Mapping[str, int]]
    used_s: float
    uptime_s: float


@dataclass(frozen=True)
class _Growth:
    """What was counted between two readings."""

    before: _Reading
    after: _Reading

    @property
    def span_s(self) -> float:
        return self.after.uptime_s - self.before.uptime_s

    @property
    def cpu_use(self) -> float:
        """The physical CPUs that the vCPUs have taken."""
        return (self.after.used_s - self.before.used_s) / self.span_s

    def of(self, vcpu: int, *names: str) -> int:
        return sum(self.after.vcpus[vcpu][name] - self.before.vcpus[vcpu][name] for name in names)

    def wfx_exits(self, vcpu: int | None = None) -> int:
        """Exits for WFI and WFE of one vCPU, or of all."""
        vcpus = self.before.vcpus if vcpu is None else [vcpu]
        return sum(self.of(one, *WFX_COLUMNS) for one in vcpus)

    def entries(self) -> int:
        return sum(self.of(vcpu, "entries") for vcpu in self.before.vcpus)

    def per_s(self, metric: Measure, amount: int) -> Series:
        return metric.value(amount / self.span_s)


@dataclass(frozen=True)
class Site:
    """One guest with its host, its vCPUs' threads on the host, and how much is done."""

    bench: Bench
    hypervisor: Host
    scale: WfxScale
    threads: Mapping[int, int]

    @property
    def guest(self) -> System:
        return self.bench.guest

    @property
    def host(self) -> System:
        return self.hypervisor.system

    def round(self, *, untrapped: bool) -> Iterator[Series]:
        one = CpuMask(frozenset({self.scale.named})).to_hex()
        everyone = CpuMask(frozenset(self.threads)).to_hex()
        yield from self._one_named(one if untrapped else "0")
        with applied(Wfx(), self.host, everyone if untrapped else "0"):
            yield from self._idle()
            yield from self._timers()
            yield from self._round_trips()
            yield from self._mixed()
            yield from self._neighbour()

    def _read(self) -> _Reading:
        # In one go, as each request takes its time. The folder's name is the VMM's number and that of its
        # file for the VM. The first field of schedstat is nanoseconds on a CPU (sched-stats.rst).
        script = (
            f"cat /proc/uptime; cd /proc/{self.hypervisor.vmm_pid}/task || exit; "
            f"cat {' '.join(f'{thread}/schedstat' for thread in self.threads.values())}; "
            f"cat /sys/kernel/debug/kvm/{self.hypervisor.vmm_pid}-*/{FILE.name}"
        )
        lines = self.host.run(["sh", "-c", script]).check().stdout.splitlines(keepends=True)
        uptime, *rest = lines
        times, statistics = rest[: len(self.threads)], rest[len(self.threads) :]
        rows = parse_table("".join(statistics))
        return _Reading(
            {int(row["vcpu"]): {name: int(value) for name, value in row.items()} for row in rows},
            sum(int(line.split()[0]) for line in times) / _NS_PER_S,
            float(uptime.split()[0]),
        )

    def _watch(self) -> _Growth:
        before = self._read()
        time.sleep(self.scale.watch_s)
        return _Growth(before, self._read())

    def _one_named(self, mask: str) -> Iterator[Series]:
        """One vCPU named while both wake by timers: what it changes, from when on, and for whom."""
        named, other = self.scale.named, self.scale.other
        with self._timers_everywhere():
            with applied(Wfx(), self.host, mask):
                # From the end of the write on: its effect must not take a while.
                during = self._watch()
            after = self._watch()
        yield during.per_s(metrics.WFX_EXITS_NAMED, during.wfx_exits(named))
        yield during.per_s(metrics.WFX_EXITS_OTHER, during.wfx_exits(other))
        yield during.per_s(metrics.EXITS_NAMED, during.of(named, "entries"))
        yield after.per_s(metrics.WFX_EXITS_BACK, after.wfx_exits(named))

    @contextmanager
    def _timers_everywhere(self) -> Iterator[None]:
        """Have every CPU of the guest wake by a timer, all the time."""
        argv = ["cyclictest", "--smp", f"--interval={self.scale.interval_us}", "--distance=0", "--quiet"]
        script = f"{shlex.join(argv)} >/dev/null 2>&1 & echo $!"
        pid = self.guest.run(["sh", "-c", script]).check().stdout.strip()
        try:
            # Its threads need some time to start; were it too short the verdict would be UNDECIDED.
            self.guest.run(["sleep", "0.3"]).check()
            yield
        finally:
            self.guest.run(["kill", pid]).check()

    def _idle(self) -> Iterator[Series]:
        """A guest that does nothing: its ticks, and what its vCPUs take of the host."""
        grown = self._watch()
        yield grown.per_s(metrics.IDLE_WFX_EXITS, grown.wfx_exits())
        yield grown.per_s(metrics.IDLE_EXITS, grown.entries())
        yield metrics.IDLE_CPU_USE.value(grown.cpu_use)

    def _timers(self) -> Iterator[Series]:
        """Wake-ups by the CPU's own timer."""
        before = self._read()
        lateness = self.timer_wakes()
        grown = _Growth(before, self._read())
        yield metrics.TIMER_WAKE.series(lateness)
        yield metrics.WFX_PER_TIMER.value(grown.wfx_exits() / self.scale.wakeups)
        yield metrics.TIMER_CPU_USE.value(grown.cpu_use)

    def _round_trips(self) -> Iterator[Series]:
        """Wake-ups by another vCPU."""
        for method, rtt, exits in (
            ("futex", metrics.FUTEX_RTT, metrics.WFX_PER_FUTEX_RTT),
            ("pipe", metrics.PIPE_RTT, metrics.WFX_PER_PIPE_RTT),
        ):
            before = self._read()
            samples = self.trips(method)
            grown = _Growth(before, self._read())
            yield rtt.series(samples)
            yield exits.value(grown.wfx_exits() / self.scale.round_trips)

    def timer_wakes(self) -> tuple[float, ...]:
        return cyclictest(self.guest, self.scale.named, self.scale.interval_us, self.scale.wakeups)

    def trips(self, method: str) -> tuple[float, ...]:
        cpus = (self.scale.other, self.scale.named)
        return pingpong(self.guest, self.bench.tools, method, cpus, self.scale.round_trips)

    def _mixed(self) -> Iterator[Series]:
        """Timers, messages between many threads, and computing, at once."""
        with self._timers_everywhere():
            before = self._read()
            seconds = hackbench(self.guest, self.scale.hackbench_loops)
            grown = _Growth(before, self._read())
        yield metrics.MIXED_TIME.value(seconds)
        yield grown.per_s(metrics.MIXED_WFX_EXITS, grown.wfx_exits())

    def _neighbour(self) -> Iterator[Series]:
        """What another task of the host gets of a physical CPU whose vCPU idles."""
        # It wants all of the CPU, and tells the share that it got.
        script = (
            "import os,sys,time\n"
            "os.sched_setaffinity(0, {int(sys.argv[1])})\n"
            "start, used = time.monotonic(), time.process_time()\n"
            "while time.monotonic() < start + float(sys.argv[2]): pass\n"
            "print((time.process_time() - used) / (time.monotonic() - start))\n"
        )
        cpu = affinity(self.host, self.threads[self.scale.named])
        argv = ["python3", "-I", "-S", "-c", script, cpu, str(self.scale.neighbour_s)]
        share = float(self.host.run(argv, timeout=120).check().stdout)
        yield metrics.NEIGHBOUR_SHARE.value(share)


@dataclass(frozen=True)
class WfxExperiment(Experiment[Site, WfxState]):
    """The experiment; in the end masks, guard and the vCPU threads' CPUs are what they were."""

    scale: WfxScale = DEFAULT_SCALE
    others: tuple[Switch, ...] = ()
    name: ClassVar[str] = "wfx"
    machines: ClassVar[tuple[MachineName, ...]] = MACHINES

    @property
    def states(self) -> Mapping[str, WfxState]:
        states = [
            WfxState(OFF),
            WfxState(ON, untrapped=True),
            WfxState("off, no halt polling", halt_polling=False),
            WfxState("on, guarded", untrapped=True, guarded=True),
        ]
        for other in self.others:
            states.append(WfxState(f"{other.noun} and no WFx untrapped", beside=other))
            states.append(WfxState(f"on, with {other.noun}", untrapped=True, beside=other))
        states += [
            WfxState("two vCPUs on one CPU, off", shared=True),
            WfxState("two vCPUs on one CPU, on", shared=True, untrapped=True),
            WfxState("two vCPUs on one CPU, on, guarded", shared=True, untrapped=True, guarded=True),
            WfxState(BOOT_POLICY),
        ]
        return {state.name: state for state in states}

    def form(self, *, brief: bool) -> Form:
        return Form() if brief else Form(3, self._baselines)

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        few, vm = max(1, rounds // 2), MachineName.VM
        states = tuple(state for state in self.states if state not in (OFF, ON, BOOT_POLICY))
        return [
            *([Measurement(self.name, vm, (OFF, ON), few)] if machine != vm else []),
            Measurement(self.name, machine, states, few),
            Measurement(self.name, machine, (BOOT_POLICY,), few, host_append=BOOT_POLICY_APPEND),
        ]

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Site]:
        yield site_of(bench, self.scale)

    @contextmanager
    def entered(self, site: Site, state: WfxState) -> Iterator[None]:
        """All of a state but the mask of vCPUs, which changes within a round."""
        host = site.hypervisor
        with ExitStack() as stack:
            stack.enter_context(host.pinned(shared=state.shared))
            for other in self.others:
                on = other is state.beside
                stack.enter_context(other.switched(site.bench, on=on, cpu=self.scale.named))
            stack.enter_context(applied(WfxGuard(), host.system, "Y" if state.guarded else "N"))
            if not state.halt_polling:
                stack.enter_context(applied(HaltPoll(), host.system, "0"))
            yield

    def measure(self, site: Site, state: WfxState, index: int) -> Iterator[Series]:
        return site.round(untrapped=state.untrapped)


def site_of(bench: Bench, scale: WfxScale) -> Site:
    """A machine to measure wake-ups on; UsageError if it has no host."""
    host = bench.need_host("WFx traps are the host's", "use vm or cvm")
    return Site(bench, host, scale, host.vcpu_threads())
