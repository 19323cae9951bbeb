# SPDX-License-Identifier: Apache-2.0
"""What a feature offers the lab: its experiment, how that is judged, and how others switch the feature.

Nothing of it is needed on a target; a feature's folder has it in trial.py, which is loaded when it is asked
for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from cvmtune.core.errors import UsageError
from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.counters import Counters
from cvmtune.experiments.experiment import Experiment
from cvmtune.experiments.host import VmFile, VmStatistics
from cvmtune.experiments.path_length import Paths
from cvmtune.lab.specs import MachineName
from cvmtune.report.rule import Rule


@dataclass(frozen=True)
class Snapshot:
    """What a machine has counted so far: `vm` by its host, None if it has none; `traced` by trace event."""

    counters: Counters
    vm: VmStatistics | None
    traced: Mapping[str, int]


@dataclass(frozen=True)
class Event:
    """What happens less often with a feature on; it is counted per transaction of a workload.

    `suffix` is that of the metric's name, `said` what a verdict calls it. `read` tells how many there were so
    far, None where nobody counts them; for that, `trace` (a trace event) and `file` must be in the snapshot.
    It is counted under the loads that are compared, or under all (`everywhere`). Others
    may add to it what the feature saves (`others_add`).
    Of the limits those that are not None hold: with all features off there are at least `least_off`, with
    the feature on, alone and with all others, at most `share_on` of those and at most `most_on`.
    """

    suffix: str
    title: str
    said: str
    read: Callable[[Snapshot], float | None]
    of_host: bool = False
    everywhere: bool = False
    others_add: bool = False
    trace: str | None = None
    file: VmFile | None = None
    least_off: float | None = None
    share_on: float | None = None
    most_on: float | None = None

    def most(self, off: float) -> float | None:
        """How many there may be with the feature on, where with all off there are `off`; None without a
        limit."""
        limits = [self.share_on * off] if self.share_on is not None else []
        limits += [self.most_on] if self.most_on is not None else []
        return min(limits, default=None)


@dataclass(frozen=True)
class Use:
    """The CPUs that something of a feature takes; `seconds` reads the processor time of it in the guest."""

    suffix: str
    title: str
    seconds: Callable[[System], float]


class Switch(ABC):
    """How experiments have a feature on or off, and what it saves there.

    `name` is that of the feature's own experiment, `noun` what states of others call it. `machines` are those
    that can have the feature; `on_host` tells whose control it is. One that `eases_wakeups` is had on and off
    beside their own by the experiments of others that measure wake-ups.
    """

    name: str
    noun: str
    machines: tuple[MachineName, ...] = tuple(MachineName)
    on_host: bool = False
    eases_wakeups: bool = False
    events: tuple[Event, ...] = ()
    uses: tuple[Use, ...] = ()

    def has(self, bench: Bench) -> bool:
        """Whether this machine, which is running, can have the feature."""
        return True

    def prepare(self, bench: Bench, exit_ns: float | None) -> AbstractContextManager[None]:
        """What it takes to have the feature on or off; it lasts for all rounds.

        `exit_ns` is how long an exit to the host and the entry after it take, in nanoseconds; None where off
        and on are not compared.
        """
        return nullcontext()

    @abstractmethod
    def switched(self, bench: Bench, *, on: bool, cpu: int) -> AbstractContextManager[None]:
        """Have the feature on or off, for all that it is for; put back what was before. A kernel without the
        feature has it off. `cpu` is the guest's CPU on which servers run, for what should run there too."""


@contextmanager
def switched(bench: Bench, switches: Sequence[Switch], on: Collection[str], cpu: int) -> Iterator[None]:
    """Have the features of these names on, and the others off; `cpu` is as of Switch.switched().

    UsageError, before anything is changed, for a feature that this machine cannot have.
    """
    for one in switches:
        if one.name in on and not one.has(bench):
            raise UsageError("this machine has no such feature", one.name, "leave it out, or use cvm")
    with ExitStack() as stack:
        # Those of the host first: what is changed on it makes work for the guest.
        for one in sorted(switches, key=lambda one: not one.on_host):
            stack.enter_context(one.switched(bench, on=one.name in on, cpu=cpu))
        yield


@dataclass(frozen=True)
class Trial:
    """The experiment, how the report judges it, and where there are any its paths and its switch.

    `beside` makes the same trial with states in which others' features are on beside its own, if the
    experiment has such.
    """

    experiment: Experiment[Any, Any]
    rule: Rule
    paths: Paths | None = None
    switch: Switch | None = None
    beside: Callable[[tuple[Switch, ...]], Trial] | None = None


def switches_of(trials: Iterable[Trial]) -> tuple[Switch, ...]:
    """The switches that these have."""
    return tuple(trial.switch for trial in trials if trial.switch)


def with_others(trial: Trial, switches: Sequence[Switch]) -> Trial:
    """The trial with states in which those of these features are on that ease wake-ups, if it has such."""
    return trial.beside(tuple(one for one in switches if one.eases_wakeups)) if trial.beside else trial
