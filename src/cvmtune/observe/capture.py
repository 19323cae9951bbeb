# SPDX-License-Identifier: Apache-2.0
"""Reading all that tells what a machine is and does, as text by path, at one moment.

What a file says is understood elsewhere, so a captured machine can be kept and looked at anew. None of these
files holds a user's data or a command line of a process; the kernel's own command line is among them.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from cvmtune.core.system import Readable
from cvmtune.observe.vmm import is_cut, vcpu_of

DEBUG = "/sys/kernel/debug"
KVM = f"{DEBUG}/kvm"
KVM_DEVICE = "/sys/class/misc/kvm/dev"
# A VM's folder is named after a thread of its VMM and the VM's file there.
VM_FOLDERS = f"{KVM}/*-*"
CPUS = "/sys/devices/system/cpu"
CGROUPS = "/sys/fs/cgroup"

# A star stands for one name or part of it. What is not there is left out.
_ALWAYS = (
    "/proc/uptime",
    "/proc/stat",
    "/proc/interrupts",
    "/proc/softirqs",
    "/proc/cmdline",
    "/proc/mounts",
    "/proc/fs/nfsd/portlist",
    "/proc/self/mountinfo",
    "/proc/1/cgroup",
    "/proc/2/comm",
    "/run/systemd/container",
    "/run/.containerenv",
    "/.dockerenv",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/random/boot_id",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/product_family",
    "/sys/class/dmi/id/product_version",
    "/proc/device-tree/compatible",
    "/proc/device-tree/hypervisor*/compatible",
    "/proc/device-tree/fw-cfg*/compatible",
    "/sys/hypervisor/type",
    "/proc/xen/capabilities",
    *(
        f"/sys/bus/acpi/devices/{name}*/hid"
        for name in ("QEMU", "VMBUS", "MSFT1000", "VMGENCTR", "XEN", "VMW")
    ),
    "/sys/class/ptp/*/clock_name",
    KVM_DEVICE,
    "/sys/class/misc/tsi/dev",
    "/sys/devices/platform/arm-cca-dev/uevent",
    "/sys/devices/faux/arm-*-dev/uevent",
    "/sys/bus/platform/devices/arm-*-dev/uevent",
    "/sys/bus/platform/drivers/arm*cca*guest/arm-*-dev/uevent",
    "/sys/bus/auxiliary/devices/arm_cca_guest.*/uevent",
    "/sys/devices/platform/arm*smccc*/arm_cca_guest.*/uevent",
    "/sys/kernel/security/lockdown",
    f"{CPUS}/online",
    f"{CPUS}/possible",
    f"{CPUS}/isolated",
    f"{CPUS}/nohz_full",
    f"{CGROUPS}/cpuset.cpus.isolated",
    f"{CGROUPS}/cpuset.cpus.effective",
    f"{CPUS}/hotplug/states",
    f"{CPUS}/cpu*/cpuidle/state*/name",
    f"{CPUS}/cpu*/cpuidle/state*/disable",
)
# Of hosts.
_VM = (
    f"{VM_FOLDERS}/exits",
    f"{VM_FOLDERS}/wfi_exit_stat",
    f"{VM_FOLDERS}/wfe_exit_stat",
)
# What a load is measured by. Some devices ask their firmware for these, so whoever must be quick leaves them.
_LOAD = (
    "/proc/self/mountstats",
    "/proc/net/rpc/nfsd",
    f"{CPUS}/cpu*/topology/thread_siblings_list",
    "/sys/devices/system/node/node*/cpulist",
    "/sys/class/infiniband/*/device/numa_node",
    "/sys/class/infiniband/*/ports/*/hw_counters/*",
    "/sys/class/infiniband/*/ports/*/counters/port_*_packets",
)
# What goes on while one looks at it: what reread() reads. The time is first.
_MOVING = ("/proc/uptime", "/proc/stat", "/proc/interrupts")
# cpusets at the top, where CPUs are kept from others for; VMs' own are looked up by their threads.
_CPUSETS = (CGROUPS, f"{CGROUPS}/*")
# The number of each VMM, by its VM's name. The VMs' state files beside them hold passwords.
_LIBVIRT = "/run/libvirt/qemu/*.pid"
# What a cpuset is that keeps its CPUs to itself (admin-guide/cgroup-v2.rst).
PARTITIONS = ("root", "isolated")
_VM_FOLDER = re.compile(r"(\d+)-\d+")
Made = TypeVar("Made")
_CGROUP_V2 = re.compile(r"^0::(/.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Capture:
    """The files of a machine, and those that are there but could not be read, with the error's number.

    Of debugfs, of KVM's part of it and of the threads of a VMM it is told too if they are not there.
    `earlier` is the same machine some time before, where it was looked at twice.
    """

    files: Mapping[str, str]
    unreadable: Mapping[str, int] = field(default_factory=dict)
    earlier: Capture | None = None

    def get(self, path: str) -> str | None:
        """The text of a file without what surrounds it; None if it is not there."""
        text = self.files.get(path)
        return None if text is None else text.strip()

    def has(self, path: str) -> bool:
        """Tell whether a file is there, read or not."""
        return path in self.files or path in self.unreadable

    def why_not(self, path: str) -> str:
        """Why a file does not tell what it should, as a clause."""
        if number := self.unreadable.get(path):
            return f"{path} cannot be read ({os.strerror(number)})"
        return f"{path} does not show it" if self.get(path) else f"{path} is empty or not there"

    def once(self, understand: Callable[[Capture], Made]) -> Made:
        """What a function makes of this capture. It is called once, whoever asks."""
        if understand not in self._made:
            self._made[understand] = understand(self)
        made: Made = self._made[understand]
        return made

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], str]]:
        """The files whose whole path the pattern matches, with their text."""
        for path, text in self.files.items():
            if match := pattern.fullmatch(path):
                yield match, text


def capture(tree: Readable, patterns: Sequence[str] = (), *, load: bool = True) -> Capture:
    """Read a machine's files; `patterns` are those of features, in which a star stands as above. `load`
    includes those that only tell how busy RDMA and NFS are."""
    reader = _Reader(tree)
    for pattern in (*_ALWAYS, *patterns, *_VM, *(_LOAD if load else ())):
        reader.read_matching(pattern)
    if not reader.names(DEBUG):
        # Not mounted: to who looks for VMs and statistics that is no better than forbidden.
        reader.unreadable.setdefault(DEBUG, errno.ENOENT)
    elif not reader.names(KVM) and reader.knows(KVM_DEVICE):
        # KVM has files of its own there whether or not a VM runs: this is a part of debugfs.
        reader.unreadable.setdefault(KVM, errno.ENOENT)
    vmms = {int(match[1]): name for name in reader.names(KVM) if (match := _VM_FOLDER.fullmatch(name))}
    for vmm, folder in vmms.items():
        reader.read_vcpus(vmm, f"{KVM}/{folder}", load=load)
    reader.read_matching(_LIBVIRT)
    for pattern in _CPUSETS:
        reader.read_partitions(pattern)
    return Capture(reader.files, reader.unreadable)


def and_above(group: str) -> Iterator[str]:
    """A cgroup and those above it but the root: a partition is a group's own or that of one of these
    (admin-guide/cgroup-v2.rst)."""
    while group not in ("", "/"):
        yield group
        group = group.rpartition("/")[0]


def reread(tree: Readable, seen: Capture) -> Capture:
    """Read anew what goes on, some time after `seen`, which becomes the new capture's `earlier`."""
    reader = _Reader(tree)
    for path in _MOVING:
        reader.read(path)
    files = {path: text for path, text in seen.files.items() if path not in _MOVING}
    unreadable = {path: number for path, number in seen.unreadable.items() if path not in _MOVING}
    return replace(seen, files=files | reader.files, unreadable=unreadable | reader.unreadable, earlier=seen)


