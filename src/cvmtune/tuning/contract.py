# SPDX-License-Identifier: Apache-2.0
"""The contract that every knob keeps, so that one caller can drive, check and take back any of them.

A caller that must survive a crash saves the plan, synced, before apply(); any other knob object of the same
kind can then undo it.
"""

from dataclasses import dataclass
from typing import Protocol

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System


class KnobError(CvmtuneError):
    """A knob cannot be read, or a change to it was refused or did not hold."""


class NotNow(KnobError):
    """What is asked for can be had, but not while the system is as it is now."""


@dataclass(frozen=True)
class State:
    """What a knob says now: its `value` in canonical form, or the `problem` that makes it unavailable."""

    available: bool
    value: str | None
    problem: str | None


@dataclass(frozen=True)
class Plan:
    """A change that can be made: the file, its value when planned and the one wanted, both canonical."""

    path: str
    before: str
    after: str


class Knob(Protocol):
    """One feature's control. Every method but read() raises KnobError when it cannot do what it says."""

    path: str

    def read(self, system: System) -> State:
        """Tell the present state; a missing or unreadable control is a State too, never an exception."""

    def plan(self, system: System, want: str) -> Plan:
        """Check that `want` can be set, and taken back; writes nothing."""

    def apply(self, system: System, plan: Plan) -> None:
        """Set plan.after and read it back; on failure put plan.before back and raise.

        Refuses if the value is neither plan.before nor plan.after: somebody changed it since it was planned.
        """

    def verify(self, system: System, plan: Plan) -> bool:
        """Tell whether plan.after is in force."""

    def undo(self, system: System, plan: Plan) -> None:
        """Put plan.before back, whatever the value is now; doing so again changes nothing."""
