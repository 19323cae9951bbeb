# SPDX-License-Identifier: Apache-2.0
"""The VMs of a host and where their vCPUs run, as KVM's debugfs, the VMMs' threads and libvirt tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import KVM, VCPU_THREAD, Capture

_FOLDER_FILE = re.compile(rf"{KVM}/((\d+)-\d+)/(\w+)")
_COMM = re.compile(r"/proc/(\d+)/task/(\d+)/comm")
_VMM = re.compile(r"/run/libvirt/qemu/([^/]+)\.pid")


@dataclass(frozen=True)
class Vcpu:
    """A vCPU's thread: where it may run, and since its start: ns on a CPU, ns waiting for one, sleeps."""

    vcpu: int
    thread: int
    allowed: CpuMask
    ran_ns: int
    waited_ns: int
    sleeps: int
    partitioned: bool

    @property
    def pinned_to(self) -> int | None:
        """The physical CPU that it is bound to; None if it may run on several."""
        return next(iter(self.allowed)) if len(self.allowed) == 1 else None


@dataclass(frozen=True)
class Vm:
    """A VM. `files` are those of its folder in KVM's debugfs, by their names: what features have there is
    theirs to understand."""

    folder: str
    name: str
    vcpus: Sequence[Vcpu]
    files: Mapping[str, str]

    def number(self, file: str) -> int:
        """The number in one of the files; 0 if there is none."""
        return _number(self.files.get(file))


def vms(capture: Capture) -> list[Vm]:
    """Return the VMs that a capture shows, in the order of their folders' names."""
    folders: dict[str, dict[str, str]] = {}
    for match, text in capture.matching(_FOLDER_FILE):
        folders.setdefault(match[1], {})[match[3]] = text
    names = _names(capture)
    threads: dict[int, dict[int, int]] = {}
    for match, name in capture.matching(_COMM):
        if thread := VCPU_THREAD.fullmatch(name.strip()):
            vcpu = int(next(number for number in thread.groups() if number is not None))
            threads.setdefault(int(match[1]), {})[int(match[2])] = vcpu
    return [_vm(capture, folder, files, names, threads) for folder, files in sorted(folders.items())]


def unowned(machines: Sequence[Vm]) -> dict[tuple[str, int], str]:
    """Return the vCPUs, by their VM's folder and their id, without a physical CPU of their own, and why."""
    # By thread: where one process has several VMs, its threads are among the vCPUs of each.
    threads = {vcpu.thread: vcpu.allowed for vm in machines for vcpu in vm.vcpus}
    takers = Counter(cpu for allowed in threads.values() for cpu in allowed)
    why = {}
    for vm in machines:
        for vcpu in vm.vcpus:
            if vcpu.pinned_to is None:
                why[vm.folder, vcpu.vcpu] = f"is not pinned (CPUs {vcpu.allowed.to_list()})"
            elif takers[vcpu.pinned_to] > 1:
                why[vm.folder, vcpu.vcpu] = f"shares CPU {vcpu.pinned_to} with another vCPU"
    return why


def _vm(
    capture: Capture,
    folder: str,
    files: Mapping[str, str],
    names: Mapping[int, str],
    threads: Mapping[int, Mapping[int, int]],
) -> Vm:
    vmm = int(folder.partition("-")[0])
    name = names.get(vmm, f"of process {vmm}")
    return Vm(folder, name, _vcpus(capture, vmm, threads.get(vmm, {})), files)


def _vcpus(capture: Capture, vmm: int, threads: Mapping[int, int]) -> list[Vcpu]:
    found = []
    for thread, vcpu in threads.items():
        folder = f"/proc/{vmm}/task/{thread}"
        status = dict(
            line.split(":", 1)
            for line in capture.files.get(f"{folder}/status", "").splitlines()
            if ":" in line
        )
        try:
            allowed = CpuMask.from_list(status["Cpus_allowed_list"])
        except (KeyError, ValueError):
            # Most likely it has ended meanwhile. To take it for one that may run anywhere would be wrong.
            continue
        # ns on a CPU, ns waiting for one, time slices (Documentation/scheduler/sched-stats.rst)
        ran, waited, *_ = (*capture.files.get(f"{folder}/schedstat", "").split(), "", "")
        found.append(
            Vcpu(
                vcpu=vcpu,
                thread=thread,
                allowed=allowed,
                ran_ns=_number(ran),
                waited_ns=_number(waited),
                sleeps=_number(status.get("voluntary_ctxt_switches")),
                partitioned=_partitioned(capture, capture.files.get(f"{folder}/cgroup", "")),
            )
        )
    return sorted(found, key=lambda one: one.vcpu)


def _partitioned(capture: Capture, cgroup: str) -> bool:
    """Tell whether a thread's CPUs are kept from all that is not in its cpuset, or one around it."""
    group = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "")
    while group not in ("", "/"):
        kind = capture.get(f"/sys/fs/cgroup{group}/cpuset.cpus.partition")
        # "root invalid (...)" is a partition that is none.
        if kind in ("root", "isolated"):
            return True
        group = group.rpartition("/")[0]
    return False


def _names(capture: Capture) -> dict[int, str]:
    """Return libvirt's names of VMs by their VMM's process."""
    return {_number(text): match[1] for match, text in capture.matching(_VMM)}


def _number(text: str | None) -> int:
    return int(text) if text and text.strip().isdecimal() else 0
