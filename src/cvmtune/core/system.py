# SPDX-License-Identifier: Apache-2.0
"""The machine that knobs and experiments act on: this one, or any that offers the same few operations."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cvmtune.core import command
from cvmtune.core.command import Completed

__all__ = ["Completed", "LocalSystem", "Readable", "System"]


class System(Protocol):
    """A machine. Paths are absolute, as it sees them; file operations raise OSError with its errno."""

    def read_text(self, path: str) -> str:
        """Return the whole content of a file; bytes that are not UTF-8 come as U+FFFD."""

    def write_text(self, path: str, text: str) -> None:
        """Hand `text` to an existing file in one write(2), as a sysfs file takes a value."""

    def exists(self, path: str) -> bool:
        """Tell whether the path names anything."""

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        """Run a command to its end; CvmtuneError if it cannot start or outlives `timeout` seconds."""


class Readable(Protocol):
    """What it takes to look at a machine and change nothing; paths and errors as with System."""

    def read_text(self, path: str) -> str:
        """Return the whole content of a file; bytes that are not UTF-8 come as U+FFFD."""

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""


@dataclass(frozen=True)
class LocalSystem:
    """This machine. `root` stands in for "/" in file operations, not in commands."""

    root: Path = Path("/")

    def read_text(self, path: str) -> str:
        # Of a host with many VMs some ten thousand files are read: pathlib, and buffers, would be most of it.
        with open(f"{self.root}/{path.lstrip('/')}", "rb", buffering=0) as file:
            text = file.readall().decode("utf-8", errors="replace")
        # Lines end as in a file that is opened as text.
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def write_text(self, path: str, text: str) -> None:
        """Write as System says; a symlink anywhere in the path gives ELOOP or ENOTDIR, a short write EIO.

        A file of sysfs acts on every write, so the rest of a short write must not be sent after it: it would
        be taken for a value of its own. There being neither creation nor truncation, a mistaken path makes no
        file and empties none.
        """
        data = text.encode()
        descriptor = self._open_without_links(path)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, f"short write, {written} of {len(data)} bytes", path)

    def exists(self, path: str) -> bool:
        return self._locate(path).exists()

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self._locate(path)))

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        return command.run(argv, timeout=timeout, input=input)

    def _locate(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _open_without_links(self, path: str) -> int:
        """Open a file for writing, going down from the root one directory at a time."""
        *directories, name = path.strip("/").split("/")
        at = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        try:
            for directory in directories:
                below = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            return os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=at)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(at)
