# SPDX-License-Identifier: Apache-2.0
"""One guest with its host, and what is measured of its waits there in a round."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied, await_timers, cyclictest, hackbench, pingpong
from cvmtune.experiments.host import Host, affinity
from cvmtune.experiments.rounds import Series
from cvmtune.features.wfx import metrics
from cvmtune.features.wfx.knob import Wfx
from cvmtune.features.wfx.statistics import FILE, WFX_COLUMNS
from cvmtune.observe.procfs import parse_table

_NS_PER_S = 1e9

# Timer interrupts of each CPU after which timers count as running. An idle CPU has some too, but few while a
# program starts.
_STARTED = 20


@dataclass(frozen=True)
class WfxScale:
    """How much is done in a round. Of the two vCPUs `named` is the one that is named alone at first, while
    each of them takes as many timer interrupts as `timers`."""

    named: int = 1
    other: int = 0
    timers: int = 300
    idle_s: float = 1.0
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

    def _while_timers(self) -> tuple[_Growth, Sequence[int]]:
        """What is counted until each CPU of the guest has taken enough timer interrupts, and how many."""
        before = self._read()
        taken = await_timers(self.guest, self.scale.timers)
        return _Growth(before, self._read()), taken

    def _one_named(self, mask: str) -> Iterator[Series]:
        """One vCPU named while both wake by timers: what it changes, from when on, and for whom."""
        named, other = self.scale.named, self.scale.other
        with self._timers_everywhere():
            with applied(Wfx(), self.host, mask):
                # From the end of the write on: its effect must not take a while.
                during, taken = self._while_timers()
            after, taken_after = self._while_timers()
        # Of none at all as of one: where they are so few the verdict is UNDECIDED.
        per_named, per_other, per_back = (max(1, n) for n in (taken[named], taken[other], taken_after[named]))
        yield metrics.TIMERS_TAKEN.value(min(*taken, *taken_after))
        yield metrics.WFX_EXITS_NAMED.value(during.wfx_exits(named) / per_named)
        yield metrics.WFX_EXITS_OTHER.value(during.wfx_exits(other) / per_other)
        yield metrics.EXITS_NAMED.value(during.of(named, "entries") / per_named)
        yield metrics.WFX_EXITS_BACK.value(after.wfx_exits(named) / per_back)

    @contextmanager
    def _timers_everywhere(self) -> Iterator[None]:
        """Have every CPU of the guest wake by a timer, all the time."""
        # Relative: however slow the computer, a CPU waits before each.
        interval = f"--interval={self.scale.interval_us}"
        argv = ["cyclictest", "--smp", "--relative", interval, "--distance=0", "--quiet"]
        script = f"{shlex.join(argv)} >/dev/null 2>&1 & echo $!"
        pid = self.guest.run(["sh", "-c", script]).check().stdout.strip()
        try:
            await_timers(self.guest, _STARTED)
            yield
        finally:
            self.guest.run(["kill", pid]).check()

    def _idle(self) -> Iterator[Series]:
        """A guest that does nothing: its ticks, and what its vCPUs take of the host."""
        before = self._read()
        time.sleep(self.scale.idle_s)
        grown = _Growth(before, self._read())
        yield metrics.IDLE_WFX_EXITS.value(grown.wfx_exits())
        yield metrics.IDLE_EXITS.value(grown.entries() / grown.span_s)
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
        yield metrics.MIXED_WFX_EXITS.value(grown.wfx_exits())

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


def site_of(bench: Bench, scale: WfxScale) -> Site:
    """A machine to measure wake-ups on; UsageError if it has no host."""
    host = bench.need_host("WFx traps are the host's", "use vm or cvm")
    return Site(bench, host, scale, host.vcpu_threads())
