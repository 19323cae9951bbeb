# SPDX-License-Identifier: Apache-2.0
"""The verdict on a monitor's virtual timer: what decides it, and at which value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.vtimer import verdict as rules_vtimer
from tests.fakes.rounds import GOOD, VTIMER, Right, Rounds, measure

LOADS = ("oneshot", "tick", "section")
REDUNDANT = tuple(f"redundant_per_{load}" for load in LOADS)
BEYOND = tuple(f"timer_exits_beyond_{load}" for load in LOADS)
NEEDED = (*REDUNDANT, *BEYOND, "ticks_taken", "timers_lost", "timers_wrong", "timer_exits_per_section")
UNKNOWN, BUSY = replace(VTIMER, waited=None), replace(VTIMER, waited=0.6)
WHATEVER = pytest.mark.parametrize("rounds", [VTIMER, UNKNOWN, BUSY], ids=["quiet", "unknown", "busy"])


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({}, {}, "PASS"),
        ({"redundant_per_section": 1.0}, {}, "PASS"),
        ({"redundant_per_section": 0.99}, {}, "UNDECIDED"),
        ({"redundant_per_section": 0.0}, {}, "UNDECIDED"),
        *(
            ({}, {name: value}, verdict)
            for name in BEYOND
            for value, verdict in ((1.0, "PASS"), (2.0, "FAIL"), (9000.0, "FAIL"))
        ),
        ({}, {"ticks_taken": 0.98}, "FAIL"),
        ({}, {"ticks_taken": 0.0}, "FAIL"),
        ({}, {"timers_lost": 1.0}, "FAIL"),
        # What these are with the feature off decides nothing: the model of another monitor.
        *(({name: 0.0}, {}, "PASS") for name in (*REDUNDANT[:2], *BEYOND, "ticks_taken")),
        *(({name: 3.0}, {}, "PASS") for name in ("timers_lost", "timers_wrong")),
        # Nor does this with it on, be it as it is.
        ({}, {"ticks_per_s": 3.0, "storm": 9e9, "exits_per_oneshot": 1000.0, "busy_work": 1.0}, "PASS"),
        ({}, {"interrupts_per_section": 0.0, "interrupts_per_oneshot": 9.0}, "PASS"),
        # Not exercised: then nothing is said of what was on.
        ({"redundant_per_section": 0.5}, {"redundant_per_tick": 1.0}, "UNDECIDED"),
        ({"redundant_per_section": 0.5}, {"ticks_taken": 0.0}, "UNDECIDED"),
        # But timers that fail are.
        ({"redundant_per_section": 0.5}, {"timers_wrong": 1.0}, "FAIL"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert VTIMER.verdict((off, on)) == verdict


@pytest.mark.parametrize(
    ("on", "verdict"),
    [
        ({}, "PASS"),
        *(({name: 1.0}, "PASS") for name in BEYOND),
        *(({name: 2.0}, "UNDECIDED") for name in BEYOND),
        # As many as without a mask.
        ({"timer_exits_beyond_section": 7290.0}, "FAIL"),
        # Where there are none without a mask, any number proves nothing.
        ({"timer_exits_beyond_oneshot": 99.0}, "UNDECIDED"),
        ({"ticks_taken": 0.98}, "UNDECIDED"),
        ({"ticks_taken": 0.02}, "UNDECIDED"),
        ({"ticks_taken": 0.0}, "FAIL"),
        ({"timers_lost": 1.0}, "UNDECIDED"),
    ],
)
@pytest.mark.parametrize("rounds", [UNKNOWN, BUSY], ids=["unknown", "busy"])
def test_computer_that_may_have_been_too_busy(rounds: Rounds, on: dict[str, float], verdict: str) -> None:
    assert rounds.verdict(({}, on)) == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_REDUNDANT_OFF", 75.0, {}, {}, "UNDECIDED"),
        ("MIN_REDUNDANT_OFF", 0.1, {"redundant_per_section": 0.2}, {}, "PASS"),
        ("MAX_BEYOND", 5.0, {}, {"timer_exits_beyond_tick": 5.0}, "PASS"),
        ("MAX_BEYOND", 0.0, {}, {"timer_exits_beyond_tick": 1.0}, "FAIL"),
    ],
)
def test_each_constant_decides(
    monkeypatch: pytest.MonkeyPatch,
    constant: str,
    value: float,
    off: dict[str, float],
    on: dict[str, float],
    verdict: str,
) -> None:
    assert VTIMER.verdict((off, on)) != verdict
    monkeypatch.setattr(rules_vtimer, constant, value)
    assert VTIMER.verdict((off, on)) == verdict


@pytest.mark.parametrize("name", [*REDUNDANT, "timers_wrong"])
@WHATEVER
def test_what_must_never_be_is_a_fail_if_it_was_once(rounds: Rounds, name: str) -> None:
    """However busy the computer was."""
    found = rounds.judged(GOOD, GOOD, ({}, {name: 0.004}), GOOD)
    assert found == ("FAIL", f"{measure(name).title}: 0.004 on, where only 0 is right.")


def test_exits_beyond_interrupts_are_of_the_mean_over_all_rounds() -> None:
    """At the edge there is one in each round at most, and a tick that was stopped is seldom."""
    assert VTIMER.verdict(({}, {"timer_exits_beyond_tick": 3.0}), GOOD, GOOD) == "PASS"
    assert VTIMER.verdict(({}, {"timer_exits_beyond_tick": 4.0}), GOOD, GOOD) == "FAIL"


@pytest.mark.parametrize("missing", NEEDED)
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(missing: str, state: str) -> None:
    found = VTIMER.without(missing, off=state != "on", on=state != "off")
    assert found == ("UNDECIDED", f"Not measured both off and on: {missing}.")


@pytest.mark.parametrize(("rounds", "verdict"), [(VTIMER, "FAIL"), (BUSY, "UNDECIDED")])
def test_load_that_lost_a_timer_has_no_other_figures(rounds: Rounds, verdict: str) -> None:
    """And what it has decides nevertheless."""
    on = {name: value for name, value in VTIMER.right.on.items() if not name.endswith("_oneshot")}
    one = replace(rounds, right=Right(VTIMER.right.off, on, {}))
    found, why = one.judged(({}, {"timers_lost": 1.0}))
    assert found == verdict
    assert why.startswith("Timers that had not fired two seconds after their expiry: 1 on,")
    assert one.verdict(({}, {"timers_lost": 0.0})) == "UNDECIDED"


@WHATEVER
def test_nothing_measured_is_undecided(rounds: Rounds) -> None:
    assert rounds.verdict() == "UNDECIDED"


def test_state_is_called_as_the_experiment_calls_it() -> None:
    assert rules_vtimer.BASELINE == vtimer.HW


def test_why_is_a_sentence_of_figures() -> None:
    exits = "Timer exits per section with interrupts off"
    assert VTIMER.why(GOOD) == f"{exits}: 75.2 off, 1.03 on, 1.05 with the HW bit."
    assert VTIMER.why(GOOD, beside={"HW bit": None}) == f"{exits}: 75.2 off, 1.03 on."
    assert VTIMER.why(({"redundant_per_section": 0.25}, {})) == (
        "Redundant timer exits per section with interrupts off: 0.25 off, where less than 1 shows nothing."
    )
    assert VTIMER.why(({}, {"ticks_taken": 0.5})) == (
        "Ticks of a busy CPU, of those that it waits for: 0.5 on, where at least 1 is right."
    )
    beyond = "Timer exits beyond the guest's timer interrupts (tick of a busy CPU)"
    why = VTIMER.why(({}, {"timer_exits_beyond_tick": 3.0}))
    assert why == f"{beyond}: 3 on, where at most 1 is right."


@pytest.mark.parametrize("machine", ["vm", "cvm"])
def test_hw_bit_of_another_machine_or_of_instructions_is_not_told(machine: str) -> None:
    state = "HW bit" if machine == "vm" else "instructions, HW bit"
    other = replace(VTIMER, machine=machine, right=Right({}, {}, {state: VTIMER.right.off}))
    run = VTIMER.run([GOOD], {"HW bit": None})
    assert "HW bit" not in VTIMER.judged_run(run, [other.run([])])[1]
