# SPDX-License-Identifier: Apache-2.0
"""A fake kernel behind the System interface, with faults on demand, for tests of knobs that set a mask."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from cvmtune.core.system import Completed, LocalSystem

When = Literal["before", "after"]


class FakeKernel:
    """A System over a tree of plain files in which one file, `path`, behaves as a kernel's CPU mask does.

    Its parser and printer are written from the kernel's documentation, not from CpuMask, so that a mistake
    there cannot hide here. A write that it cannot parse fails the test on the spot: real kernels may hang on
    one.
    """

    def __init__(self, root: Path, path: str, width: int, possible: str) -> None:
        self.path = path
        self.width = width
        self.operations: list[str] = []
        self.written: list[str] = []
        self.faults: dict[tuple[int, When], BaseException] = {}
        self.override: str | None = None
        self._local = LocalSystem(root)
        self._file = root / path.lstrip("/")
        self._file.parent.mkdir(parents=True)
        self._file.write_text(self._print(set()))
        self.possible_file = root / "sys/devices/system/cpu/possible"
        self.possible_file.parent.mkdir(parents=True)
        self.possible_file.write_text(f"{possible}\n")

    # What tests look at and arrange

    @property
    def cpus(self) -> set[int]:
        """The CPUs whose bit is set."""
        return self._parse(self._file.read_text())

    @cpus.setter
    def cpus(self, cpus: set[int]) -> None:
        self._file.write_text(self._print(cpus))

    def show(self, text: str) -> None:
        """Make the file read as this text, whatever it is."""
        self._file.write_text(text)

    def remove(self) -> None:
        """Let the file vanish, as with a kernel or module that has gone."""
        self._file.unlink()

    def fail(self, operation: int, error: BaseException, when: When = "before") -> None:
        """Raise `error` just before or just after an operation, numbered from 0 for the next one."""
        self.faults[len(self.operations) + operation, when] = error

    def take_instead(self, text: str) -> None:
        """Let the kernel take another mask than the next one written, without saying so."""
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
        cpus = self._parse(text)
        if self.override is not None:
            cpus, self.override = self._parse(self.override), None
        if not self._file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.cpus = cpus
        self._raise_if_due(number, "after")

    def exists(self, path: str) -> bool:
        return self._local.exists(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise AssertionError(f"a knob ran a command: {argv}")

    def _begin(self, operation: str) -> int:
        self.operations.append(operation)
        number = len(self.operations) - 1
        self._raise_if_due(number, "before")
        return number

    def _raise_if_due(self, number: int, when: When) -> None:
        fault = self.faults.pop((number, when), None)
        if fault is not None:
            raise fault

    # The kernel's mask format

    def _parse(self, text: str) -> set[int]:
        """As bitmap_parse(), except that an empty text is not let pass as the empty mask."""
        groups = text.split("\n")[0].replace(",", " ").split()
        if not groups or len(groups) > (self.width + 31) // 32:
            pytest.fail(f"a kernel would not take {text!r}: {len(groups)} groups")
        value = 0
        for group in groups:
            if len(group) > 8 or set(group) - set("0123456789abcdefABCDEF"):
                pytest.fail(f"a kernel would not take {text!r}: group {group!r}")
            value = (value << 32) + int(group, 16)
        if value >> self.width:
            pytest.fail(f"a kernel would not take {text!r}: more than {self.width} CPUs")
        return {cpu for cpu in range(self.width) if value >> cpu & 1}

    def _print(self, cpus: set[int]) -> str:
        """As "%*pb\\n" with the width of the machine: zero groups and leading zeros included."""
        groups: list[str] = []
        for low in range(0, self.width, 32):
            bits = min(32, self.width - low)
            value = sum(1 << cpu - low for cpu in cpus if low <= cpu < low + bits)
            groups.insert(0, f"{value:0{(bits + 3) // 4}x}")
        return ",".join(groups) + "\n"


BootKernel = Callable[..., FakeKernel]
