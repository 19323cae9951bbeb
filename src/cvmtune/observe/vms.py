# SPDX-License-Identifier: Apache-2.0
"""The VMs of a host and where their vCPUs run, as KVM's debugfs, the VMMs' threads and libvirt tell."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown
from cvmtune.observe.capture import CGROUPS, DEBUG, KVM, PARTITIONS, Capture, and_above
from cvmtune.observe.procfs import is_count
from cvmtune.observe.unreadable import reason
from cvmtune.observe.vmm import is_cut, vcpu_of

_FOLDER_FILE = re.compile(rf"{KVM}/(\d+-\d+)/(\w+)")
_COMM = re.compile(r"/proc/(\d+)/task/(\d+)/comm")
_TASK = re.compile(r"/proc/(\d+)/task(?:/\d+/(?:comm|status))?")
_VMM = re.compile(r"/run/libvirt/qemu/([^/]+)\.pid")
_STATUS = re.compile(r"^(Cpus_allowed_list|voluntary_ctxt_switches):(.*)$", re.MULTILINE)
_UNTOLD = "by their names (start QEMU with debug-threads=on)"
_SCHEDSTAT = "schedstat of its thread"
_NONE = Unknown(f"there is no {_SCHEDSTAT}")
# A kernel that does not keep these times prints zeros (proc_pid_schedstat() in fs/proc/base.c).
_NOT_KEPT = Unknown(f"{_SCHEDSTAT} shows none: this kernel does not keep it (CONFIG_SCHEDSTATS)")
# More VMs than these are not named one by one.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Vcpu:
    """A vCPU's thread: where it may run, and since its start: ns on a CPU, ns waiting for one, sleeps."""

    vcpu: int
    thread: int
    allowed: CpuMask
    ran_ns: Figure
    waited_ns: Figure
    sleeps: Figure
    partitioned: bool

    @property
    def pinned_to(self) -> int | None:
        """The physical CPU that it is bound to; None if it may run on several."""
        cpus = self.allowed.cpus
        return next(iter(cpus)) if len(cpus) == 1 else None


@dataclass(frozen=True)
class Vm:
    """A VM. `files` are those of its folder in KVM's debugfs, by their names: what features have there is
    theirs to understand. `unreadable` says of others there why they cannot be read.

    `hidden` says why processes, its VMM's or threads of it, cannot be read; `untold` why some of its vCPUs'
    threads cannot be told, for that or another reason. Both are clauses, empty if all is well.
    """

    folder: str
    name: str
    vcpus: Sequence[Vcpu]
    files: Mapping[str, str]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    hidden: str = ""
    untold: str = ""

    @property
    def process(self) -> str:
        """The process that has it, and maybe other VMs, whose vCPUs' threads are then the same."""
        return self.folder.partition("-")[0]

    def figure(self, file: str) -> Figure:
        """The number in one of the files."""
        if file in self.unreadable:
            return Unknown(f"{file} cannot be read: {self.unreadable[file]}")
        return _figure(self.files.get(file), file)


def vms(capture: Capture) -> Sequence[Vm]:
    """Return the VMs that a capture shows, in the order of their folders' names."""
    return capture.once(_vms)


def unseen(capture: Capture) -> str:
    """Return why VMs are not to be seen on a host, whether or not any run; nothing if they are."""
    if DEBUG not in capture.unreadable and KVM not in capture.unreadable:
        return ""
    if lacks_kvm(capture):
        return f"VMs cannot be seen: KVM is there, and {reason(capture, KVM, capture.unreadable[KVM])}"
    return "VMs cannot be seen without debugfs: run as root, with /sys/kernel/debug mounted"


def lacks_kvm(capture: Capture) -> bool:
    """Tell whether debugfs can be seen, and what KVM has there cannot."""
    return DEBUG not in capture.unreadable and capture.unreadable.get(KVM) == errno.ENOENT


