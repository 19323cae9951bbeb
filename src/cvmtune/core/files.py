# SPDX-License-Identifier: Apache-2.0
"""Files: written whole or not at all, and read only if nobody but root, or who runs this, decides what they
say."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from cvmtune.core.errors import CvmtuneError

MAX_BYTES = 1 << 20


def write_whole(path: Path, text: str, *, mode: int = 0o666, sync: bool = False) -> None:
    """Put a file in place, whole or not at all, in place of an older one.

    The text, as UTF-8, is written to a new file beside it, which nobody else can have prepared; that file
    then takes the place. A symlink at `path` is replaced and not followed. The umask takes its bits from
    `mode`. With `sync`, no power cut can undo it when this returns.

    Raises OSError; what was there is untouched then, unless it was the directory that could not be synced.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    aside = aside_of(path)
    with suppress(FileNotFoundError):
        aside.unlink()  # of a process that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(aside, flags, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if sync:
        _sync_directory(path.parent)


def aside_of(path: Path) -> Path:
    """Return the file that write_whole() fills first; a process that was killed may have left it."""
    return path.with_name(f".{path.name}.new")


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def owned_by_us(info: os.stat_result) -> bool:
    """Whether root or the effective user owns a file: so nobody else may change its mode."""
    return info.st_uid in (0, os.geteuid())


def read_trusted(path: Path) -> str:
    """Return the text of a file, if it is one to trust.

    It must be a regular file of at most MAX_BYTES, UTF-8, owned by root or the effective user, and writable
    neither by others nor by a group other than root's; nor may its directory be, unless it is sticky. Access
    control lists are seen as far as the mode shows them. Symlinks are followed: what counts is where they
    end.

    Raises CvmtuneError if the file is missing, cannot be read, or is not to be trusted. Never waits for a
    FIFO's other end.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        directory = os.open(real.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            # Opened by its name in the directory that is judged, and not through a symlink put there since:
            # so what is judged is what is read, whoever renames what meanwhile.
            with open(
                real.name,
                "rb",
                opener=lambda name, flags: os.open(
                    name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
                ),
            ) as file:
                _check_file(real, os.fstat(file.fileno()))
                _check_directory(real.parent, os.fstat(directory))
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(directory)
    except OSError as error:
        next_step = "run as root" if isinstance(error, PermissionError) else "give a file that can be read"
        raise CvmtuneError(f"cannot read it: {error.strerror}", str(path), next_step) from error
    if len(data) > MAX_BYTES:
        raise CvmtuneError(f"more than {MAX_BYTES} bytes", str(real), "give the file that was meant")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CvmtuneError(f"not UTF-8 at byte {error.start}", str(real), "save it as UTF-8") from error


def _check_file(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise CvmtuneError("not a regular file", str(path), "give the path of a regular file")
    if not owned_by_us(info):
        raise CvmtuneError(
            f"the file belongs to user {info.st_uid}, who may change it at any time",
            str(path),
            f"check what it says, then: chown root {shlex.quote(str(path))}",
        )
    if excess := _excess(info):
        raise CvmtuneError(
            "others than its owner may write the file",
            str(path),
            f"check what it says, then: chmod {excess} {shlex.quote(str(path))}",
        )


def _check_directory(path: Path, info: os.stat_result) -> None:
    # In a sticky directory nobody else can replace a file of root's or ours.
    if not info.st_mode & stat.S_ISVTX and (excess := _excess(info)):
        raise CvmtuneError(
            "others than the owner of its directory may put another file in its place",
            str(path),
            f"check what is in it, then: chmod {excess} {shlex.quote(str(path))}",
        )


def _excess(info: os.stat_result) -> str:
    """Return what chmod has to take away so that only the owner, and root's group, can write; or nothing."""
    group = "g" if info.st_mode & stat.S_IWGRP and info.st_gid != 0 else ""
    others = "o" if info.st_mode & stat.S_IWOTH else ""
    return f"{group}{others}-w" if group or others else ""
