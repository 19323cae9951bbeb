# SPDX-License-Identifier: Apache-2.0
"""A server that forks a process for each request, to apply or to roll back, and be killed on its way.

Requests and answers are JSON, a line each (Request, Answer). One interpreter with many forks: a test of all
the ways to die needs thousands of processes.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import LocalSystem
from cvmtune.tuning.journal import Journal
from tests.fakes.bound import transaction
from tests.fakes.os_calls import CALLS, watched


@dataclass(frozen=True)
class Request:
    """What to do on the tree of files `root`: apply `settings`, or without any, roll back.

    The process dies at the step of number `kill`, a step being the moment before or after one of `calls`.
    Writing one of `broken`, a path and a text, takes effect, and then fails; one of `refused` just fails.
    """

    settings: dict[str, str] = field(default_factory=dict)
    root: str = ""
    kill: int | None = None
    calls: tuple[str, ...] = (*CALLS, "flock")
    broken: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What became of the process: its wait status as os.waitstatus_to_exitcode() has it.

    If it was not killed, also the steps that it took, and the name and text of the error that it ended with.
    """

    status: int
    steps: tuple[str, ...] = ()
    error: str = ""
    message: str = ""


@dataclass(frozen=True)
class BrokenSystem(LocalSystem):
    """This machine's files, of which some fail as in Request."""

    broken: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    def write_text(self, path: str, text: str) -> None:
        if (path, text) not in self.refused:
            super().write_text(path, text)
        if (path, text) in (*self.broken, *self.refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def journal_of(root: Path) -> Journal:
    """Return the journal that the processes use."""
    return Journal(root / "var/lib/cvmtune")


def _act(request: Request) -> Answer:
    system = BrokenSystem(Path(request.root), request.broken, request.refused)
    journal = journal_of(system.root)
    steps: list[str] = []

    def step(when: str, call: str, args: tuple[Any, ...]) -> None:
        if call in request.calls:
            if len(steps) == request.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            steps.append(f"{when} {call}")

    error: CvmtuneError | None = None
    with watched(step):
        try:
            if request.settings:
                changes = transaction.plan(system, request.settings)
                transaction.apply(system, journal, changes, "a test")
            else:
                transaction.rollback(system, journal)
        except CvmtuneError as caught:
            error = caught
    return Answer(0, tuple(steps), type(error).__name__ if error else "", str(error or ""))


def _fork(request: Request) -> Answer:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            answer = _act(request)
            with open(writer, "w") as stream:
                json.dump(asdict(answer), stream)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as stream:
        text = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Answer(**json.loads(text)) if status == 0 else Answer(status)


def _tupled(values: dict[str, Any]) -> Request:
    for key in ("broken", "refused"):
        values[key] = tuple((path, text) for path, text in values[key])
    return Request(**values)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asdict(_fork(_tupled(json.loads(line))))), flush=True)
