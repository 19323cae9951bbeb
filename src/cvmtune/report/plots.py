# SPDX-License-Identifier: Apache-2.0
"""The plots of a report, as SVG: for its page, whose colours follow the reader's light or dark mode, or as
files of their own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from cvmtune.report.schema import Breakdown, Metric, Results
from cvmtune.report.stats import Stats
from cvmtune.report.text import format_figure

Measured = Sequence[tuple[str, Stats]]
LineStyle = str | tuple[int, tuple[float, ...]]
Looks = Mapping[str, tuple[str, LineStyle]]
"""Colour and line style by label."""

# Stand-ins that no plot has by chance: each becomes a CSS colour, which follows light and dark mode.
_INK, _GRID = "#000001", "#000002"
_STATES = {"off": "#000003", "on": "#000004"}
_BASELINES = ("#000005", "#000006", "#000007", "#000008")
_PARTS = ("#000010", "#000011", "#000012", "#000013", "#000014", "#000015", "#000016")
_CSS = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    _STATES["off"]: "var(--off)",
    _STATES["on"]: "var(--on)",
    **{colour: f"var(--base-{i})" for i, colour in enumerate(_BASELINES, 1)},
    **{colour: f"var(--part-{i})" for i, colour in enumerate(_PARTS, 1)},
}
# For files of their own: on white.
_FIXED = {
    _INK: "#556070",
    _GRID: "#dde2e9",
    _STATES["off"]: "#b8500b",
    _STATES["on"]: "#0b63b5",
    **dict(zip(_BASELINES, ("#3d7d4e", "#7a5aa8", "#8a7a1f", "#6b7480"), strict=True)),
    **dict(
        zip(
            _PARTS,
            ("#b9c2cd", "#e0a458", "#6b7480", "#7fb069", "#d65f5f", "#3d78b8", "#7a5aa8"),
            strict=True,
        )
    ),
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


def looks(results: Results) -> Looks:
    """How each label is drawn, alike in all plots; baselines differ in colour and in line style."""
    looks: dict[str, tuple[str, LineStyle]] = {
        baseline.name: (_BASELINES[i % len(_BASELINES)], _DASHES[i % len(_DASHES)])
        for i, baseline in enumerate(results.baselines)
    }
    return looks | {state: (colour, "solid") for state, colour in _STATES.items()}


def plot(metric: Metric, measured: Measured, looks: Looks, prefix: str) -> Markup:
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


def stacked(group: Sequence[Breakdown], prefix: str, *, for_page: bool = True) -> Markup:
    """A bar for each breakdown of one metric, all of the same parts, which are told apart by colour."""
    height = 1.5 + 0.34 * len(group)
    return _svg((7.4, height), lambda axes: _draw_stacked(axes, group), prefix, for_page)


def distribution(metric: Metric, results: Results, prefix: str) -> Markup:
    """The latencies of a metric, off, on and of the baselines, as a file of its own."""
    measured, colours = results.measured(metric), looks(results)
    return _svg((7.4, 3.6), lambda axes: _draw_distribution(axes, metric, measured, colours), prefix, False)


def _draw_stacked(axes: Axes, group: Sequence[Breakdown]) -> None:
    scale, unit = (1e6, "ms") if group[0].unit == "ns" else (1.0, group[0].unit)
    names = list(dict.fromkeys(part.name for one in group for part in one.parts))
    for number, name in enumerate(names):
        rows, starts, widths, title = [], [], [], ""
        for row, one in enumerate(group):
            before = 0.0
            for part in one.parts:
                # A part is the difference of two clocks' means: it may come out a little below 0.
                width = max(part.mean, 0.0) / scale
                if part.name == name:
                    rows.append(row)
                    starts.append(before)
                    widths.append(width)
                    title = part.title
                before += width
        axes.barh(rows, widths, left=starts, height=0.66, color=_PARTS[number % len(_PARTS)], label=title)
    for row, one in enumerate(group):
        end = sum(max(part.mean, 0.0) for part in one.parts) / scale
        total = sum(part.mean for part in one.parts) / scale
        axes.text(end, row, f" {format_figure(total)}", va="center", color=_INK)
    axes.set_yticks(range(len(group)), [f"{one.machine}, {one.state}" for one in group])
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlabel(f"mean, {unit} (emulated)" if unit == "ms" else f"mean, {unit}")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="outside lower center", ncols=2)


def _svg(
    inches: tuple[float, float], draw: Callable[[Axes], None], prefix: str, for_page: bool = True
) -> Markup:
    """Draw on axes of their own, and return an SVG element to put into a page, or a file's content."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlib settings must not change the page
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        ground: dict[str, Any] = {"transparent": True} if for_page else {"facecolor": "white"}
        figure.savefig(file, format="svg", metadata=no_metadata, **ground)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]  # a page takes neither XML declaration nor doctype
    # Identifiers must differ between the plots of one page.
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, reference + prefix)
    for colour, shown in (_CSS if for_page else _FIXED).items():
        svg = svg.replace(colour, shown)
    return Markup(svg)
