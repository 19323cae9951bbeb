# SPDX-License-Identifier: Apache-2.0
"""Fake kernels behind the System interface, with faults on demand, for tests of knobs that set one file."""

from __future__ import annotations

import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Literal, NoReturn, TypeVar

import pytest

from cvmtune.core.system import Completed, LocalSystem

When = Literal["before", "after"]
Value = TypeVar("Value")


class Crash(BaseException):
    """The tool is killed here: nothing may catch this and clean up."""


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# What fails, whether before or after it has had its effect, and for how many operations. Only some errors are
# told from each other, so one of them is tried for every span; and after a crash there is no next operation.
SWEEPS = [
    *(
        pytest.param(os_error(errno.EIO), when, lasting, id=f"EIO-{when}-{lasting}")
        for when in ("before", "after")
        for lasting in (1, 2, 3)
    ),
    pytest.param(os_error(errno.EPERM), "before", 1, id="EPERM-before-1"),
    pytest.param(os_error(errno.EPERM), "after", 2, id="EPERM-after-2"),
    pytest.param(os_error(errno.ENOENT), "before", 2, id="ENOENT-before-2"),
    pytest.param(os_error(errno.ENOENT), "after", 1, id="ENOENT-after-1"),
    pytest.param(os_error(errno.EINVAL), "before", 1, id="EINVAL-before-1"),
    pytest.param(Crash(), "before", 1, id="crash-before-1"),
    pytest.param(Crash(), "after", 1, id="crash-after-1"),
]


class FakeSystem(ABC, Generic[Value]):
    """A System over a tree of plain files in which one file, `path`, behaves as a control of the kernel does.

    Parsers and printers of its kinds are written from the kernel's documentation, not from our code, so that
    a mistake there cannot hide here.
    """

    def __init__(self, root: Path, path: str, value: Value) -> None:
        self.path = path
        self.operations: list[str] = []
        self.written: list[str] = []
        self.faults: dict[tuple[int, When], BaseException] = {}
        self.events: dict[int, Callable[[], None]] = {}
        self.override: str | None = None
        self._root = root
        self._local = LocalSystem(root)
        self._file = self._make(path, "")
        self._enforce(value)

    # What tests arrange

    def show(self, text: str) -> None:
        """Make the file read as this text, whatever it is."""
        self._file.write_text(text)

    def remove(self) -> None:
        """Let the file vanish, as with a kernel or module that has gone."""
        self._file.unlink()

    def fail(self, operation: int, error: BaseException, when: When = "before") -> None:
        """Raise `error` just before or just after an operation, numbered from 0 for the next one."""
        self.faults[len(self.operations) + operation, when] = error

    def meanwhile(self, operation: int, event: Callable[[], None]) -> None:
        """Let something happen just before an operation, numbered as in fail()."""
        self.events[len(self.operations) + operation] = event

    def take_instead(self, text: str) -> None:
        """Let the kernel take another value than the next one written, without saying so."""
        self.override = text

    # The System interface

    def read_text(self, path: str) -> str:
        number = self._begin(f"read {path}")
        text = self._local.read_text(path)
        self._raise_if_due(number, "after")
        return text

    def write_text(self, path: str, text: str) -> None:
        number = self._begin(f"write {path}")
        assert path == self.path, f"wrote {path}"
        self.written.append(text)
        value = self._parse(text)
        if self.override is not None:
            value, self.override = self._parse(self.override), None
        if not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._enforce(value)
        self._raise_if_due(number, "after")

    def exists(self, path: str) -> bool:
        number = self._begin(f"exists {path}")
        found = self._local.exists(path)
        self._raise_if_due(number, "after")
        return found

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise AssertionError(f"a knob ran a command: {argv}")

    def _begin(self, operation: str) -> int:
        self.operations.append(operation)
        number = len(self.operations) - 1
        self.events.pop(number, lambda: None)()
        self._raise_if_due(number, "before")
        return number

    def _raise_if_due(self, number: int, when: When) -> None:
        fault = self.faults.pop((number, when), None)
        if fault is not None:
            raise fault

    # The kernel's side

    @abstractmethod
    def _parse(self, text: str) -> Value:
        """Read a written text as the kernel does; fail the test on what a kernel must never be given."""

    @abstractmethod
    def _print(self, value: Value) -> str:
        """Return what the file reads as."""

    def _enforce(self, value: Value) -> None:
        self._value = value
        self._file.write_text(self._print(value))

    def _make(self, path: str, text: str) -> Path:
        file = self._root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


