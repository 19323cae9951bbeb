# SPDX-License-Identifier: Apache-2.0
"""The verdict on untrapped WFx: what decides it, and at which value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmtune.features.wfx import verdict as rules_wfx
from tests.fakes.rounds import GOOD, WFX, Rounds, measure

ZERO = (
    *("wfx_exits_named", "idle_wfx_exits", "mixed_wfx_exits"),
    *("wfx_per_timer", "wfx_per_futex_rtt", "wfx_per_pipe_rtt"),
)
KEPT = ("wfx_exits_other", "wfx_exits_back")
UNKNOWN, BUSY = replace(WFX, waited=None), replace(WFX, waited=0.6)


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({}, {}, "PASS"),
        ({"wfx_exits_named": 0.1}, {}, "PASS"),
        ({"wfx_exits_named": 0.09}, {}, "UNDECIDED"),
        ({"wfx_exits_named": 0.0}, {}, "UNDECIDED"),
        *(
            (off, {name: on}, verdict)
            for name in KEPT
            for off, on, verdict in (
                ({name: 1.0}, 0.5, "PASS"),
                ({name: 1.0}, 0.49, "FAIL"),
                ({name: 1.0}, 0.0, "FAIL"),
                ({name: 1.0}, 9.0, "PASS"),
                ({name: 0.09}, 0.0, "UNDECIDED"),
            )
        ),
        # What these are with the feature off decides nothing.
        *(({name: 0.0}, {}, "PASS") for name in ZERO[1:]),
        # Not exercised: then nothing is said of what was on.
        ({"wfx_exits_named": 0.01}, {"wfx_exits_named": 1.0}, "UNDECIDED"),
        ({"wfx_exits_named": 0.01}, {"wfx_exits_other": 0.0}, "UNDECIDED"),
        # Nor where there were hardly any timers.
        ({"timers_taken": 20.0}, {"timers_taken": 20.0}, "PASS"),
        ({"timers_taken": 19.0}, {}, "UNDECIDED"),
        ({}, {"timers_taken": 19.0}, "UNDECIDED"),
        ({}, {"timers_taken": 0.0, "wfx_exits_other": 0.0}, "UNDECIDED"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert WFX.verdict((off, on)) == verdict


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize(
    ("on", "verdict"),
    [(0.5, "PASS"), (0.49, "UNDECIDED"), (0.06, "UNDECIDED"), (0.05, "FAIL"), (0.0, "FAIL")],
)
@pytest.mark.parametrize("rounds", [UNKNOWN, BUSY], ids=["unknown", "busy"])
def test_computer_that_may_have_been_too_busy(rounds: Rounds, name: str, on: float, verdict: str) -> None:
    assert rounds.verdict(({name: 1.0}, {name: on})) == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_TIMERS", 400, {}, {}, "UNDECIDED"),
        ("MIN_EXITS_OFF", 1.1, {}, {}, "UNDECIDED"),
        ("MIN_EXITS_OFF", 0.01, {"wfx_exits_named": 0.02}, {}, "PASS"),
        ("KEPT", 0.95, {}, {"wfx_exits_other": 0.9}, "FAIL"),
        ("KEPT", 0.2, {}, {"wfx_exits_back": 0.3}, "PASS"),
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
    assert WFX.verdict((off, on)) != verdict
    monkeypatch.setattr(rules_wfx, constant, value)
    assert WFX.verdict((off, on)) == verdict


def test_share_that_is_gone_decides_on_a_busy_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_wfx, "GONE", 0.3)
    assert BUSY.verdict(({}, {"wfx_exits_other": 0.2})) == "FAIL"


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("rounds", [WFX, UNKNOWN, BUSY], ids=["quiet", "unknown", "busy"])
def test_a_single_exit_of_a_named_vcpu_in_one_round_is_a_fail(rounds: Rounds, name: str) -> None:
    """However busy the computer was."""
    verdict, why = rounds.judged(GOOD, GOOD, ({}, {name: 0.003}), GOOD)
    assert (verdict, why) == ("FAIL", f"{measure(name).title}: 0.003 on, where only 0 is right.")


def test_what_is_kept_is_of_the_mean_over_all_rounds() -> None:
    few, many = {"wfx_exits_other": 0.2}, {"wfx_exits_other": 1.8}
    assert WFX.verdict(({}, few), ({}, many)) == "PASS"
    assert WFX.verdict(({}, few), ({}, few)) == "FAIL"
    assert WFX.verdict(({"wfx_exits_named": 0.0}, {}), ({"wfx_exits_named": 0.5}, {})) == "PASS"


@pytest.mark.parametrize("missing", [*ZERO, *KEPT, "timers_taken"])
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(missing: str, state: str) -> None:
    found = WFX.without(missing, off=state != "on", on=state != "off")
    assert found == ("UNDECIDED", f"Not measured both off and on: {missing}.")


def test_nothing_measured_is_undecided() -> None:
    assert WFX.verdict() == "UNDECIDED"


def test_why_is_a_sentence_of_figures() -> None:
    named = "WFI and WFE exits of the named vCPU per timer interrupt"
    assert WFX.why(GOOD) == f"{named}: 1.03 off, 0 on."
    assert (
        WFX.why(({"wfx_exits_named": 0.02}, {})) == f"{named}: 0.02 off, where less than 0.1 shows nothing."
    )
    assert WFX.why(({}, {"wfx_exits_other": 0.3})) == (
        "WFI and WFE exits of the vCPU not named per timer interrupt: 0.3 on, where at least 0.525 is right."
    )
    assert WFX.why(({}, {"timers_taken": 3.0})) == (
        "Timer interrupts of a vCPU, the one with the fewest, while WFI and WFE exits are counted: 3, where "
        "fewer than 20 show nothing."
    )
