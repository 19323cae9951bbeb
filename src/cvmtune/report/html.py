# SPDX-License-Identifier: Apache-2.0
"""Results as one self-contained HTML page: its words are in templates/, its plots are inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from cvmtune.report import plots
from cvmtune.report.cards import Card, card
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Breakdown, Metric, Results
from cvmtune.report.stats import percentile
from cvmtune.report.text import HOW_TO_READ, RATIO, format_effect, format_figure, format_rounds, why_no_order


def page(results: Results, rules: Rules) -> str:
    """The whole page, with what the rules say of the experiments.

    The same results give the same page, byte for byte, with the same matplotlib.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cvmtune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=format_figure, effect=format_effect, said=_said, untold=why_no_order)
    environment.globals.update(percentile=percentile, ratio=RATIO, how_to_read=HOW_TO_READ)
    about = {name: rule.about for name, rule in rules.items() if rule.about}
    cards = [card(result, rules.get(result.feature)) for result in results.results]
    return environment.get_template("report.html.j2").render(
        results=results,
        about=about,
        cards=cards,
        pictures=_pictures(results, cards),
        plots=_plots(results),
        stacks=_stacks(results),
    )


def _said(metric: Metric) -> str:
    """What the 95 % interval says of the feature: "better", "worse" or "not settled"; else what there is."""
    effect = metric.effect
    if effect is None:
        return "a round's mean is not above 0"
    if effect.ci95:
        return ("better" if effect.ratio > 1 else "worse") if effect.is_settled else "not settled"
    if effect.rounds:
        return f"{'spread of ' * (effect.rounds > 1)}{format_rounds(effect.rounds)}"
    return "spread" if effect.interval else ""


def _pictures(results: Results, cards: Sequence[Card]) -> list[Markup | None]:
    """For each card its count, off and on and of the baselines, as an SVG element."""
    looks = plots.looks(results)
    return [
        plots.plot(one.headline, results.measured(one.headline), looks, f"card-{number}-")
        if one.headline
        else None
        for number, one in enumerate(cards)
    ]


def _plots(results: Results) -> dict[tuple[int, str], Markup]:
    """An SVG element for each metric of each result, by the result's index and the metric's name."""
    looks = plots.looks(results)
    return {
        (number, metric.name): plots.plot(
            metric, results.measured(metric), looks, f"plot-{number}-{position}-"
        )
        for number, result in enumerate(results.results)
        for position, metric in enumerate(result.metrics)
    }


def _stacks(results: Results) -> list[tuple[str, str, Markup]]:
    """For each metric that has parts: its name, its title, and the stacked bars of all its states."""
    grouped: dict[str, list[Breakdown]] = {}
    for breakdown in results.breakdowns:
        grouped.setdefault(breakdown.metric, []).append(breakdown)
    return [
        (name, group[0].title, plots.stacked(group, prefix=f"parts-{number}-"))
        for number, (name, group) in enumerate(grouped.items())
    ]
