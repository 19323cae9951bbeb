# SPDX-License-Identifier: Apache-2.0
"""What a machine does: the difference of two captures, as rates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.figure import Figure, Unknown, rate
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import (
    IPI_ROWS,
    CpuTimes,
    interrupt_cpus,
    parse_cpu_times,
    parse_interrupts,
    parse_named,
    parse_nfs_mounts,
)
from cvmtune.observe.vms import Vcpu, Vm, vms

_NS_PER_S = 1e9
_UPTIME = re.compile(r"\d+(?:\.\d+)?")
_RDMA = re.compile(r"/sys/class/infiniband/(.+/ports/.+)")


@dataclass(frozen=True)
class CpuLoad:
    """A CPU over the time between: events a second, and shares of that time from 0 to 1.

    `ipis` are those by hardware, by kind; `rows` are all rows of /proc/interrupts.
    """

    ipis: Mapping[str, float]
    rows: Mapping[str, float]
    interrupts: float
    softirqs: float
    busy: float
    idle: float
    steal: float


@dataclass(frozen=True)
class NfsLoad:
    """An NFS mount: RPCs a second, and what one took on average, from sending to reply, in ms."""

    point: str
    transport: str
    rpcs: float
    rtt_ms: float


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
    """A machine over `seconds`. `server_rpcs` is what its own NFS server took, a second."""

    place: Platform
    now: Capture
    seconds: float
    cpus: Mapping[int, CpuLoad]
    context_switches: float
    mounts: Sequence[NfsLoad]
    rdma: Mapping[str, float]
    server_rpcs: float
    server_over_rdma: bool
    vms: Sequence[VmLoad]


def load(before: Capture, after: Capture, where: Platform) -> Load:
    """Compare two captures of a machine, on this platform; ValueError if they are not, in this order, of
    one."""
    seconds = _uptime(after) - _uptime(before)
    boot = "/proc/sys/kernel/random/boot_id"
    # Not "<= 0": it is nan where a time is not known.
    if not seconds > 0 or before.get(boot) != after.get(boot):
        raise ValueError("the second capture is not a later one of the same machine")
    cpus = _cpus(before, after, seconds)
    return Load(
        place=where,
        now=after,
        seconds=seconds,
        cpus=cpus,
        context_switches=_named_rate(before, after, "/proc/stat", "ctxt", seconds),
        mounts=_mounts(before, after, seconds),
        rdma=_rdma(before, after, seconds),
        server_rpcs=_named_rate(before, after, "/proc/net/rpc/nfsd", "rpc", seconds),
        server_over_rdma="rdma" in (after.get("/proc/fs/nfsd/portlist") or ""),
        vms=_vms(before, after, seconds, cpus, where),
    )


def _uptime(capture: Capture) -> float:
    match = _UPTIME.match(capture.get("/proc/uptime") or "")
    return float(match[0]) if match else math.nan


def _cpus(before: Capture, after: Capture, seconds: float) -> dict[int, CpuLoad]:
    """Those that were online all the time."""
    times = [parse_cpu_times(capture.files.get("/proc/stat", "")) for capture in (before, after)]
    interrupts = [_by_cpu(capture, "/proc/interrupts") for capture in (before, after)]
    softirqs = [_by_cpu(capture, "/proc/softirqs") for capture in (before, after)]
    loads = {}
    for cpu in sorted(times[0].keys() & times[1].keys()):
        counts = _growth(interrupts, cpu)
        shares = _shares(times[0][cpu], times[1][cpu])
        loads[cpu] = CpuLoad(
            ipis={what: counts.get(row, 0) / seconds for row, what in IPI_ROWS.items()},
            rows={row: count / seconds for row, count in counts.items()},
            interrupts=sum(count for row, count in counts.items() if row.isdecimal()) / seconds,
            softirqs=sum(_growth(softirqs, cpu).values()) / seconds,
            busy=shares.busy,
            idle=shares.idle,
            steal=shares.steal,
        )
    return loads


def _by_cpu(capture: Capture, path: str) -> dict[int, dict[str, int]]:
    """The counts of a file like /proc/interrupts, by CPU and row."""
    text = capture.files.get(path, "")
    rows = parse_interrupts(text)
    return {
        cpu: {name: counts[column] for name, counts in rows.items()}
        for column, cpu in enumerate(interrupt_cpus(text))
    }


def _growth(counts: Sequence[Mapping[int, Mapping[str, int]]], cpu: int) -> dict[str, int]:
    before, after = (one.get(cpu) for one in counts)
    if before is None or after is None:
        # It was offline at one time: that it counts from boot would look like a storm.
        return {}
    return {row: max(0, count - before.get(row, 0)) for row, count in after.items()}


@dataclass(frozen=True)
class _Shares:
    busy: float
    idle: float
    steal: float


def _shares(before: CpuTimes, after: CpuTimes) -> _Shares:
    # The kernel lets a CPU's idle time go back at times (proc(5), iowait).
    busy = max(0, after.busy - before.busy)
    idle = max(0, after.idle - before.idle)
    steal = max(0, after.steal - before.steal)
    total = max(1, busy + idle + steal)
    return _Shares(busy / total, idle / total, steal / total)


def _named_rate(before: Capture, after: Capture, path: str, name: str, seconds: float) -> float:
    then, now = (parse_named(capture.files.get(path, "")).get(name, 0) for capture in (before, after))
    return max(0, now - then) / seconds


def _mounts(before: Capture, after: Capture, seconds: float) -> list[NfsLoad]:
    path = "/proc/self/mountstats"
    # Of several in one place the last hides the others.
    then, now = (
        {mount.point: mount for mount in parse_nfs_mounts(capture.files.get(path, ""))}
        for capture in (before, after)
    )
    loads = []
    for mount in now.values():
        earlier = then[mount.point].operations if mount.point in then else {}
        if any(name in earlier and one.ops < earlier[name].ops for name, one in mount.operations.items()):
            # Mounted anew meanwhile: all that it counts is of this time.
            earlier = {}
        grown = [
            statistics - earlier[name] if name in earlier else statistics
            for name, statistics in mount.operations.items()
        ]
        rpcs = sum(one.ops for one in grown)
        rtt_ms = max(0, sum(one.rtt_ms for one in grown)) / rpcs if rpcs else 0.0
        loads.append(NfsLoad(mount.point, mount.transport, rpcs / seconds, rtt_ms))
    return loads


def _rdma(before: Capture, after: Capture, seconds: float) -> dict[str, float]:
    """The counters of RDMA ports that have moved, a second."""
    rates = {}
    for match, text in after.matching(_RDMA):
        then, now = before.get(match[0]) or "", text.strip()
        if then.isdecimal() and now.isdecimal() and int(now) > int(then):
            rates[match[1]] = (int(now) - int(then)) / seconds
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
    return VcpuLoad(
        now=after,
        ran=ran,
        waited=_share(before.waited_ns, after.waited_ns, seconds, "its thread's time of waiting"),
        sleeps=rate(before.sleeps, after.sleeps, seconds, what="its thread's count of sleeps"),
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
    busy: Figure = cpu.busy
    if isinstance(busy, Unknown):
        return busy
    return ran if isinstance(ran, Unknown) else max(0.0, busy - ran)
