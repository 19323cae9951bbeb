# SPDX-License-Identifier: Apache-2.0
"""The verdict on a monitor's virtual timer: what decides it, and at which value."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.vtimer import verdict as rules_vtimer
from cvmtune.report.judge import judge
from cvmtune.report.schema import Result
from tests.fakes.bound import RULES

LOADS = ("oneshot", "tick", "section")
REDUNDANT = tuple(f"redundant_per_{load}" for load in LOADS)
PER_INTERRUPT = tuple(f"timer_exits_per_interrupt_{load}" for load in LOADS)
# As many with the feature as with the HW bit.
SAME = ("interrupts_per_oneshot", "interrupts_per_section", "ticks_per_s")
OTHERS = (*(f"timer_exits_per_{load}" for load in LOADS), "interrupts_per_tick")
# A round in which all is well, off, on and with the HW bit.
HW = {
    **dict.fromkeys(REDUNDANT, 0.0),
    **dict.fromkeys(PER_INTERRUPT, 1.0),
    **dict.fromkeys(OTHERS, 1.0),
    **{"interrupts_per_oneshot": 1.2, "interrupts_per_section": 1.6, "ticks_per_s": 250.0},
    # Of what decides nothing.
    **{"exits_per_oneshot": 4.0, "storm": 9000.0},
}
ON = {**HW, "exits_per_oneshot": 5.0}
OFF = {
    **HW,
    **{"redundant_per_oneshot": 1.5, "redundant_per_tick": 2.0, "redundant_per_section": 160.0},
    **dict.fromkeys(PER_INTERRUPT, 30.0),
    **{"timer_exits_per_oneshot": 2.5, "timer_exits_per_tick": 3.0, "timer_exits_per_section": 161.0},
    "storm": 1_400_000.0,
}


def series(values: Mapping[str, float]) -> tuple[Series, ...]:
    return tuple(
        Series(name, name.upper(), "each", "count", "lower", (value,)) for name, value in values.items()
    )


def run(machine: str, *rounds: tuple[str, Mapping[str, float]]) -> RawRun:
    """A run of rounds of these states, each state's counted."""
    states = [state for state, _ in rounds]
    return RawRun(
        "vtimer",
        machine,
        tuple(
            Round(state, states[:at].count(state), series(values))
            for at, (state, values) in enumerate(rounds)
        ),
        {},
    )


def with_hw(hw: Mapping[str, float], machine: str = "cvm") -> RawRun:
    return run(machine, (vtimer.HW, {**HW, **hw}))


def judged(
    *pairs: tuple[Mapping[str, float], Mapping[str, float]], hw: Mapping[str, float] | None = None
) -> Result:
    """The result of one pair of rounds each, off and on, in which these values are other than well."""
    rounds = [one for off, on in pairs for one in (("off", {**OFF, **off}), ("on", {**ON, **on}))]
    (result,) = judge([run("cvm", *rounds)], [with_hw(hw or {})], RULES).results
    return result


GOOD: tuple[dict[str, float], dict[str, float]] = ({}, {})


