# SPDX-License-Identifier: Apache-2.0
"""The statistics of the reports, each with its definition. Pure and reproducible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

# It takes a second to load, so only who computes an interval loads it. Whether it is there is asked at once:
# nobody is to learn that it is not when all rounds have been measured.
if find_spec("scipy") is None:
    raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

KEPT_SAMPLES = 2000

LEAST_ROUNDS = 5
"""The fewest rounds of which an interval is told. Student's t gives one from two on, of 12.7 standard errors
either way: it says nothing, and takes for normal what was seen twice."""

HOPELESS_ROUNDS = 1000
"""Nobody runs more rounds than this to settle a metric: then the effect is too small to see."""

# The largest float is e^709.78.
_LARGEST_LOG = 709.0

IntervalKind = Literal["95 %", "spread"]


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


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; ValueError if the lower is not first.

    Of kind "95 %" it holds the true value in 95 of 100 repetitions. Of kind "spread" it is the lowest and the
    highest that was seen, and promises nothing.
    """

    low: float
    high: float
    kind: IntervalKind

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high}")


@dataclass(frozen=True)
class Effect:
    """A ratio, above 1 where it is a gain.

    `rounds` is how many it was measured in, None where that is unknown; of a single one there is no interval.
    """

    ratio: float
    interval: Interval | None
    rounds: int | None = None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The 95 % interval, all that anything may be concluded from; None where there is only a spread."""
        if self.interval is None or self.interval.kind != "95 %":
            return None
        return self.interval.low, self.interval.high

    @property
    def is_settled(self) -> bool:
        """Whether it is known to be a gain or a loss: the 95 % interval does not hold 1."""
        return self.ci95 is not None and not self.ci95[0] <= 1 <= self.ci95[1]


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


def log_ratios(pairs: Sequence[Pair]) -> list[float] | None:
    """Of each pair of rounds the logarithm of the ratio of their means; None where one mean is not positive.

    A count whose background was subtracted may fall slightly below 0; a ratio to it would mean nothing.
    """
    means = [(mean(first), mean(second)) for first, second in pairs]
    if any(one <= 0 for both in means for one in both):
        return None
    return [math.log(first) - math.log(second) for first, second in means]


def effect(logs: Sequence[float]) -> Effect:
    """The ratio of which each of at least one round saw the logarithm, with its 95 % interval or its spread.

    The ratio is the geometric mean of the rounds'. The interval is Student's (1908), on the logarithms: their
    mean, and either way their standard error times t of n - 1 degrees of freedom. Samples of a round are not
    independent, so a round counts once, however many it has; what slowed both sides of a pair alike is in
    neither. With fewer than LEAST_ROUNDS the spread takes its place.
    """
    centre, n = mean(logs), len(logs)
    interval: Interval | None = None
    if n >= LEAST_ROUNDS:
        half = _t975(n - 1) * _deviation(logs) / math.sqrt(n)
        interval = Interval(_exp(centre - half), _exp(centre + half), "95 %")
    elif n > 1:
        interval = Interval(_exp(min(logs)), _exp(max(logs)), "spread")
    return Effect(_exp(centre), interval, n)


def rounds_to_settle(logs: Sequence[float]) -> int | None:
    """About how many more rounds would keep the 95 % interval of such log ratios clear of 1, at least one.

    The interval's half-width is t * deviation / sqrt(n). The answer is the least n at which it is below the
    mean that was seen: an estimate, with even odds even if the effect is real. None where there is no effect
    to settle, where its deviation is unknown, or where it takes more than HOPELESS_ROUNDS.
    """
    if len(logs) < 2:
        return None
    distance, deviation = abs(mean(logs)), _deviation(logs)
    least = max(LEAST_ROUNDS, len(logs) + 1)
    for n in range(least, len(logs) + HOPELESS_ROUNDS + 1):
        if _t975(n - 1) * deviation / math.sqrt(n) < distance:
            return n - len(logs)
    return None


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation of which these, at least two, are a sample."""
    centre = mean(values)
    return math.sqrt(math.fsum((one - centre) ** 2 for one in values) / (len(values) - 1))


@cache
def _t975(freedom: int) -> float:
    """What 97.5 % of Student's t distribution with so many degrees of freedom lie below."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _exp(log: float) -> float:
    return math.exp(min(log, _LARGEST_LOG))


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
