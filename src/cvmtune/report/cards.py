# SPDX-License-Identifier: Apache-2.0
"""What a reader wants to know of an experiment first, in words: the page's cards."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.report.rule import Goal, Rule
from cvmtune.report.schema import Metric, Result
from cvmtune.report.text import format_effect, format_figure

_MOST_WORSE = 4
# Below this share of a ratio of 1 something is worse, and not only by what any count is off.
_WORSE = 0.95
_NO_RULE: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """Sentences on one result: what became of the count that the feature is to lower, of what was asked for,
    what got worse, and what it costs. `headline` is that count, None where it was not measured."""

    title: str
    headline: Metric | None
    found: str
    asked: str
    worse: str
    costs: tuple[str, ...]


def card(result: Result, rule: Rule | None) -> Card:
    """The card of a result; without its rule there is only the verdict's own sentence."""
    headline = result.metric(rule.headline) if rule else None
    costs = rule.costs if rule else _NO_RULE
    return Card(
        title=rule.about.title if rule and rule.about else result.feature,
        headline=headline,
        found=_found(headline) if headline else result.why,
        asked=_asked(result, rule.goal) if rule and rule.goal else "",
        worse=_worse(result, costs),
        costs=tuple(_cost(metric) for metric in map(result.metric, costs) if metric),
    )


def _found(headline: Metric) -> str:
    return f"{headline.title}: {format_figure(headline.off.mean)} off, {format_figure(headline.on.mean)} on."


def _asked(result: Result, goal: Goal) -> str:
    reached = [
        f"{metric.title}: {format_effect(metric.effect)}, {goal.bar(metric)}"
        for metric in map(result.metric, goal.metrics)
        if metric and metric.effect
    ]
    asked = f"Asked for, of hardware: {goal.asked}, a ratio of {goal.ratio:g}."
    return f"{asked} Emulated, off/on: {'; '.join(reached)}." if reached else asked


def _worse(result: Result, costs: tuple[str, ...]) -> str:
    """What was worse with the feature on, by its whole interval or in every round; what it is known to cost
    stands elsewhere."""
    worse = [metric for metric in result.metrics if metric.name not in costs and _is_worse(metric)]
    worse.sort(key=lambda metric: metric.effect.ratio if metric.effect else 1.0)
    said = [f"{metric.title} ({format_effect(metric.effect)})" for metric in worse[:_MOST_WORSE]]
    more = f"; and {len(worse) - _MOST_WORSE} more, in the details" if len(worse) > _MOST_WORSE else ""
    return f"What was worse, as off/on: {'; '.join(said)}{more}." if said else ""


def _is_worse(metric: Metric) -> bool:
    effect = metric.effect
    if effect is None:
        return False
    best = effect.interval.high if effect.interval else effect.ratio
    return 0 < best < _WORSE


def _cost(metric: Metric) -> str:
    off, on = format_figure(metric.off.mean), format_figure(metric.on.mean)
    return f"{metric.title}: {off} off, {on} on."
