# SPDX-License-Identifier: Apache-2.0
"""Experiments that measure nothing: they note what they were asked, and give rounds that were made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Experiment, Measurement
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.specs import MACHINES
from cvmtune.workloads.blackbox import experiment as blackbox
from cvmtune.workloads.blackbox.metrics import MAIN_METRICS
from tests.fakes.rounds import ALONE, BLACKBOX, CQ_POLL, IPI, VTIMER, WFX

ALL_FEATURES = ("ipi", "vtimer", "cq-poll", "wfx", "blackbox")
DATABASE = Path("/cache/database")

# What is counted of each feature with it off, and what with it on if it does its work.
COUNTED = {
    **{one.experiment: one.counts() for one in (IPI, VTIMER, CQ_POLL, WFX)},
    "blackbox": {**{load: (2.0, 1.0) for load in MAIN_METRICS}, **BLACKBOX.counts()},
}


@dataclass
class Measured:
    """What was asked of the experiments, by feature; `useless` features change nothing.

    `options` are the parts, and whether all was to be measured that can be; `cut` the machines whose power
    was cut, which took `lost`. `all_lost` and `damage` are what blackbox finds after all rounds.
    """

    useless: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, tuple[str, ...], int]] = field(default_factory=list)
    options: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: int = 0
    all_lost: int = 0
    damage: int = 0

    def run(
        self,
        experiment: Experiment[Any, Any],
        bench: Bench,
        wanted: Measurement,
        *,
        environment: dict[str, object],
        advance: Callable[[str], None],
        go_on: Callable[[int], bool],
    ) -> RawRun:
        feature, machine, states = experiment.name, str(bench.machine), wanted.states

        def series(state: str) -> tuple[Series, ...]:
            on = state == "on" and feature not in self.useless
            # With the HW bit is as a masked timer should be, whatever became of that.
            on = on or state == vtimer.HW
            # Of a state of several features each does its own.
            names = () if feature in self.useless else state.split("+")
            does = {metric: value for name in names for metric, value in ALONE.get(name, {}).items()}
            counts = [
                Series(name, name, "per IPI", "count", "lower", (does.get(name, values[on]),))
                for name, values in COUNTED[feature].items()
            ]
            return (*counts, Series("notify", "notification", "ns", "time", "lower", (1000.0, 1100.0)))

        assert (wanted.experiment, wanted.machine) == (feature, machine)
        self.asked.append((feature, machine, states, wanted.rounds))
        self.options.append((wanted.parts, wanted.more))
        assert (bench.host is not None) == MACHINES[machine].nested
        assert bench.tools == GUEST_TOOLS
        advance("a round")
        found = [Round(state, index, series(state)) for index in range(wanted.rounds) for state in states]
        if feature == "blackbox":
            found.append(Round(blackbox.AFTER, 0, self.outcome()))
        return RawRun(feature, machine, tuple(found), environment)

    def outcome(self) -> tuple[Series, ...]:
        """Of a whole run, in no state of the features."""
        return tuple(
            Series(name, name, "each", "count", "lower", (float(value),))
            for name, value in (("all_lost", self.all_lost), ("damage", self.damage))
        )


@dataclass
class Judged:
    """What was given to the judge: of each run the feature, machine and states of its rounds."""

    raws: list[tuple[str, str, list[str]]] = field(default_factory=list)
    baselines: list[tuple[str, str, list[str]]] = field(default_factory=list)
