# SPDX-License-Identifier: Apache-2.0
"""What experiments read of a guest and its host, whatever the feature, and what they put into the guest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.observe.procfs import IPI_ROWS, TICKS_PER_S, parse_interrupts, parse_named, parse_table
from cvmtune.tuning.contract import Knob

SGI_ROWS = tuple(IPI_ROWS)
_NS_PER_S = 1e9
# What the host's /proc/interrupts calls its guests' timers.
HOST_TIMER_ROW = "kvm guest vtimer"
_KVM = "/sys/kernel/debug/kvm"


@dataclass(frozen=True)
class Host:
    """The host of the guest: its counters, and the process that runs the guest's vCPUs."""

    system: System
    vmm_pid: int

    def exits(self) -> float:
        """Exits of all vCPUs of all guests so far."""
        return float(self.system.read_text(f"{_KVM}/exits"))

    def vmm_seconds(self) -> float:
        """The processor time that the guest's VMM has used, its vCPUs' included, in seconds."""
        return process_seconds(self.system, self.vmm_pid)

    def vcpu_threads(self) -> dict[int, int]:
        """The threads of the guest's vCPUs, by the vCPUs' ids; QEMU names them with `debug-threads=on`."""
        pattern = f"/proc/{self.vmm_pid}/task/*/comm"
        found = {}
        # Not checked: other threads end while it looks.
        for line in self.system.run(["sh", "-c", f"grep -sH . {pattern}"]).stdout.splitlines():
            path, _, name = line.partition(":")
            if match := re.fullmatch(r"CPU (\d+)/KVM", name):
                found[int(match[1])] = int(path.split("/")[4])
        if not found:
            raise CvmtuneError("the guest's VMM has no threads with the names of vCPUs", pattern)
        return dict(sorted(found.items()))

    def vm_folder(self) -> str:
        """The folder of the guest's VM in debugfs; it is named after the VMM and its file for the VM."""
        pattern = self._folders()
        found = self.system.run(["sh", "-c", f"ls -d {pattern}"]).stdout.split()
        if len(found) != 1:
            raise CvmtuneError(f"the host has {len(found)} such folders, not 1", pattern)
        return found[0]

    def _folders(self) -> str:
        return f"{_KVM}/{self.vmm_pid}-*"

    def statistics(self) -> VmStatistics:
        """What the host has counted of the guest's VM so far; it has our kernel."""
        # In one go, as each request takes its time, and makes exits. The last file is there for a
        # confidential VM alone.
        script = (
            f"set -e; cd {self._folders()}; cat wfx_trap_stats; echo; cat /proc/interrupts; echo; "
            "if [ -e vtimer_stats ]; then cat vtimer_stats; fi"
        )
        texts = self.system.run(["sh", "-c", script]).check().stdout.split("\n\n")
        vcpus, interrupts, timers = texts
        return VmStatistics(_by_vcpu(vcpus), interrupts, _by_vcpu(timers) if timers else None)

    @contextmanager
    def pinned(self, *, shared: bool = False) -> Iterator[None]:
        """Have vCPU n on physical CPU n, or all on 0; the VMM's other threads stay where they may be."""
        with ExitStack() as stack:
            for vcpu, thread in self.vcpu_threads().items():
                stack.callback(_pin, self.system, thread, affinity(self.system, thread))
                _pin(self.system, thread, "0" if shared else str(vcpu))
            yield


@dataclass(frozen=True)
class Counters:
    """What the guest and its host have counted so far."""

    ipis: int
    interrupts: int
    switches: int
    uptime_s: float
    poller_s: float
    exits: float
    vmm_s: float

    @staticmethod
    def read(guest: System, host: Host | None) -> Counters:
        rows = parse_interrupts(guest.read_text("/proc/interrupts"))
        stat = parse_named(guest.read_text("/proc/stat"))
        return Counters(
            ipis=sum(sum(rows[row]) for row in SGI_ROWS),
            interrupts=stat["intr"],
            switches=stat["ctxt"],
            uptime_s=float(guest.read_text("/proc/uptime").split()[0]),
            poller_s=_poller_seconds(guest),
            exits=host.exits() if host else 0.0,
            vmm_s=host.vmm_seconds() if host else 0.0,
        )


def _poller_seconds(guest: System) -> float:
    """Processor time of the polling thread, 0 if there is none."""
    # Its beginning, as a worker's name ends in its last workqueue's, and the module has one.
    pids = guest.run(["pgrep", "^ib_cq_poll/"]).stdout.split()
    # Its first field is nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst); `stat` has ticks.
    return sum(int(guest.read_text(f"/proc/{pid}/schedstat").split()[0]) for pid in pids) / _NS_PER_S


