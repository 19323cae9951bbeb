# SPDX-License-Identifier: Apache-2.0
"""The statistics of the reports, each with its definition. Pure and reproducible."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

KEPT_SAMPLES = 2000
RESAMPLES = 2000
SEED = 1  # any constant: the same samples must always give the same interval
Z95 = 1.96  # half-width of a normal distribution's 95 % interval, in standard deviations


@dataclass(frozen=True)
class Stats:
    """Figures over all `n` samples of a metric, in its unit; `samples` may be a thinned selection of them.

    ValueError if there are none, or more than `n`.
    """

    n: int
    median: float
    p99: float
    mean: float
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.samples) <= self.n:
            raise ValueError(f"{self.n} samples, of which {len(self.samples)} are listed")


Pair = tuple[Sequence[float], Sequence[float]]
"""The samples of two rounds that ran next to each other: numerator's and denominator's."""


def mean(samples: Sequence[float]) -> float:
    """Arithmetic mean, in the samples' unit."""
    return math.fsum(samples) / len(samples)


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones."""
    return percentile(samples, 50)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value at `percent` (0 to 100) of the sorted samples, linear between neighbours.

    With the n sorted samples numbered from 0, it lies at position (n - 1) * percent / 100: definition 7 of
    Hyndman and Fan, 1996, which numpy and R use by default.
    """
    return _at(sorted(samples), percent)


def summarise(samples: Sequence[float]) -> Stats:
    """All figures of at least one sample. They are taken before the samples are thinned."""
    ordered = sorted(samples)
    return Stats(
        n=len(ordered),
        median=_at(ordered, 50),
        p99=_at(ordered, 99),
        mean=mean(ordered),
        samples=tuple(_thin(ordered)),
    )


def ratio_of_means(pairs: Sequence[Pair]) -> float | None:
    """Mean of all first samples over mean of all second ones; None where the latter is not positive.

    A count whose background was subtracted may fall slightly below 0; a ratio to it would mean nothing.
    """
    return _ratio([_sums(pair) for pair in pairs])


def bootstrap_interval(pairs: Sequence[Pair]) -> tuple[float, float] | None:
    """95 % interval of `ratio_of_means`, by the percentile bootstrap over pairs of rounds (Efron, 1979).

    Rounds are resampled, not samples, because the samples of a round are not independent; both rounds of a
    pair are drawn together, because what disturbed one is likely to have disturbed the other. With under ten
    pairs or so the interval comes out somewhat too narrow.

    None for fewer than two pairs, which say nothing about the spread, and where the interval has no upper end
    because too many resamples have a denominator that is not positive.
    """
    if len(pairs) < 2:
        return None
    sums = [_sums(pair) for pair in pairs]
    draw = random.Random(SEED)
    ratios = sorted(
        math.inf if ratio is None else ratio
        for ratio in (_ratio(draw.choices(sums, k=len(sums))) for _ in range(RESAMPLES))
    )
    low, high = ratios[round(0.025 * RESAMPLES)], ratios[round(0.975 * RESAMPLES) - 1]
    return (low, high) if high < math.inf else None


def rounds_to_settle(pairs: Sequence[Pair]) -> int | None:
    """About how many more pairs of rounds would keep the interval clear of 1.

    The effect size is the mean of the pairs' differences in their standard deviations. An interval's
    half-width shrinks with the root of the number of pairs, so with (Z95 / effect)^2 pairs it just ceases to
    reach 1: an estimate, with even odds even if the effect is real. None where there is no effect to settle,
    or where the spread is unknown.
    """
    if len(pairs) < 2:
        return None
    differences = [mean(first) - mean(second) for first, second in pairs]
    centre = mean(differences)
    spread = math.sqrt(math.fsum((one - centre) ** 2 for one in differences) / (len(pairs) - 1))
    if not centre:
        return None
    needed = math.ceil((Z95 * spread / centre) ** 2)
    return max(1, needed - len(pairs))


def _at(ordered: Sequence[float], percent: float) -> float:
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    low, high = ordered[below], ordered[math.ceil(position)]
    # Rounding may carry the sum past `high`; a percentile must not leave the samples' range.
    return min(high, low + (high - low) * (position - below))


def _thin(ordered: Sequence[float]) -> Sequence[float]:
    """At most KEPT_SAMPLES of the sorted samples, evenly.

    Each half is thinned by itself and keeps both its ends, so minimum, median and maximum stay as they were.
    """
    if len(ordered) <= KEPT_SAMPLES:
        return ordered
    keep = KEPT_SAMPLES // 2
    last = (len(ordered) + 1) // 2 - 1  # of the lower half; with an odd number both halves hold the median
    picked = [round(i * last / (keep - 1)) for i in range(keep)]
    return [ordered[i] for i in picked] + [ordered[-1 - i] for i in reversed(picked)]


def _sums(pair: Pair) -> tuple[float, int, float, int]:
    """Sum and number of each side's samples: all that a ratio of means needs of a pair."""
    first, second = pair
    return math.fsum(first), len(first), math.fsum(second), len(second)


def _ratio(sums: Sequence[tuple[float, int, float, int]]) -> float | None:
    numerator = math.fsum(s[0] for s in sums) / sum(s[1] for s in sums)
    denominator = math.fsum(s[2] for s in sums) / sum(s[3] for s in sums)
    return numerator / denominator if denominator > 0 else None
