# SPDX-License-Identifier: Apache-2.0
"""Files that are all replaced, or none: on a failure what was there before is put back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.files import write_whole


@dataclass(frozen=True)
class _Before:
    """What was at `path`: a link to somewhere, a file's text, or nothing."""

    path: Path
    link: str | None
    text: str | None


@contextmanager
def put_back_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Put the files, and the directories that they lie in, back as they were if what is inside raises.

    CvmtuneError in its place if that cannot be done; it says what is left.
    """
    before = [_look(path) for path in paths]
    missing = {one for path in paths for one in path.parents if not one.exists()}
    try:
        yield
    except BaseException as failure:
        left = [str(one.path) for one in before if not _put_back(one)]
        for directory in sorted(missing, reverse=True):
            with suppress(OSError):
                directory.rmdir()
        if left:
            told = failure.what if isinstance(failure, CvmtuneError) else repr(failure)
            raise CvmtuneError(
                f"{told}; and it could not be put back as it was", ", ".join(left), "cvmtune unpersist"
            ) from failure
        if isinstance(failure, CvmtuneError):
            told = f"nothing is changed: {failure.what}"
            raise type(failure)(told, failure.where, failure.next_step) from failure
        raise


def write(root: Path, path: Path, text: str) -> None:
    """Put a file of the configuration below `root` in place, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_whole(path, text, mode=0o644, sync=True)
    except OSError as error:
        if error.errno == errno.EROFS:
            top = f"/{path.relative_to(root).parts[0]}"
            raise CvmtuneError(
                f"{top} is read-only: what is applied at each boot cannot be kept there", str(path)
            ) from error
        raise CvmtuneError(f"cannot write it: {error.strerror}", str(path), "run as root") from error


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CvmtuneError(f"cannot remove it: {error.strerror}", str(path), "run as root") from error


def _look(path: Path) -> _Before:
    try:
        if path.is_symlink():
            return _Before(path, os.readlink(path), None)
        return _Before(path, None, path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        return _Before(path, None, None)
    except OSError as error:
        raise CvmtuneError(f"cannot read it: {error.strerror}", str(path), "run as root") from error


def _put_back(before: _Before) -> bool:
    try:
        if os.path.lexists(before.path) and _look(before.path) == before:
            return True
        before.path.unlink(missing_ok=True)
        if before.link is not None:
            before.path.symlink_to(before.link)
        elif before.text is not None:
            write_whole(before.path, before.text, mode=0o644, sync=True)
    except (OSError, CvmtuneError):
        # Nothing was to be there, and nothing can be.
        return before.link is None and before.text is None and not os.path.lexists(before.path)
    return True
