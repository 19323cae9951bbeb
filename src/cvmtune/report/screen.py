# SPDX-License-Identifier: Apache-2.0
"""Results on one screen: at most 40 lines of 80 columns. The page and table.py have all the rest."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cvmtune.report.rule import Rule, Rules
from cvmtune.report.schema import Result, Results, Verdict
from cvmtune.report.table import COLOURS, print_tables
from cvmtune.report.text import format_effect, format_figure

COLUMNS = 80
_LONGEST = 235  # characters: three lines


def show(results: Results, rules: Rules, console: Console, *, verbose: bool) -> None:
    """Print what became of each experiment, why it is no PASS where it is none, and what became of times;
    with `verbose` every figure before it."""
    if verbose:
        print_tables(results, console)
    console.print(screen(results, rules), width=min(COLUMNS, console.width))


def screen(results: Results, rules: Rules) -> Group:
    """The verdicts, a line or two each, and what there is to say of them."""
    lines: list[Table | Text] = [_verdicts(results, rules)]
    lines += [
        Text(_cut(f"{result.feature} {result.verdict}: {result.why}"))
        for result in results.results
        if result.verdict is not Verdict.PASS
    ]
    lines += [Text(_cut(note)) for note in results.notes]
    times = ", ".join(_times(results, rules))
    if times:
        lines.append(
            Text(f"Times (emulated, none is a hardware's; off/on, above 1 is faster): {times}.", style="dim")
        )
    return Group(*lines)


def _verdicts(results: Results, rules: Rules) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("feature", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("count, off → on", ratio=3)
    table.add_column("asked for", ratio=2)
    for result in results.results:
        rule = rules.get(result.feature)
        verdict = Text(result.verdict, style=f"bold {COLOURS[result.verdict]}")
        count = _count(result, rule)
        asked = rule.goal.asked if rule and rule.goal else ""
        table.add_row(Text(result.feature), verdict, Text(count), Text(asked))
    return table


def _count(result: Result, rule: Rule | None) -> str:
    """The headline's count in words, off and on."""
    headline = result.metric(rule.headline if rule else "")
    if headline is None:
        return "not measured"
    off, on = format_figure(headline.off.mean), format_figure(headline.on.mean)
    return f"{headline.title}: {off} → {on}"


def _times(results: Results, rules: Rules) -> Iterator[str]:
    for result in results.results:
        goal = rules[result.feature].goal if result.feature in rules else None
        found = map(result.metric, goal.metrics if goal else ())
        said = [format_effect(time.effect) for time in found if time and time.effect]
        if said:
            yield f"{result.feature} {' and '.join(said)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
