# SPDX-License-Identifier: Apache-2.0
"""The statistics against their definitions, and against properties that no definition may break."""

import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.report import stats

# Subnormal numbers and those near the largest float only test the float format.
values = st.floats(-1e12, 1e12, allow_subnormal=False)
samples = st.lists(values, min_size=1, max_size=60)
positive = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5)
pairs = st.lists(st.tuples(positive, positive), min_size=2, max_size=6)


def test_known_figures() -> None:
    one_to_hundred = [float(value) for value in range(100, 0, -1)]
    summary = stats.summarise(one_to_hundred)
    assert (summary.n, summary.median, summary.mean) == (100, 50.5, 50.5)
    assert summary.p99 == pytest.approx(99.01)
    assert summary.samples == tuple(sorted(one_to_hundred))


@given(samples)
def test_mean_and_median_are_the_usual_ones(data: list[float]) -> None:
    assert stats.mean(data) == pytest.approx(statistics.fmean(data))
    assert stats.median(data) == pytest.approx(statistics.median(data))


@given(samples, st.floats(0, 100))
def test_percentile_stays_within_the_samples(data: list[float], percent: float) -> None:
    assert min(data) <= stats.percentile(data, percent) <= max(data)


@given(samples, st.floats(0, 100), st.floats(0, 100))
def test_percentile_never_falls(data: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert stats.percentile(data, low) <= stats.percentile(data, high)


@given(samples)
def test_percentile_ends_at_the_extremes(data: list[float]) -> None:
    assert stats.percentile(data, 0) == min(data)
    assert stats.percentile(data, 100) == max(data)


@given(st.integers(1, 9000), st.integers())
def test_thinning_keeps_what_matters(n: int, seed: int) -> None:
    draw = random.Random(seed)
    data = [draw.lognormvariate(8, 1) for _ in range(n)]
    summary = stats.summarise(data)
    kept = summary.samples
    assert len(kept) == min(n, stats.KEPT_SAMPLES)
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(data)
    assert (kept[0], kept[-1]) == (min(data), max(data))
    assert stats.median(kept) == summary.median == stats.median(data)
    assert summary.n == n


def test_thinning_keeps_the_quantiles() -> None:
    data = [float(value) for value in range(100_000)]
    kept = stats.summarise(data).samples
    for percent in (1, 25, 75, 99):
        assert stats.percentile(kept, percent) == pytest.approx(stats.percentile(data, percent), abs=60)


def test_ratio_weighs_samples_not_rounds() -> None:
    assert stats.ratio_of_means([([2.0, 2.0, 2.0], [1.0]), ([6.0], [1.0])]) == 3.0


@pytest.mark.parametrize("denominator", [0.0, -0.5])
def test_no_ratio_to_nothing(denominator: float) -> None:
    assert stats.ratio_of_means([([1.0], [denominator])]) is None
    assert stats.bootstrap_interval([([1.0], [denominator])] * 3) is None


@given(pairs)
def test_interval_holds_the_ratio_of_some_resample(data: list[stats.Pair]) -> None:
    interval = stats.bootstrap_interval(data)
    assert interval is not None
    low, high = interval
    assert low <= high
    largest = max(max(first) for first, _ in data) / min(min(second) for _, second in data)
    smallest = min(min(first) for first, _ in data) / max(max(second) for _, second in data)
    assert smallest * (1 - 1e-9) <= low
    assert high <= largest * (1 + 1e-9)


@settings(max_examples=10)
@given(pairs)
def test_interval_is_reproducible(data: list[stats.Pair]) -> None:
    assert stats.bootstrap_interval(data) == stats.bootstrap_interval(data)


def test_interval_resamples_pairs_together() -> None:
    # Every pair was slowed as a whole: its own ratio is exact, so the interval must have no width.
    drifting = [([2.0 * slow], [1.0 * slow]) for slow in (1.0, 3.0, 10.0)]
    assert stats.bootstrap_interval(drifting) == pytest.approx((2, 2))


def test_interval_narrows_with_more_rounds() -> None:
    draw = random.Random(7)
    many = [([draw.gauss(5, 1)], [draw.gauss(2, 0.2)]) for _ in range(80)]
    few_low, few_high = stats.bootstrap_interval(many[:8]) or (0.0, 0.0)
    low, high = stats.bootstrap_interval(many) or (0.0, 0.0)
    assert 2 < low < 2.5 < high < 3
    assert high - low < few_high - few_low


def test_one_pair_says_nothing_of_the_spread() -> None:
    assert stats.bootstrap_interval([([2.0], [1.0])]) is None
    assert stats.rounds_to_settle([([2.0], [1.0])]) is None


def test_an_interval_without_upper_end_is_none() -> None:
    assert stats.bootstrap_interval([([1.0], [0.0]), ([1.0], [1.0])]) is None


def test_rounds_to_settle_follows_the_effect_size() -> None:
    # Differences 1 + 4 and 1 - 4 in turn: mean 1, variance 16 * 10 / 9, so 1.96^2 * 17.8 = 69 pairs, 59 more.
    data = [([10.0 + 1 + sign * 4], [10.0]) for sign in (1, -1) * 5]
    assert stats.rounds_to_settle(data) == 59
    assert stats.rounds_to_settle([(on, off) for off, on in data]) == 59


def test_no_rounds_settle_no_effect() -> None:
    assert stats.rounds_to_settle([([1.0], [2.0]), ([2.0], [1.0])]) is None


def test_interval_leaves_out_a_fortieth_at_either_end() -> None:
    """95 %: of the resampled ratios, in their order, that after the lowest 2.5 % and the last of the 97.5
    %."""
    pairs = [([float(10 + n)], [float(5 + n % 3)]) for n in range(8)]
    draw = random.Random(stats.SEED)
    ratios = []
    for _ in range(stats.RESAMPLES):
        drawn = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(one[0] for one, _ in drawn) / sum(two[0] for _, two in drawn))
    low, high = stats.bootstrap_interval(pairs) or (0.0, 0.0)
    for end, share in ((low, 0.025), (high, 0.975)):
        below = sum(ratio < end - 1e-9 for ratio in ratios)
        assert below <= share * len(ratios) <= below + sum(abs(ratio - end) <= 1e-9 for ratio in ratios)
