# SPDX-License-Identifier: Apache-2.0
"""Results as one self-contained HTML page: its words are in templates/, its plots are inline SVG."""

from __future__ import annotations

import jinja2
from markupsafe import Markup

from cvmtune.report import plots
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Breakdown, Metric, Results
from cvmtune.report.stats import percentile
from cvmtune.report.table import format_effect, format_figure, format_ratio


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
    environment.filters.update(figure=format_figure, ratio=format_ratio, effect=_effect, gain=format_effect)
    environment.globals.update(percentile=percentile)
    about = {name: rule.about for name, rule in rules.items() if rule.about}
    return environment.get_template("report.html.j2").render(
        results=results, about=about, plots=_plots(results), stacks=_stacks(results)
    )


def _effect(metric: Metric) -> str:
    """What the interval says of the feature: "better", "worse", "not settled", or nothing."""
    if metric.ci95 is None:
        return ""
    low, high = metric.ci95
    return "better" if low > 1 else "worse" if high < 1 else "not settled"


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
