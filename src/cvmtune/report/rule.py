# SPDX-License-Identifier: Apache-2.0
"""What an experiment tells the report: how it is judged, which of its metrics say what, and what it is about.

The report knows no experiment by name: whoever calls it passes these in, by the experiments' names, which
results have as their `feature`. A recorded result of an experiment that nobody passes in is shown as well,
only with less said about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.schema import Metric
from cvmtune.report.text import format_rounds

Judge = Callable[[Evidence], Judged]
"""Makes a verdict of what was measured of an experiment on a machine, and says why."""


@dataclass(frozen=True)
class Goal:
    """A gain that was asked for, as the ratio off/on of these times, the first of which tells it best. It is
    told and decides nothing.

    `asked` has the words in which it was asked for, of hardware. `condition` says under which load, in words
    that follow the ratio, as "at a rate".
    """

    asked: str
    metrics: tuple[str, ...]
    ratio: float
    condition: str = ""

    def bar(self, metric: Metric) -> str:
        """Whether the gain is "met" or "missed" by the metric's whole 95 % interval, or "not settled".

        Without such an interval it is "not told", and of how many rounds.
        """
        effect = metric.effect
        if effect is None or effect.ci95 is None:
            return f"not told ({format_rounds(effect.rounds)})" if effect and effect.rounds else "not told"
        low, high = effect.ci95
        return "met" if low >= self.ratio else "missed" if high < self.ratio else "not settled"


@dataclass(frozen=True)
class Factors:
    """The design of an experiment that turns several features on: their names, the states with those that are
    on in each, and the metrics by which states are compared."""

    names: tuple[str, ...]
    states: Mapping[str, frozenset[str]]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class About:
    """What the page says of an experiment: `title` in its headings in place of the name, and paragraphs on
    what was measured, and why."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """`headline` is the count that tells best what the feature is there to lower, and `costs` are those that
    tell what it costs, by their metrics' names."""

    judge: Judge
    headline: str
    costs: tuple[str, ...] = ()
    goal: Goal | None = None
    factors: Factors | None = None
    about: About | None = None


Rules = Mapping[str, Rule]
"""The rules by the experiments' names."""
