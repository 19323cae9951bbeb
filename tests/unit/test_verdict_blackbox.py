# SPDX-License-Identifier: Apache-2.0
"""The verdict on all features together: what decides it, and at which value."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import pytest

from cvmtune.experiments.rounds import RawRun, Round
from cvmtune.report.evidence import Judged
from cvmtune.workloads.blackbox import verdict as rules_blackbox
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import CLOSED, MAIN_METRICS
from cvmtune.workloads.blackbox.verdict import BlackboxJudge
from cvmtune.workloads.power_cut import series as after_power_cut
from tests.fakes.bound import RULES, SWITCHES
from tests.fakes.rounds import ALONE, BLACKBOX, GOOD, Right, Rounds, Values, of_each, of_load, series

UNKNOWN, BUSY = replace(BLACKBOX, waited=None), replace(BLACKBOX, waited=0.6)
WHATEVER = pytest.mark.parametrize("rounds", [BLACKBOX, UNKNOWN, BUSY], ids=["quiet", "unknown", "busy"])

EXITS = ("exits", "wfx_exits", "timer_exits", "redundant_exits", "closed_exits")
# Found once, after all rounds.
WHOLE = {"all_lost": 0.0, "damage": 0.0}
FAULTS = (*(f"{load}_lost" for load in MAIN_METRICS), "insert_2_lost", "tpcb_4_closed_lost")
NEEDED = [f"{load}{suffix}" for load in MAIN_METRICS for suffix in ("", "_lost", "_ipis", "_wakeups")]
NEEDED_IN_A_VM = [*NEEDED, *(of_load(load, suffix) for load in MAIN_METRICS for suffix in EXITS)]
NOT_MEASURED = "Not measured, or not both off and on"


def each_of(load: str, values: Values) -> Values:
    return {of_load(load, name): value for name, value in values.items()}


def with_after(after: Values | None, rounds: Rounds = BLACKBOX) -> Rounds:
    """Rounds after which this and nothing else was found."""
    beside = {state: values for state, values in rounds.right.beside.items() if state != AFTER}
    beside |= {AFTER: after} if after else {}
    return replace(rounds, right=Right(rounds.right.off, rounds.right.on, beside))


def without(names: set[str], *, off: bool = True, on: bool = True, machine: str = "cvm") -> Judged:
    """What it says of a pair of rounds in which these were not measured, nor beside or after them."""
    right = BLACKBOX.right

    def rest(values: Values, *, leave: bool = True) -> Values:
        return {name: value for name, value in values.items() if not (leave and name in names)}

    beside = {state: rest(values) for state, values in right.beside.items()}
    beside = {state: values for state, values in beside.items() if values}
    return replace(
        BLACKBOX, machine=machine, right=Right(rest(right.off, leave=off), rest(right.on, leave=on), beside)
    ).judged(GOOD)


@WHATEVER
def test_all_well_is_a_pass(rounds: Rounds) -> None:
    assert rounds.verdict(GOOD, GOOD, GOOD) == "PASS"


@pytest.mark.parametrize("load", MAIN_METRICS)
@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        # What was not there to be saved.
        ({"ipis": 4.3}, {"ipis": 0.5}, "PASS"),
        ({"ipis": 1.99}, {"ipis": 0.5}, "UNDECIDED"),
        ({"ipis": 0.0}, {"ipis": 0.0}, "UNDECIDED"),
        ({"wakeups": 2.0}, {}, "PASS"),
        ({"wakeups": 1.99}, {}, "UNDECIDED"),
        ({"wfx_exits": 1.0}, {}, "PASS"),
        ({"wfx_exits": 0.99}, {}, "UNDECIDED"),
        ({"redundant_exits": 0.1}, {}, "PASS"),
        ({"redundant_exits": 0.09}, {}, "UNDECIDED"),
        ({"exits": 0.0}, {"exits": 0.0}, "PASS"),
        # What was saved.
        ({}, {"ipis": 7.0}, "PASS"),
        ({}, {"ipis": 7.01}, "FAIL"),
        ({"ipis": 100.0}, {"ipis": 70.0}, "PASS"),
        ({"ipis": 100.0}, {"ipis": 70.1}, "FAIL"),
        ({}, {"wakeups": 0.5}, "PASS"),
        ({}, {"wakeups": 0.51}, "FAIL"),
        ({"wakeups": 400.0}, {"wakeups": 0.51}, "FAIL"),
        ({}, {"wfx_exits": 0.5}, "PASS"),
        ({}, {"wfx_exits": 0.51}, "FAIL"),
        ({}, {"redundant_exits": 0.05}, "PASS"),
        ({}, {"redundant_exits": 0.051}, "FAIL"),
        ({"redundant_exits": 100.0}, {"redundant_exits": 0.051}, "FAIL"),
        # Exits of any kind have those for ticks among them, as many as there is time: never a FAIL.
        ({}, {"closed_exits": 8.0}, "PASS"),
        ({}, {"closed_exits": 8.01}, "UNDECIDED"),
        ({}, {"closed_exits": 99.0}, "UNDECIDED"),
        ({"closed_exits": 0.0}, {"closed_exits": 0.01}, "UNDECIDED"),
        ({}, {"closed_exits": 99.0, "ipis": 10.0}, "FAIL"),
        # Not exercised: then nothing is said of what was on.
        ({"ipis": 1.0}, {"wakeups": 4.0}, "UNDECIDED"),
        ({"wakeups": 1.0}, {"ipis": 10.0}, "UNDECIDED"),
        ({"ipis": 1.0}, {"redundant_exits": 2.0}, "UNDECIDED"),
        # Of what decides nothing, times among it.
        ({}, {"": 90e6}, "PASS"),
        ({"": 0.0}, {"": 0.0}, "PASS"),
        ({}, {"switches": 1000.0, "timer_exits": 100.0, "poller_use": 2.0, "cpu_use": 4.0}, "PASS"),
        # The time between two transactions is in it.
        ({}, {"exits": 200.0}, "PASS"),
    ],
)
def test_verdict(load: str, off: Values, on: Values, verdict: str) -> None:
    """Of any one of the loads, with all well with the others."""
    assert BLACKBOX.verdict((each_of(load, off), each_of(load, on))) == verdict


@pytest.mark.parametrize(
    ("on", "verdict"),
    [
        ({"ipis": 7.01}, "UNDECIDED"),
        ({"ipis": 9.99}, "UNDECIDED"),
        # The poller adds IPIs.
        ({"ipis": 10.0}, "UNDECIDED"),
        ({"wakeups": 0.51}, "UNDECIDED"),
        # Nothing was saved: that is no computer's fault.
        ({"wakeups": 4.0}, "FAIL"),
        ({"wfx_exits": 0.51}, "UNDECIDED"),
        ({"wfx_exits": 6.0}, "FAIL"),
        ({"redundant_exits": 0.051}, "UNDECIDED"),
        ({"redundant_exits": 2.0}, "FAIL"),
        ({"closed_exits": 99.0}, "UNDECIDED"),
    ],
)
@pytest.mark.parametrize("rounds", [UNKNOWN, BUSY], ids=["unknown", "busy"])
def test_computer_that_may_have_been_too_busy(rounds: Rounds, on: Values, verdict: str) -> None:
    assert rounds.verdict(({}, each_of("tpcb", on))) == verdict


@pytest.mark.parametrize(
    ("feature", "name", "limit"),
    [
        ("ipi", "ipis", 7.0),
        ("vtimer", "redundant_exits", 0.05),
        ("cq-poll", "wakeups", 0.5),
        ("wfx", "wfx_exits", 0.5),
    ],
)
@pytest.mark.parametrize("load", MAIN_METRICS)
def test_feature_that_does_nothing_alone_is_a_fail(load: str, feature: str, name: str, limit: float) -> None:
    """With all others on it may not show: these may save the same."""
    metric = of_load(load, name)
    for value, quiet, busy in (
        (limit, "PASS", "PASS"),
        (limit + 0.01, "FAIL", "UNDECIDED"),
        (BLACKBOX.right.off[metric], "FAIL", "FAIL"),
    ):
        alone = {feature: {metric: value}}
        assert BLACKBOX.verdict(GOOD, beside=alone) == quiet
        assert BUSY.verdict(GOOD, beside=alone) == busy
    why = BLACKBOX.why(GOOD, beside={feature: {metric: BLACKBOX.right.off[metric]}})
    assert why.startswith(f"{metric.upper()} with {feature} alone: ")
    # What others save is theirs.
    other = next(one for one in ALONE if one != feature)
    assert BLACKBOX.verdict(GOOD, beside={other: {metric: 99.0}}) == "PASS"


def change(monkeypatch: pytest.MonkeyPatch, constant: str, value: float) -> Rounds:
    """Have this value of the judge's own constant, or of a limit ("suffix limit") of what a feature saves."""
    suffix, _, limit = constant.partition(" ")
    if not limit:
        monkeypatch.setattr(rules_blackbox, constant, value)
        return BLACKBOX
    saved = BlackboxJudge.of(SWITCHES).saved
    (one,) = (one for one in saved if one.event.suffix == suffix)
    assert hasattr(one.event, limit)
    changed = copy(one.event)
    object.__setattr__(changed, limit, value)
    judge = BlackboxJudge(tuple(replace(each, event=changed) if each is one else each for each in saved))
    rules = {**RULES, "blackbox": replace(RULES["blackbox"], judge=judge)}
    return replace(BLACKBOX, rules=rules)


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("ipis least_off", 10.1, {}, {}, "UNDECIDED"),
        ("ipis least_off", 0.5, {"tpcb_ipis": 1.9}, {"tpcb_ipis": 0.1}, "FAIL"),
        ("wakeups least_off", 4.1, {}, {}, "UNDECIDED"),
        ("wakeups least_off", 0.5, {"audit_wakeups": 1.0}, {}, "PASS"),
        ("wfx_exits least_off", 6.1, {}, {}, "UNDECIDED"),
        ("redundant_exits least_off", 2.1, {}, {}, "UNDECIDED"),
        ("ipis share_on", 0.35, {}, {}, "FAIL"),
        ("ipis share_on", 1.0, {}, {"insert_ipis": 10.0}, "PASS"),
        ("wakeups most_on", 0.05, {}, {}, "FAIL"),
        ("wakeups most_on", 1.0, {}, {"tpcb_wakeups": 0.9}, "PASS"),
        ("wfx_exits most_on", 0.05, {}, {}, "FAIL"),
        ("wfx_exits most_on", 1.0, {}, {"audit_wfx_exits": 0.9}, "PASS"),
        ("MAX_EXITS_SHARE", 0.4, {}, {}, "UNDECIDED"),
        ("MAX_EXITS_SHARE", 2.0, {}, {"insert_1_closed_exits": 20.0}, "PASS"),
        ("redundant_exits most_on", 0.005, {}, {}, "FAIL"),
        ("redundant_exits most_on", 1.0, {}, {"tpcb_redundant_exits": 0.9}, "PASS"),
    ],
)
def test_each_constant_decides(
    monkeypatch: pytest.MonkeyPatch, constant: str, value: float, off: Values, on: Values, verdict: str
) -> None:
    assert BLACKBOX.verdict((off, on)) != verdict
    assert change(monkeypatch, constant, value).verdict((off, on)) == verdict