def unread(machines: Sequence[Vm]) -> str:
    """Return which of these VMs, or their vCPUs' threads, cannot be read, and why; nothing if all can be."""
    found = []
    if closed := {vm.name: next(iter(vm.unreadable.values())) for vm in machines if vm.unreadable}:
        found.append(f"VMs cannot be read: {_each(closed)}")
    if hidden := {vm.name: vm.hidden for vm in machines if vm.hidden}:
        found.append(f"the vCPUs of VMs cannot be read: {_each(hidden)}")
    return "; ".join(found)


def untold(machines: Sequence[Vm]) -> str:
    """Return of which of these VMs not all vCPUs' threads can be told, and why; nothing if all can be."""
    told = {vm.name: vm.untold or _UNTOLD for vm in machines if vm.untold or not vm.vcpus}
    if not told:
        return ""
    vm = f"VM{'s' if len(told) > 1 else ''} {_some(told)}"
    return f"the threads of the vCPUs of {vm} cannot be told {next(iter(told.values()))}"


def doubt(capture: Capture) -> str:
    """Return why it cannot be told where all vCPUs of all VMs may run; nothing if it can."""
    machines = vms(capture)
    return unseen(capture) or unread(machines) or untold(machines)


def unowned(machines: Sequence[Vm]) -> dict[tuple[str, int], str]:
    """Return the vCPUs, by their VM's folder and their id, without a physical CPU of their own, and why."""
    # By thread: where one process has several VMs, its threads are among the vCPUs of each.
    threads = {vcpu.thread: vcpu.allowed for vm in machines for vcpu in vm.vcpus}
    takers = Counter(cpu for allowed in threads.values() for cpu in allowed.cpus)
    found = {}
    for vm in machines:
        for vcpu in vm.vcpus:
            pinned_to = vcpu.pinned_to
            if pinned_to is None:
                found[vm.folder, vcpu.vcpu] = f"is not pinned (CPUs {vcpu.allowed.to_list()})"
            elif takers[pinned_to] > 1:
                found[vm.folder, vcpu.vcpu] = f"shares CPU {pinned_to} with another vCPU"
    return found


@dataclass
class _Found:
    """What a capture has of VMs: files and errors by folder, threads and errors by VMM, names by VMM."""

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    threads: dict[int, dict[int, int]] = field(default_factory=dict)
    hidden: dict[int, str] = field(default_factory=dict)
    cut: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)


def _vms(capture: Capture) -> Sequence[Vm]:
    found = _find(capture)
    folders = sorted({*found.files, *found.unreadable})
    several = Counter(_vmm(folder) for folder in folders)
    return [_vm(capture, folder, found, alone=several[_vmm(folder)] == 1) for folder in folders]


def _find(capture: Capture) -> _Found:
    found = _Found()
    for path, text in capture.files.items():
        # There are many files, and matching takes its time.
        if path.startswith(KVM):
            if match := _FOLDER_FILE.fullmatch(path):
                found.files.setdefault(match[1], {})[match[2]] = text
        elif path.endswith("/comm"):
            if match := _COMM.fullmatch(path):
                _note_thread(found, int(match[1]), int(match[2]), text.strip())
        elif path.endswith(".pid") and (match := _VMM.fullmatch(path)) and is_count(text.strip()):
            found.names[int(text)] = match[1]
    for path, number in capture.unreadable.items():
        if match := _FOLDER_FILE.fullmatch(path):
            found.unreadable.setdefault(match[1], {})[match[2]] = reason(capture, path, number)
        elif match := _TASK.fullmatch(path):
            found.hidden[int(match[1])] = reason(capture, path, number)
    return found


def _note_thread(found: _Found, vmm: int, thread: int, comm: str) -> None:
    vcpu = vcpu_of(comm)
    if vcpu is not None:
        found.threads.setdefault(vmm, {})[thread] = vcpu
    elif is_cut(comm):
        found.cut.add(vmm)


def _vmm(folder: str) -> int:
    return int(folder.partition("-")[0])


