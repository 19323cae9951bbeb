# SPDX-License-Identifier: Apache-2.0
"""What all verdicts have in common: a feature broken on purpose never passes, and no speed of a computer, and
nothing else that it does, makes a right kernel fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.report.evidence import BUSY, Judged
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import MAIN_METRICS
from tests.fakes.bound import RULES
from tests.fakes.rounds import (
    ALONE,
    BLACKBOX,
    CQ_POLL,
    GOOD,
    IPI,
    MEASURES,
    VTIMER,
    WFX,
    Right,
    Rounds,
    Values,
    measure,
    of_each,
    of_load,
)

ALL = (IPI, VTIMER, CQ_POLL, WFX, BLACKBOX)
EACH = pytest.mark.parametrize("rounds", ALL, ids=lambda rounds: rounds.experiment)
WAITED = (None, 0.0, 0.6)

# Per second, or of a second: what a computer's speed makes of it.
RATES = ("per s", "CPUs")


def test_every_experiment_is_here() -> None:
    assert {one.experiment for one in ALL} == RULES.keys()


def is_sentence(why: str) -> bool:
    return re.fullmatch(r"[^\n]*\S\.", why) is not None and ". " not in why


def never_passes(rounds: Rounds) -> None:
    for waited in WAITED:
        for pairs in ([GOOD], [GOOD] * 3):
            verdict, why = replace(rounds, waited=waited).judged(*pairs)
            assert verdict in ("FAIL", "UNDECIDED"), (waited, why)
            assert is_sentence(why), why


# Broken on purpose


@EACH
def test_right_kernel_passes_in_one_sentence(rounds: Rounds) -> None:
    for waited in WAITED:
        verdict, why = replace(rounds, waited=waited).judged(GOOD, GOOD)
        assert verdict == "PASS", why
        assert is_sentence(why), why


def always(rounds: Rounds, values: Values) -> Rounds:
    """Rounds in which every state is as one: what should switch it does nothing."""
    beside = {state: well if state == AFTER else values for state, well in rounds.right.beside.items()}
    return replace(rounds, right=Right(values, values, beside))


@EACH
def test_feature_that_is_never_on_never_passes(rounds: Rounds) -> None:
    """A mask that is not written, a poller that is not started."""
    never_passes(always(rounds, rounds.right.off))


@EACH
def test_feature_that_is_always_on_never_passes(rounds: Rounds) -> None:
    """A mode that is not set, where a VM comes with its timer masked."""
    never_passes(always(rounds, rounds.right.on))


@pytest.mark.parametrize(
    ("feature", "name"),
    [("ipi", "ipis"), ("vtimer", "redundant_exits"), ("cq-poll", "wakeups"), ("wfx", "wfx_exits")],
)
@pytest.mark.parametrize("saved_by_others", [False, True])
def test_black_box_with_one_feature_broken_never_passes(
    feature: str, name: str, saved_by_others: bool
) -> None:
    """Whether or not the others save the same when all are on."""
    right = BLACKBOX.right
    lost = {of_load(load, name): right.off[of_load(load, name)] for load in MAIN_METRICS}
    on = right.on if saved_by_others else {**right.on, **lost}
    beside = {**right.beside, feature: {**right.beside[feature], **lost}}
    never_passes(replace(BLACKBOX, right=Right(right.off, on, beside)))


def test_black_box_with_a_timer_that_is_always_masked_never_passes() -> None:
    masked = of_each({"redundant_exits": 0.0})
    right = BLACKBOX.right
    never_passes(replace(BLACKBOX, right=Right({**right.off, **masked}, right.on, right.beside)))


# A slow computer, and a busy one


def goes_by_the_time(name: str) -> bool:
    return measure(name).kind == "time" or measure(name).unit in RATES


def test_what_is_per_second_is_a_time() -> None:
    """It informs; verdicts go by counts."""
    assert [one.name for one in MEASURES.values() if one.unit == "per s" and one.kind != "time"] == []


waited = st.none() | st.floats(0, 1)
factor = st.floats(1e-3, 1e3)


def scaled(values: Values, factors: Mapping[str, float]) -> Values:
    return {name: value * factors.get(name, 1.0) for name, value in values.items()}


@EACH
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_time_and_no_rate_changes_the_verdict(rounds: Rounds, data: st.DataObject) -> None:
    """Of a right kernel, whatever the factor, and however busy the computer."""
    names = [name for name in rounds.right.off if goes_by_the_time(name)]
    assert names

    def any_speed(values: Values) -> Values:
        return scaled(values, {name: data.draw(factor, label=name) for name in names})

    right = Right(
        any_speed(rounds.right.off),
        any_speed(rounds.right.on),
        {state: any_speed(values) for state, values in rounds.right.beside.items()},
    )
    found = replace(rounds, right=right, waited=data.draw(waited, label="waited")).judged(GOOD, GOOD)
    assert found[0] == "PASS", found


# What a busy computer may make of a right kernel's counts with the feature on: as shares of those off, from
# where to where; what is not here is exact.
_ANY = 1e3
BUSIER: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "ipi": {"sgi_per_ipi": (0.0, 0.49), "exits_per_ipi": (0.0, _ANY)},
    "vtimer": {
        **{"timer_exits_beyond_section": (0.0, 0.49), "timer_exits_beyond_tick": (0.0, 0.49)},
        "ticks_taken": (0.02, 1.0),
    },
    "cq-poll": {"wakeups_per_write": (0.0, 0.89), "ipis_per_write": (0.0, _ANY)},
    "wfx": {"wfx_exits_other": (0.06, _ANY), "wfx_exits_back": (0.06, _ANY), "exits_named": (0.0, _ANY)},
    "blackbox": {
        **{
            of_load(load, name): (0.0, 0.99)
            for load in MAIN_METRICS
            for name in ("ipis", "wakeups", "wfx_exits", "redundant_exits")
        },
        **{
            of_load(load, name): (0.0, _ANY)
            for load in MAIN_METRICS
            for name in ("exits", "timer_exits", "closed_exits", "switches")
        },
    },
}


@EACH
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_busy_computer_never_makes_a_right_kernel_fail(rounds: Rounds, data: st.DataObject) -> None:
    def disturbed(values: Values) -> Values:
        drawn = {
            name: rounds.right.off[name] * data.draw(st.floats(*between), label=name)
            for name, between in BUSIER[rounds.experiment].items()
            if name in values
        }
        return {**values, **drawn}

    beside = {
        state: disturbed(values) if state in ALONE else values
        for state, values in rounds.right.beside.items()
    }
    busy = data.draw(st.none() | st.floats(BUSY + 0.001, 1), label="waited")
    right = Right(rounds.right.off, disturbed(rounds.right.on), beside)
    found = replace(rounds, right=right, waited=busy).judged(GOOD)
    assert found[0] != "FAIL", found
    assert is_sentence(found[1])
    assert_figure_that_told_it(found, busy)


def assert_figure_that_told_it(found: Judged, busy: float | None) -> None:
    """A computer that was too busy to tell is said to have been, by how much."""
    if found[0] == "UNDECIDED" and "show nothing" not in found[1]:
        assert ("unknown" if busy is None else f"{busy:.0%} of the time") in found[1]
