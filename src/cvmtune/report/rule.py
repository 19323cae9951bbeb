# SPDX-License-Identifier: Apache-2.0
"""What an experiment tells the report: how it is judged, and which of its metrics say what.

The report knows no experiment by name: whoever calls it passes these in, by the experiments' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cvmtune.report.schema import Baseline, Metric, Verdict

Judge = Callable[[Sequence[Metric], Sequence[Baseline]], tuple[Verdict, str]]
"""Makes a verdict, and says why, of an experiment's metrics on a machine and of all else measured there."""


@dataclass(frozen=True)
class Goal:
    """A gain that was asked for, as the ratio off/on of these metrics. It is told and decides nothing."""

    metrics: tuple[str, ...]
    ratio: float


@dataclass(frozen=True)
class Factors:
    """The design of an experiment that turns several features on: their names, the states with those that are
    on in each, and the metrics by which states are compared."""

    names: tuple[str, ...]
    states: Mapping[str, frozenset[str]]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """`headline` is the metric that tells best what the feature is there to lower."""

    judge: Judge
    headline: str
    goal: Goal | None = None
    factors: Factors | None = None
