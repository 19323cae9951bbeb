# SPDX-License-Identifier: Apache-2.0
"""The statistics against their definitions, and against properties that no definition may break."""

import math
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from cvmtune.report import stats

# Subnormal numbers and those near the largest float only test the float format.
values = st.floats(-1e12, 1e12, allow_subnormal=False)
samples = st.lists(values, min_size=1, max_size=60)
positive = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5)
pairs = st.lists(st.tuples(positive, positive), min_size=2, max_size=8)


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


# Ratios of rounds


def ratio_of(data: Sequence[stats.Pair]) -> stats.Effect:
    logs = stats.log_ratios(data)
    assert logs is not None
    return stats.effect(logs)


def test_ratio_is_the_geometric_mean_of_the_rounds_ratios_of_means() -> None:
    # 2 and 8: neither sample weighs by its round's number of them, nor does a round by its level.
    found = ratio_of([([2.0, 1.0, 3.0], [1.0]), ([700.0, 900.0], [50.0, 150.0])])
    assert found.ratio == pytest.approx(4)
    assert found.rounds == 2


@pytest.mark.parametrize("nothing", [0.0, -0.5])
def test_no_ratio_where_a_mean_is_not_positive(nothing: float) -> None:
    fine = ([1.0], [1.0])
    assert stats.log_ratios([fine, ([1.0], [nothing]), fine]) is None
    assert stats.log_ratios([fine, ([nothing], [1.0]), fine]) is None
    # A single sample may be: background was subtracted from it.
    assert stats.log_ratios([([1.0], [nothing, 2.0 - nothing])]) == [0.0]


# What 97.5 % of Student's t lie below, by the degrees of freedom: Fisher and Yates, table III.
T975 = {4: 2.776, 5: 2.571, 9: 2.262, 19: 2.093, 29: 2.045, 120: 1.980}


@pytest.mark.parametrize("freedom", T975)
def test_interval_is_that_of_the_tables(freedom: int) -> None:
    n = freedom + 1
    logs = [0.3 + (0.1 if number < n // 2 else -0.1 if number < n // 2 * 2 else 0.0) for number in range(n)]
    found = stats.effect(logs)
    half = T975[freedom] * statistics.stdev(logs) / math.sqrt(n)
    assert found.ratio == pytest.approx(math.exp(0.3))
    assert found.interval is not None
    assert found.interval.kind == "95 %"
    assert found.ci95 == (found.interval.low, found.interval.high)
    assert math.log(found.interval.low) == pytest.approx(0.3 - half, abs=2e-4)
    assert math.log(found.interval.high) == pytest.approx(0.3 + half, abs=2e-4)


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_fewer_than_five_rounds_have_a_spread_and_no_interval(rounds: int) -> None:
    data = [([2.0 + number], [1.0]) for number in range(rounds)]
    found = ratio_of(data)
    assert found.interval is not None
    assert found.interval.kind == "spread"
    assert (found.interval.low, found.interval.high) == pytest.approx((2.0, 1.0 + rounds))
    assert found.ci95 is None
    assert not found.is_settled
    assert ratio_of([*data, *[([2.0], [1.0])] * (5 - rounds)]).ci95 is not None


def test_one_round_has_neither() -> None:
    assert stats.effect([0.0]) == stats.Effect(1.0, None, 1)


@pytest.mark.parametrize(
    ("interval", "settled"),
    [
        (stats.Interval(1.01, 2.0, "95 %"), True),
        (stats.Interval(0.5, 0.99, "95 %"), True),
        (stats.Interval(1.0, 2.0, "95 %"), False),
        (stats.Interval(0.5, 1.0, "95 %"), False),
        (stats.Interval(0.5, 2.0, "95 %"), False),
        (stats.Interval(1.5, 2.0, "spread"), False),
        (None, False),
    ],
)
def test_settled_is_what_an_interval_shows(interval: stats.Interval | None, settled: bool) -> None:
    assert stats.Effect(1.5, interval, 9).is_settled == settled


@pytest.mark.parametrize("n", [5, 10, 20])
def test_interval_holds_the_true_ratio_in_95_of_100_repetitions(n: int) -> None:
    """What each pair shares, as a computer that is busy for a while, is larger than any difference."""
    draw, true, repetitions, held = random.Random(2026 + n), 1.25, 4000, 0
    for _ in range(repetitions):
        pairs = []
        for _ in range(n):
            level = draw.lognormvariate(8, 1)
            off, on = true * level * draw.lognormvariate(0, 0.2), level * draw.lognormvariate(0, 0.2)
            pairs.append(
                (
                    [off * draw.lognormvariate(0, 0.5) for _ in range(4)],
                    [on * draw.lognormvariate(0, 0.5) for _ in range(4)],
                )
            )
        low, high = ratio_of(pairs).ci95 or (0.0, 0.0)
        held += low <= true <= high
    assert 0.92 <= held / repetitions <= 0.98


@given(pairs)
def test_interval_holds_its_ratio_and_turns_with_it(data: list[stats.Pair]) -> None:
    found, turned = ratio_of(data), ratio_of([(second, first) for first, second in data])
    one, other = found.interval, turned.interval
    assert one is not None
    assert other is not None
    assert one.kind == other.kind == ("95 %" if len(data) >= 5 else "spread")
    assert one.low <= found.ratio * (1 + 1e-9)
    assert found.ratio <= one.high * (1 + 1e-9)
    assert turned.ratio == pytest.approx(1 / found.ratio)
    if one.high < 1e300:  # none is larger than a float may be
        assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))


