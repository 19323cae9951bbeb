# SPDX-License-Identifier: Apache-2.0
"""A guest and its host for tests of experiments: commands and writes can fail, and all must be put back."""

from __future__ import annotations

import errno
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from tests.fakes.kernel import FakeSystem, When

Value = TypeVar("Value")
Made = TypeVar("Made", bound="Machine")

PID = 321  # of the VMM
THREADS = {0: 102, 1: 101}  # of the vCPUs
# As cyclictest 2.4 begins.
CYCLICTEST_HEADER = "# /dev/cpu_dma_latency set to 0us\nMax CPUs = 2\nOnline CPUs = 2\n"


class Refused(OSError):
    """A file's operation fails, or a command ends with a status."""


class Machine(ABC):
    """A guest and its host. `trace` has the operations of both: whose, the number, what, what was changed."""

    def __init__(self) -> None:
        self.trace: list[tuple[Recorded[Any], int, str, set[str]]] = []
        self.first: dict[str, object] = {}

    @abstractmethod
    def systems(self) -> tuple[Recorded[Any], ...]:
        """Guest and host."""

    @abstractmethod
    def state(self) -> dict[str, object]:
        """All that the experiment changes."""

    def changed(self) -> set[str]:
        """What is not as it was when the experiment began."""
        return {name for name, value in self.state().items() if value != self.first[name]}


class Recorded(FakeSystem[Value]):
    """A kernel whose commands are operations too, that can fail as those of its file do.

    `parameters` are files beside that one which may be written, and what to.
    """

    machine: Machine
    parameters: dict[str, tuple[Path, Sequence[str]]]

    def write_text(self, path: str, text: str) -> None:
        if path not in self.parameters:
            super().write_text(path, text)
            return
        file, allowed = self.parameters[path]
        number = self._begin(f"write {path}")
        assert text in allowed
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        file.write_text(text)
        self._raise_if_due(number, "after")

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        try:
            number = self._begin(f"run {shlex.join(argv)}")
            says = self._do(list(argv))
        except Refused as error:
            return Completed(tuple(argv), 1, "", error.strerror or "", 0.1)
        self._raise_if_due(number, "after")
        return Completed(tuple(argv), 0, says, "", 0.1)

    @abstractmethod
    def _do(self, argv: list[str]) -> str:
        """Do what the command does, and return what it prints; Refused if it ends with a status."""

    def _begin(self, operation: str) -> int:
        self.machine.trace.append((self, len(self.operations), operation, self.machine.changed()))
        return super()._begin(operation)


class RecordedHost(Recorded[Value]):
    """The host of two vCPUs; `affinity` has the CPUs of their threads, as lists."""

    affinity: dict[int, str]

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["sh", "-c", script] if script == f"grep -sH . /proc/{PID}/task/*/comm":
                comms = {PID: "qemu-system-aar", **{THREADS[vcpu]: f"CPU {vcpu}/KVM" for vcpu in (1, 0)}}
                return "".join(f"/proc/{PID}/task/{thread}/comm:{comm}\n" for thread, comm in comms.items())
            case ["taskset", "-cp", thread]:
                return f"pid {thread}'s current affinity list: {self.affinity[int(thread)]}\n"
            case ["taskset", "-cp", cpus, thread]:
                self.affinity[int(thread)] = cpus
                return (
                    f"pid {thread}'s current affinity list: 0,1\npid {thread}'s new affinity list: {cpus}\n"
                )
        pytest.fail(f"no such command on a host: {argv}")


FAULTS = pytest.mark.parametrize(
    ("fault", "when"),
    [(Refused(22, "refused"), "before"), (KeyboardInterrupt(), "before"), (KeyboardInterrupt(), "after")],
    ids=["refused", "interrupted before", "interrupted after"],
)


def fail_in_turn(
    fresh: Callable[[str], Made],
    experiment: Callable[[Made], object],
    fault: BaseException,
    when: When,
    unknown: set[str],
) -> set[str]:
    """Have each command and each write fail in turn: whatever fails, all is left as it was.

    `fresh` makes a machine of a name. `unknown` is what an interrupted command may have begun, since the
    experiment learns of it by the command's end alone. Returns what is changed in the course of a run.
    """
    whole = fresh("whole")
    experiment(whole)
    before = [changed for _, _, _, changed in whole.trace]
    steps = list(zip(whole.trace, [*before[1:], whole.changed()], strict=True))
    for index, ((of, number, operation, earlier), later) in enumerate(steps):
        if not operation.startswith(("run", "write")):
            continue
        machine = fresh(str(index))
        machine.systems()[whole.systems().index(of)].fail(number, fault, when)
        with pytest.raises((CvmtuneError, Refused, KeyboardInterrupt)):
            experiment(machine)
        # What puts something back and is kept from it leaves at most that: another may do it once more.
        left = earlier - later if when == "before" else (later - earlier) & unknown
        assert machine.changed() <= left, operation
    return set.union(*before)