def test_share_that_is_nothing_decides_on_a_busy_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    on = {"insert_wfx_exits": 5.5}  # of 6
    assert BUSY.verdict(({}, on)) == "UNDECIDED"
    monkeypatch.setattr(rules_blackbox, "NOTHING_SAVED", 0.8)
    assert BUSY.verdict(({}, on)) == "FAIL"


def test_ipis_that_others_add_are_no_fail_on_a_busy_computer() -> None:
    """With all on the poller wakes threads by IPIs: of soft IPIs it tells what there is with these alone."""
    on = {f"{load}_ipis": 10.3 for load in MAIN_METRICS}  # of 10
    assert BUSY.verdict(({}, on)) == "UNDECIDED"
    assert BLACKBOX.verdict(({}, on)) == "FAIL"


def test_counts_are_of_the_mean_over_all_rounds() -> None:
    few, many = {"insert_ipis": 4.0}, {"insert_ipis": 10.0}
    assert BLACKBOX.verdict(({}, few), ({}, many)) == "PASS"
    assert BLACKBOX.verdict(({}, few), ({}, many), ({}, many)) == "FAIL"
    assert BLACKBOX.verdict(({"tpcb_wakeups": 0.0}, {}), ({"tpcb_wakeups": 4.0}, {})) == "PASS"
    assert BLACKBOX.verdict(({"tpcb_wakeups": 0.0}, {}), ({"tpcb_wakeups": 3.9}, {})) == "UNDECIDED"


