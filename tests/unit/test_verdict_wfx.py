# SPDX-License-Identifier: Apache-2.0
"""The verdict on untrapped WFx: what decides it, and at which value."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.features.wfx import verdict as rules_wfx
from cvmtune.report.judge import judge
from cvmtune.report.schema import Result
from tests.fakes.bound import RULES

ZERO = (
    *("wfx_exits_named", "idle_wfx_exits", "mixed_wfx_exits"),
    *("wfx_per_timer", "wfx_per_futex_rtt", "wfx_per_pipe_rtt"),
)
KEPT = ("wfx_exits_other", "wfx_exits_back")
# A round in which all is well, off and on.
OFF = {
    **{"wfx_exits_named": 400.0, "wfx_exits_other": 300.0, "wfx_exits_back": 360.0},
    **{"idle_wfx_exits": 50.0, "wfx_per_timer": 1.5, "wfx_per_futex_rtt": 2.0, "wfx_per_pipe_rtt": 2.5},
    # Of what decides nothing.
    **{"exits_named": 900.0, "idle_exits": 80.0, "mixed_wfx_exits": 700.0, "neighbour_share": 1.0},
}
ON = {**OFF, **dict.fromkeys(ZERO, 0.0), "exits_named": 2000.0, "neighbour_share": 0.5}


def series(values: Mapping[str, float]) -> tuple[Series, ...]:
    return tuple(
        Series(name, name.upper(), "per s", "count", "lower", (value,)) for name, value in values.items()
    )


def judged(*pairs: tuple[Mapping[str, float], Mapping[str, float]]) -> Result:
    """The result of one pair of rounds each, off and on, in which these values are other than well."""
    rounds = [
        Round(state, index, series(values))
        for index, (off, on) in enumerate(pairs)
        for state, values in (("off", {**OFF, **off}), ("on", {**ON, **on}))
    ]
    (result,) = judge([RawRun("wfx", "cvm", tuple(rounds), {})], [], RULES).results
    return result


GOOD: tuple[dict[str, float], dict[str, float]] = ({}, {})


def test_all_well_is_a_pass() -> None:
    assert judged(GOOD, GOOD, GOOD).verdict == "PASS"


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({"wfx_exits_named": 50.0}, {}, "PASS"),
        ({"wfx_exits_named": 49.9}, {}, "UNDECIDED"),
        ({"wfx_exits_named": 0.0}, {}, "UNDECIDED"),
        *(
            (off, {name: on}, verdict)
            for name in KEPT
            for off, on, verdict in (
                ({name: 300.0}, 150.0, "PASS"),
                ({name: 300.0}, 149.9, "FAIL"),
                ({name: 300.0}, 0.0, "FAIL"),
                ({name: 300.0}, 600.0, "PASS"),
                ({name: 300.0}, 600.1, "FAIL"),
                ({name: 0.0}, 0.1, "FAIL"),
            )
        ),
        # What these are with the feature off decides nothing.
        *(({name: 0.0}, {}, "PASS") for name in ZERO[1:]),
        # Not exercised: then nothing is said of what was on.
        ({"wfx_exits_named": 1.0}, {"wfx_exits_named": 400.0}, "UNDECIDED"),
        ({"wfx_exits_named": 1.0}, {"wfx_exits_other": 0.0}, "UNDECIDED"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert judged((off, on)).verdict == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_EXITS_OFF", 401.0, {}, {}, "UNDECIDED"),
        ("MIN_EXITS_OFF", 1.0, {"wfx_exits_named": 1.0}, {}, "PASS"),
        ("UNCHANGED", 1.4, {}, {"wfx_exits_other": 200.0}, "FAIL"),
        ("UNCHANGED", 3.0, {}, {"wfx_exits_back": 1000.0}, "PASS"),
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
    assert judged((off, on)).verdict != verdict
    monkeypatch.setattr(rules_wfx, constant, value)
    assert judged((off, on)).verdict == verdict


@pytest.mark.parametrize("name", ZERO)
def test_a_single_exit_of_a_named_vcpu_in_one_round_is_a_fail(name: str) -> None:
    result = judged(GOOD, GOOD, ({}, {name: 0.003}), GOOD)
    assert result.verdict == "FAIL"
    assert result.why.startswith(f"{name.upper()}, on: 0.00075 per s, where only 0 is right")


def test_rates_are_of_the_mean_over_all_rounds() -> None:
    slow, fast = {"wfx_exits_other": 50.0}, {"wfx_exits_other": 550.0}
    assert judged(({}, slow), ({}, fast)).verdict == "PASS"
    assert judged(({}, slow), ({}, slow), ({}, fast), ({}, slow)).verdict == "PASS"
    assert judged(({}, slow), ({}, slow), ({}, slow)).verdict == "FAIL"
    assert judged(({"wfx_exits_named": 0.0}, {}), ({"wfx_exits_named": 100.0}, {})).verdict == "PASS"


@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(state: str) -> None:
    for missing in (*ZERO, *KEPT):
        off = {name: value for name, value in OFF.items() if state == "on" or name != missing}
        on = {name: value for name, value in ON.items() if state == "off" or name != missing}
        rounds = (Round("off", 0, series(off)), Round("on", 0, series(on)))
        (result,) = judge([RawRun("wfx", "cvm", rounds, {})], [], RULES).results
        assert result.verdict == "UNDECIDED", missing
        assert missing in result.why


def test_nothing_measured_is_undecided() -> None:
    assert judged().verdict == "UNDECIDED"


def test_why_states_figures_and_tolerances() -> None:
    why = judged(({"wfx_exits_other": 310.0}, {"wfx_exits_back": 350.0})).why
    assert "400 off; 0 on, from the write of the mask on; 350 from its removal on" in why
    assert "not named: 310 off, 300 on" in why
    why = judged(({"wfx_exits_named": 9.0}, {})).why
    assert "only 9.0 WFx exits per s (at least 50 expected)" in why
    for name, whose in (("other", "that is not named"), ("back", "that is no longer named")):
        why = judged(({}, {f"wfx_exits_{name}": 10.0})).why
        assert f"of a vCPU {whose}: {OFF[f'wfx_exits_{name}']:.0f} off, 10 on" in why
        assert "not within a factor of 2" in why
