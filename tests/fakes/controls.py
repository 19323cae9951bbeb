# SPDX-License-Identifier: Apache-2.0
"""A fake machine with all controls at once, of a kernel with our patches, and faults at any operation."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cvmtune.core.system import Completed, LocalSystem
from tests.fakes.kernel import CqPollKernel, FakeKernel, FakeSystem, WfxKernel, When, os_error

IPI_POLL_US = "/sys/module/soft_ipi/parameters/poll_us"
IPI = "/sys/kernel/soft_ipi_passthrough"
CQ_IDLE_US = "/sys/module/ib_core_cq_poll/parameters/idle_us"
CQ_POLL = "/sys/kernel/ib_core_poll_cpu"
WFX_GUARD = "/sys/module/kvm/parameters/wfx_guard"
WFX = "/sys/kernel/cvm_wfx_trap_config"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
FIRST_BOOT = "b0000000-0000-4000-8000-000000000001"
NEXT_BOOT = "b0000000-0000-4000-8000-000000000002"
RELEASE = "/proc/sys/kernel/osrelease"


class UintKernel(FakeSystem[int]):
    """A kernel with a module parameter of type uint."""

    def _parse(self, text: str) -> int:
        """As kstrtouint() with base 0, except that an octal fails the test: nobody would have meant it."""
        assert not re.match(r"\+?0[0-7]", text), f"{text!r} is octal"
        match = re.fullmatch(r"\+?(?:0[xX]([0-9a-fA-F]+)|([0-9]+))\n?", text)
        if match is None:
            raise os_error(errno.EINVAL)
        value = int(match[1], 16) if match[1] else int(match[2])
        if value >= 1 << 32:
            raise os_error(errno.ERANGE)
        return value

    def _print(self, value: int) -> str:
        return f"{value}\n"


class BoolKernel(FakeSystem[bool]):
    """A kernel with a module parameter of type bool."""

    def _parse(self, text: str) -> bool:
        """As kstrtobool(), which looks at the first character, and after an "o" at the next."""
        match = re.match(r"[yYtT1]|[nNfF0]|[oO][nNfF]", text)
        if match is None:
            raise os_error(errno.EINVAL)
        return match[0] in ("y", "Y", "t", "T", "1") or match[0][1:] in ("n", "N")

    def _print(self, value: bool) -> str:
        return "Y\n" if value else "N\n"


class Controls:
    """The System: CPUs 0-3, all online. Operations are numbered from 0, and any of them can be made to fail.

    `files` are the kernels behind the controls, by path; each fails the test on what it must not be given.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._local = LocalSystem(root)
        self.files: dict[str, FakeSystem[Any]] = {
            IPI_POLL_US: UintKernel(root, IPI_POLL_US, 0),
            IPI: FakeKernel(root, IPI, 4, "0-3"),
            CQ_IDLE_US: UintKernel(root, CQ_IDLE_US, 1000),
            CQ_POLL: CqPollKernel(root, CQ_POLL, vendor=False),
            WFX: WfxKernel(root, WFX, 4, "0-3"),
            WFX_GUARD: BoolKernel(root, WFX_GUARD, False),
        }
        self.operations = 0
        self.written: list[tuple[str, str]] = []
        self.faults: dict[tuple[int, When], BaseException] = {}
        self.restart()

    def restart(self, boot_id: str = FIRST_BOOT, release: str = "6.12.0") -> None:
        """Begin another boot, of which only the names are others."""
        for path, text in ((BOOT_ID, boot_id), (RELEASE, release)):
            file = self.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    def show(self) -> dict[str, str]:
        """Return what each control that is there reads as."""
        return {path: self._local.read_text(path) for path in self.files if self._local.exists(path)}

    def fail(self, operation: int, error: BaseException, when: When = "before") -> None:
        """Raise `error` just before or just after an operation."""
        self.faults[operation, when] = error

    def read_text(self, path: str) -> str:
        with self._operation():
            return self._local.read_text(path)

    def write_text(self, path: str, text: str) -> None:
        with self._operation():
            self.written.append((path, text))
            self.files[path].write_text(path, text)

    def exists(self, path: str) -> bool:
        with self._operation():
            return self._local.exists(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise AssertionError(f"a knob ran a command: {argv}")

    @contextmanager
    def _operation(self) -> Iterator[None]:
        number, self.operations = self.operations, self.operations + 1
        self._raise_if_due(number, "before")
        yield
        self._raise_if_due(number, "after")

    def _raise_if_due(self, number: int, when: When) -> None:
        if (number, when) in self.faults:
            raise self.faults.pop((number, when))
