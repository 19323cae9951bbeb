# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: named states, how a machine is brought into each, and what is measured there.

It collects, and judges nothing. The runner takes the states in turns and puts the machine back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from cvmtune.core.errors import UsageError
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.lab.lab import Lab
from cvmtune.lab.specs import MachineName

OFF = "off"
ON = "on"
"""The states that a verdict compares."""

ENOUGH_ROUNDS = 5
"""The fewest that give an interval; in short there are no more, and fewer where there is no time."""


@dataclass(frozen=True)
class State:
    """A state by its name in result files; an experiment's own says what is on in it, and under what
    condition it is measured."""

    name: str


@dataclass(frozen=True)
class Usual:
    """How long things take on a computer of usual speed, in seconds: to prepare and end a part of an
    experiment, and a round in one state. For estimates alone."""

    setup_s: float
    round_s: float


@dataclass(frozen=True)
class Measurement:
    """One boot of a machine, and what is measured in it: the states that are compared, or a baseline.

    `parts` are what all rounds are done with one after the other; `more` has rounds measure all that they
    can.
    """

    experiment: str
    machine: MachineName
    states: tuple[str, ...]
    rounds: int
    append: tuple[str, ...] = ()
    host_append: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("",)
    more: bool = False

    def __str__(self) -> str:
        booted = f" booted with {' '.join(self.append)}" if self.append else ""
        booted += f" on a host booted with {' '.join(self.host_append)}" if self.host_append else ""
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        # Quoted, as names of states have commas in them.
        return f"on {self.machine}{booted}: {rounds} each of {', '.join(map(repr, self.states))}"

    @property
    def total(self) -> int:
        """How many rounds that are in all."""
        return self.rounds * len(self.states) * len(self.parts)


Baselines = Callable[[MachineName, int], list[Measurement]]
"""What is measured for comparison, by the machine and the rounds of what is judged."""


def no_baselines(machine: MachineName, rounds: int) -> list[Measurement]:
    return []


@dataclass(frozen=True)
class Form:
    """How much an experiment measures.

    `rounds` is how many there are if nobody says. Beside off and on these states take turns: `beside` are
    baselines, `combined` have some of several features on. `parts` and `more` are those of Measurement.
    `also` is what it does beside measuring states, by its title.
    """

    rounds: int = ENOUGH_ROUNDS
    baselines: Baselines = no_baselines
    beside: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("",)
    more: bool = False
    also: Mapping[str, Callable[[Lab, MachineName], RawRun]] = field(default_factory=dict)


SiteT = TypeVar("SiteT")
StateT = TypeVar("StateT", bound=State)


class Experiment(ABC, Generic[SiteT, StateT]):
    """An experiment: SiteT is what its rounds work with, StateT its kind of state.

    `machines` are those that it can be judged on. Whatever its context managers change they put back, also
    on failure.
    """

    name: ClassVar[str]
    machines: ClassVar[tuple[MachineName, ...]] = tuple(MachineName)
    usual: ClassVar[Usual] = Usual(5.0, 10.0)

    @property
    @abstractmethod
    def states(self) -> Mapping[str, StateT]:
        """All states, by their names."""

    @abstractmethod
    def form(self, *, brief: bool) -> Form:
        """How much is measured: in full, or so that all experiments together take some minutes."""

    def tools(self, lab: Lab) -> tuple[Path, ...]:
        """Directories whose content machines need beside the lab's own tools, made if need be."""
        return ()

    def prepare(self, bench: Bench) -> AbstractContextManager[None]:
        """What lasts for all rounds and all parts; UsageError for a machine that lacks what it takes."""
        return nullcontext()

    @abstractmethod
    def site(self, bench: Bench, wanted: Measurement, part: str) -> AbstractContextManager[SiteT]:
        """What lasts for all rounds of a part."""

    @abstractmethod
    def entered(self, site: SiteT, state: StateT) -> AbstractContextManager[None]:
        """Have the machine in the state."""

    @abstractmethod
    def measure(self, site: SiteT, state: StateT, index: int) -> Iterator[Series]:
        """Measure the round of this index; the machine is in the state."""

    def finish(self, site: SiteT) -> tuple[Round, ...]:
        """What is measured when all rounds of a part are done, in no state."""
        return ()

    def findings(self, site: SiteT) -> Mapping[str, object]:
        """What goes into the run's environment beside where it was measured."""
        return {}

    def state(self, name: str) -> StateT:
        """The state of that name; UsageError if there is none."""
        if name not in self.states:
            raise UsageError(f"no state {name!r}", next_step=f"states: {', '.join(self.states)}")
        return self.states[name]

    def on_vm(self, machine: MachineName, rounds: int) -> list[Measurement]:
        """The baseline of all off in an ordinary VM, unless that is what is judged."""
        vm = MachineName.VM
        return [Measurement(self.name, vm, (OFF,), rounds)] if machine != vm else []
