# SPDX-License-Identifier: Apache-2.0
"""The verdict on all features together: what decides it, and at which value."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.report.judge import judge
from cvmtune.report.schema import Result
from cvmtune.workloads.blackbox import verdict as rules_blackbox
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import CLOSED, MAIN_METRICS
from cvmtune.workloads.blackbox.verdict import REQUESTED, BlackboxJudge
from cvmtune.workloads.power_cut import series as after_power_cut
from tests.fakes.bound import RULES as REGISTRY_RULES
from tests.fakes.bound import SWITCHES

RULES = dict(REGISTRY_RULES)

EXITS = ("exits", "wfx_exits", "timer_exits", "redundant_exits", "closed_exits")


def named(load: str, name: str) -> str:
    """A metric of this load, or of the same without a rate; "" is the latency."""
    if name == "closed_exits":
        return f"{CLOSED[load]}_exits"
    return f"{load}_{name}" if name else load


def of_each(values: Mapping[str, float]) -> dict[str, float]:
    """These values for each of the loads."""
    return {named(load, name): value for load in MAIN_METRICS for name, value in values.items()}


# A round in which all is well, off and on.
OFF = {
    **of_each({"": 9000.0, "lost": 0.0, "ipis": 10.0, "wakeups": 4.0, "exits": 20.0, "wfx_exits": 6.0}),
    **of_each({"timer_exits": 8.0, "redundant_exits": 2.0, "closed_exits": 10.0}),
    # Of what decides nothing.
    **of_each({"switches": 30.0, "poller_use": 0.0, "cpu_use": 0.5}),
    **{"insert_2": 9000.0, "insert_2_lost": 0.0, "tpcb_4_closed_lost": 0.0},
}
ON = {
    **OFF,
    **of_each({"": 3000.0, "ipis": 4.0, "wakeups": 0.1, "exits": 18.0, "wfx_exits": 0.1}),
    **of_each({"timer_exits": 12.0, "redundant_exits": 0.01, "closed_exits": 5.0}),
    **of_each({"switches": 60.0, "poller_use": 1.0, "cpu_use": 1.9}),
}
# And once, after all of them.
WHOLE = {"all_lost": 0.0, "damage": 0.0}
FAULTS = (*(f"{load}_lost" for load in MAIN_METRICS), "insert_2_lost", "tpcb_4_closed_lost", *WHOLE)
NEEDED = [f"{load}{suffix}" for load in MAIN_METRICS for suffix in ("", "_lost", "_ipis", "_wakeups")]
NEEDED_IN_A_VM = [*NEEDED, *(named(load, suffix) for load in MAIN_METRICS for suffix in EXITS)]


def series(values: Mapping[str, float]) -> tuple[Series, ...]:
    return tuple(
        Series(name, name.upper(), "each", "count", "lower", (value,)) for name, value in values.items()
    )


def judged(
    *pairs: tuple[Mapping[str, float], Mapping[str, float]],
    beside: tuple[RawRun, ...] = (),
    after: Mapping[str, float] = WHOLE,
) -> Result:
    """The result of one pair of rounds each, off and on, in which these values are other than well."""
    rounds = [
        Round(state, index, series(values))
        for index, (off, on) in enumerate(pairs)
        for state, values in (("off", {**OFF, **off}), ("on", {**ON, **on}))
    ]
    rounds.append(Round(AFTER, 0, series(after)))
    (result,) = judge([RawRun("blackbox", "cvm", tuple(rounds), {})], beside, RULES).results
    return result


def without(names: set[str], *, off: bool = True, on: bool = True) -> Result:
    """The result of a pair of rounds in which these were not measured, nor were they after them."""
    values = {
        "off": {name: value for name, value in OFF.items() if not (off and name in names)},
        "on": {name: value for name, value in ON.items() if not (on and name in names)},
    }
    values[AFTER] = {name: value for name, value in WHOLE.items() if name not in names}
    rounds = tuple(Round(state, 0, series(found)) for state, found in values.items())
    (result,) = judge([RawRun("blackbox", "plain", rounds, {})], [], RULES).results
    return result


GOOD: tuple[dict[str, float], dict[str, float]] = ({}, {})


def test_all_well_is_a_pass() -> None:
    assert judged(GOOD, GOOD, GOOD).verdict == "PASS"


@pytest.mark.parametrize("load", MAIN_METRICS)
@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        # What was not there to be saved.
        ({"ipis": 2.0}, {"ipis": 0.5}, "PASS"),
        ({"ipis": 1.99}, {"ipis": 0.5}, "UNDECIDED"),
        ({"ipis": 0.0}, {"ipis": 0.0}, "UNDECIDED"),
        ({"wakeups": 2.0}, {}, "PASS"),
        ({"wakeups": 1.99}, {}, "UNDECIDED"),
        ({"exits": 0.0, "wfx_exits": 0.0}, {"exits": 0.0}, "PASS"),
        # What was saved.
        ({}, {"ipis": 7.0}, "PASS"),
        ({}, {"ipis": 7.01}, "FAIL"),
        ({"ipis": 100.0}, {"ipis": 70.0}, "PASS"),
        ({"ipis": 100.0}, {"ipis": 70.1}, "FAIL"),
        ({}, {"wakeups": 0.5}, "PASS"),
        ({}, {"wakeups": 0.51}, "FAIL"),
        ({"wakeups": 400.0}, {"wakeups": 0.51}, "FAIL"),
        ({}, {"closed_exits": 8.0}, "PASS"),
        ({}, {"closed_exits": 8.01}, "FAIL"),
        ({"closed_exits": 0.0}, {"closed_exits": 0.01}, "FAIL"),
        ({}, {"wfx_exits": 0.5}, "PASS"),
        ({}, {"wfx_exits": 0.51}, "FAIL"),
        ({}, {"redundant_exits": 0.05}, "PASS"),
        ({}, {"redundant_exits": 0.051}, "FAIL"),
        ({"redundant_exits": 100.0}, {"redundant_exits": 0.051}, "FAIL"),
        # Without a monitor's mask there may be none to be saved.
        ({"redundant_exits": 0.0}, {"redundant_exits": 0.0}, "PASS"),
        ({"redundant_exits": 0.0}, {"redundant_exits": 0.051}, "FAIL"),
        # Not exercised: then nothing is said of what was on.
        ({"ipis": 1.0}, {"wakeups": 4.0}, "UNDECIDED"),
        ({"wakeups": 1.0}, {"ipis": 10.0}, "UNDECIDED"),
        ({"ipis": 1.0}, {"redundant_exits": 2.0}, "UNDECIDED"),
        # Of what decides nothing, times among it.
        ({}, {"": 90_000.0}, "PASS"),
        ({"": 0.0}, {"": 0.0}, "PASS"),
        ({}, {"switches": 1000.0, "timer_exits": 100.0, "poller_use": 2.0, "cpu_use": 4.0}, "PASS"),
        # The time between two transactions is in it.
        ({}, {"exits": 200.0}, "PASS"),
    ],
)
def test_verdict(load: str, off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    """Of any one of the loads, with all well with the others."""
    of_load = [{named(load, name): value for name, value in values.items()} for values in (off, on)]
    assert judged((of_load[0], of_load[1])).verdict == verdict


def change(monkeypatch: pytest.MonkeyPatch, constant: str, value: float) -> None:
    """Have this value of the judge's own constant, or of a limit ("suffix limit") of what a feature saves."""
    suffix, _, limit = constant.partition(" ")
    if not limit:
        monkeypatch.setattr(rules_blackbox, constant, value)
        return
    events = BlackboxJudge.of(SWITCHES).events
    (event,) = (event for event in events if event.suffix == suffix)
    assert hasattr(event, limit)
    changed = copy(event)
    object.__setattr__(changed, limit, value)
    judge_of = BlackboxJudge(tuple(changed if one is event else one for one in events))
    monkeypatch.setitem(RULES, "blackbox", replace(RULES["blackbox"], judge=judge_of))


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("ipis least_off", 10.1, {}, {}, "UNDECIDED"),
        ("ipis least_off", 0.5, {"tpcb_ipis": 1.0}, {"tpcb_ipis": 0.1}, "PASS"),
        ("wakeups least_off", 4.1, {}, {}, "UNDECIDED"),
        ("wakeups least_off", 0.5, {"audit_wakeups": 1.0}, {}, "PASS"),
        ("ipis share_on", 0.3, {}, {}, "FAIL"),
        ("ipis share_on", 1.0, {}, {"insert_ipis": 10.0}, "PASS"),
        ("wakeups most_on", 0.05, {}, {}, "FAIL"),
        ("wakeups most_on", 1.0, {}, {"tpcb_wakeups": 0.9}, "PASS"),
        ("wfx_exits most_on", 0.05, {}, {}, "FAIL"),
        ("wfx_exits most_on", 1.0, {}, {"audit_wfx_exits": 0.9}, "PASS"),
        ("MAX_EXITS_SHARE", 0.4, {}, {}, "FAIL"),
        ("MAX_EXITS_SHARE", 2.0, {}, {"insert_1_closed_exits": 20.0}, "PASS"),
        ("redundant_exits most_on", 0.005, {}, {}, "FAIL"),
        ("redundant_exits most_on", 1.0, {}, {"tpcb_redundant_exits": 0.9}, "PASS"),
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
    change(monkeypatch, constant, value)
    assert judged((off, on)).verdict == verdict


