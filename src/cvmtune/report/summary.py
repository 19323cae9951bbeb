# SPDX-License-Identifier: Apache-2.0
"""Results in a page's worth of Markdown, with pictures beside it, for a README or a ticket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cvmtune.report import plots
from cvmtune.report.gains import Factorial
from cvmtune.report.rule import Goal, Rules
from cvmtune.report.schema import Breakdown, Metric, Result, Results
from cvmtune.report.stats import Stats, percentile
from cvmtune.report.text import HOW_TO_READ, NO_FIGURE, RATIO, format_effect, format_figure, why_no_order

PAGE = "summary.md"
"""The page's name; it shows the pictures that are beside it."""

_NS_PER_MS = 1e6
_ORDINARY = "vm, feature off"
# States that a picture of where the time goes has, in its order; of other machines it has what there is.
_SHOWN = ("off", "on")
VERDICTS = (
    "experiment",
    "verdict",
    "count, off → on",
    "asked for, of hardware: as a ratio",
    "emulated ratio off/on",
)


def files(results: Results, rules: Rules) -> Mapping[str, str]:
    """The page and its pictures, by their names."""
    pictures = {f"{name}.svg": picture for name, picture in _pictures(results, rules)}
    return {PAGE: page(results, rules, tuple(pictures)), **pictures}


def page(results: Results, rules: Rules, pictures: Sequence[str] = ()) -> str:
    """The page; the same results give the same text.

    The rules say by which figure a verdict is told, and of which experiments there are latencies and gains:
    those that turn several features on.
    """
    sections = [_where(results), *results.notes, verdicts(results, rules), HOW_TO_READ]
    for result in results.results:
        rule = rules.get(result.feature)
        if rule and rule.factors:
            sections.append(_latencies(results, result, rule.goal))
        compared = rule.factors.metrics if rule and rule.factors else ()
        found = (one for one in results.factorials if one.machine == result.machine)
        sections += [_gains(one) for one in found if one.metric in compared]
    sections += [f"![{name.removesuffix('.svg').replace('-', ' ')}]({name})" for name in pictures]
    return "\n\n".join(sections) + "\n"


def _where(results: Results) -> str:
    said = {key: _one_of(results.environment.get(key, "unknown")) for key in ("date", "cvmtune", "kernel")}
    kernel = " ".join(said["kernel"].split()[:3])
    emulator, computer = (_one_of(results.environment.get(key, "?")) for key in ("emulator", "computer"))
    return (
        f"Measured {said['date']} with cvmtune {said['cvmtune']} on {kernel}, in {emulator} on {computer}. "
        "Times are emulated: only their ratios mean something."
    )


def _one_of(value: object) -> str:
    """A value of the environment, or the first of several runs'."""
    return str(next(iter(value.values()), "")) if isinstance(value, dict) else str(value)


def verdicts(results: Results, rules: Rules) -> str:
    """The table of what became of each experiment, beside what was asked for; README has it too."""
    rows = []
    for result in results.results:
        rule = rules.get(result.feature)
        headline = result.metric(rule.headline) if rule else None
        count = (
            f"{headline.title}: {_figure(headline.off)} → {_figure(headline.on)}" if headline else NO_FIGURE
        )
        goal = rule.goal if rule else None
        asked = f"{goal.asked}: {goal.ratio:g}" if goal else ""
        reached = [
            f"{metric.title}: {format_effect(metric.effect)}, {goal.bar(metric)}"
            for metric in map(result.metric, goal.metrics if goal else ())
            if metric and goal
        ]
        where = f"{result.feature}, {result.machine}"
        rows.append((where, result.verdict, count, asked, "; ".join(reached) or NO_FIGURE))
    return _table(VERDICTS, rows)


def _figure(stats: Stats) -> str:
    return format_figure(stats.mean)


def _latencies(results: Results, result: Result, goal: Goal | None) -> str:
    """Every latency, off and on, and that of an ordinary VM; then what became of the goal."""
    rows = []
    for metric in result.metrics:
        if metric.kind == "time":
            ordinary = dict(results.measured(metric)).get(_ORDINARY)
            beside = f"{ordinary.mean / metric.on.mean:.2f}" if ordinary else NO_FIGURE
            rows.append((metric.title, _ms(metric.off), _ms(metric.on), format_effect(metric.effect), beside))
    heading = (
        "latency in ms: mean; p50, p95, p99 (of how many)",
        "all off",
        "all on",
        f"off/on, {RATIO}",
        f"vm off/{result.machine} on",
    )
    table = _table(heading, rows)
    if goal is None:
        return table
    bars = ", ".join(f"{one.name} {goal.bar(one)}" for one in result.metrics if one.name in goal.metrics)
    asked = f"a ratio of {goal.ratio:g} {goal.condition}".rstrip()
    return f"{table}\n\nTarget: {asked}; by the 95 % intervals: {bars}."


def _ms(stats: Stats) -> str:
    tail = (stats.median, percentile(stats.samples, 95), stats.p99)
    return f"{_in_ms(stats.mean)}; {', '.join(map(_in_ms, tail))} ({stats.n})"


def _in_ms(ns: float) -> str:
    return format_figure(ns / _NS_PER_MS)


def _gains(found: Factorial) -> str:
    effects = [
        (gain.factor, *map(format_effect, (gain.alone, gain.last, gain.overall))) for gain in found.gains
    ]
    text = f"{found.title}:\n\n" + _table(("feature", "alone", "added last", "on average"), effects)
    if found.interactions:
        pairs = (f"{one.first} with {one.second} {format_effect(one.effect)}" for one in found.interactions)
        text += f"\n\nInteractions (above 1: one gains more where the other is on): {'; '.join(pairs)}."
    if found.steps:
        turns = ", then ".join(f"{step.factor} ({format_effect(step.gain)})" for step in found.steps)
        return (
            f"{text}\n\nTurn on first: {turns}. The others gave no measurable further gain, or were not "
            "measured with these."
        )
    return f"{text}\n\n{why_no_order(found) or 'No feature alone gave a measurable gain.'}"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.replace("|", "/").split())


def _pictures(results: Results, rules: Rules) -> Iterator[tuple[str, str]]:
    """Of the metrics by which combinations of features are compared, if it is known what they are made of."""
    metrics: dict[str, Metric] = {
        metric.name: metric for result in results.results for metric in result.metrics
    }
    designs = (rule.factors for rule in rules.values() if rule.factors)
    for name in dict.fromkeys(name for design in designs for name in design.metrics):
        bars = [one for one in results.breakdowns if one.metric == name and one.state in _SHOWN]
        if bars:
            yield f"where-the-time-goes-{name}", plots.stacked(_ordered(bars), name, for_page=False)
        if bars and name in metrics:
            yield f"latency-{name}", plots.distribution(metrics[name], results, f"{name}-latency")


def _ordered(bars: Sequence[Breakdown]) -> list[Breakdown]:
    """The judged machine's first, off before on."""
    first = bars[0].machine
    return sorted(bars, key=lambda one: (one.machine != first, one.machine, _SHOWN.index(one.state)))
