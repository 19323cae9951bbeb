# SPDX-License-Identifier: Apache-2.0
"""What the knobs have in common whose control is one file: check, write, read back, put back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.tuning.contract import KnobError, Plan, State

V = TypeVar("V")


class FileKnob(ABC, Generic[V]):
    """The contract for a control in one file; a feature's class adds what its values are and may be.

    Values are of type V. In plans, and to the kernel, each is the one text that encode() gives. The kernel is
    given nothing else, and each value only after _permit().
    """

    path: str
    noun: str  # what messages call a value
    form: str  # the next step after a value that is none
    missing: str  # what it means if there is no such file
    module: str = ""  # the module that makes the file, if it is one that may not be loaded
    if_changed: str = "find out who else sets it, then plan again"

    @abstractmethod
    def decode(self, text: str) -> V:
        """Return the value that a text stands for; ValueError if it is none."""

    @abstractmethod
    def encode(self, value: V) -> str:
        """Return the value in canonical form: decode() reads it, and the same value is the same text."""

    @abstractmethod
    def _permit(self, system: System, *values: V) -> None:
        """Raise KnobError unless each of the values may replace the present one now."""

    def _shown(self, text: str) -> V:
        """Return the value that the file's `text` stands for."""
        return self.decode(text)

    def value(self, system: System) -> V:
        """Return the present value; KnobError if the control is missing or cannot be read."""
        return self._present(system)

    def read(self, system: System) -> State:
        try:
            return State(available=True, value=self.encode(self._present(system)), problem=None)
        except KnobError as error:
            return State(available=False, value=None, problem=str(error))

    def plan(self, system: System, want: V | str) -> Plan:
        after = self._parse(want) if isinstance(want, str) else want
        before = self._present(system)
        if before != after:
            # A value that could not be written back must not be replaced.
            self._permit(system, before, after)
        return Plan(self.path, self.encode(before), self.encode(after))

    def apply(self, system: System, plan: Plan) -> None:
        before, after = self._values(plan)
        present = self._present(system)
        if present == after:
            return
        if present != before:
            raise KnobError(
                f"the {self.noun} is {self.encode(present)}, not {plan.before} as when the change was "
                "planned",
                self.path,
                self.if_changed,
            )
        self._permit(system, before, after)
        try:
            self._store(system, after)
        except KnobError as failure:
            try:
                self._restore(system, before)
            except KnobError as second:
                raise KnobError(
                    f"{failure.what}; and putting {plan.before} back failed: {second.what}",
                    second.where,
                    f"{second.next_step or 'make the file work again'}, then undo this change",
                ) from failure
            raise KnobError(
                f"{failure.what}; the {self.noun} is {plan.before} as before", self.path, failure.next_step
            ) from failure

    def verify(self, system: System, plan: Plan) -> bool:
        _, after = self._values(plan)
        return self._present(system) == after

    def undo(self, system: System, plan: Plan) -> None:
        before, _ = self._values(plan)
        self._restore(system, before)

    def _values(self, plan: Plan) -> tuple[V, V]:
        if plan.path != self.path:
            raise KnobError(f"the plan is for another file, {plan.path}", self.path)
        return self._parse(plan.before), self._parse(plan.after)

    def _parse(self, text: str) -> V:
        try:
            return self.decode(text)
        except ValueError as error:
            raise KnobError(str(error), next_step=self.form) from error

    def _present(self, system: System) -> V:
        text = self._text(system)
        try:
            return self._shown(text)
        except ValueError as error:
            raise KnobError(
                f"the kernel shows something else than a {self.noun}: {error}", self.path
            ) from error

    def _text(self, system: System) -> str:
        try:
            return system.read_text(self.path)
        except FileNotFoundError as error:
            next_step = f"modprobe {self.module}" if self.module else ""
            raise KnobError(self.missing, self.path, next_step) from error
        except OSError as error:
            raise os_failure(f"cannot read the {self.noun}", self.path, error) from error

    def _store(self, system: System, value: V) -> None:
        text = self.encode(value)
        try:
            system.write_text(self.path, f"{text}\n")
        except OSError as error:
            raise os_failure(f"cannot write {self.noun} {text}", self.path, error) from error
        present = self._present(system)
        if present != value:
            raise KnobError(f"the kernel took {self.noun} {text} but shows {self.encode(present)}", self.path)

    def _restore(self, system: System, value: V) -> None:
        # A write that failed has usually changed nothing; then the file is better left alone.
        if self._present(system) != value:
            # What was permitted when the plan was made need not be so now, or on this boot.
            self._permit(system, value)
            self._store(system, value)


class MaskKnob(FileKnob[CpuMask]):
    """A FileKnob that takes and gives a hex mask; in canonical form as CpuMask.to_hex() prints it, "0" is
    off.

    A vendor's kernel may keep its spinlock for ever after a mask that does not parse. So what is written is
    always a mask printed by CpuMask, never a text that came from elsewhere, and every _permit() must
    _confine() it to bits that the kernel has. Kernels pad masks differently, so they are compared as sets.
    """

    noun = "mask"

    def decode(self, text: str) -> CpuMask:
        return CpuMask.from_hex(text)

    def encode(self, value: CpuMask) -> str:
        return value.to_hex()

    def _confine(self, masks: Sequence[CpuMask], allowed: CpuMask, others: str, where: str) -> None:
        """Raise KnobError if one of the masks has more than `allowed`; it says that those are `others`."""
        for mask in masks:
            if excess := mask - allowed:
                raise KnobError(
                    f"mask {mask.to_hex()} names {others}: {excess.to_list()}",
                    where,
                    f"name only those of {allowed.to_list()}",
                )


def read_cpus(system: System, path: str) -> CpuMask:
    """Return a list of CPUs that the kernel shows; KnobError if there is none to be had."""
    try:
        return CpuMask.from_list(system.read_text(path))
    except OSError as error:
        raise os_failure("cannot read", path, error) from error
    except ValueError as error:
        raise KnobError(str(error), path) from error


def os_failure(doing: str, path: str, error: OSError) -> KnobError:
    """Return the error to raise for an operation on a file that failed."""
    next_step = "run as root" if isinstance(error, PermissionError) else ""
    return KnobError(f"{doing}: {error.strerror}", path, next_step)
