# SPDX-License-Identifier: Apache-2.0
"""What a machine does: the difference of two captures, as rates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.figure import Figure, Unknown, rate, total
from cvmtune.observe.capture import Capture
from cvmtune.observe.nfs_load import NfsLoad, nfs_mounts, served_over_rdma
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import (
    IPI_ROWS,
    interrupt_cpus,
    is_count,
    parse_cpu_times,
    parse_interrupts,
    parse_named,
    uptime,
)
from cvmtune.observe.steal import shares
from cvmtune.observe.vms import Vcpu, Vm, vms

_NS_PER_S = 1e9
_RDMA = re.compile(r"/sys/class/infiniband/(.+/ports/.+)")


@dataclass(frozen=True)
class CpuLoad:
    """A CPU over the time between: events a second, and shares of that time from 0 to 1.

    `ipis` are those by hardware, by kind; `rows` are all rows of /proc/interrupts, as far as they are shown.
    """

    ipis: Mapping[str, Figure]
    rows: Mapping[str, Figure]
    interrupts: Figure
    softirqs: Figure
    busy: Figure
    idle: Figure
    steal: Figure


@dataclass(frozen=True, slots=True)
class VcpuLoad:
    """A vCPU: shares of the time from 0 to 1, and events a second.

    `beside` is the share of its physical CPU that all else took, None if it is not pinned to one.
    """

    now: Vcpu
    ran: Figure
    waited: Figure
    sleeps: Figure
    beside: Figure | None
    reserved: bool


@dataclass(frozen=True)
class VmLoad:
    """A VM and its vCPUs, and what it was `before`: None if it has come meanwhile."""

    now: Vm
    before: Vm | None
    vcpus: Sequence[VcpuLoad]


@dataclass(frozen=True)
class Load:
    """A machine over `seconds`. `server_rpcs` is what its own NFS server took over RDMA, a second."""

    place: Platform
    now: Capture
    seconds: float
    cpus: Mapping[int, CpuLoad]
    context_switches: Figure
    mounts: Sequence[NfsLoad]
    rdma: Mapping[str, Figure]
    server_rpcs: Figure
    server_over_rdma: bool | Unknown
    vms: Sequence[VmLoad]


def load(before: Capture, after: Capture, where: Platform) -> Load:
    """Compare two captures of a machine, on this platform; ValueError if they are not, in this order, of
    one."""
    seconds = uptime(after.files) - uptime(before.files)
    boot = "/proc/sys/kernel/random/boot_id"
    for one in (before, after):
        if math.isnan(uptime(one.files)):
            raise ValueError(f"how much time has passed cannot be told: {one.why_not('/proc/uptime')}")
    if seconds <= 0 or before.get(boot) != after.get(boot):
        raise ValueError("the second capture is not a later one of the same machine")
    cpus = _cpus(before, after, seconds)
    listens, served = served_over_rdma(before, after, seconds)
    return Load(
        place=where,
        now=after,
        seconds=seconds,
        cpus=cpus,
        context_switches=_named_rate(before, after, "/proc/stat", "ctxt", seconds),
        mounts=nfs_mounts(before, after, seconds),
        rdma=_rdma(before, after, seconds),
        server_rpcs=served,
        server_over_rdma=listens,
        vms=_vms(before, after, seconds, cpus, where),
    )


def _cpus(before: Capture, after: Capture, seconds: float) -> dict[int, CpuLoad]:
    """Those that were online all the time, by one file or the other."""
    stat = "/proc/stat"
    times = [parse_cpu_times(capture.files.get(stat, "")) for capture in (before, after)]
    interrupts, softirqs = (
        _Counts.of("/proc/interrupts", before, after),
        _Counts.of("/proc/softirqs", before, after),
    )
    loads = {}
    for cpu in sorted((times[0].keys() & times[1].keys()) | interrupts.cpus):
        then, now = (
            one.get(cpu, Unknown(f"CPU {cpu}: {capture.why_not(stat)}"))
            for one, capture in zip(times, (before, after), strict=True)
        )
        went = shares(then, now, cpu)
        rows = interrupts.rates(cpu, seconds)
        loads[cpu] = CpuLoad(
            ipis={what: _row(rows, row, after) for row, what in IPI_ROWS.items()},
            rows={} if isinstance(rows, Unknown) else rows,
            interrupts=_sum(rows, devices=True),
            softirqs=_sum(softirqs.rates(cpu, seconds)),
            busy=went.busy,
            idle=went.idle,
            steal=went.steal,
        )
    return loads


def _row(rows: Mapping[str, Figure] | Unknown, row: str, after: Capture) -> Figure:
    if isinstance(rows, Unknown):
        return rows
    return rows.get(row, Unknown(f"row {row}: {after.why_not('/proc/interrupts')}"))


def _sum(rows: Mapping[str, Figure] | Unknown, *, devices: bool = False) -> Figure:
    """All rows, or those of devices, which have numbers."""
    if isinstance(rows, Unknown):
        return rows
    return total(rate for row, rate in rows.items() if row.isdecimal() or not devices)


@dataclass(frozen=True)
class _Counts:
    """A file like /proc/interrupts before and after: counts by CPU and row, and why there are none."""

    path: str
    before: Mapping[int, Mapping[str, int]]
    after: Mapping[int, Mapping[str, int]]
    why: tuple[str, str]

    @classmethod
    def of(cls, path: str, before: Capture, after: Capture) -> _Counts:
        then, now = (_by_cpu(capture.files.get(path, "")) for capture in (before, after))
        return cls(path, then, now, (before.why_not(path), after.why_not(path)))

    @property
    def cpus(self) -> set[int]:
        return self.before.keys() & self.after.keys()

    def rates(self, cpu: int, seconds: float) -> Mapping[str, Figure] | Unknown:
        """The rows' rates; the kernel counts in 32 bits."""
        then, now = self.before.get(cpu), self.after.get(cpu)
        # A CPU that was offline at one time: that it counts from boot would look like a storm.
        if then is None or now is None:
            return Unknown(f"CPU {cpu}: {self.why[0 if then is None else 1]}")
        return {
            row: rate(self._then(then, row), count, seconds, what=f"row {row} of {self.path}", bits=32)
            for row, count in now.items()
        }

    def _then(self, rows: Mapping[str, int], row: str) -> Figure:
        # A device may have come meanwhile; the kernel's own rows are there from the beginning.
        return rows.get(row, 0 if row.isdecimal() else Unknown(f"row {row}: {self.why[0]}"))


