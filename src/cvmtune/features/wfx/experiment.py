# SPDX-License-Identifier: Apache-2.0
"""The experiment `wfx`: waits of idle vCPUs, with WFI and WFE trapped as KVM does and not.

It runs in a guest and on its host (any two Systems), with the lab's helper pingpong in the guest and our
kernel on the host, whose vCPU threads it pins: one vCPU a physical CPU, as the feature is meant for, or all
on one. It collects; report/ judges.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import UsageError
from cvmtune.core.system import System
from cvmtune.experiments.guest import Host, affinity, applied, cyclictest, hackbench, pingpong, written
from cvmtune.experiments.rounds import Better, RawRun, Round, Series, in_turns
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.wfx.knob import Wfx
from cvmtune.observe.procfs import parse_table

GUARD = "/sys/module/kvm/parameters/wfx_guard"
# How long KVM polls before it lets a vCPU's thread sleep (Documentation/virt/kvm/halt-polling.rst), ns.
HALT_POLL = "/sys/module/kvm/parameters/halt_poll_ns"
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Setting:
    """What is on in a state of the experiment, and whether all vCPUs share one physical CPU."""

    untrapped: bool = False
    halt_polling: bool = True
    guarded: bool = False
    soft_ipi: bool = False
    shared: bool = False


SETTINGS: Mapping[str, Setting] = {
    "off": Setting(),
    "on": Setting(untrapped=True),
    "off, no halt polling": Setting(halt_polling=False),
    "on, guarded": Setting(untrapped=True, guarded=True),
    "soft IPIs and no WFx untrapped": Setting(soft_ipi=True),
    "on, with soft IPIs": Setting(untrapped=True, soft_ipi=True),
    "two vCPUs on one CPU, off": Setting(shared=True),
    "two vCPUs on one CPU, on": Setting(shared=True, untrapped=True),
    "two vCPUs on one CPU, on, guarded": Setting(shared=True, untrapped=True, guarded=True),
}
# Not of SETTINGS: measured as "off", on a host booted with these options.
BOOT_POLICY = "untrapped by boot parameter"
BOOT_POLICY_APPEND = ("kvm-arm.wfi_trap_policy=notrap", "kvm-arm.wfe_trap_policy=notrap")


@dataclass(frozen=True)
class Scale:
    """How much is done in a round. Of the two vCPUs `named` is the one that is named alone at first."""

    named: int = 1
    other: int = 0
    watch_s: float = 1.0
    wakeups: int = 300
    interval_us: int = 1000
    round_trips: int = 300
    hackbench_loops: int = 20
    neighbour_s: float = 1.0


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
    """Run `rounds` rounds in each of the states (names of SETTINGS, or BOOT_POLICY).

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `tools` is the directory in the guest with the helper. `advance` is told what is about to be done. In the
    end masks, guard and the vCPU threads' CPUs are what they were. UsageError without a host.
    """
    if host is None:
        raise UsageError("WFx traps are the host's, and this machine has none", machine, "use vm or cvm")
    bench = _Bench(guest, host, tools, scale, host.vcpu_threads())
    collected: list[Round] = []
    for index, state in in_turns(states, rounds):
        advance(f"{machine}, {state}, round {index + 1} of {rounds}")
        setting = Setting() if state == BOOT_POLICY else SETTINGS[state]
        with bench.set(setting):
            series = tuple(bench.round(setting))
        collected.append(Round(state, index, series))
    return RawRun("wfx", machine, tuple(collected), environment)


def collect_paths(
    guest: System, host: Host, state: str, *, untrapped: bool, tools: str, scale: Scale = DEFAULT_SCALE
) -> Round:
    """Count the instructions of wake-ups, in a guest whose host was booted with `icount`.

    A time is a number of instructions there, of all the machine's CPUs together, and a halted CPU has none:
    one that waits in WFI is woken at once, as one of hardware nearly is.
    """
    bench = _Bench(guest, host, tools, scale, host.vcpu_threads())
    return Round(state, 0, tuple(bench.paths(untrapped=untrapped)))


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
        return sum(self.of(one, "wfi_exits", "wfe_exits") for one in vcpus)

    def entries(self) -> int:
        return sum(self.of(vcpu, "entries") for vcpu in self.before.vcpus)


@dataclass(frozen=True)
class _Bench:
    """One guest with its host, its vCPUs' threads on the host, and how much is done."""

    guest: System
    hypervisor: Host
    tools: str
    scale: Scale
    threads: Mapping[int, int]

    @property
    def host(self) -> System:
        return self.hypervisor.system

    @contextmanager
    def set(self, setting: Setting) -> Iterator[None]:
        """All of a state but the mask of vCPUs, which changes within a round."""
        with ExitStack() as stack:
            stack.enter_context(self.hypervisor.pinned(shared=setting.shared))
            # Off as well: the guest may have come with a mask. A kernel without the feature has none.
            if setting.soft_ipi or self.guest.exists(SoftIpi.path):
                everyone = CpuMask.from_list(self.guest.read_text("/sys/devices/system/cpu/online")).to_hex()
                stack.enter_context(applied(SoftIpi(), self.guest, everyone if setting.soft_ipi else "0"))
            stack.enter_context(written(self.host, GUARD, "Y\n" if setting.guarded else "N\n"))
            if not setting.halt_polling:
                stack.enter_context(written(self.host, HALT_POLL, "0\n"))
            yield

    def round(self, setting: Setting) -> Iterator[Series]:
        one = CpuMask(frozenset({self.scale.named})).to_hex()
        everyone = CpuMask(frozenset(self.threads)).to_hex()
        yield from self._one_named(one if setting.untrapped else "0")
        with applied(Wfx(), self.host, everyone if setting.untrapped else "0"):
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
            f"cat /sys/kernel/debug/kvm/{self.hypervisor.vmm_pid}-*/wfx_trap_stats"
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
        title = "WFI and WFE exits of the named vCPU, from the write of the mask on"
        yield _per_s("wfx_exits_named", title, during.wfx_exits(named), during)
        title = "WFI and WFE exits of the vCPU that is not named, at the same time"
        yield _per_s("wfx_exits_other", title, during.wfx_exits(other), during)
        title = "Exits of any kind of the named vCPU, at the same time"
        yield _per_s("exits_named", title, during.of(named, "entries"), during)
        title = "WFI and WFE exits of that vCPU, from the end of its being named on"
        yield _per_s("wfx_exits_back", title, after.wfx_exits(named), after, "higher")

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
        yield _per_s("idle_wfx_exits", "WFI and WFE exits of an idle guest", grown.wfx_exits(), grown)
        yield _per_s("idle_exits", "Exits of any kind of an idle guest", grown.entries(), grown)
        yield _cpu_use("idle_cpu_use", "Physical CPUs that an idle guest's vCPUs take", grown)

    def _timers(self) -> Iterator[Series]:
        """Wake-ups by the CPU's own timer."""
        before = self._read()
        lateness = self._timer_wakes()
        grown = _Growth(before, self._read())
        title = "Timer wake-up of an idle CPU: how late the thread is (cyclictest)"
        yield Series("timer_wake", title, "ns", "time", "lower", lateness)
        title = "WFI and WFE exits per timer wake-up"
        yield _count("wfx_per_timer", title, grown.wfx_exits(), self.scale.wakeups, "per wake-up")
        yield _cpu_use("timer_cpu_use", "Physical CPUs that the vCPUs take meanwhile", grown)

    def _round_trips(self) -> Iterator[Series]:
        """Wake-ups by another vCPU."""
        for method, title in (
            ("futex", "Round trip of two threads on two CPUs that wake each other by futex"),
            ("pipe", "The same by pipe, as perf bench sched pipe does it"),
        ):
            before = self._read()
            samples = self._trips(method)
            grown = _Growth(before, self._read())
            yield Series(f"{method}_rtt", title, "ns", "time", "lower", samples)
            title = f"WFI and WFE exits per round trip by {method}"
            trips = self.scale.round_trips
            yield _count(f"wfx_per_{method}_rtt", title, grown.wfx_exits(), trips, "per round trip")

    def _timer_wakes(self) -> tuple[float, ...]:
        return cyclictest(self.guest, self.scale.named, self.scale.interval_us, self.scale.wakeups)

    def _trips(self, method: str) -> tuple[float, ...]:
        cpus = (self.scale.other, self.scale.named)
        return pingpong(self.guest, self.tools, method, cpus, self.scale.round_trips)

    def paths(self, *, untrapped: bool) -> Iterator[Series]:
        """Wake-ups in instructions, with and without KVM's halt polling, for a machine with `icount`."""
        with ExitStack() as stack:
            stack.enter_context(self.hypervisor.pinned())
            # A kernel without the feature is measured, too.
            if self.host.exists(Wfx.path):
                everyone = CpuMask(frozenset(self.threads)).to_hex()
                stack.enter_context(applied(Wfx(), self.host, everyone if untrapped else "0"))
            yield from self._wakes("", "")
            stack.enter_context(written(self.host, HALT_POLL, "0\n"))
            yield from self._wakes("_no_halt_poll", ", without halt polling")

    def _wakes(self, suffix: str, conditions: str) -> Iterator[Series]:
        for name, what, samples in (
            ("futex_path", "a round trip of two threads on two CPUs by futex", self._trips("futex")),
            ("pipe_path", "the same by pipe", self._trips("pipe")),
            ("timer_path", "a timer's wake-up of an idle CPU, until its thread runs", self._timer_wakes()),
        ):
            title = f"Instructions of {what}{conditions}"
            yield Series(f"{name}{suffix}", title, "instructions", "count", "lower", samples)

    def _mixed(self) -> Iterator[Series]:
        """Timers, messages between many threads, and computing, at once."""
        with self._timers_everywhere():
            before = self._read()
            seconds = hackbench(self.guest, self.scale.hackbench_loops)
            grown = _Growth(before, self._read())
        yield Series("mixed_time", "hackbench beside timers on all CPUs", "s", "time", "lower", (seconds,))
        yield _per_s("mixed_wfx_exits", "WFI and WFE exits under that load", grown.wfx_exits(), grown)

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
        title = "Share of a physical CPU that a busy task of the host gets beside an idle vCPU"
        yield Series("neighbour_share", title, "share", "count", "higher", (share,))


def _count(name: str, title: str, amount: float, base: float, unit: str, better: Better = "lower") -> Series:
    return Series(name, title, unit, "count", better, (amount / base,))


def _per_s(name: str, title: str, amount: int, grown: _Growth, better: Better = "lower") -> Series:
    return _count(name, title, amount, grown.span_s, "per s", better)


def _cpu_use(name: str, title: str, grown: _Growth) -> Series:
    return Series(name, title, "CPUs", "count", "lower", (grown.cpu_use,))
