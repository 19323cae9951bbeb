# SPDX-License-Identifier: Apache-2.0
"""Standard output and error that cannot change what a command did.

A reader that has gone, a full disk, or a terminal without some character costs the report, and no more: a
command that has set a mask has set it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from typing import Any, TextIO


def open_standard_descriptors() -> None:
    """Have descriptors 0 to 2 lead somewhere: the next file to be opened must not take a closed one's place,
    and with it what others print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It takes the lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def guarded() -> Iterator[None]:
    """Let nothing that is printed within fail; tell on standard error, if it still can be, what was lost."""
    out, err = _guard(sys.stdout), _guard(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            if out:
                out.flush()
            # Of a reader that has gone nobody needs to be told: it is often `head`.
            if out and out.lost and out.lost.errno != errno.EPIPE:
                print(f"cvmtune: not all could be printed: {out.lost.strerror}", file=sys.stderr)
            if err:
                err.flush()


class _Guarded:
    """A text stream as it was, but that a write which fails is noted, and all that follows is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.lost = self.lost or error
        # What the stream still holds would fail again when the interpreter ends, which gives its own status.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _guard(stream: TextIO | None) -> Any:
    """Return the guarded stream; None where there is none, its descriptor having been closed."""
    if stream is None:
        return None
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return _Guarded(stream)
