# SPDX-License-Identifier: Apache-2.0
"""Results in a page's worth of Markdown, with pictures beside it, for a README or a ticket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cvmtune.report import plots
from cvmtune.report.schema import Breakdown, Factorial, Metric, Result, Results, Stats
from cvmtune.report.stats import percentile
from cvmtune.report.table import NO_FIGURE, format_effect, format_figure, format_ratio
from cvmtune.workloads.blackbox.metrics import MAIN_METRICS
from cvmtune.workloads.blackbox.verdict import REQUESTED, bar

PAGE = "summary.md"
"""The page's name; it shows the pictures that are beside it."""

_NS_PER_MS = 1e6
_ORDINARY = "vm, feature off"
# What each feature is there to lower, by its experiment: the metric that tells it best.
_HEADLINES = {
    "ipi": "sgi_per_ipi",
    "vtimer": "timer_exits_per_section",
    "cq-poll": "wakeups_per_write",
    "wfx": "wfx_per_futex_rtt",
    "blackbox": "tpcb_ipis",
}
# States that a picture of where the time goes has, in its order; of other machines it has what there is.
_SHOWN = ("off", "on")


def files(results: Results) -> Mapping[str, str]:
    """The page and its pictures, by their names."""
    pictures = {f"{name}.svg": picture for name, picture in _pictures(results)}
    return {PAGE: page(results, tuple(pictures)), **pictures}


def page(results: Results, pictures: Sequence[str] = ()) -> str:
    """The page; the same results give the same text."""
    sections = [_where(results), _verdicts(results)]
    for result in results.results:
        if result.feature == "blackbox":
            sections.append(_latencies(results, result))
            sections += [_gains(one) for one in results.factorials if one.machine == result.machine]
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


def _verdicts(results: Results) -> str:
    rows = []
    for result in results.results:
        headline = next((m for m in result.metrics if m.name == _HEADLINES.get(result.feature)), None)
        what = f"{headline.title}: {_figure(headline.off)} → {_figure(headline.on)}" if headline else ""
        rows.append((result.feature, result.machine, result.verdict, what))
    return _table(("feature", "machine", "verdict", "off → on"), rows)


def _figure(stats: Stats) -> str:
    return format_figure(stats.mean)


def _latencies(results: Results, result: Result) -> str:
    """Every latency, off and on, and that of an ordinary VM."""
    rows = []
    for metric in result.metrics:
        if metric.kind == "time":
            ordinary = dict(results.measured(metric)).get(_ORDINARY)
            beside = f"{ordinary.mean / metric.on.mean:.2f}" if ordinary else NO_FIGURE
            rows.append((metric.title, _ms(metric.off), _ms(metric.on), format_ratio(metric), beside))
    heading = (
        "latency in ms: mean; p50, p95, p99 (of how many)",
        "all off",
        "all on",
        "off/on [95 %]",
        "vm off/cvm on",
    )
    return (
        _table(heading, rows)
        + f"\n\nAsked for: a ratio of {REQUESTED:g} at a rate; by the intervals: {_bars(result)}"
    )


def _bars(result: Result) -> str:
    """What became of the bar, by the intervals."""
    said = (f"{metric.name} {bar(metric)}" for metric in result.metrics if metric.name in MAIN_METRICS)
    return f"{', '.join(said)}."


def _ms(stats: Stats) -> str:
    tail = (stats.median, percentile(stats.samples, 95), stats.p99)
    return f"{_in_ms(stats.mean)}; {', '.join(map(_in_ms, tail))} ({stats.n})"


def _in_ms(ns: float) -> str:
    return format_figure(ns / _NS_PER_MS)


def _gains(found: Factorial) -> str:
    effects = [
        (gain.factor, *(format_effect(e) if e else NO_FIGURE for e in (gain.alone, gain.last, gain.overall)))
        for gain in found.gains
    ]
    text = f"{found.title}:\n\n" + _table(("feature", "alone", "as the last", "in the mean"), effects)
    if found.interactions:
        pairs = (f"{one.first} with {one.second} {format_effect(one.effect)}" for one in found.interactions)
        text += f"\n\nInteractions (above 1: one gains more where the other is on): {'; '.join(pairs)}."
    if found.steps:
        turns = ", then ".join(f"{step.factor} ({format_effect(step.gain)})" for step in found.steps)
        return (
            f"{text}\n\nTurn on first: {turns}. What is not named gains nothing more that can be seen, or "
            "was not measured with these."
        )
    return f"{text}\n\nNo feature alone gains anything that can be seen."


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.replace("|", "/").split())


def _pictures(results: Results) -> Iterator[tuple[str, str]]:
    metrics: dict[str, Metric] = {
        metric.name: metric for result in results.results for metric in result.metrics
    }
    for name in MAIN_METRICS:
        bars = [one for one in results.breakdowns if one.metric == name and one.state in _SHOWN]
        if bars:
            yield f"where-the-time-goes-{name}", plots.stacked(_ordered(bars), name, for_page=False)
        if bars and name in metrics:
            yield f"latency-{name}", plots.distribution(metrics[name], results, f"{name}-latency")


def _ordered(bars: Sequence[Breakdown]) -> list[Breakdown]:
    """The judged machine's first, off before on."""
    first = bars[0].machine
    return sorted(bars, key=lambda one: (one.machine != first, one.machine, _SHOWN.index(one.state)))
