# SPDX-License-Identifier: Apache-2.0
"""A journal of what is being done, for whoever has to finish or undo it after a kill or a power cut.

It is a directory with one file an entry, `0001.journal` and on, and a file to lock. An entry is JSON lines:
first its record, written elsewhere, synced and renamed into place, so that it is there in whole or not at
all; then marks of how far it got, each appended in one write and synced. So all that a cut can leave half
done is the last mark: a line without an end is none.

Who can change the journal decides what root undoes with it. So nothing is read or written unless the
directory and the file are root's or our own, and nobody else may write to them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.files import owned_by_us

_LOCK = "lock"
_TEMPORARY = "new"
_ENTRY = re.compile(r"([0-9]{4}|[1-9][0-9]{4,})\.journal")

# Beyond any entry, and little enough to be read at once.
_MAX_BYTES = 1 << 20
# The rest is for marks: an entry must not grow until it cannot be read.
_MAX_RECORD_BYTES = _MAX_BYTES // 2


class Entry:
    """One entry: its `record`, and the `marks` made since, oldest first.

    mark() and remove() are for who holds the journal's lock; they raise CvmtuneError.
    """

    def __init__(
        self, path: Path, record: Mapping[str, object], marks: list[dict[str, object]], size: int
    ) -> None:
        self.path = path
        self.record = record
        self.marks = marks
        self._size = size  # of the record and the marks, in bytes

    def mark(self, **what: object) -> None:
        """Append a mark; when this returns no power cut can undo it."""
        line = _line(what)
        with (
            _failures("cannot write the journal", self.path),
            _directory(self.path.parent) as directory,
            _file(self.path, os.O_WRONLY | os.O_APPEND, directory) as file,
        ):
            # What a cut or a full disk has left of a mark must not become the beginning of this one.
            os.ftruncate(file, self._size)
            _append(file, line)
        self._size += len(line)
        self.marks.append(what)

    def remove(self) -> None:
        """Remove the entry, for good."""
        with _failures("cannot write the journal", self.path), _directory(self.path.parent) as directory:
            os.unlink(self.path.name, dir_fd=directory)
            os.fsync(directory)


class Journal:
    """The journal in a directory, which locked() makes if it is missing, for its owner alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the journal; CvmtuneError at once if one is about to."""
        with _failures("cannot open the journal", self.directory):
            self._make()
            with _directory(self.directory) as directory:
                lock = _open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT, directory)
        try:
            with _failures("cannot lock the journal", self.directory):
                _lock(lock, self.directory)
            yield
        finally:
            os.close(lock)

    def entries(self) -> list[Entry]:
        """Return the entries, oldest first; none if the directory is missing. Makes and locks nothing.

        Raises CvmtuneError if one cannot be read or understood.
        """
        found = []
        with _failures("cannot read the journal", self.directory):
            try:
                with _directory(self.directory) as directory:
                    for number in _numbers(directory):
                        path = self._path(number)
                        # Without the lock another process may remove an entry at any time.
                        with suppress(FileNotFoundError), _file(path, os.O_RDONLY, directory) as file:
                            found.append(_parse(path, _read(path, file)))
            except FileNotFoundError:
                return []
        return found

    def begin(self, record: Mapping[str, object]) -> Entry:
        """Make an entry, the newest; when this returns no power cut can undo it. For who holds the lock.

        Raises CvmtuneError.
        """
        line = _line(record)
        if len(line) > _MAX_RECORD_BYTES:
            raise CvmtuneError(f"a journal's record has at most {_MAX_RECORD_BYTES} bytes, not {len(line)}")
        with _failures("cannot write the journal", self.directory), _directory(self.directory) as directory:
            path = self._path(max(_numbers(directory), default=0) + 1)
            # A process that was killed may have left one.
            with suppress(FileNotFoundError):
                os.unlink(_TEMPORARY, dir_fd=directory)
            with _file(self.directory / _TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, directory) as file:
                _append(file, line)
            os.rename(_TEMPORARY, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        return Entry(path, record, [], len(line))

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:04}.journal"

    def _make(self) -> None:
        try:
            os.mkdir(self.directory, 0o700)
        except FileExistsError:
            return
        parent = os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _numbers(directory: int) -> list[int]:
    return sorted(int(match[1]) for name in os.listdir(directory) if (match := _ENTRY.fullmatch(name)))


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _append(file: int, line: bytes) -> None:
    if os.write(file, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(file)


def _read(path: Path, file: int) -> bytes:
    with open(file, "rb", closefd=False) as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise _malformed(path, 1, f"the entry has more than {_MAX_BYTES} bytes")
    return data


def _parse(path: Path, data: bytes) -> Entry:
    *lines, rest = data.split(b"\n")
    if not lines:
        raise _malformed(path, 1, "the record has no end")
    values = [_parse_line(path, number, line) for number, line in enumerate(lines, start=1)]
    return Entry(path, values[0], values[1:], len(data) - len(rest))


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, number, "this is no JSON") from error
    if not isinstance(value, dict):
        raise _malformed(path, number, "this is no JSON object")
    return value


def _malformed(path: Path, line: int, problem: str) -> CvmtuneError:
    return CvmtuneError(
        f"the journal is damaged: {problem}",
        f"{path}, line {line}",
        "put back by hand what the file names, or restart the machine; then remove the file",
    )


def _lock(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CvmtuneError(
            "another cvmtune is changing this system", str(directory), "try again when it has ended"
        ) from error


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    """Open the journal's directory, if it is to be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError as error:
        raise _untrusted(path, "it is a symlink, or no directory") from error
    try:
        _check(path, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _file(path: Path, flags: int, directory: int) -> Iterator[int]:
    """Open a file of the journal, if it is to be trusted; `directory` is open at its parent."""
    descriptor = _open(path, flags, directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int, directory: int) -> int:
    try:
        # O_NONBLOCK: a FIFO must not keep us waiting for its other end.
        descriptor = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _untrusted(path, "it is a symlink") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _untrusted(path, "it is no regular file")
        _check(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, status: os.stat_result) -> None:
    if not owned_by_us(status):
        raise _untrusted(path, f"it belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _untrusted(path, f"its mode {stat.S_IMODE(status.st_mode):04o} lets others write to it")


def _untrusted(path: Path, problem: str) -> CvmtuneError:
    return CvmtuneError(
        f"the journal is not to be trusted: {problem}", str(path), "find out who made it so, then remove it"
    )


@contextmanager
def _failures(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a CvmtuneError that says what could not be done."""
    try:
        yield
    except OSError as error:
        next_step = "run as root" if isinstance(error, PermissionError) else ""
        raise CvmtuneError(f"{doing}: {error.strerror}", str(path), next_step) from error
