# SPDX-License-Identifier: Apache-2.0
"""Results as one self-contained HTML page: its words are in templates/, its plots are inline SVG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from cvmtune.report.schema import Metric, Results, Stats
from cvmtune.report.table import format_figure, format_ratio

Measured = Sequence[tuple[str, Stats]]
LineStyle = str | tuple[int, tuple[float, ...]]
Looks = Mapping[str, tuple[str, LineStyle]]
"""Colour and line style by label."""

# Stand-ins that no plot has by chance: each becomes a CSS colour, which follows light and dark mode.
_INK, _GRID = "#000001", "#000002"
_STATES = {"off": "#000003", "on": "#000004"}
_BASELINES = ("#000005", "#000006", "#000007", "#000008")
_CSS = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    _STATES["off"]: "var(--off)",
    _STATES["on"]: "var(--on)",
    **{colour: f"var(--base-{i})" for i, colour in enumerate(_BASELINES, 1)},
}
_DASHES: tuple[LineStyle, ...] = ((0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))

# Any: matplotlib's types name its keys one by one, and differently in each version.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be read and searched
    "svg.hashsalt": "cvmtune",  # else the identifiers differ at every run
    "text.parse_math": False,  # a label is the user's, and may hold a dollar sign
    "path.simplify_threshold": 0.5,  # in pixels: thousands of steps would swell the page unseen
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def page(results: Results) -> str:
    """The whole page. The same results give the same page, byte for byte, with the same matplotlib."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cvmtune.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=format_figure, ratio=format_ratio, effect=_effect)
    return environment.get_template("report.html.j2").render(results=results, plots=_plots(results))


def _effect(metric: Metric) -> str:
    """What the interval says of the feature: "better", "worse", "not settled", or nothing."""
    if metric.ci95 is None:
        return ""
    low, high = metric.ci95
    return "better" if low > 1 else "worse" if high < 1 else "not settled"


def _plots(results: Results) -> dict[tuple[int, str], Markup]:
    """An SVG element for each metric of each result, by the result's index and the metric's name."""
    looks = _looks(results)
    return {
        (number, metric.name): _plot(metric, results.measured(metric), looks, f"plot-{number}-{position}-")
        for number, result in enumerate(results.results)
        for position, metric in enumerate(result.metrics)
    }


def _looks(results: Results) -> Looks:
    """How each label is drawn, alike in all plots; baselines differ in colour and in line style."""
    looks: dict[str, tuple[str, LineStyle]] = {
        baseline.name: (_BASELINES[i % len(_BASELINES)], _DASHES[i % len(_DASHES)])
        for i, baseline in enumerate(results.baselines)
    }
    return looks | {state: (colour, "solid") for state, colour in _STATES.items()}


def _plot(metric: Metric, measured: Measured, looks: Looks, prefix: str) -> Markup:
    if metric.kind == "time":
        return _svg((5.4, 3.4), lambda axes: _draw_distribution(axes, metric, measured, looks), prefix)
    height = 0.75 + 0.34 * len(measured)
    return _svg((5.4, height), lambda axes: _draw_bars(axes, metric, measured, looks), prefix)


def _draw_distribution(axes: Axes, metric: Metric, measured: Measured, looks: Looks) -> None:
    """Share of samples up to each value: it shows the whole distribution, and needs no choice of bins."""
    for label, stats in measured:
        colour, dash = looks[label]
        width = 2.0 if label in _STATES else 1.3
        axes.ecdf(stats.samples, label=label, color=colour, linestyle=dash, linewidth=width)
    _scale_by_values(axes, [sample for _, stats in measured for sample in stats.samples])
    axes.set_xlabel(metric.unit)
    axes.set_ylabel("samples up to this value")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(True)
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="outside lower center", ncols=3)


def _scale_by_values(axes: Axes, values: Sequence[float]) -> None:
    """A log axis, unless a value has no logarithm; with ticks at round values even within one decade."""
    if min(values) > 0:
        axes.set_xscale("log")
        spread = max(values) / min(values)
        # Labels must not run into each other: over many decades there is room for one each.
        subs = (1, 2, 5) if spread <= 100 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs) if spread > 10 else AutoLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _draw_bars(axes: Axes, metric: Metric, measured: Measured, looks: Looks) -> None:
    """A bar for every mean, with its figure at the end: a bar of almost nothing must still be read."""
    for row, (label, stats) in enumerate(measured):
        bar = axes.barh(row, stats.mean, height=0.62, color=looks[label][0])
        axes.bar_label(bar, labels=[format_figure(stats.mean)], padding=4)
    axes.set_yticks(range(len(measured)), [label for label, _ in measured])
    axes.invert_yaxis()
    largest = max(stats.mean for _, stats in measured)
    axes.set_xlim(min(0.0, *(stats.mean for _, stats in measured)), 1.15 * largest if largest > 0 else 1)
    axes.set_xlabel(f"mean, {metric.unit}")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


def _svg(inches: tuple[float, float], draw: Callable[[Axes], None], prefix: str) -> Markup:
    """Draw on axes of their own, and return an SVG element to put into a page."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlib settings must not change the page
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]  # a page takes neither XML declaration nor doctype
    # Identifiers must differ between the plots of one page.
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, reference + prefix)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return Markup(svg)