def _vm(capture: Capture, folder: str, found: _Found, *, alone: bool) -> Vm:
    """The VM of a folder; `alone` is whether its process has no other."""
    vmm = _vmm(folder)
    name = found.names.get(vmm, f"of process {vmm}")
    vcpus = _vcpus(capture, vmm, found.threads.get(vmm, {}))
    hidden = found.hidden.get(vmm, "")
    untold = ""
    if hidden:
        untold = f"because {hidden}"
    elif vmm in found.cut:
        untold = "by their names, which are cut off"
    elif found.threads.get(vmm) and len(vcpus) < _living(capture, vmm, found.threads[vmm]):
        untold = "because what says where they may run is not understood"
    return Vm(
        folder=folder,
        name=name if alone else f"{name} ({folder})",
        vcpus=vcpus,
        files=found.files.get(folder, {}),
        unreadable=found.unreadable.get(folder, {}),
        hidden=hidden,
        untold=untold,
    )


def _living(capture: Capture, vmm: int, threads: Iterable[int]) -> int:
    """How many of the threads had not ended when they were looked at."""
    return sum(f"/proc/{vmm}/task/{thread}/status" in capture.files for thread in threads)


def _vcpus(capture: Capture, vmm: int, threads: Mapping[int, int]) -> list[Vcpu]:
    found = []
    partitioned: dict[str, bool] = {}
    files = capture.files
    for thread, vcpu in threads.items():
        folder = f"/proc/{vmm}/task/{thread}"
        status = dict(_STATUS.findall(files.get(f"{folder}/status", "")))
        try:
            allowed = _cpus(status["Cpus_allowed_list"])
        except (KeyError, ValueError):
            # Most likely it has ended meanwhile. To take it for one that may run anywhere would be wrong.
            continue
        if not allowed:
            continue
        ran, waited = _times(capture, f"{folder}/schedstat")
        group = files.get(f"{folder}/cgroup", "")
        if group not in partitioned:
            partitioned[group] = _partitioned(capture, group)
        found.append(
            Vcpu(
                vcpu=vcpu,
                thread=thread,
                allowed=allowed,
                ran_ns=ran,
                waited_ns=waited,
                sleeps=_figure(status.get("voluntary_ctxt_switches"), "its thread's count of sleeps"),
                partitioned=partitioned[group],
            )
        )
    return sorted(found, key=lambda one: one.vcpu)


@lru_cache(maxsize=4096)
def _cpus(text: str) -> CpuMask:
    return CpuMask.from_list(text)


def _times(capture: Capture, path: str) -> tuple[Figure, Figure]:
    """ns on a CPU, ns waiting for one (Documentation/scheduler/sched-stats.rst)."""
    text = capture.files.get(path)
    if text is None:
        number = capture.unreadable.get(path)
        why = f"{_SCHEDSTAT} cannot be read: {reason(capture, path, number)}" if number else ""
        missing = Unknown(why) if why else _NONE
        return missing, missing
    ran, waited, *_ = (*text.split(), "", "")
    times = _figure(ran, "its thread's time"), _figure(waited, "its thread's time of waiting")
    # No thread that there is has run for 0 ns.
    return times if times[0] != 0 else (_NOT_KEPT, _NOT_KEPT)


def _partitioned(capture: Capture, cgroup: str) -> bool:
    """Tell whether a thread's CPUs are kept from all that is not in its cpuset, or one around it."""
    group = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "")
    # "root invalid (...)" is a partition that is none.
    return any(capture.get(f"{CGROUPS}{one}/cpuset.cpus.partition") in PARTITIONS for one in and_above(group))


def _figure(text: str | None, what: str) -> Figure:
    if not text or not text.strip():
        return Unknown(f"{what} is missing")
    return int(text) if is_count(text.strip()) else Unknown(f"{what} is no number")


def _each(reasons: Mapping[str, str]) -> str:
    """Reasons, each once, and the VMs that they are of."""
    return f"{', '.join(dict.fromkeys(reasons.values()))} ({_some(reasons)})"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"