def test_counts_are_of_the_mean_over_all_rounds() -> None:
    few, many = {"insert_ipis": 4.0}, {"insert_ipis": 10.0}
    assert judged(({}, few), ({}, many)).verdict == "PASS"
    assert judged(({}, few), ({}, many), ({}, many)).verdict == "FAIL"
    assert judged(({"tpcb_wakeups": 0.0}, {}), ({"tpcb_wakeups": 4.0}, {})).verdict == "PASS"
    assert judged(({"tpcb_wakeups": 0.0}, {}), ({"tpcb_wakeups": 3.9}, {})).verdict == "UNDECIDED"


# Lost, or damaged


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("state", ["off", "on"])
def test_a_single_loss_in_one_round_is_a_fail(name: str, state: str) -> None:
    well, lost = {name: 0.0}, {name: 3.0}
    bad = (lost, well) if state == "off" else (well, lost)
    result = judged((well, well), (well, well), bad, (well, well))
    assert result.verdict == "FAIL"
    assert result.why.startswith(f"{name.upper()}, features {state}: 3, where 0 is right.")


@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_found_after_all_rounds_is_a_fail(name: str) -> None:
    """It is of no state of the features: nothing has it off or on."""
    result = judged(GOOD, GOOD, after={**WHOLE, name: 3.0})
    assert result.verdict == "FAIL"
    assert result.why.startswith(f"{name.upper()}, cvm, {AFTER}: 3, where 0 is right.")
    assert name not in {metric.name for metric in result.metrics}


