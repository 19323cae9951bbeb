# SPDX-License-Identifier: Apache-2.0
"""Running commands on this machine: argument lists only, deadlines that hold, output kept."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.errors import CvmtuneError

_TAIL_LINES = 10  # enough for a compiler's message with its context


@dataclass(frozen=True)
class Completed:
    """A command that has ended. `status` is its exit status, or -N when signal N killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    def check(self) -> Completed:
        """Return this result if its status is 0, else raise CvmtuneError with the last lines of output."""
        if self.status == 0:
            return self
        end = f"ended with status {self.status}" if self.status > 0 else f"died of signal {-self.status}"
        tail = (self.stderr.strip() or self.stdout.strip()).splitlines()[-_TAIL_LINES:]
        raise CvmtuneError("\n  ".join([f"{format_command(self.argv)} {end}", *tail]))


def format_command(argv: Sequence[str]) -> str:
    """Return `argv` quoted so that it can be pasted into a shell."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    input: str | None = None,
    capture: bool = True,
) -> Completed:
    """Run `argv` to its end and return what became of it; a status other than 0 is no error (see check()).

    `env` is the whole environment, as with subprocess. `timeout` is in seconds.

    Output: with `capture` it is returned. With `log` both streams are appended to that file as they come, and
    what `capture` returns is the two together, as `stdout`. With neither, the command has the terminal to
    itself.

    Raises CvmtuneError naming the command when it cannot be started, or has not ended within `timeout`; then
    it and all that it started is killed (on the terminal: the command alone).
    """
    command = format_command(argv)
    on_terminal = not capture and log is None
    output = None if on_terminal else subprocess.PIPE
    began = time.monotonic()
    with nullcontext() if log is None else log.open("ab") as log_file:
        if log_file:
            log_file.write(os.fsencode(f"$ {command}\n"))
            log_file.flush()
            output_start = log_file.tell()
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=_stdin(input, on_terminal),
                stdout=log_file or output,
                stderr=subprocess.STDOUT if log_file else output,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group of its own lets the deadline reach grandchildren too: one that survived would hold
                # the pipes open and keep us waiting. On the terminal such a group could not read any key.
                start_new_session=not on_terminal,
            )
        except OSError as error:
            where = str(error.filename or "")
            raise CvmtuneError(f"cannot start {command}: {error.strerror}", where) from error
        with process:
            try:
                stdout, stderr = process.communicate(input, timeout)
            except subprocess.TimeoutExpired as error:
                _kill(process, group=not on_terminal)
                raise CvmtuneError(f"{command} did not end within {timeout:g} s", str(log or "")) from error
            except BaseException:
                _kill(process, group=not on_terminal)
                raise
    if log and capture:
        stdout = _from(log, output_start)
    return Completed(tuple(argv), process.returncode, stdout or "", stderr or "", time.monotonic() - began)


def _from(log: Path, start: int) -> str:
    """What a log holds from a position on."""
    with log.open("rb") as written:
        written.seek(start)
        return written.read().decode("utf-8", "replace")


def _stdin(input: str | None, on_terminal: bool) -> int | None:
    if input is not None:
        return subprocess.PIPE
    # Nobody would see what a batch command asks, so it reads end of file instead of waiting for an answer.
    return None if on_terminal else subprocess.DEVNULL


def _kill(process: subprocess.Popen[str], *, group: bool) -> None:
    if not group:
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
