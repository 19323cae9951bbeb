# SPDX-License-Identifier: Apache-2.0
"""Results as tables for the terminal: one of verdicts, one of metrics for every feature and machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cvmtune.experiments.rounds import Kind
from cvmtune.report.gains import Effect, Factorial
from cvmtune.report.schema import Metric, Result, Results, Verdict
from cvmtune.report.stats import Stats

NO_FIGURE = "n/a"

FOOTNOTE = (
    "Times were taken under emulation: only their ratios mean something, and none is a hardware's figure. "
    "A ratio above 1 is better with the feature on; its 95 % interval is in brackets."
)

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("count", "Counts"),
    ("time", "Times (emulated)"),
)
COLOURS: dict[Verdict, str] = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNDECIDED: "yellow"}


def print_tables(results: Results, console: Console) -> None:
    """Print the verdicts, the metrics of every result, and how to read them."""
    console.print(verdicts(results))
    for result in results.results:
        console.print(metrics(results, result))
    for factorial in results.factorials:
        console.print(gains(factorial))
    if results.beside():
        console.print(beside(results))
    console.print(key(results))
    console.print(FOOTNOTE, style="dim")


def verdicts(results: Results) -> Table:
    """One line for every feature on every machine."""
    table = Table(title="Verdicts", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("feature")
    table.add_column("machine")
    table.add_column("verdict", no_wrap=True)
    table.add_column("why", ratio=1)
    for result in results.results:
        verdict = Text(result.verdict, style=f"bold {COLOURS[result.verdict]}")
        table.add_row(Text(result.feature), Text(result.machine), verdict, Text(result.why))
    return table


def metrics(results: Results, result: Result) -> Table:
    """The metrics of one feature on one machine, each with a line for off, on and every baseline."""
    title = Text(f"{result.feature} on {result.machine}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for figure in ("median", "mean", "p99"):
        table.add_column(figure, justify="right", no_wrap=True)
    table.add_column("ratio [95 %]", no_wrap=True)
    for kind, heading in _KINDS:
        of_kind = [metric for metric in result.metrics if metric.kind == kind]
        if of_kind:
            table.add_row(Text(heading, style="bold underline"))
        for metric in of_kind:
            table.add_row(*_row(metric, results.measured(metric)))
        table.add_section()
    return table


def gains(factorial: Factorial) -> Table:
    """What each feature gains in one metric: alone, as the last of all, and in the mean over the others."""
    title = Text(f"What each feature gains on {factorial.machine}: {factorial.title}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("feature")
    for heading in ("alone", "as the last", "in the mean"):
        table.add_column(heading, no_wrap=True)
    for gain in factorial.gains:
        effects = (gain.alone, gain.last, gain.overall)
        table.add_row(Text(gain.factor), *(Text(format_effect(e) if e else NO_FIGURE) for e in effects))
    return table


def beside(results: Results) -> Table:
    """The metrics that only baselines have: one mean a line."""
    table = Table(title="Beside the experiment", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("mean", justify="right", no_wrap=True)
    for metric, figures in results.beside():
        table.add_row(Text(f"{metric.title} ({metric.unit})", style="bold"))
        for label, stats in figures:
            table.add_row(Text(f"  {label}"), Text(format_figure(stats.mean)))
    return table


def key(results: Results) -> Table:
    """What every metric's name stands for."""
    table = Table(title="Metrics", title_justify="left", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    titles = {metric.name: metric.title for result in results.results for metric in result.metrics}
    for name, title in titles.items():
        table.add_row(Text(name, style="bold"), Text(title))
    return table


def format_figure(value: float) -> str:
    """A figure with three significant digits, or all those before the point; millions as in "1.23M"."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:#.3g}".rstrip(".") + "M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def format_ratio(metric: Metric) -> str:
    """The ratio, as in "5.10 [4.80, 5.60]"."""
    if metric.ratio is None:
        return NO_FIGURE
    return format_effect(Effect(metric.ratio, metric.ci95))


def format_effect(effect: Effect) -> str:
    """The same of an effect."""
    interval = "" if effect.ci95 is None else " [" + ", ".join(map(format_figure, effect.ci95)) + "]"
    return format_figure(effect.ratio) + interval


def _row(metric: Metric, measured: Sequence[tuple[str, Stats]]) -> list[Text]:
    """One row whose cells have a line for the name, then one for each of `measured`."""

    def column(figures: Iterable[float]) -> Text:
        return Text("\n".join(["", *map(format_figure, figures)]))

    labels = "".join(f"\n  {label}" for label, _ in measured)
    return [
        Text.assemble((metric.name, "bold"), f" ({metric.unit})", labels),
        column(stats.median for _, stats in measured),
        column(stats.mean for _, stats in measured),
        column(stats.p99 for _, stats in measured),
        Text(format_ratio(metric).replace(" [", "\n[")),  # two lines: they must fit a terminal of 80 columns
    ]