def test_more_than_was_committed_is_as_wrong_as_less() -> None:
    result = judged(GOOD, after={**WHOLE, "all_lost": -2.0})
    assert result.verdict == "FAIL"
    assert result.why.startswith(f"ALL_LOST, cvm, {AFTER}: -2, where 0 is right.")


@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_after_all_rounds_weighs_more_than_what_was_not_measured_or_exercised(name: str) -> None:
    assert judged((of_each({"ipis": 0.0}), {}), after={**WHOLE, name: 1.0}).verdict == "FAIL"
    assert judged(after={name: 1.0}).verdict == "FAIL"


@pytest.mark.parametrize("name", FAULTS)
def test_a_loss_weighs_more_than_all_that_was_not_measured_or_exercised(name: str) -> None:
    nothing = of_each({"ipis": 0.0, "wakeups": 0.0})
    assert judged((nothing, {name: 1.0})).verdict == "FAIL"
    (alone,) = judge(
        [RawRun("blackbox", "cvm", tuple(Round(one, 0, series({name: 1.0})) for one in ("off", "on")), {})],
        [],
        RULES,
    ).results
    assert alone.verdict == "FAIL"


def test_a_loss_in_one_of_many_rounds_is_not_thinned_away() -> None:
    """A result keeps some of the samples, and the largest among them."""
    rounds = [
        Round(state, index, series({"insert_lost": float(state == "on" and index == 1234)}))
        for index in range(2500)
        for state in ("off", "on")
    ]
    (result,) = judge([RawRun("blackbox", "cvm", tuple(rounds), {})], [], RULES).results
    assert result.verdict == "FAIL"
    assert "INSERT_LOST, features on: 1, where 0 is right." in result.why


@pytest.mark.parametrize("name", [f"{load}_lost" for load in MAIN_METRICS])
def test_a_loss_with_some_of_the_features_on_is_a_fail(name: str) -> None:
    rounds = (
        Round("off", 0, series(OFF)),
        Round("on", 0, series(ON)),
        Round("ipi+wfx", 0, series({**ON, name: 3.0})),
    )
    (result,) = judge([RawRun("blackbox", "cvm", rounds, {})], [], RULES).results
    assert result.verdict == "FAIL"


