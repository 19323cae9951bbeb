# SPDX-License-Identifier: Apache-2.0
"""What each of several features gains, alone and with the others: a full factorial experiment. Pure.

All gains are ratios of mean latencies, above 1 where the feature helps. Gains multiply: without interaction
two features together gain the product of what each gains alone (Box, Hunter, Hunter, "Statistics for
Experimenters", chapter 5, on the logarithm of the response).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations

from cvmtune.experiments.rounds import Round
from cvmtune.report import stats
from cvmtune.report.gains import Cell, Effect, Factorial, Gain, Interaction, Step

Features = frozenset[str]
Means = Mapping[Features, float]
"""The mean of each combination of features that are on."""

_Estimate = Callable[[Means], float]


def factorial(
    machine: str, metric: str, factors: Sequence[str], states: Mapping[str, Features], rounds: Sequence[Round]
) -> Factorial | None:
    """Compute the gains in a metric from rounds in the states; None if a feature was never on alone.

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
    if heading is None or not indices or not {frozenset(), *alone} <= samples.keys():
        return None
    estimate = _Estimator(samples, indices)
    complete = len(samples) == 2 ** len(factors)
    everything = frozenset(factors)
    gains = []
    for factor in factors:
        single = frozenset({factor})
        last = None
        if {everything, everything - single} <= samples.keys():
            last = estimate(_ratio(everything - single, everything))
        overall = estimate(_overall(single, everything)) if complete else None
        gains.append(Gain(factor, estimate(_ratio(frozenset(), single)), last, overall))
    interactions = []
    if complete:
        for first, second in combinations(factors, 2):
            effect = estimate(_interaction(first, second, everything))
            interactions.append(Interaction(first, second, effect))
    cells = tuple(
        Cell(
            tuple(factor for factor in factors if factor in on),
            stats.summarise([sample for index in indices for sample in found[index]]),
            None if not on else estimate(_ratio(frozenset(), on)),
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
        gains=tuple(gains),
        interactions=tuple(interactions),
        steps=_order(estimate, factors, samples.keys()),
    )


def _order(estimate: _Estimator, factors: Sequence[str], measured: Collection[Features]) -> tuple[Step, ...]:
    """The features in the order in which to turn them on: at each step the one that leaves the lowest mean.

    Only what gains something that can be seen (its interval lies above 1) is a step. It ends where nothing
    does, or where a next combination was not measured.
    """
    steps: list[Step] = []
    on: Features = frozenset()
    while len(on) < len(factors):
        nexts = [(factor, on | {factor}) for factor in factors if factor not in on]
        if any(combination not in measured for _, combination in nexts):
            break
        gains = [(estimate(_ratio(on, after)), factor, after) for factor, after in nexts]
        seen = [step for step in gains if (step[0].ci95[0] if step[0].ci95 else step[0].ratio) > 1]
        if not seen:
            break
        gain, factor, after = max(seen, key=lambda step: step[0].ratio)
        steps.append(Step(factor, gain, estimate(_ratio(frozenset(), after))))
        on = after
    return tuple(steps)


class _Estimator:
    """Estimates from the means of all rounds, with intervals by the bootstrap over rounds."""

    def __init__(
        self, samples: Mapping[Features, Mapping[int, tuple[float, ...]]], indices: Sequence[int]
    ) -> None:
        self._means = [{on: stats.mean(found[index]) for on, found in samples.items()} for index in indices]
        draw = random.Random(stats.SEED)
        resamples = [draw.choices(self._means, k=len(indices)) for _ in range(stats.RESAMPLES)]
        self._resampled = [_mean_of(rounds) for rounds in resamples] if len(indices) > 1 else []

    def __call__(self, estimate: _Estimate) -> Effect:
        if not self._resampled:
            return Effect(estimate(_mean_of(self._means)), None)
        found = sorted(estimate(means) for means in self._resampled)
        low, high = found[round(0.025 * len(found))], found[round(0.975 * len(found)) - 1]
        return Effect(estimate(_mean_of(self._means)), (low, high))


def _mean_of(rounds: Sequence[Means]) -> Means:
    return {on: stats.mean([means[on] for means in rounds]) for on in rounds[0]}


def _ratio(without: Features, with_it: Features) -> _Estimate:
    return lambda means: means[without] / means[with_it]


def _overall(single: Features, everything: Features) -> _Estimate:
    others = list(_subsets(everything - single))
    return lambda means: _geometric_mean([means[rest] / means[rest | single] for rest in others])


def _interaction(first: str, second: str, everything: Features) -> _Estimate:
    a, b = frozenset({first}), frozenset({second})
    others = list(_subsets(everything - a - b))
    return lambda means: _geometric_mean(
        [(means[rest | a] / means[rest | a | b]) / (means[rest] / means[rest | b]) for rest in others]
    )


def _subsets(of: Features) -> Iterator[Features]:
    for size in range(len(of) + 1):
        for some in combinations(sorted(of), size):
            yield frozenset(some)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(stats.mean([math.log(value) for value in values]))
