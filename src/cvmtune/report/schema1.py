# SPDX-License-Identifier: Apache-2.0
"""Result files of schema 1, of which there are recorded ones: figures and verdicts, and no rounds.

They cannot be judged anew, so they keep their verdicts. Their 95 % intervals are percentile bootstraps over
rounds: of two or three rounds just the lowest and the highest, which hold the true ratio in half to three
quarters of all repetitions. They are shown as a spread, and nothing that rested on them is told.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from cvmtune.experiments.rounds import Better, Kind
from cvmtune.report.gains import Cell, Factorial, Gain, Interaction
from cvmtune.report.schema import Baseline, Breakdown, Metric, Result, Results, Verdict
from cvmtune.report.stats import Effect, Interval, Stats

SCHEMA: Final = 1

NOTE = (
    "This file is of schema 1: it has no rounds to judge anew, and its verdicts are those it was written "
    "with. Its intervals are percentile bootstraps over rounds, narrower than the 95 % that they claim, and "
    "are shown as spread."
)

# What this version no longer says in a verdict, as it rested on those intervals.
_UNSETTLED = re.compile(r" ?Not settled: [^.]*\.")
_BAR = re.compile(r"\[([^\],]+), ([^\],]+)\], (?:met|missed|not settled)")

_Ends = tuple[float, float] | None


class _Effect(Struct):
    ratio: float
    ci95: _Ends

    def __post_init__(self) -> None:
        _spread(self.ci95)  # while its place in the file is known

    def now(self) -> Effect:
        return Effect(self.ratio, _spread(self.ci95))


class _Metric(Struct):
    name: str
    title: str
    unit: str
    kind: Kind
    better: Better
    off: Stats
    on: Stats
    ratio: float | None
    ci95: _Ends

    def __post_init__(self) -> None:
        _spread(self.ci95)

    def now(self) -> Metric:
        effect = None if self.ratio is None else Effect(self.ratio, _spread(self.ci95))
        return Metric(self.name, self.title, self.unit, self.kind, self.better, self.off, self.on, effect)


class _Result(Struct):
    feature: str
    machine: str
    metrics: list[_Metric]
    verdict: Verdict
    why: str

    def now(self) -> Result:
        why = _BAR.sub(r"(\1 to \2)", _UNSETTLED.sub("", self.why))
        metrics = tuple(metric.now() for metric in self.metrics)
        return Result(self.feature, self.machine, metrics, self.verdict, why)


class _Cell(Struct):
    on: tuple[str, ...]
    values: Stats
    gain: _Effect | None

    def now(self) -> Cell:
        return Cell(self.on, self.values, _now(self.gain))


class _Gain(Struct):
    factor: str
    alone: _Effect
    last: _Effect | None
    overall: _Effect | None

    def now(self) -> Gain:
        return Gain(self.factor, self.alone.now(), _now(self.last), _now(self.overall))


class _Interaction(Struct):
    first: str
    second: str
    effect: _Effect

    def now(self) -> Interaction:
        return Interaction(self.first, self.second, self.effect.now())


class _Factorial(Struct):
    machine: str
    metric: str
    title: str
    unit: str
    factors: tuple[str, ...]
    cells: list[_Cell]
    gains: list[_Gain]
    interactions: list[_Interaction]

    def now(self) -> Factorial:
        return Factorial(
            self.machine,
            self.metric,
            self.title,
            self.unit,
            self.factors,
            tuple(cell.now() for cell in self.cells),
            tuple(gain.now() for gain in self.gains),
            tuple(one.now() for one in self.interactions),
            # Those of the file took what an interval had shown.
            steps=(),
        )


class File(Struct):
    """The content of a file."""

    schema: Literal[1]
    environment: dict[str, Any]
    results: list[_Result]
    baselines: tuple[Baseline, ...] = ()
    factorials: list[_Factorial] = msgspec.field(default_factory=list)
    breakdowns: tuple[Breakdown, ...] = ()

    def now(self) -> Results:
        """The same as this version has it."""
        return Results(
            self.environment,
            tuple(result.now() for result in self.results),
            self.baselines,
            tuple(one.now() for one in self.factorials),
            self.breakdowns,
            (NOTE,),
        )


def _now(effect: _Effect | None) -> Effect | None:
    return effect.now() if effect else None


def _spread(ends: _Ends) -> Interval | None:
    """ValueError if the lower is not first."""
    return Interval(*ends, "spread") if ends else None
