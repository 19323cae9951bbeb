# SPDX-License-Identifier: Apache-2.0
"""What features gain alone and together, from rounds whose gains were put there by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cvmtune.experiments.rounds import Round, Series
from cvmtune.report.factorial import factorial
from cvmtune.report.gains import Factorial
from cvmtune.report.stats import Effect
from tests.fakes.bound import BLACKBOX

FACTORS = ("a", "b", "c")
NOTHING: frozenset[str] = frozenset()
Features = frozenset[str]


def every(factors: Sequence[str]) -> list[Features]:
    sizes = range(len(factors) + 1)
    return [frozenset(some) for some in chain.from_iterable(combinations(factors, n) for n in sizes)]


def state(on: Iterable[str]) -> str:
    return "state " + "".join(sorted(on))


ALL = every(FACTORS)
STATES = {state(on): on for on in ALL}
SINGLES = [NOTHING, *(frozenset({factor}) for factor in FACTORS)]

Value = Callable[[Features, int], float]
"""What is measured with these features on in that round."""


def measured(value: Value, indices: Iterable[int], combos: Iterable[Features] = ALL) -> list[Round]:
    return [measurement(on, index, value(on, index)) for index in indices for on in combos]


def measurement(on: Features, index: int, *samples: float, name: str = "write") -> Round:
    series = Series(name, f"Latency of a {name}", "ns", "time", "lower", samples)
    return Round(state(on), index, (series,))


def analysed(rounds: Sequence[Round]) -> Factorial | None:
    return factorial("cvm", "write", FACTORS, STATES, rounds)


def found_in(rounds: Sequence[Round]) -> Factorial:
    found = analysed(rounds)
    assert found is not None
    return found


def product(gains: Mapping[str, float], drift: Sequence[float] = (1.0, 1.3, 0.9)) -> Value:
    """A latency that each feature divides by its gain, in a machine whose speed changes by the round."""
    return lambda on, index: 1000.0 * drift[index] / math.prod(gains[factor] for factor in on)


def is_exactly(effect: Effect | None, ratio: float) -> bool:
    """Whether the ratio is that, and the interval holds nothing else."""
    if effect is None or effect.interval is None:
        return False
    found = (effect.ratio, effect.interval.low, effect.interval.high)
    return found == pytest.approx([ratio] * 3, rel=1e-9)


def figures(effect: Effect | None) -> tuple[float, float, float]:
    """The ratio, and the ends of its interval or spread."""
    assert effect is not None
    assert effect.interval is not None
    return effect.ratio, effect.interval.low, effect.interval.high


def effects(found: Factorial) -> list[Effect]:
    optional = [
        *(cell.gain for cell in found.cells),
        *(effect for gain in found.gains for effect in (gain.alone, gain.last, gain.overall)),
        *(interaction.effect for interaction in found.interactions),
    ]
    return [effect for effect in optional if effect is not None]


ratios = st.floats(0.3, 5)


@settings(max_examples=10, deadline=None)
@given(
    gains=st.fixed_dictionaries({factor: ratios for factor in FACTORS}),
    drift=st.lists(ratios, min_size=2, max_size=4),
)
def test_gains_that_multiply_are_found_and_do_not_interact(
    gains: dict[str, float], drift: list[float]
) -> None:
    found = found_in(measured(product(gains, drift), range(len(drift))))
    assert [gain.factor for gain in found.gains] == list(FACTORS)
    for gain in found.gains:
        for effect in (gain.alone, gain.last, gain.overall):
            assert is_exactly(effect, gains[gain.factor])
    assert [(one.first, one.second) for one in found.interactions] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(is_exactly(one.effect, 1.0) for one in found.interactions)
    assert len(found.cells) == 8
    for cell in found.cells:
        if cell.on:
            assert is_exactly(cell.gain, math.prod(gains[factor] for factor in cell.on))
        else:
            assert cell.gain is None


@settings(max_examples=10, deadline=None)
@given(
    gains=st.fixed_dictionaries({factor: ratios for factor in FACTORS}),
    pair=st.sampled_from(list(combinations(FACTORS, 2))),
    more=ratios,
)
def test_an_interaction_is_found_where_it_is_and_nowhere_else(
    gains: dict[str, float], pair: tuple[str, str], more: float
) -> None:
    """Two features together gain `more` than the product of what they gain alone."""
    independent = product(gains)

    def value(on: Features, index: int) -> float:
        return independent(on, index) / (more if set(pair) <= on else 1.0)

    found = found_in(measured(value, range(3)))
    for one in found.interactions:
        assert is_exactly(one.effect, more if (one.first, one.second) == pair else 1.0)
    for gain in found.gains:
        share = more if gain.factor in pair else 1.0
        assert is_exactly(gain.alone, gains[gain.factor])
        assert is_exactly(gain.last, gains[gain.factor] * share)
        # With the other on in half of all settings: in a geometric mean that is the square root.
        assert is_exactly(gain.overall, gains[gain.factor] * math.sqrt(share))


def test_an_interaction_is_the_mean_over_all_settings_of_the_others() -> None:
    """Where only all three together gain four times as much, each pair does in half of the settings."""
    value = product({"a": 2.0, "b": 1.5, "c": 1.25})
    found = found_in(measured(lambda on, index: value(on, index) / (4.0 if len(on) == 3 else 1.0), range(3)))
    assert len(found.interactions) == 3
    assert all(is_exactly(one.effect, 2.0) for one in found.interactions)


GAINS = {"a": 2.0, "b": 1.25, "c": 0.8}


def test_what_of_the_heading_and_the_cells_is_told() -> None:
    rounds = [
        *measured(lambda on, index: 100.0, (0, 1), ALL[1:]),
        measurement(NOTHING, 0, 250.0, 350.0),
        measurement(NOTHING, 1, 150.0, 250.0),
    ]
    found = found_in(rounds)
    assert (found.machine, found.metric, found.factors) == ("cvm", "write", FACTORS)
    assert (found.title, found.unit) == ("Latency of a write", "ns")
    cells = {cell.on: cell for cell in found.cells}
    # In the order in which they were measured; the features of each in the order of all.
    assert list(cells) == [
        *(("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), FACTORS),
        (),
    ]
    assert cells[()].values.samples == (150.0, 250.0, 250.0, 350.0)
    assert (cells[()].values.n, cells[()].values.mean) == (4, 250.0)
    assert figures(cells["a",].gain) == pytest.approx((math.sqrt(2.0 * 3.0), 2.0, 3.0))


def test_other_metrics_and_states_count_for_nothing() -> None:
    rounds = measured(product(GAINS), range(3))
    beside = [
        Round("HW bit", 0, (Series("write", "t", "ns", "time", "lower", (1.0,)),)),
        Round("HW bit", 7, (Series("write", "t", "ns", "time", "lower", (1.0,)),)),
        *(
            Round(one.state, 9, (Series("read", "t", "ns", "time", "lower", (5.0,)),))
            for one in rounds
            if one.index == 0
        ),
    ]
    assert analysed([*beside, *rounds]) == analysed(rounds)


def test_the_spread_is_that_of_the_rounds() -> None:
    """It goes from the gain in one of two rounds to that in the other."""

    def value(on: Features, index: int) -> float:
        return 600.0 if not on else (200.0, 300.0)[index]

    found = found_in(measured(value, (0, 1), SINGLES))
    assert found.rounds == 2
    for gain in found.gains:
        assert figures(gain.alone) == pytest.approx((math.sqrt(2.0 * 3.0), 2.0, 3.0))
        assert gain.alone.ci95 is None


def test_the_interval_is_students_over_the_rounds() -> None:
    """Of gains, means over all others and interactions alike: each round has one value."""
    values = {(on, index): noisy(on, index) for index in range(6) for on in ALL}
    found = found_in(measured(lambda on, index: values[on, index], range(6)))

    def gain(index: int, factor: str, *others: str) -> float:
        """The logarithm of what a feature gains in a round with these others on."""
        rest = frozenset(others)
        return math.log(values[rest, index] / values[rest | {factor}, index])

    overall = [
        statistics.fmean(gain(index, "b", *rest) for rest in ((), ("a",), ("c",), ("a", "c")))
        for index in range(6)
    ]
    interaction = [
        statistics.fmean(gain(index, "a", "b", *rest) - gain(index, "a", *rest) for rest in ((), ("c",)))
        for index in range(6)
    ]
    for effect, logs in (
        (found.gains[1].overall, overall),
        (found.gains[2].last, [gain(index, "c", "a", "b") for index in range(6)]),
        (found.interactions[0].effect, interaction),
    ):
        # 2.571: what 97.5 % of Student's t of 5 degrees of freedom lie below.
        half = 2.571 * statistics.stdev(logs) / math.sqrt(6)
        centre = statistics.fmean(logs)
        assert effect is not None
        assert effect.ci95 is not None
        assert figures(effect) == pytest.approx(
            [math.exp(end) for end in (centre, centre - half, centre + half)], rel=1e-4
        )


def test_a_round_disturbs_its_own_cells_alone() -> None:
    """All of a round is drawn together: what made it slow as a whole does not widen any interval."""
    found = found_in(measured(product(GAINS, (1.0, 40.0)), (0, 1)))
    assert all(is_exactly(gain.alone, GAINS[gain.factor]) for gain in found.gains)


noise = st.floats(0.05, 20)


@settings(max_examples=10, deadline=None)
@given(st.data(), st.integers(2, 7))
def test_every_interval_and_spread_holds_its_ratio(data: st.DataObject, rounds: int) -> None:
    drawn = data.draw(st.lists(noise, min_size=rounds * len(ALL), max_size=rounds * len(ALL)))
    values = dict(zip(((on, index) for index in range(rounds) for on in ALL), drawn, strict=True))
    found = found_in(measured(lambda on, index: values[on, index], range(rounds)))
    assert len(effects(found)) == 7 + 9 + 3
    for effect in effects(found):
        ratio, low, high = figures(effect)
        assert 0 < low <= ratio * (1 + 1e-9)
        assert ratio <= high * (1 + 1e-9)
        assert effect.rounds == rounds
        assert (effect.ci95 is not None) == (rounds >= 5)


def test_a_single_round_has_no_interval() -> None:
    found = found_in(measured(product(GAINS), (0,)))
    assert all((effect.interval, effect.rounds) == (None, 1) for effect in effects(found))
    for gain in found.gains:
        for effect in (gain.alone, gain.last, gain.overall):
            assert effect is not None
            assert effect.ratio == pytest.approx(GAINS[gain.factor])


def noisy(on: Features, index: int) -> float:
    """Different in each cell and round, and of no pattern that matters."""
    return 100.0 + 37.0 * (sum(map(ord, on)) % 7) + 11.0 * index * (1 + len(on))


def test_is_deterministic() -> None:
    rounds = measured(lambda on, index: 2.0 + math.sin(noisy(on, index)), range(9))
    assert analysed(rounds) == analysed(rounds)
    # Not for want of anything that varies.
    assert any(low < high for _, low, high in map(figures, effects(found_in(rounds))))


# Rounds and combinations that are missing


cells_and_rounds = [(on, index) for index in range(4) for on in ALL]


@settings(max_examples=10, deadline=None)
@given(st.sets(st.sampled_from(cells_and_rounds), max_size=6))
def test_a_round_that_one_cell_lacks_is_left_out_of_all(missing: set[tuple[Features, int]]) -> None:
    whole = [index for index in range(4) if index not in {lacks for _, lacks in missing}]
    assume(whole)
    rounds = [
        measurement(on, index, noisy(on, index) if index in whole else 1e9)
        for on, index in cells_and_rounds
        if (on, index) not in missing
    ]
    # Of the round with the index 0 there may be less: then others come first.
    expected = found_in(measured(noisy, whole))
    found = found_in(rounds)
    assert set(found.cells) == set(expected.cells)
    assert (found.gains, found.interactions) == (expected.gains, expected.interactions)


def test_no_round_that_all_cells_have_gives_nothing() -> None:
    rounds = [measurement(on, index, 1.0) for index, on in enumerate(ALL)]
    assert analysed(rounds) is None


def test_singles_have_gains_alone_and_nothing_else() -> None:
    found = found_in(measured(product(GAINS), range(3), SINGLES))
    assert len(found.cells) == 4
    assert found.interactions == ()
    for gain in found.gains:
        assert is_exactly(gain.alone, GAINS[gain.factor])
        assert (gain.last, gain.overall) == (None, None)


def test_the_last_gain_needs_all_on_and_all_but_one() -> None:
    everything = frozenset(FACTORS)
    found = found_in(measured(product(GAINS), range(3), [*SINGLES, everything]))
    assert [gain.last for gain in found.gains] == [None] * 3
    found = found_in(measured(product(GAINS), range(3), [*SINGLES, everything - {"a"}]))
    assert [gain.last for gain in found.gains] == [None] * 3
    found = found_in(measured(product(GAINS), range(3), [*SINGLES, everything - {"b"}, everything]))
    assert [gain.last is not None for gain in found.gains] == [False, True, False]
    assert is_exactly(found.gains[1].last, GAINS["b"])
    assert [gain.overall for gain in found.gains] == [None] * 3


@pytest.mark.parametrize("absent", [on for on in ALL if len(on) > 1], ids=state)
def test_one_combination_too_few_leaves_no_mean_over_all_and_no_interactions(absent: Features) -> None:
    found = found_in(measured(product(GAINS), range(3), [on for on in ALL if on != absent]))
    assert [gain.overall for gain in found.gains] == [None] * 3
    assert found.interactions == ()


@pytest.mark.parametrize("absent", SINGLES, ids=state)
def test_none_where_no_feature_or_one_alone_was_never_measured(absent: Features) -> None:
    assert analysed(measured(product(GAINS), range(3), [on for on in ALL if on != absent])) is None


def test_nothing_measured_gives_nothing() -> None:
    assert analysed([]) is None
    others = [measurement(on, 0, 1.0, name="read") for on in ALL]
    assert analysed(others) is None
    assert factorial("cvm", "read", FACTORS, STATES, others) is not None


def test_the_experiments_own_states() -> None:
    """Their names are not those of the features in them, and `on` is all four."""
    gains = dict(zip(BLACKBOX.names, (1.5, 1.1, 2.0, 1.25), strict=True))
    rounds = [
        Round(name, index, (Series("insert", "t", "ns", "time", "lower", (value(on, index),)),))
        for value in (product(gains, (1.0, 1.3, 0.9, 1.1, 2.0)),)
        for index in range(5)
        for name, on in BLACKBOX.states.items()
    ]
    found = factorial("cvm", "insert", BLACKBOX.names, BLACKBOX.states, rounds)
    assert found is not None
    assert (len(found.cells), len(found.interactions)) == (16, 6)
    for gain in found.gains:
        for effect in (gain.alone, gain.last, gain.overall):
            assert is_exactly(effect, gains[gain.factor])
    assert [step.factor for step in found.steps] == ["cq-poll", "ipi", "wfx", "vtimer"]


# The order in which to turn features on


MEANS = {"": 100.0, "a": 90.0, "b": 60.0, "c": 70.0, "ab": 58.0, "ac": 10.0, "bc": 50.0, "abc": 55.0}


def steps(means: Mapping[str, float], factors: Sequence[str] = FACTORS) -> list[tuple[str, float, float]]:
    """Of five rounds that are alike, whose means are by the letters of the features that are on."""
    rounds = [
        Round(state(frozenset(on)), index, (Series("write", "t", "ns", "time", "lower", (mean,)),))
        for index in range(5)
        for on, mean in means.items()
    ]
    found = factorial("cvm", "write", factors, STATES, rounds)
    if found is None:
        return []
    return [(one.factor, round(one.gain.ratio, 9), round(one.together.ratio, 9)) for one in found.steps]


WANTED = [("b", round(100 / 60, 9), round(100 / 60, 9)), ("c", 60 / 50, 100 / 50)]


def test_each_step_takes_what_leaves_the_lowest_mean() -> None:
    """Not what all steps together would end in: `a` and `c` were better than anything with `b`."""
    assert steps(MEANS) == WANTED


def test_order_does_not_rest_on_that_of_rounds_and_features() -> None:
    assert steps(dict(reversed(MEANS.items()))) == steps(MEANS, ("c", "b", "a")) == WANTED


def test_order_ends_before_what_makes_it_slower() -> None:
    assert [factor for factor, *_ in steps({**MEANS, "abc": 49.0})] == ["b", "c", "a"]
    assert [factor for factor, *_ in steps({**MEANS, "abc": 51.0})] == ["b", "c"]
    assert steps({on: 100.0 + len(on) for on in MEANS}) == []


@pytest.mark.parametrize(
    ("absent", "left"),
    [
        ({"abc"}, 2),
        ({"ac"}, 2),  # not on the way
        ({"bc"}, 1),
        ({"ab"}, 1),  # it might have been the better one
        ({"ab", "ac", "bc", "abc"}, 1),
    ],
)
def test_order_ends_where_a_next_combination_was_not_measured(absent: set[str], left: int) -> None:
    partial = {on: mean for on, mean in MEANS.items() if on not in absent}
    assert steps(partial) == WANTED[:left]


def test_a_step_takes_a_gain_whose_interval_shows_it() -> None:
    """Of a mean gain in each round, and of one in none but the last."""

    def found(second: Sequence[float]) -> list[str]:
        rounds = [
            Round(state(on), index, (Series("write", "t", "ns", "time", "lower", (mean,)),))
            for index, mean_b in enumerate(second)
            for on in ALL
            for mean in (mean_b if "b" in on else 100.0,)
        ]
        gains = factorial("cvm", "write", FACTORS, STATES, rounds)
        assert gains is not None
        return [one.factor for one in gains.steps]

    assert found((80.0, 82.0, 78.0, 80.0, 81.0)) == ["b"]
    assert found((110.0, 110.0, 110.0, 110.0, 0.5)) == []
    # However large it is, fewer rounds show nothing.
    assert found((8.0, 8.0, 8.0, 8.0)) == []
    assert found((8.0, 8.0, 8.0, 8.0, 8.0)) == ["b"]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_mean_that_is_not_positive_has_no_gains(value: float) -> None:
    rounds = measured(product(GAINS), range(3))
    assert analysed(rounds) is not None
    assert analysed([*rounds[:-1], measurement(frozenset(FACTORS), 2, value)]) is None


def test_interactions_name_features_in_their_order() -> None:
    value = product(GAINS)
    rounds = [
        Round(state(on), 0, (Series("write", "t", "ns", "time", "lower", (value(on, 0),)),)) for on in ALL
    ]
    found = factorial("cvm", "write", ("c", "a", "b"), STATES, rounds)
    assert found is not None
    assert [(one.first, one.second) for one in found.interactions] == [("c", "a"), ("c", "b"), ("a", "b")]