class FakeKernel(FakeSystem[set[int]]):
    """A kernel with a mask as wide as its possible CPUs: that of soft IPIs, or a vendor's of WFx traps.

    It fails the test on a mask that it cannot parse: real kernels may hang then.
    """

    def __init__(self, root: Path, path: str, width: int, possible: str) -> None:
        self.width = width
        super().__init__(root, path, set())
        self.possible_file = self._make("/sys/devices/system/cpu/possible", f"{possible}\n")

    @property
    def cpus(self) -> set[int]:
        """The CPUs, or vCPUs, whose bit is set."""
        return self._value

    @cpus.setter
    def cpus(self, cpus: set[int]) -> None:
        self._enforce(cpus)

    def _parse(self, text: str) -> set[int]:
        """As bitmap_parse(), except that an empty text is not let pass as the empty mask."""
        groups = text.split("\n")[0].replace(",", " ").split()
        if not groups:
            self._refuse(errno.EINVAL, f"{text!r} has no group")
        if len(groups) > (self.width + 31) // 32:
            self._refuse(errno.EOVERFLOW, f"{text!r} has {len(groups)} groups")
        value = 0
        for group in groups:
            if set(group) - set("0123456789abcdefABCDEF"):
                self._refuse(errno.EINVAL, f"{text!r} has group {group!r}")
            if len(group) > 8:
                self._refuse(errno.EOVERFLOW, f"{text!r} has group {group!r}")
            value = (value << 32) + int(group, 16)
        if value >> self.width:
            self._refuse(errno.EOVERFLOW, f"{text!r} has more than {self.width} bits")
        return {cpu for cpu in range(self.width) if value >> cpu & 1}

    def _refuse(self, number: int, why: str) -> NoReturn:
        pytest.fail(f"a kernel would not take this: {why}")

    def _print(self, cpus: set[int]) -> str:
        """As "%*pb\\n" with the width of the machine: zero groups and leading zeros included."""
        groups: list[str] = []
        for low in range(0, self.width, 32):
            bits = min(32, self.width - low)
            value = sum(1 << cpu - low for cpu in cpus if low <= cpu < low + bits)
            groups.insert(0, f"{value:0{(bits + 3) // 4}x}")
        return ",".join(groups) + "\n"


class WfxKernel(FakeKernel):
    """Mainline with our control of WFx traps: a mask of 512 vCPU ids on a machine of any width.

    It refuses a bad mask.
    """

    def __init__(self, root: Path, path: str, width: int, possible: str) -> None:
        super().__init__(root, path, 512, possible)
        self.guard_file = self._make("/sys/module/kvm/parameters/wfx_guard", "N\n")

    def _parse(self, text: str) -> set[int]:
        if "\n" in text.removesuffix("\n"):
            self._refuse(errno.EINVAL, f"{text!r} has more than one line")
        return super()._parse(text)

    def _refuse(self, number: int, why: str) -> NoReturn:
        raise os_error(number)

    def _print(self, cpus: set[int]) -> str:
        """As many groups as the highest id needs, at least one, each of 8 digits."""
        groups = range(max(cpus, default=0) // 32, -1, -1)
        return ",".join(f"{sum(1 << cpu % 32 for cpu in cpus if cpu // 32 == n):08x}" for n in groups) + "\n"


class CqPollKernel(FakeSystem[int]):
    """A kernel of CPUs 0-3 with a CPU that polls completion queues, -1 being none: mainline's, or a vendor's.

    The vendor's fails the test on what it must not be given: garbage, a CPU that is offline, which it would
    take, and -1 while NFS is mounted over RDMA, whose I/O would hang.
    """

    def __init__(self, root: Path, path: str, vendor: bool) -> None:
        self.vendor = vendor
        self.rdma_mounts: set[str] = set()
        super().__init__(root, path, -1)
        self.online = {0, 1, 2, 3}
        self.online_file = self._make("/sys/devices/system/cpu/online", "0-3\n")
        self.mounts_file = self._make("/proc/mounts", "/dev/vda / ext4 rw,relatime 0 0\n")

    @property
    def cpu(self) -> int:
        """The CPU that polls."""
        return self._value

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        self._enforce(cpu)

    def take_offline(self, cpu: int) -> None:
        """Mainline's polling ends then; the vendor's goes on elsewhere and shows the CPU as before."""
        self.online.remove(cpu)
        self.online_file.write_text(",".join(map(str, sorted(self.online))) + "\n")
        if self.cpu == cpu and not self.vendor:
            self.cpu = -1

    def mount(self, point: str = "/mnt", proto: str = "rdma", filesystem: str = "nfs4") -> None:
        """Mount NFS, or another file system with the same options, as show_vfsmnt() would show it."""
        options = f"rw,relatime,vers=4.2,rsize=1048576,hard,proto={proto},nconnect=2,port=20049,addr=10.0.0.1"
        with self.mounts_file.open("a") as file:
            file.write(f"10.0.0.1:/export {point} {filesystem} {options} 0 0\n")
        if filesystem in ("nfs", "nfs4") and proto in ("rdma", "rdma6"):
            self.rdma_mounts.add(point)

    def _parse(self, text: str) -> int:
        """As kstrtoint(), and then as either kernel's interface says."""
        if not re.fullmatch(r"[-+]?[0-9]+\n?", text):
            self._refuse(errno.EINVAL, f"{text!r} is no number")
        cpu = int(text)
        if cpu not in range(-1, 4):
            self._refuse(errno.EINVAL, f"there can be no CPU {cpu}")
        if cpu != -1 and cpu not in self.online:
            self._refuse(errno.ENODEV, f"CPU {cpu} is offline")
        if self.vendor and cpu == -1 and self.rdma_mounts:
            pytest.fail(f"I/O hangs on {self.rdma_mounts}")
        return cpu

    def _refuse(self, number: int, why: str) -> NoReturn:
        if self.vendor:
            pytest.fail(why)
        raise os_error(number)

    def _print(self, cpu: int) -> str:
        if not self.vendor:
            return f"{cpu}\n"
        return "Current polling thread is down\n" if cpu == -1 else f"Current polling core is: {cpu}\n"


BootKernel = Callable[..., FakeKernel]