def test_all_well_is_a_pass() -> None:
    assert judged(GOOD, GOOD, GOOD).verdict == "PASS"


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({"redundant_per_section": 1.0}, {}, "PASS"),
        ({"redundant_per_section": 0.99}, {}, "UNDECIDED"),
        ({"redundant_per_section": 0.0}, {}, "UNDECIDED"),
        *(
            ({}, {name: value}, verdict)
            for name in PER_INTERRUPT
            for value, verdict in ((0.5, "PASS"), (1.049, "PASS"), (1.051, "FAIL"), (30.0, "FAIL"))
        ),
        *(
            ({}, {name: HW[name] * factor}, verdict)
            for name in SAME
            for factor, verdict in (
                (1.249, "PASS"),
                (1.251, "FAIL"),
                (1 / 1.249, "PASS"),
                (1 / 1.251, "FAIL"),
                (0.0, "FAIL"),
            )
        ),
        # What these are with the feature off decides nothing.
        *(({name: 0.0}, {}, "PASS") for name in (*REDUNDANT[:2], *PER_INTERRUPT, *SAME, *OTHERS)),
        # Nor do these with it on.
        *(({}, {name: 1000.0}, "PASS") for name in (*OTHERS, "exits_per_oneshot", "storm")),
        # Not exercised: then nothing is said of what was on.
        ({"redundant_per_section": 0.5}, {"redundant_per_tick": 1.0}, "UNDECIDED"),
        ({"redundant_per_section": 0.5}, {"ticks_per_s": 0.0}, "UNDECIDED"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert judged((off, on)).verdict == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_REDUNDANT_OFF", 161.0, {}, {}, "UNDECIDED"),
        ("MIN_REDUNDANT_OFF", 0.1, {"redundant_per_section": 0.2}, {}, "PASS"),
        ("TOLERANCE", 0.2, {}, {"timer_exits_per_interrupt_tick": 1.1}, "PASS"),
        ("TOLERANCE", 0.01, {}, {"timer_exits_per_interrupt_tick": 1.02}, "FAIL"),
        ("SAME", 1.1, {}, {"ticks_per_s": 210.0}, "FAIL"),
        ("SAME", 3.0, {}, {"interrupts_per_section": 4.0}, "PASS"),
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
    monkeypatch.setattr(rules_vtimer, constant, value)
    assert judged((off, on)).verdict == verdict


@pytest.mark.parametrize("name", REDUNDANT)
def test_a_single_redundant_exit_in_one_round_is_a_fail(name: str) -> None:
    result = judged(GOOD, GOOD, ({}, {name: 0.004}), GOOD)
    assert result.verdict == "FAIL"
    assert "redundant timer exits, 0.001 per" in result.why
    assert "where only 0 is right" in result.why


@pytest.mark.parametrize("name", PER_INTERRUPT)
def test_too_many_exits_in_one_round_are_a_fail(name: str) -> None:
    result = judged(GOOD, ({}, {name: 1.5}), GOOD)
    assert result.verdict == "FAIL"
    assert "1.50 timer exits per timer interrupt" in result.why


@pytest.mark.parametrize("name", SAME)
def test_interrupts_are_compared_by_the_mean_over_all_rounds(name: str) -> None:
    few, many = {name: HW[name] * 0.6}, {name: HW[name] * 1.4}
    assert judged(({}, few), ({}, many)).verdict == "PASS"
    assert judged(({}, few), ({}, few)).verdict == "FAIL"
    assert judged(({}, few), ({}, few), hw=few).verdict == "PASS"


@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(state: str) -> None:
    for missing in (*REDUNDANT, *PER_INTERRUPT, *SAME, *OTHERS):
        off = {name: value for name, value in OFF.items() if state == "on" or name != missing}
        on = {name: value for name, value in ON.items() if state == "off" or name != missing}
        (result,) = judge([run("cvm", ("off", off), ("on", on))], [with_hw({})], RULES).results
        assert result.verdict == "UNDECIDED", missing
        assert missing in result.why


@pytest.mark.parametrize("missing", SAME)
def test_what_was_not_counted_with_the_hw_bit_is_undecided(missing: str) -> None:
    baseline = run("cvm", (vtimer.HW, {name: value for name, value in HW.items() if name != missing}))
    (result,) = judge([run("cvm", ("off", OFF), ("on", ON))], [baseline], RULES).results
    assert result.verdict == "UNDECIDED"
    assert result.why.startswith(f"Not measured with the HW bit: {missing}.")


@pytest.mark.parametrize(
    "baselines",
    [
        [],
        # Another machine's, another state's, and instructions, which are of another emulation.
        [with_hw({}, machine="vm")],
        [run("cvm", (vtimer.ORDINARY, HW))],
        [run("cvm", ("instructions, vtimer on, hw", HW))],
    ],
    ids=["none", "another machine's", "another state's", "instructions"],
)
def test_without_the_hw_bit_beside_it_nothing_is_decided(baselines: list[RawRun]) -> None:
    (result,) = judge([run("cvm", ("off", OFF), ("on", ON))], baselines, RULES).results
    assert result.verdict == "UNDECIDED"
    # What is wrong by itself is wrong without it, too.
    (result,) = judge(
        [run("cvm", ("off", OFF), ("on", {**ON, "redundant_per_tick": 1.0}))], baselines, RULES
    ).results
    assert result.verdict == "FAIL"


def test_other_baselines_beside_it_change_nothing() -> None:
    """An ordinary VM on a slower computer, as it were."""
    others = [run("vm", (vtimer.ORDINARY, {name: 0.0 for name in HW})), with_hw({"ticks_per_s": 9.0}, "vm")]
    (result,) = judge([run("cvm", ("off", OFF), ("on", ON))], [*others, with_hw({}), *others], RULES).results
    assert result.verdict == "PASS"


def test_nothing_measured_is_undecided() -> None:
    assert judged().verdict == "UNDECIDED"


def test_state_is_called_as_the_experiment_calls_it() -> None:
    assert rules_vtimer.BASELINE == vtimer.HW


def test_why_states_figures_and_tolerances() -> None:
    why = judged(({}, {"ticks_per_s": 240.0})).why
    assert "per timer of an idle CPU 2.5 off, 1 on" in why
    assert "per section with interrupts off 161 off, 1 on" in why
    assert "per s: 240 on, 250 with the HW bit" in why
    why = judged(({"redundant_per_section": 0.25}, {})).why
    assert "only 0.25 redundant timer exits (at least 1 expected)" in why
    why = judged(({}, {"ticks_per_s": 100.0})).why
    assert "TICKS_PER_S: 100.00 with the feature on, 250.00 with the HW bit" in why
    assert "not within a factor of 1.25" in why