def cut(promised: int, lost: int, damage: int, machine: str = "cvm") -> RawRun:
    records = range(promised)
    outcome = after_power_cut(frozenset(records), frozenset(records[lost:]), damage)
    return RawRun("blackbox", machine, (Round("power cut", 0, outcome),), {})


@pytest.mark.parametrize(
    ("lost", "damage", "verdict", "why"),
    [
        (0, 0, "PASS", "Nothing committed or answered was lost, nothing damaged."),
        (1, 0, "FAIL", "Of these, lost by it, cvm, power cut: 1, where 0 is right."),
        (0, 2, "FAIL", "Damage found in the database after it, cvm, power cut: 2, where 0 is right."),
        (3, 2, "FAIL", "Of these, lost by it, cvm, power cut: 3, where 0 is right."),
    ],
)
def test_what_a_power_cut_took_is_a_fail(lost: int, damage: int, verdict: str, why: str) -> None:
    result = judged(GOOD, GOOD, beside=(cut(120, lost, damage),))
    assert result.verdict == verdict
    assert result.why.startswith(why)


def test_a_power_cut_weighs_more_than_what_was_not_exercised() -> None:
    nothing = of_each({"ipis": 0.0})
    assert judged((nothing, {}), beside=(cut(120, 0, 0),)).verdict == "UNDECIDED"
    assert judged((nothing, {}), beside=(cut(120, 1, 0),)).verdict == "FAIL"


def test_other_baselines_and_other_machines_decide_nothing() -> None:
    bad = {**OFF, "insert_wfx_exits": 99.0, "tpcb_ipis": 0.0}
    vm = RawRun("blackbox", "vm", (Round("off", 0, series(bad)),), {})
    assert judged(GOOD, beside=(vm, cut(120, 0, 0), cut(120, 7, 7, "vm"))).verdict == "PASS"


# Not measured


@pytest.mark.parametrize("missing", NEEDED_IN_A_VM)
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_measured_off_and_on_is_undecided(missing: str, state: str) -> None:
    result = without({missing}, off=state != "on", on=state != "off")
    assert result.verdict == "UNDECIDED"
    assert f"Not measured, or not both off and on: {missing}." in result.why


@pytest.mark.parametrize("missing", WHOLE)
def test_what_was_not_looked_for_in_any_state_is_undecided(missing: str) -> None:
    result = without({missing})
    assert result.verdict == "UNDECIDED"
    assert result.why.startswith(f"Not measured, or not both off and on: {missing}.")


@pytest.mark.parametrize("state", ["off", "on", "ipi+wfx", AFTER, "any"])
@pytest.mark.parametrize("name", WHOLE)
def test_whatever_the_state_in_which_it_was_looked_for(name: str, state: str) -> None:
    """Of the judged machine; it need not be the run that is judged."""
    rest = {other: value for other, value in WHOLE.items() if other != name}
    found = RawRun("blackbox", "cvm", (Round(state, 0, series({name: 0.0})),), {})
    elsewhere = RawRun("blackbox", "vm", (Round(state, 0, series({name: 0.0})),), {})
    assert judged(GOOD, after=rest, beside=(found,)).verdict == "PASS"
    assert judged(GOOD, after=rest, beside=(elsewhere,)).verdict == "UNDECIDED"


def test_off_and_on_may_tell_what_is_otherwise_told_after_all_rounds() -> None:
    assert judged((WHOLE, WHOLE), after={}).verdict == "PASS"
    assert judged((WHOLE, {**WHOLE, "all_lost": 1.0}), after={}).verdict == "FAIL"
    assert judged((WHOLE, {}), after={}).verdict == "PASS"


def test_a_power_cut_is_not_in_the_place_of_what_is_found_after_all_rounds() -> None:
    result = judged(GOOD, after={}, beside=(cut(120, 0, 0),))
    assert result.verdict == "UNDECIDED"
    assert result.why.startswith("Not measured, or not both off and on: all_lost, damage.")


def test_all_that_is_missing_is_named() -> None:
    why = without({"audit", "damage", "all_lost", "tpcb_wakeups", "insert_redundant_exits"}).why
    assert why.startswith(
        "Not measured, or not both off and on: insert_redundant_exits, tpcb_wakeups, audit, all_lost, damage."
    )


