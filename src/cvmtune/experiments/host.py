# SPDX-License-Identifier: Apache-2.0
"""The host of a guest: what it counts, where the guest's vCPUs run on it, and KVM's own parameter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.observe.procfs import TICKS_PER_S, parse_table
from cvmtune.tuning.parameter import Nanoseconds

_KVM = "/sys/kernel/debug/kvm"


class HaltPoll(Nanoseconds):
    """How long KVM polls before it lets a vCPU's thread sleep (Documentation/virt/kvm/halt-polling.rst)."""

    path = "/sys/module/kvm/parameters/halt_poll_ns"
    noun = "bound of halt polling"
    missing = "this kernel is no host's: it has no KVM"


@dataclass(frozen=True)
class VmFile:
    """A file in a VM's folder in KVM's debugfs, a row a vCPU. An `optional` one not every VM has."""

    name: str
    optional: bool = False


@dataclass(frozen=True)
class VmStatistics:
    """What a host has counted of a VM: by the file's name and the vCPU, and its own /proc/interrupts.

    A file that this VM does not have is not among `files`.
    """

    files: Mapping[str, Mapping[int, Mapping[str, int]]]
    interrupts: str


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
        found = self.system.run(["sh", "-c", f"ls -d {self.vm_folders}"]).stdout.split()
        if len(found) != 1:
            raise CvmtuneError(f"the host has {len(found)} such folders, not 1", self.vm_folders)
        return found[0]

    @property
    def vm_folders(self) -> str:
        """A pattern for a shell that vm_folder() matches."""
        return f"{_KVM}/{self.vmm_pid}-*"

    def statistics(self, files: Sequence[VmFile]) -> VmStatistics:
        """What the host has counted so far, in these files of the guest's VM; CvmtuneError if one is missing
        that is not optional."""
        needed = [file.name for file in files if not file.optional]
        optional = [file.name for file in files if file.optional]
        # In one go, as each request takes its time, and makes exits.
        steps = [f"cat {name}" for name in (*needed, "/proc/interrupts")]
        steps += [f"if [ -e {name} ]; then cat {name}; fi" for name in optional]
        script = f"set -e; cd {self.vm_folders}; {'; echo; '.join(steps)}"
        texts = self.system.run(["sh", "-c", script]).check().stdout.split("\n\n")
        found = dict(zip((*needed, "", *optional), texts, strict=True))
        interrupts = found.pop("")
        return VmStatistics({name: _by_vcpu(text) for name, text in found.items() if text}, interrupts)

    @contextmanager
    def pinned(self, *, shared: bool = False) -> Iterator[None]:
        """Have vCPU n on physical CPU n, or all on 0; the VMM's other threads stay where they may be."""
        with ExitStack() as stack:
            for vcpu, thread in self.vcpu_threads().items():
                stack.callback(_pin, self.system, thread, affinity(self.system, thread))
                _pin(self.system, thread, "0" if shared else str(vcpu))
            yield


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