# Lost, or damaged


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("state", ["off", "on"])
@WHATEVER
def test_a_single_loss_in_one_round_is_a_fail(rounds: Rounds, name: str, state: str) -> None:
    """However busy the computer was."""
    well, lost = {name: 0.0}, {name: 3.0}
    bad = (lost, well) if state == "off" else (well, lost)
    found = rounds.judged((well, well), (well, well), bad, (well, well))
    assert found == ("FAIL", f"{name.upper()}, features {state}: 3, where 0 is right.")


@pytest.mark.parametrize("name", WHOLE)
@WHATEVER
def test_a_loss_found_after_all_rounds_is_a_fail(rounds: Rounds, name: str) -> None:
    """It is of no state of the features: nothing has it off or on."""
    found = rounds.judged(GOOD, GOOD, beside={AFTER: {name: 3.0}})
    assert found[0] == "FAIL"
    assert found[1].endswith(f", cvm, {AFTER}: 3, where 0 is right.")


def test_more_than_was_committed_is_as_wrong_as_less() -> None:
    verdict, why = BLACKBOX.judged(GOOD, beside={AFTER: {"all_lost": -2.0}})
    assert verdict == "FAIL"
    assert why.endswith(f", cvm, {AFTER}: -2, where 0 is right.")


@pytest.mark.parametrize("name", WHOLE)
def test_a_loss_after_all_rounds_weighs_more_than_what_was_not_measured_or_exercised(name: str) -> None:
    assert BLACKBOX.verdict((of_each({"ipis": 0.0}), {}), beside={AFTER: {name: 1.0}}) == "FAIL"
    assert with_after({name: 1.0}).verdict() == "FAIL"