@pytest.mark.parametrize("name", [name for name in OFF if name not in NEEDED_IN_A_VM])
def test_what_decides_nothing_need_not_be_measured(name: str) -> None:
    assert without({name}).verdict == "PASS"


def test_exits_are_not_needed_where_there_is_no_hypervisor() -> None:
    result = without({name for name in OFF if name.endswith("_exits")})
    assert result.verdict == "PASS"
    assert "exits" not in result.why.partition("Left out")[0]
    assert "redundant" not in result.why
    assert "Allowed: 70% of the IPIs, 0.5 completion events." in result.why


def test_one_that_counts_exits_must_count_all_of_them() -> None:
    exits = [name for name in NEEDED_IN_A_VM if name not in NEEDED]
    assert len(exits) == len(EXITS) * len(MAIN_METRICS)
    result = without({*exits} - {"tpcb_timer_exits"})
    assert result.verdict == "UNDECIDED"
    for name in exits:
        assert (name in result.why) == (name != "tpcb_timer_exits")


def test_nothing_measured_is_undecided() -> None:
    result = judged(after={})
    assert result.verdict == "UNDECIDED"
    assert result.why == f"Not measured, or not both off and on: {', '.join([*NEEDED, *WHOLE])}."


# What is said


def test_why_states_figures_and_tolerances() -> None:
    why = judged(({"tpcb_ipis": 11.0}, {"audit_wakeups": 0.25}), GOOD).why
    assert "tpcb: hardware IPIs 10.50 → 4.00, completion events 4.00 → 0.10" in why
    assert "audit: hardware IPIs 10.00 → 4.00, completion events 4.00 → 0.17" in why
    assert (
        "exits 20.00 → 18.00, of these for WFx 6.00 → 0.10, for the timer 8.00 → 12.00, "
        "redundantly 2.00 → 0.01, exits without a rate 10.00 → 5.00; mean" in why
    )
    assert (
        "Times decide nothing; asked for was 1.67. Allowed: 70% of the IPIs, 0.5 completion events, "
        "0.5 WFx exits, 0.05 redundant ones, 80% of all exits without a rate." in why
    )
    assert why.count("mean latency off/on 3.00 (3.00 to 3.00), not told (2 rounds).") == len(MAIN_METRICS)


@pytest.mark.parametrize(
    ("off", "said"),
    [
        # By its rounds, the mean latency of each with all on being 3000.
        ([6000.0] * 5, "2.00 [2.00, 2.00], met."),
        ([6000.0, 6600.0, 6600.0, 6600.0, 6000.0], "2.12 [1.98, 2.26], met."),
        ([3000.0, 9000.0, 6000.0, 6000.0, 6000.0], "1.89 [1.15, 3.09], not settled."),
        ([4500.0] * 5, "1.50 [1.50, 1.50], missed."),
        ([1500.0] * 5, "0.500 [0.500, 0.500], missed."),
        ([9000.0] * 4, "3.00 (3.00 to 3.00), not told (4 rounds)."),
        ([3000.0, 6000.0], "1.41 (1.00 to 2.00), not told (2 rounds)."),
        ([9000.0], "3.00, not told (1 round)."),
    ],
)
@pytest.mark.parametrize("load", MAIN_METRICS)
def test_why_says_whether_what_was_asked_for_is_settled(load: str, off: list[float], said: str) -> None:
    assert REQUESTED == 1.67
    result = judged(*(({load: ns}, {}) for ns in off))
    assert result.verdict == "PASS"
    _, _, told = result.why.partition(f"{load}: ")
    assert told.partition("mean latency off/on ")[2].startswith(said)
    # The other loads are as they were.
    assert result.why.count("mean latency off/on 3.00") >= len(MAIN_METRICS) - 1


def test_why_says_the_same_of_a_fail() -> None:
    why = judged(({}, {"insert_ipis": 9.0})).why
    assert "insert: hardware IPIs 10.00 → 9.00" in why
    assert "Allowed: 70% of the IPIs" in why


def test_why_of_no_latency_has_no_ratio() -> None:
    assert "mean latency off/on unknown." in judged(({}, {"insert": 0.0})).why


@pytest.mark.parametrize(("name", "least"), [("ipis", 2), ("wakeups", 2)])
def test_why_names_what_was_not_exercised(name: str, least: int) -> None:
    why = judged(({f"audit_{name}": 1.234}, {})).why
    assert why.startswith(
        f"AUDIT_{name.upper()}: only 1.23 with all features off (at least {least} expected)"
    )
