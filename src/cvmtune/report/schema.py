# SPDX-License-Identifier: Apache-2.0
"""What is made of the rounds: figures and verdicts, as tables, pages and plots take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cvmtune.experiments.rounds import Heading
from cvmtune.report.gains import Factorial
from cvmtune.report.stats import Effect, Stats


class Verdict(StrEnum):
    """What the counts say of a feature; UNDECIDED where they show nothing either way."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Metric(Heading):
    """One metric with the feature off and on.

    `effect` is off/on where lower is better, on/off where higher is, so above 1 is always better; None where
    a round's mean is not positive.
    """

    off: Stats
    on: Stats
    effect: Effect | None


@dataclass(frozen=True)
class Result:
    """The verdict on one feature on one machine, and the metrics that it rests on.

    `notes` say what was left out, and which metrics are not settled; the verdict does not rest on them.
    """

    feature: str
    machine: str
    metrics: tuple[Metric, ...]
    verdict: Verdict
    why: str
    notes: tuple[str, ...] = ()

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, None if it was not measured off and on."""
        return next((metric for metric in self.metrics if metric.name == name), None)


@dataclass(frozen=True)
class BaselineMetric(Heading):
    """One metric of a baseline: there is no off and on, only its values."""

    values: Stats


@dataclass(frozen=True)
class Baseline:
    """Something to hold the results against, as an ordinary VM; it has no verdict."""

    name: str
    machine: str
    metrics: tuple[BaselineMetric, ...]


@dataclass(frozen=True)
class Part:
    """A part of a metric's mean, in the metric's unit."""

    name: str
    title: str
    mean: float


@dataclass(frozen=True)
class Breakdown:
    """What a metric's mean is made of in one state of one machine; the parts add up to it."""

    machine: str
    state: str
    metric: str
    title: str
    unit: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Results:
    """All that is told of some runs. `notes` say what a reader must know of all figures."""

    environment: Mapping[str, object]
    results: tuple[Result, ...]
    baselines: tuple[Baseline, ...] = ()
    factorials: tuple[Factorial, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    notes: tuple[str, ...] = ()

    def measured(self, metric: Metric) -> tuple[tuple[str, Stats], ...]:
        """All there is of one metric, each with its label: off, on, then every baseline that has it."""
        beside = [
            (baseline.name, other.values)
            for baseline in self.baselines
            for other in baseline.metrics
            if other.name == metric.name
        ]
        return (("off", metric.off), ("on", metric.on), *beside)

    def beside(self) -> tuple[tuple[BaselineMetric, tuple[tuple[str, Stats], ...]], ...]:
        """Metrics that only baselines have, each with its labels and figures: nothing is judged by them."""
        judged = {metric.name for result in self.results for metric in result.metrics}
        found: dict[str, tuple[BaselineMetric, list[tuple[str, Stats]]]] = {}
        for baseline in self.baselines:
            for metric in baseline.metrics:
                if metric.name not in judged:
                    _, figures = found.setdefault(metric.name, (metric, []))
                    figures.append((baseline.name, metric.values))
        return tuple((metric, tuple(figures)) for metric, figures in found.values())