def _by_cpu(text: str) -> dict[int, dict[str, int]]:
    """The counts of a file like /proc/interrupts, by CPU and row."""
    rows = parse_interrupts(text)
    return {
        cpu: {name: counts[column] for name, counts in rows.items()}
        for column, cpu in enumerate(interrupt_cpus(text))
    }


def _named_rate(before: Capture, after: Capture, path: str, name: str, seconds: float) -> Figure:
    then, now = (
        parse_named(capture.files.get(path, "")).get(name, Unknown(f"{name}: {capture.why_not(path)}"))
        for capture in (before, after)
    )
    return rate(then, now, seconds, what=f"{name} in {path}")


def _rdma(before: Capture, after: Capture, seconds: float) -> dict[str, Figure]:
    """The counters of RDMA ports that have moved, a second."""
    rates = {}
    for match, text in after.matching(_RDMA):
        then, now = before.get(match[0]) or "", text.strip()
        if is_count(then) and is_count(now) and now != then:
            # Some devices count in 32 bits.
            rates[match[1]] = rate(int(then), int(now), seconds, what=match[1], bits=32)
    return rates


def _vms(
    before: Capture, after: Capture, seconds: float, cpus: Mapping[int, CpuLoad], where: Platform
) -> list[VmLoad]:
    then = {vm.folder: vm for vm in vms(before)}
    loads = []
    for vm in vms(after):
        # One that has come meanwhile is looked at as far as it can be: where its vCPUs may run.
        earlier = then.get(vm.folder)
        threads = {vcpu.thread: vcpu for vcpu in earlier.vcpus} if earlier else {}
        vcpus = [_vcpu(threads.get(one.thread), one, seconds, cpus, where) for one in vm.vcpus]
        loads.append(VmLoad(vm, earlier, vcpus))
    return loads


def _vcpu(
    before: Vcpu | None, after: Vcpu, seconds: float, cpus: Mapping[int, CpuLoad], where: Platform
) -> VcpuLoad:
    cpu = after.pinned_to
    reserved = after.partitioned or (cpu is not None and cpu in where.isolated)
    if before is None:
        came = Unknown("its thread came meanwhile")
        return VcpuLoad(after, came, came, came, None if cpu is None else came, reserved)
    ran = _share(before.ran_ns, after.ran_ns, seconds, "its thread's time")
    waited = _share(before.waited_ns, after.waited_ns, seconds, "its thread's time of waiting")
    sleeps = rate(before.sleeps, after.sleeps, seconds, what="its thread's count of sleeps")
    if ran == 0 and sleeps != 0 and not isinstance(sleeps, Unknown):
        ran = waited = Unknown("its thread's times stood still while it ran and slept")
    return VcpuLoad(
        now=after,
        ran=ran,
        waited=waited,
        sleeps=sleeps,
        beside=None if cpu is None else _beside(cpus.get(cpu), ran),
        reserved=reserved,
    )


def _share(before: Figure, after: Figure, seconds: float, what: str) -> Figure:
    """The share of the time that a counter of ns grew."""
    grown = rate(before, after, seconds, what=what)
    return grown if isinstance(grown, Unknown) else grown / _NS_PER_S


def _beside(cpu: CpuLoad | None, ran: Figure) -> Figure:
    """The share of its time that a CPU was busy with all but a thread that ran there."""
    if cpu is None:
        return Unknown("its CPU was not seen all the time")
    if isinstance(ran, Unknown):
        return ran
    return cpu.busy if isinstance(cpu.busy, Unknown) else max(0.0, cpu.busy - ran)
