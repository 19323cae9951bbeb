# SPDX-License-Identifier: Apache-2.0
"""Results as tables for the terminal: one of verdicts, one of metrics for every feature and machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cvmtune.experiments.rounds import Kind
from cvmtune.report.gains import Factorial
from cvmtune.report.schema import Metric, Result, Results, Verdict
from cvmtune.report.stats import Stats
from cvmtune.report.text import HOW_TO_READ, format_effect, format_figure, why_no_order

FOOTNOTE = (
    "Times were taken under emulation: only their ratios mean something, and none is a hardware's figure. "
    + HOW_TO_READ
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
        for note in result.notes:
            console.print(Text(note))
        if result.notes:
            console.print()
    for factorial in results.factorials:
        console.print(gains(factorial))
        if untold := why_no_order(factorial):
            console.print(Text(untold), "", sep="\n")
    if results.beside():
        console.print(beside(results))
    console.print(key(results))
    console.print(FOOTNOTE, style="dim", markup=False)
    for note in results.notes:
        console.print(Text(note))


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
    table.add_column("ratio", no_wrap=True)
    for kind, heading in _KINDS:
        of_kind = [metric for metric in result.metrics if metric.kind == kind]
        if of_kind:
            table.add_row(Text(heading, style="bold underline"))
        for metric in of_kind:
            table.add_row(*_row(metric, results.measured(metric)))
        table.add_section()
    return table


def gains(factorial: Factorial) -> Table:
    """What each feature gains in one metric: alone, added last of all, and on average over the others."""
    title = Text(f"What each feature gains on {factorial.machine}: {factorial.title}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("feature")
    for heading in ("alone", "added last", "on average"):
        table.add_column(heading, no_wrap=True)
    for gain in factorial.gains:
        effects = (gain.alone, gain.last, gain.overall)
        table.add_row(Text(gain.factor), *(Text(format_effect(e)) for e in effects))
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
        # Two lines: they must fit a terminal of 80 columns.
        Text("\n".join(format_effect(metric.effect).split(maxsplit=1))),
    ]