@pytest.mark.parametrize("name", FAULTS)
def test_a_loss_weighs_more_than_all_that_was_not_measured_or_exercised(name: str) -> None:
    nothing = of_each({"ipis": 0.0, "wakeups": 0.0})
    assert BLACKBOX.verdict((nothing, {name: 1.0})) == "FAIL"
    alone = replace(BLACKBOX, right=Right({name: 1.0}, {name: 1.0}, {}))
    assert alone.verdict(GOOD) == "FAIL"


def test_a_loss_in_one_of_many_rounds_is_not_thinned_away() -> None:
    """A result keeps some of the samples, and the largest among them."""
    pairs: list[tuple[Values, Values]] = [
        ({}, {"insert_lost": float(index == 1234)}) for index in range(2500)
    ]
    one = replace(BLACKBOX, right=Right({"insert_lost": 0.0}, {"insert_lost": 0.0}, {}))
    assert one.judged(*pairs) == ("FAIL", "INSERT_LOST, features on: 1, where 0 is right.")


@pytest.mark.parametrize("name", [f"{load}_lost" for load in MAIN_METRICS])
@pytest.mark.parametrize("state", ALONE)
def test_a_loss_with_some_of_the_features_on_is_a_fail(name: str, state: str) -> None:
    assert BLACKBOX.verdict(GOOD, beside={state: {name: 3.0}}) == "FAIL"


def cut(promised: int, lost: int, damage: int, machine: str = "cvm") -> RawRun:
    records = range(promised)
    outcome = after_power_cut(frozenset(records), frozenset(records[lost:]), damage)
    return RawRun("blackbox", machine, (Round("power cut", 0, outcome),), {})


def beside(*baselines: RawRun, pairs: Sequence[tuple[Values, Values]] = (GOOD, GOOD)) -> Judged:
    return BLACKBOX.judged(*pairs, baselines=baselines)


@pytest.mark.parametrize(
    ("lost", "damage", "why"),
    [
        (1, 0, "Of these, lost by it, cvm, power cut: 1, where 0 is right."),
        (0, 2, "Damage found in the database after it, cvm, power cut: 2, where 0 is right."),
        (3, 2, "Of these, lost by it, cvm, power cut: 3, where 0 is right."),
    ],
)
def test_what_a_power_cut_took_is_a_fail(lost: int, damage: int, why: str) -> None:
    assert beside(cut(120, lost, damage)) == ("FAIL", why)
    assert beside(cut(120, 0, 0))[0] == "PASS"


def test_a_power_cut_weighs_more_than_what_was_not_exercised() -> None:
    nothing: list[tuple[Values, Values]] = [(of_each({"ipis": 0.0}), {})]
    assert beside(cut(120, 0, 0), pairs=nothing)[0] == "UNDECIDED"
    assert beside(cut(120, 1, 0), pairs=nothing)[0] == "FAIL"


def test_other_baselines_and_other_machines_decide_nothing() -> None:
    bad = {**BLACKBOX.right.off, "insert_wfx_exits": 99.0, "tpcb_ipis": 0.0}
    vm = RawRun("blackbox", "vm", (Round("off", 0, series(bad)), Round("wfx", 0, series(bad))), {})
    assert beside(vm, cut(120, 0, 0), cut(120, 7, 7, "vm"))[0] == "PASS"


# Not measured


@pytest.mark.parametrize("missing", NEEDED_IN_A_VM)
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_measured_off_and_on_is_undecided(missing: str, state: str) -> None:
    found = without({missing}, off=state != "on", on=state != "off")
    assert found == ("UNDECIDED", f"{NOT_MEASURED}: {missing}.")


