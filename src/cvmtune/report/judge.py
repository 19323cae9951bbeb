# SPDX-License-Identifier: Apache-2.0
"""From raw runs to results: pairs the rounds, computes the figures, asks the experiment's rule. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Sequence
from typing import TypeVar

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import PART, Heading, RawRun, Round, headings
from cvmtune.report import stats
from cvmtune.report.evidence import Evidence
from cvmtune.report.factorial import factorial
from cvmtune.report.gains import Factorial
from cvmtune.report.rule import Rule, Rules
from cvmtune.report.schema import (
    Baseline,
    BaselineMetric,
    Breakdown,
    Metric,
    Part,
    Result,
    Results,
    Verdict,
)
from cvmtune.report.text import format_rounds

RoundPair = tuple[Round, Round]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def judge(raws: Sequence[RawRun], baselines: Sequence[RawRun], rules: Rules) -> Results:
    """Judge every feature on every machine that `raws` hold; runs of the same two are judged together.

    CvmtuneError for a feature without a rule, and where runs disagree on what a metric is.
    """
    for run in raws:
        if run.feature not in rules:
            raise CvmtuneError("there is no verdict rule for this feature", run.feature)
    compared = tuple(_baselines(baselines))
    results = tuple(
        _result(runs, [one for one in compared if one.machine == machine], rules[feature])
        for (feature, machine), runs in _grouped(raws, lambda run: (run.feature, run.machine))
    )
    return Results(
        environment=_environment([*raws, *baselines]),
        results=results,
        baselines=compared,
        factorials=tuple(_factorials(raws, rules)),
        breakdowns=tuple(_breakdowns([*raws, *baselines])),
    )


def _factorials(raws: Sequence[RawRun], rules: Rules) -> Iterator[Factorial]:
    """What each feature gains in the experiments that turn several on, alone and together."""
    for run in raws:
        if design := rules[run.feature].factors:
            for metric in design.metrics:
                found = factorial(run.machine, metric, design.names, design.states, run.rounds)
                if found:
                    yield found


def _breakdowns(runs: Sequence[RawRun]) -> Iterator[Breakdown]:
    """What the metrics that have parts are made of, in each state on each machine."""
    tagged = [((run.machine, one.state), one) for run in runs for one in run.rounds]
    for (machine, state), group in _grouped(tagged, lambda item: item[0]):
        rounds = [one for _, one in group]
        found = headings(rounds)
        for name, heading in found.items():
            prefix = f"{name}{PART}"
            parts = tuple(
                Part(other.removeprefix(prefix), part.title, stats.mean(_all_samples(other, rounds)))
                for other, part in found.items()
                if other.startswith(prefix)
            )
            if parts:
                yield Breakdown(machine, state, name, heading.title, heading.unit, parts)


def _result(runs: Sequence[RawRun], baselines: Sequence[Baseline], rule: Rule) -> Result:
    """The verdict on the runs, at least one, of one feature on one machine."""
    rounds = [one for run in runs for one in run.rounds if one.state in ("off", "on")]
    pairs = [pair for run in runs for pair in _paired(run.rounds)]
    metrics: list[Metric] = []
    notes = []
    if alone := len(rounds) - 2 * len(pairs):
        notes.append(f"Left out: {alone} round(s) without a counterpart.")
    for name, heading in _metrics(rounds).items():
        samples = _sample_pairs(name, pairs)
        if samples:
            metrics.append(_metric(heading, samples))
            notes += _unsettled(metrics[-1], samples)
        else:
            notes.append(f"Left out: {name}, never measured both off and on in one pair of rounds.")
    if few := max(
        (one.effect.rounds or 0 for one in metrics if one.effect and not one.effect.ci95), default=0
    ):
        notes.append(
            f"No interval: {format_rounds(few)} off and on, and at least {stats.LEAST_ROUNDS} are needed."
        )
    # What was measured in other states, or found no counterpart, is compared with nothing, but may tell.
    verdict, why = rule.judge(Evidence(metrics, [*baselines, *_baselines(runs)], _waited(runs)))
    problems = " ".join(run.problem for run in runs if run.problem)
    if problems and verdict is not Verdict.FAIL:
        verdict, why = Verdict.UNDECIDED, problems
    return Result(runs[0].feature, runs[0].machine, tuple(metrics), verdict, why, tuple(notes))


def _waited(runs: Sequence[RawRun]) -> float | None:
    """The largest share of all rounds; None where there is none, or one off or on has none. What is measured
    in no state, as at the end, has none either."""
    rounds = [one for run in runs for one in run.rounds]
    if any(one.waited is None for one in rounds if one.state in ("off", "on")):
        return None
    return max((one.waited for one in rounds if one.waited is not None), default=None)


def _paired(rounds: Iterable[Round]) -> Iterator[RoundPair]:
    """The off and on rounds of one run that have the same index."""
    by_key = {(one.state, one.index): one for one in rounds}
    for (state, index), off in by_key.items():
        if state == "off" and (on := by_key.get(("on", index))) is not None:
            yield off, on


def _metric(heading: Heading, pairs: Sequence[stats.Pair]) -> Metric:
    logs = _gains(heading, pairs)
    return Metric(
        *heading.head(),
        off=stats.summarise([sample for off, _ in pairs for sample in off]),
        on=stats.summarise([sample for _, on in pairs for sample in on]),
        effect=None if logs is None else stats.effect(logs),
    )


def _gains(heading: Heading, pairs: Sequence[stats.Pair]) -> list[float] | None:
    """The log ratio of each pair, above 0 where it is better with the feature on."""
    return stats.log_ratios(pairs if heading.better == "lower" else [(on, off) for off, on in pairs])


def _unsettled(metric: Metric, pairs: Sequence[stats.Pair]) -> Iterator[str]:
    """What to say of a metric whose 95 % interval holds 1, so that it may be better or worse."""
    if metric.effect is None or metric.effect.ci95 is None or metric.effect.is_settled:
        return
    more = stats.rounds_to_settle(_gains(metric, pairs) or ())
    if more is None:
        yield f"Not settled: {metric.name}, no effect in sight."
    else:
        yield f"Not settled: {metric.name}, about {more} more pair(s) of rounds would tell."


def _baselines(runs: Sequence[RawRun]) -> Iterator[Baseline]:
    """What was measured in each state on each machine, whatever was to be compared."""
    tagged = [(run.machine, one) for run in runs for one in run.rounds]
    for (machine, state), group in _grouped(tagged, lambda item: (item[0], item[1].state)):
        rounds = [one for _, one in group]
        metrics = tuple(
            BaselineMetric(*heading.head(), stats.summarise(_all_samples(name, rounds)))
            for name, heading in _metrics(rounds).items()
        )
        name = f"feature {state}" if state in ("off", "on") else state
        yield Baseline(f"{machine}, {name}", machine, metrics)


def _metrics(rounds: Iterable[Round]) -> dict[str, Heading]:
    """What the metrics are that are no parts of others."""
    return {name: heading for name, heading in headings(rounds).items() if PART not in name}


def _sample_pairs(name: str, pairs: Iterable[RoundPair]) -> list[stats.Pair]:
    """The metric's samples from the pairs in which both rounds have it."""
    both = ((_samples(name, off), _samples(name, on)) for off, on in pairs)
    return [pair for pair in both if all(pair)]


def _all_samples(name: str, rounds: Iterable[Round]) -> list[float]:
    return [sample for one in rounds for sample in _samples(name, one)]


def _samples(name: str, one: Round) -> tuple[float, ...]:
    return next((series.samples for series in one.series if series.name == name), ())


def _environment(runs: Sequence[RawRun]) -> dict[str, object]:
    """What all runs share, as it is; what differs, by run."""
    environment: dict[str, object] = {}
    known = [{**run.environment, **run.findings} for run in runs]
    for key in dict.fromkeys(key for one in known for key in one):
        values = {
            f"run {number}, {run.feature} on {run.machine}": one[key]
            for number, (run, one) in enumerate(zip(runs, known, strict=True), 1)
            if key in one
        }
        first, *others = values.values()
        environment[key] = first if all(value == first for value in others) else values
    return environment


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> ItemsView[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()