@given(pairs, st.lists(st.floats(1e-3, 1e3), min_size=8, max_size=8))
def test_what_slowed_both_rounds_of_a_pair_changes_nothing(
    data: list[stats.Pair], slowed: list[float]
) -> None:
    there = [
        ([factor * one for one in first], [factor * one for one in second])
        for factor, (first, second) in zip(slowed, data, strict=False)
    ]
    found, again = ratio_of(data), ratio_of(there)
    assert again.ratio == pytest.approx(found.ratio)
    assert again.interval is not None
    assert found.interval is not None
    assert (again.interval.low, again.interval.high) == pytest.approx(
        (found.interval.low, found.interval.high), rel=1e-6
    )


@given(pairs)
def test_samples_of_a_round_that_say_the_same_again_narrow_nothing(data: list[stats.Pair]) -> None:
    again = ratio_of([([*first, *first], [*second, *second]) for first, second in data])
    found = ratio_of(data)
    assert again.interval is not None
    assert found.interval is not None
    assert (again.interval.low, again.interval.high) == pytest.approx(
        (found.interval.low, found.interval.high)
    )


def test_interval_of_rounds_that_agree_has_no_width() -> None:
    drifting = [([2.0 * slow], [1.0 * slow]) for slow in (1.0, 3.0, 10.0, 0.1, 7.0)]
    assert ratio_of(drifting).ci95 == pytest.approx((2, 2))


def test_interval_of_rounds_worlds_apart_is_one_of_floats() -> None:
    found = stats.effect([690.0, -690.0, 600.0, -600.0, 0.0])
    assert found.ci95 is not None
    assert 0 <= found.ci95[0] < 1 < found.ci95[1] < math.inf


def test_an_interval_has_its_lower_end_first() -> None:
    with pytest.raises(ValueError, match="from 2"):
        stats.Interval(2.0, 1.0, "spread")


# How many more rounds it takes


def test_rounds_to_settle_follows_the_effect_size() -> None:
    # Mean 0.1, deviation 0.4 * sqrt(10 / 9) = 0.4216: (1.96 * 4.216)^2 = 68.3; with t of 70 degrees, 71.
    logs = [0.1 + sign * 0.4 for sign in (1, -1) * 5]
    assert stats.rounds_to_settle(logs) == 71 - 10
    assert stats.rounds_to_settle([-one for one in logs]) == 71 - 10


@given(st.floats(0.1, 1), st.floats(0.1, 1), st.integers(2, 10))
def test_that_many_more_rounds_like_these_settle_it(centre: float, spread: float, thirds: int) -> None:
    n = 3 * thirds  # so that their mean is the centre
    logs = [centre + spread * (number % 3 - 1) for number in range(n)]
    more = stats.rounds_to_settle(logs)
    assert more is not None
    distance, deviation = abs(statistics.fmean(logs)), statistics.stdev(logs)
    half = [stdtrit(rounds - 1, 0.975) * deviation / math.sqrt(rounds) for rounds in (n + more - 1, n + more)]
    assert half[1] < distance
    assert distance <= half[0] or more == 1


@pytest.mark.parametrize(
    ("logs", "more"),
    [
        ([0.5], None),  # of one round nobody knows how they scatter
        ([0.5, -0.5], None),  # no effect at all
        ([0.0, 0.0, 0.0, 0.0, 0.0], None),
        ([0.5, 0.5], 3),  # an interval takes five
        ([0.5, 0.5, 0.5, 0.5, 0.5], 1),
        ([1.0, -0.99] * 5, None),  # some 150,000: nobody does that
    ],
)
def test_rounds_to_settle_where_there_is_little_to_go_by(logs: list[float], more: int | None) -> None:
    assert stats.rounds_to_settle(logs) == more


def test_intervals_load_what_they_take_and_nothing_else_does() -> None:
    """It takes a second, which who asks for a dry run is not to wait."""
    script = (
        "import sys; from cvmtune.report import judge, stats; assert 'scipy' not in sys.modules; "
        "stats.effect([0.0] * 5); assert 'scipy.special' in sys.modules; "
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_that_scipy_is_missing_is_told_before_anything_is_measured() -> None:
    script = "import sys; sys.modules['scipy'] = None; from cvmtune import cli; cli.entry()"
    argv = [sys.executable, "-c", script, "prove", "--dry-run"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "this needs the package scipy" in ended.stderr