@pytest.mark.parametrize("feature", ALONE)
def test_what_was_not_measured_with_a_feature_alone_is_undecided(feature: str) -> None:
    verdict, why = BLACKBOX.judged(GOOD, beside={feature: None})
    assert verdict == "UNDECIDED"
    (name,) = {name.partition("_")[2] for name in ALONE[feature]}
    names = ", ".join(f"{load}_{name} with {feature} alone" for load in MAIN_METRICS)
    assert why == f"{NOT_MEASURED}: {names}."


@pytest.mark.parametrize("missing", WHOLE)
def test_what_was_not_looked_for_in_any_state_is_undecided(missing: str) -> None:
    assert without({missing}) == ("UNDECIDED", f"{NOT_MEASURED}: {missing}.")


@pytest.mark.parametrize("state", ["off", "on", "ipi+wfx", AFTER, "any"])
@pytest.mark.parametrize("name", WHOLE)
def test_whatever_the_state_in_which_it_was_looked_for(name: str, state: str) -> None:
    """Of the judged machine; it need not be the run that is judged."""
    rest = with_after({other: value for other, value in WHOLE.items() if other != name})
    for machine, verdict in (("cvm", "PASS"), ("vm", "UNDECIDED")):
        found = RawRun("blackbox", machine, (Round(state, 0, series({name: 0.0})),), {})
        assert rest.judged(GOOD, baselines=[found])[0] == verdict


def test_off_and_on_may_tell_what_is_otherwise_told_after_all_rounds() -> None:
    rounds = with_after(None)
    assert rounds.verdict((WHOLE, WHOLE)) == "PASS"
    assert rounds.verdict((WHOLE, {**WHOLE, "all_lost": 1.0})) == "FAIL"
    assert rounds.verdict((WHOLE, {})) == "PASS"


def test_a_power_cut_is_not_in_the_place_of_what_is_found_after_all_rounds() -> None:
    found = with_after(None).judged(GOOD, baselines=[cut(120, 0, 0)])
    assert found == ("UNDECIDED", f"{NOT_MEASURED}: all_lost, damage.")


def test_all_that_is_missing_is_named() -> None:
    _, why = without({"audit", "damage", "all_lost", "tpcb_wakeups", "insert_redundant_exits"})
    assert why == f"{NOT_MEASURED}: audit, insert_redundant_exits, tpcb_wakeups, all_lost, damage."


@pytest.mark.parametrize("name", [name for name in BLACKBOX.right.off if name not in NEEDED_IN_A_VM])
def test_what_decides_nothing_need_not_be_measured(name: str) -> None:
    assert without({name})[0] == "PASS"


def test_exits_are_not_needed_where_there_is_no_hypervisor() -> None:
    names = {name for name in BLACKBOX.right.off if name.endswith("_exits")}
    verdict, why = without(names, machine="plain")
    assert verdict == "PASS"
    assert why == "Per insert, all features off → on: hardware IPIs 10 → 4."


def test_one_that_counts_exits_must_count_all_of_them() -> None:
    exits = [name for name in NEEDED_IN_A_VM if name not in NEEDED]
    assert len(exits) == len(EXITS) * len(MAIN_METRICS)
    verdict, why = without({*exits} - {"tpcb_timer_exits"})
    assert verdict == "UNDECIDED"
    for name in exits:
        assert (name in why) == (name != "tpcb_timer_exits")


def test_nothing_measured_is_undecided() -> None:
    nothing = replace(BLACKBOX, right=Right({}, {}, {}))
    verdict, why = nothing.judged()
    assert verdict == "UNDECIDED"
    assert set(why.removeprefix(f"{NOT_MEASURED}: ").removesuffix(".").split(", ")) == {*NEEDED, *WHOLE}


# What is said


def test_why_is_a_sentence_of_the_first_loads_figures() -> None:
    assert BLACKBOX.why(({"insert_ipis": 11.0}, {"tpcb_ipis": 4.5}), GOOD) == (
        "Per insert, all features off → on: hardware IPIs 10.5 → 4, exits without a rate 10 → 5."
    )
    assert BLACKBOX.why(({}, {"audit_ipis": 9.0})) == "AUDIT_IPIS: 9 on, where at most 7 is right."
    assert BUSY.why(({}, {"audit_wfx_exits": 7.0})) == "AUDIT_WFX_EXITS: 6 off, still 7 on."
    assert BLACKBOX.why(({"audit_wakeups": 1.234}, {})) == (
        "AUDIT_WAKEUPS: 1.23 off, where less than 2 shows nothing."
    )
    name = f"{CLOSED['tpcb']}_exits"
    assert BLACKBOX.why(({}, {name: 9.0})) == (
        f"{name.upper()}: 9 on, where more than 8, which may be ticks, show nothing."
    )
