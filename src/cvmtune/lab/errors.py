# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the lab: each error tells the cause, where its log is, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cvmtune.core.errors import CvmtuneError

# Lines of a build's log that tell why it failed: of compilers, make, and kbuild's own checks.
_CAUSE = re.compile(r"error:|\*\*\*|ERROR:|undefined reference|cannot |No space left", re.IGNORECASE)
_CAUSE_LINES = 10
_TAIL_LINES = 5


class LabError(CvmtuneError):
    """The lab could not do its work: nothing is known about what it was to show."""


class MissingTool(LabError):
    """Programs or files that the lab needs are not on this machine.

    `packages` has, for each, the Debian package that brings it.
    """

    def __init__(self, packages: Mapping[str, str]) -> None:
        install = " ".join(sorted(set(packages.values())))
        super().__init__(
            f"missing on this machine: {', '.join(packages)}", next_step=f"sudo apt-get install {install}"
        )
        self.packages = dict(packages)


class NoSpace(LabError):
    """The cache's file system has fewer free bytes than the work needs."""

    def __init__(self, path: Path, needed: int, available: int) -> None:
        super().__init__(
            f"no room: {_gigabytes(needed)} needed, {_gigabytes(available)} free",
            str(path),
            "free some, or set CVMTUNE_CACHE to a directory on a larger disk",
        )
        self.needed = needed
        self.available = available


class BuildFailed(LabError):
    """A build ended with an error. `log` has all of its output, the message the lines that tell why."""

    def __init__(self, what: str, log: Path) -> None:
        super().__init__("\n  ".join([what, *_causes(log)]), str(log), "the log has the whole output")
        self.log = log


class BadConfig(LabError):
    """The kernel's configuration has not become what a fragment asks for."""


class PatchDoesNotApply(LabError):
    """A patch of the queue does not fit the source. Nothing was changed by the attempt.

    `file` is the first source file in which a hunk did not fit, `output` what the tool said.
    """

    def __init__(self, patch: str, file: str, output: str, next_step: str) -> None:
        super().__init__("\n  ".join([f"{patch} does not apply", *output.splitlines()]), file, next_step)
        self.patch = patch
        self.file = file
        self.output = output


class GuestDied(LabError):
    """The emulator ended though nobody had told it to. `detail` is what else is known."""

    def __init__(self, machine: str, console: Path, detail: str = "") -> None:
        super().__init__(
            f"machine {machine} is gone" + (f": {detail}" if detail else ""),
            str(console),
            "read the end of its console",
        )
        self.console = console


class GuestPanicked(LabError):
    """The kernel of a machine gave up; its console tells why."""

    def __init__(self, machine: str, console: Path) -> None:
        super().__init__(
            f"the kernel of machine {machine} panicked",
            str(console),
            "the console has the registers and the call trace",
        )
        self.console = console


class GuestHung(LabError):
    """A machine has not answered within `deadline` seconds."""

    def __init__(self, machine: str, console: Path, deadline: float) -> None:
        super().__init__(
            f"machine {machine} has not answered for {deadline:g} s",
            str(console),
            "the console shows how far it got, and the file registers beside it where its CPUs are; a busy "
            "computer can be too slow: try again when it is idle",
        )
        self.console = console
        self.deadline = deadline


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _causes(log: Path) -> list[str]:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:  # the build failed before it wrote anything
        return []
    return [line for line in lines if _CAUSE.search(line)][-_CAUSE_LINES:] or lines[-_TAIL_LINES:]
