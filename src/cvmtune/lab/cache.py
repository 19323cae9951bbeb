# SPDX-License-Identifier: Apache-2.0
"""The lab's store on disk: results kept under what they were made from, and the directories work is done in.

Layout: ROOT/KIND/KEY/ holds one result, ROOT/NAME/ a working directory, ROOT/locks/ a lock file for each.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cvmtune.lab.errors import LabError, NoSpace

_LOCKS = "locks"
_ASIDE = ".filling-"
_KEY_FILE = "key.json"
_KEY_DIGITS = 16


def default_root() -> Path:
    """Return $CVMTUNE_CACHE, else cvmtune/ in $XDG_CACHE_HOME, else ~/.cache/cvmtune."""
    if chosen := os.environ.get("CVMTUNE_CACHE"):
        return Path(chosen).absolute()
    # By the XDG base directory specification a relative path counts as not set.
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "cvmtune"


def key_of(material: Mapping[str, str]) -> str:
    """Return the name under which what is made from `material` is kept."""
    return hashlib.sha256(_readable(material).encode()).hexdigest()[:_KEY_DIGITS]


class Cache:
    """A store that several processes may use at a time."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def get_or_fill(
        self, kind: str, material: Mapping[str, str], fill: Callable[[Path], None], *, needs: int = 0
    ) -> Path:
        """Return the directory of the result made from `material`, after making it if it is not there.

        `fill` gets an empty directory, which takes its place in the store only when `fill` has returned. If
        `fill` raises, what it wrote stays to be looked at until the next result of this kind is made.

        `material` is kept with the result, in key.json. Raises NoSpace with fewer than `needs` bytes free.
        One process at a time makes results of a kind; others wait for it.
        """
        entry = self.root / kind / key_of(material)
        if entry.is_dir():
            return entry
        with self.lock(kind):
            if entry.is_dir():  # made by another process while we waited
                return entry
            for leftover in entry.parent.glob(f"{_ASIDE}*"):
                shutil.rmtree(leftover)
            self.check_space(needs)
            aside = entry.with_name(_ASIDE + entry.name)
            aside.mkdir(parents=True)
            fill(aside)
            (aside / _KEY_FILE).write_text(_readable(material))
            aside.rename(entry)
        return entry

    def find(self, kind: str, material: Mapping[str, str]) -> Path | None:
        """Return the directory of the result made from `material`, or None if it is not there."""
        entry = self.root / kind / key_of(material)
        return entry if entry.is_dir() else None

    def directory(self, name: str) -> Path:
        """Return the working directory of that name; who works in it holds lock(name) if others must not."""
        self._lock_file(name).touch()
        directory = self.root / name
        directory.mkdir(exist_ok=True)
        return directory

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Wait for the lock and hold it. It ends with the process, however that ends. Not reentrant."""
        with self._lock_file(name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check_space(self, needed: int) -> None:
        """Raise NoSpace if fewer than `needed` bytes are free."""
        available = shutil.disk_usage(self.root).free
        if available < needed:
            raise NoSpace(self.root, needed, available)

    def sizes(self) -> dict[str, int]:
        """Return the bytes that each kind of result and each working directory takes on disk."""
        return {name: _disk_usage(self.root / name) for name in self._names()}

    def clean(self, name: str | None = None) -> None:
        """Remove all results of a kind or a working directory; without `name`, all of them."""
        for each in self._names():
            if name in (None, each):
                with self.lock(each):
                    if (self.root / each).exists():
                        shutil.rmtree(self.root / each)

    def _lock_file(self, name: str) -> Path:
        locks = self.root / _LOCKS
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(
                f"the cache cannot be used: {error.strerror}",
                str(self.root),
                "set CVMTUNE_CACHE to a directory of yours",
            ) from error
        return locks / name

    def _names(self) -> list[str]:
        # Only what this class made: the root may be a directory that holds other things too.
        locks = self.root / _LOCKS
        return sorted(lock.name for lock in locks.iterdir()) if locks.is_dir() else []


def _readable(material: Mapping[str, str]) -> str:
    return json.dumps(dict(material), indent=1, sort_keys=True) + "\n"


def _disk_usage(top: Path) -> int:
    # Blocks, not sizes: disk images are sparse. A file that two trees share counts by half for each.
    found = (
        os.lstat(os.path.join(directory, file)) for directory, _, files in os.walk(top) for file in files
    )
    return sum(status.st_blocks * 512 // status.st_nlink for status in found)