class _Reader:
    """Reads what is there, and remembers what it may not read."""

    def __init__(self, tree: Readable) -> None:
        self._tree = tree
        self.files: dict[str, str] = {}
        self.unreadable: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self._absent: set[str] = set()
        self._groups: set[str] = set()

    def names(self, directory: str) -> list[str]:
        """The names in a directory; none if there is no such directory, or it may not be seen."""
        if directory not in self._names:
            try:
                self._names[directory] = self._tree.list(directory)
            except OSError as error:
                self._names[directory] = []
                if isinstance(error, FileNotFoundError):
                    self._absent.add(directory)
                self._note(directory, error)
        return self._names[directory]

    def knows(self, path: str) -> bool:
        """Tell whether a file that was looked for is there, read or not."""
        return path in self.files or path in self.unreadable

    def read(self, path: str) -> str | None:
        try:
            self.files[path] = self._tree.read_text(path)
        except OSError as error:
            self._note(path, error)
        return self.files.get(path)

    def read_matching(self, pattern: str) -> None:
        for path in self._expand(pattern):
            self.read(path)

    def read_vcpus(self, vmm: int, folder: str, *, load: bool) -> None:
        """Read of a VMM what tells where the vCPUs of its VM in `folder` may run, and for a load how they got
        on."""
        tasks = f"/proc/{vmm}/task"
        threads = self.names(tasks)
        if tasks in self._absent and self._is_still_there(folder):
            # To who looks for its vCPUs a process that is hidden is no better than one that is forbidden.
            self.unreadable[tasks] = errno.ENOENT
        for thread in threads:
            path = f"{tasks}/{thread}"
            name = (self.read(f"{path}/comm") or "").strip()
            if vcpu_of(name) is None:
                if not is_cut(name):
                    self.files.pop(f"{path}/comm", None)
                continue
            self.read(f"{path}/status")
            if not load:
                continue
            self.read(f"{path}/schedstat")
            if found := _CGROUP_V2.search(self.read(f"{path}/cgroup") or ""):
                self._read_cpuset(found[1])

    def _is_still_there(self, directory: str) -> bool:
        try:
            return bool(self._tree.list(directory))
        except OSError:
            return False

    def _read_cpuset(self, group: str) -> None:
        for one in and_above(group):
            if one in self._groups:
                break
            self._groups.add(one)
            self.read(f"{CGROUPS}{one}/cpuset.cpus.partition")

    def read_partitions(self, parent: str) -> None:
        """Read of the cpusets in a directory which CPUs they keep to themselves, where they do."""
        for path in self._expand(f"{parent}/*/cpuset.cpus.partition"):
            # Those of VMs, of which "member" tells something, have been read.
            if path.removeprefix(CGROUPS).rpartition("/")[0] in self._groups:
                kind = self.files.get(path)
            elif (kind := self.read(path)) is not None and kind.strip() not in PARTITIONS:
                del self.files[path]
            if (kind or "").strip() in PARTITIONS:
                self.read(f"{path.rpartition('/')[0]}/cpuset.cpus.effective")

    def _note(self, path: str, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, ProcessLookupError)):
            self.unreadable[path] = error.errno or errno.EIO

    def _expand(self, pattern: str) -> list[str]:
        paths = [""]
        for part in pattern.strip("/").split("/"):
            if "*" in part:
                paths = [
                    f"{path}/{name}" for path in paths for name in fnmatch.filter(self.names(path), part)
                ]
            else:
                paths = [f"{path}/{part}" for path in paths]
        return paths
