# SPDX-License-Identifier: Apache-2.0
"""What each of several features gains, alone and with the others: a full factorial experiment. Pure.

All gains are ratios of mean latencies, above 1 where the feature helps. Gains multiply: without interaction
two features together gain the product of what each gains alone (Box, Hunter, Hunter, "Statistics for
Experimenters", chapter 5, on the logarithm of the response). So each of them is a contrast: a sum of a
round's log means, with weights that add up to 0. Each round has one value of it; stats.effect() makes a ratio
and its interval of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from cvmtune.experiments.rounds import Round
from cvmtune.report import stats
from cvmtune.report.gains import Cell, Factorial, Gain, Interaction, Step
from cvmtune.report.stats import Effect

Features = frozenset[str]
Contrast = Mapping[Features, float]
"""The weight of each combination of features that are on."""

_NOTHING: Features = frozenset()


def factorial(
    machine: str, metric: str, factors: Sequence[str], states: Mapping[str, Features], rounds: Sequence[Round]
) -> Factorial | None:
    """Compute the gains in a metric from rounds in the states.

    None if a feature was never on alone, or the mean of a round is not positive.

    Of the combinations only those count that were measured in each round in which any was: so all see the
    same drift. Gains over all settings of the others, and interactions, take all combinations.
    """
    samples: dict[Features, dict[int, tuple[float, ...]]] = {}
    heading = None
    for one in rounds:
        for series in one.series:
            if series.name == metric and one.state in states:
                heading = heading or series
                samples.setdefault(states[one.state], {})[one.index] = series.samples
    indices = sorted(set.intersection(*(set(found) for found in samples.values())) if samples else ())
    alone = [frozenset({factor}) for factor in factors]
    if heading is None or not indices or not {_NOTHING, *alone} <= samples.keys():
        return None
    means = [{on: stats.mean(found[index]) for on, found in samples.items()} for index in indices]
    if any(mean <= 0 for one in means for mean in one.values()):
        return None
    estimate = _Estimator([{on: math.log(mean) for on, mean in one.items()} for one in means])
    cells = tuple(
        Cell(
            tuple(factor for factor in factors if factor in on),
            stats.summarise([sample for index in indices for sample in found[index]]),
            None if not on else estimate(_ratio(_NOTHING, on)),
        )
        for on, found in samples.items()
    )
    return Factorial(
        machine=machine,
        metric=metric,
        title=heading.title,
        unit=heading.unit,
        factors=tuple(factors),
        cells=cells,
        gains=tuple(_gains(estimate, factors, samples.keys())),
        interactions=tuple(_interactions(estimate, factors, samples.keys())),
        steps=_order(estimate, factors, samples.keys()),
    )


class _Estimator:
    """Effects from the log means of each round."""

    def __init__(self, rounds: Sequence[Mapping[Features, float]]) -> None:
        self._rounds = rounds

    def __call__(self, contrast: Contrast) -> Effect:
        return stats.effect(
            [math.fsum(weight * logs[on] for on, weight in contrast.items()) for logs in self._rounds]
        )


def _gains(estimate: _Estimator, factors: Sequence[str], measured: Collection[Features]) -> Iterator[Gain]:
    everything = frozenset(factors)
    for factor in factors:
        single = frozenset({factor})
        last = overall = None
        if everything in measured and everything - single in measured:
            last = estimate(_ratio(everything - single, everything))
        if len(measured) == 2 ** len(factors):
            overall = estimate(_overall(single, everything))
        yield Gain(factor, estimate(_ratio(_NOTHING, single)), last, overall)


def _interactions(
    estimate: _Estimator, factors: Sequence[str], measured: Collection[Features]
) -> Iterator[Interaction]:
    if len(measured) == 2 ** len(factors):
        for first, second in combinations(factors, 2):
            yield Interaction(first, second, estimate(_interaction(first, second, frozenset(factors))))


def _order(estimate: _Estimator, factors: Sequence[str], measured: Collection[Features]) -> tuple[Step, ...]:
    """The features in the order in which to turn them on: at each step the one that leaves the lowest mean.

    Only what is known to gain something (its 95 % interval lies above 1) is a step. It ends where nothing
    does, or where a next combination was not measured.
    """
    steps: list[Step] = []
    on = _NOTHING
    while len(on) < len(factors):
        nexts = [(factor, on | {factor}) for factor in factors if factor not in on]
        if any(combination not in measured for _, combination in nexts):
            break
        gains = [(estimate(_ratio(on, after)), factor, after) for factor, after in nexts]
        known = [step for step in gains if step[0].is_settled and step[0].ratio > 1]
        if not known:
            break
        gain, factor, after = max(known, key=lambda step: step[0].ratio)
        steps.append(Step(factor, gain, estimate(_ratio(_NOTHING, after))))
        on = after
    return tuple(steps)


def _ratio(without: Features, with_it: Features) -> Contrast:
    return {without: 1, with_it: -1}


def _overall(single: Features, everything: Features) -> Contrast:
    """The mean, over all settings of the others, of what it gains there."""
    return _mean([_ratio(rest, rest | single) for rest in _subsets(everything - single)])


def _interaction(first: str, second: str, everything: Features) -> Contrast:
    """The mean, over all settings of the others, of how much more `second` gains with `first` on than off."""
    a, b = frozenset({first}), frozenset({second})
    return _mean(
        [{rest | a: 1, rest | a | b: -1, rest: -1, rest | b: 1} for rest in _subsets(everything - a - b)]
    )


def _mean(contrasts: Sequence[Contrast]) -> Contrast:
    weights: Counter[Features] = Counter()
    for one in contrasts:
        weights.update(one)
    return {on: weight / len(contrasts) for on, weight in weights.items()}


def _subsets(of: Features) -> Iterator[Features]:
    for size in range(len(of) + 1):
        for some in combinations(sorted(of), size):
            yield frozenset(some)