@dataclass(frozen=True)
class VmStatistics:
    """What a host has counted of a VM: its files wfx_trap_stats and vtimer_stats by vCPU (the latter None if
    the VM is not confidential), and the host's own /proc/interrupts, as text."""

    vcpus: Mapping[int, Mapping[str, int]]
    interrupts: str
    timers: Mapping[int, Mapping[str, int]] | None

    def timer_exits(self, vcpu: int) -> int:
        """Exits that the vCPU's timer has caused; an ordinary VM's are pinned, one vCPU a CPU."""
        if self.timers is not None:
            return self.timers[vcpu]["timer_exits"]
        return named_interrupts(self.interrupts, HOST_TIMER_ROW)[vcpu]


def _by_vcpu(text: str) -> dict[int, dict[str, int]]:
    rows = ({name: int(value) for name, value in row.items()} for row in parse_table(text))
    return {row["vcpu"]: row for row in rows}


def affinity(system: System, thread: int) -> str:
    """The physical CPUs that a thread may run on, as a list."""
    # "pid 123's current affinity list: 0-1"
    return system.run(["taskset", "-cp", str(thread)]).check().stdout.rpartition(":")[2].strip()


def _pin(system: System, thread: int, cpus: str) -> None:
    system.run(["taskset", "-cp", cpus, str(thread)]).check()


def process_seconds(system: System, pid: int) -> float:
    """The processor time that a process, all its threads together, has used so far, in seconds."""
    # proc(5): the name may hold anything, so count from its closing parenthesis; then utime and stime.
    fields = system.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def named_interrupts(text: str, name: str) -> tuple[int, ...]:
    """Return the counts, by CPU, of the interrupt of /proc/interrupts whose line ends in `name`."""
    rows = [line for line in text.splitlines() if line.endswith(f" {name}")]
    if len(rows) != 1:
        raise CvmtuneError(f"/proc/interrupts has {len(rows)} lines for {name!r}, not 1")
    return parse_interrupts("\n".join((text.splitlines()[0], rows[0])))[rows[0].partition(":")[0].strip()]


@contextmanager
def written(system: System, path: str, text: str) -> Iterator[None]:
    """Have this in a file that is no knob of ours, for the `with` block."""
    before = system.read_text(path)
    try:
        system.write_text(path, text)
        yield
    finally:
        system.write_text(path, before)


@contextmanager
def applied(knob: Knob, system: System, value: str) -> Iterator[None]:
    """Have this value of a knob for the `with` block."""
    plan = knob.plan(system, value)
    try:
        # Within: a Ctrl-C that comes while it is asked for does not keep it from happening.
        knob.apply(system, plan)
        yield
    finally:
        knob.undo(system, plan)


@contextmanager
def loaded_module(guest: System, tools: str, name: str) -> Iterator[None]:
    """Have a module, a file of directory `tools`, in the guest's kernel for the `with` block."""
    guest.run(["insmod", f"{tools}/{name}.ko"]).check()
    try:
        yield
    finally:
        guest.run(["rmmod", name]).check()


def pingpong(guest: System, tools: str, method: str, cpus: tuple[int, int], rounds: int) -> tuple[float, ...]:
    """Run the lab's helper; return the round trips between those two CPUs, in nanoseconds."""
    argv = [f"{tools}/pingpong", method, *map(str, cpus), str(rounds)]
    return tuple(float(line) for line in guest.run(argv, timeout=300).check().stdout.split())


def cyclictest(guest: System, cpu: int, interval_us: int, loops: int) -> tuple[float, ...]:
    """Return how late a thread on that CPU was for each of its timers, in nanoseconds."""
    argv = [
        *("cyclictest", "--threads=1", f"--affinity={cpu}", "--nsecs", "--verbose"),
        *(f"--interval={interval_us}", f"--loops={loops}"),
    ]
    samples = parse_cyclictest(guest.run(argv, timeout=300).check().stdout)
    if len(samples) < loops:
        raise CvmtuneError(f"of {loops} wake-ups it tells {len(samples)}", " ".join(argv))
    return samples


def parse_cyclictest(text: str) -> tuple[float, ...]:
    """Return the values of `cyclictest --verbose`, lines "thread: number: value" each."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(float(row[2]) for row in rows if len(row) == 3 and all(f.strip().isdecimal() for f in row))


def hackbench(guest: System, loops: int) -> float:
    """Run hackbench with one group, many threads that pass messages; return the time it tells, in seconds."""
    argv = ["hackbench", "--groups", "1", "--loops", str(loops)]
    lines = guest.run(argv, timeout=300).check().stdout.splitlines()
    times = [float(line.split()[1]) for line in lines if line.startswith("Time:")]
    if len(times) != 1:
        raise CvmtuneError("hackbench printed no time", " ".join(argv))
    return times[0]
