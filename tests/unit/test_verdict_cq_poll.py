# SPDX-License-Identifier: Apache-2.0
"""The verdict on polled completion queues: what decides it, and at which value."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.features.cq_poll import verdict as rules_cq_poll
from cvmtune.report.judge import judge
from cvmtune.report.schema import Result
from tests.fakes.bound import RULES

# A round in which all is well, off and on.
OFF = {
    **{"handled_per_posted": 1.0, "violations": 0.0, "verified": 1.0},
    **{"siw_handled_per_posted": 1.0, "siw_violations": 0.0, "siw_verified": 1.0},
    **{"wakeups_per_write": 4.5, "ipis_per_write": 5.0},
    # Of what decides nothing, or not for this provider.
    **{"works_per_write": 9.0, "siw_wakeups_per_write": 6.0, "siw_ipis_per_write": 5.0},
}
ON = {**OFF, "wakeups_per_write": 0.02, "ipis_per_write": 5.5, "works_per_write": 20.0}
ON |= {"siw_wakeups_per_write": 6.0, "siw_ipis_per_write": 50.0}
COUNTED = ("handled_per_posted", "violations", "verified", "wakeups_per_write", "ipis_per_write")
EXACT = ("handled_per_posted", "violations", "verified")


def series(values: Mapping[str, float]) -> tuple[Series, ...]:
    return tuple(
        Series(name, name.upper(), "per write", "count", "lower", (value,)) for name, value in values.items()
    )


def judged(*pairs: tuple[Mapping[str, float], Mapping[str, float]]) -> Result:
    """The result of one pair of rounds each, off and on, in which these values are other than well."""
    rounds = [
        Round(state, index, series(values))
        for index, (off, on) in enumerate(pairs)
        for state, values in (("off", {**OFF, **off}), ("on", {**ON, **on}))
    ]
    (result,) = judge([RawRun("cq-poll", "cvm", tuple(rounds), {})], [], RULES).results
    return result


GOOD: tuple[dict[str, float], dict[str, float]] = ({}, {})


def test_all_well_is_a_pass() -> None:
    assert judged(GOOD, GOOD, GOOD).verdict == "PASS"


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({"wakeups_per_write": 2.0}, {}, "PASS"),
        ({"wakeups_per_write": 1.99}, {}, "UNDECIDED"),
        ({"wakeups_per_write": 0.0}, {"wakeups_per_write": 0.0}, "UNDECIDED"),
        ({}, {"wakeups_per_write": 0.25}, "PASS"),
        ({}, {"wakeups_per_write": 0.26}, "FAIL"),
        ({}, {"wakeups_per_write": 4.5}, "FAIL"),
        ({"ipis_per_write": 5.0}, {"ipis_per_write": 7.0}, "PASS"),
        ({"ipis_per_write": 5.0}, {"ipis_per_write": 7.01}, "FAIL"),
        ({"ipis_per_write": 9.0}, {"ipis_per_write": 7.01}, "PASS"),
        ({"ipis_per_write": 0.0}, {"ipis_per_write": 2.0}, "PASS"),
        ({"ipis_per_write": 0.0}, {"ipis_per_write": 2.01}, "FAIL"),
        # Not exercised: then nothing is said of what was on.
        ({"wakeups_per_write": 1.0}, {"wakeups_per_write": 4.0}, "UNDECIDED"),
        ({"wakeups_per_write": 1.0}, {"ipis_per_write": 50.0}, "UNDECIDED"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert judged((off, on)).verdict == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_WAKEUPS_OFF", 4.6, {}, {}, "UNDECIDED"),
        ("MIN_WAKEUPS_OFF", 1.0, {"wakeups_per_write": 1.0}, {}, "PASS"),
        ("MAX_WAKEUPS_ON", 0.01, {}, {}, "FAIL"),
        ("MAX_WAKEUPS_ON", 1.0, {}, {"wakeups_per_write": 1.0}, "PASS"),
        ("MAX_ADDED_IPIS", 0.4, {}, {}, "FAIL"),
        ("MAX_ADDED_IPIS", 3.0, {}, {"ipis_per_write": 8.0}, "PASS"),
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
    monkeypatch.setattr(rules_cq_poll, constant, value)
    assert judged((off, on)).verdict == verdict


def test_tolerances_are_of_the_mean_over_all_rounds() -> None:
    high, low = {"wakeups_per_write": 0.375}, {"wakeups_per_write": 0.125}
    assert judged(({}, high), ({}, low)).verdict == "PASS"
    assert judged(({}, high), ({}, low), ({}, high)).verdict == "FAIL"
    assert judged(({"wakeups_per_write": 1.0}, {}), ({"wakeups_per_write": 3.0}, {})).verdict == "PASS"
    assert judged(({}, {"ipis_per_write": 8.0}), ({}, {"ipis_per_write": 6.0})).verdict == "PASS"


@pytest.mark.parametrize("state", ["off", "on"])
@pytest.mark.parametrize("provider", ["", "siw_"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("handled_per_posted", 0.9975),
        ("handled_per_posted", 1.0025),
        ("handled_per_posted", 0.0),
        ("violations", 1.0),
        ("verified", 255 / 256),
        ("verified", 0.0),
    ],
)
def test_lost_duplicate_or_wrong_once_is_a_fail(state: str, provider: str, name: str, value: float) -> None:
    bad = {f"{provider}{name}": value}
    pair: tuple[dict[str, float], dict[str, float]] = (bad, {}) if state == "off" else ({}, bad)
    result = judged(GOOD, GOOD, pair, GOOD)
    assert result.verdict == "FAIL"
    assert result.why.startswith(f"{provider.upper()}{name.upper()}, {state}: ")
    assert f"where only {0 if name == 'violations' else 1} is right" in result.why


def test_what_is_lost_in_one_round_is_not_made_up_for_by_another() -> None:
    less, more = {"handled_per_posted": 0.5}, {"handled_per_posted": 1.5}
    assert judged(({}, less), ({}, more)).verdict == "FAIL"


@pytest.mark.parametrize("name", EXACT)
def test_a_loss_is_told_even_if_nothing_was_woken(name: str) -> None:
    assert judged(({"wakeups_per_write": 0.0}, {name: 0.5})).verdict == "FAIL"


def test_the_other_provider_decides_nothing_else() -> None:
    worse = {"siw_wakeups_per_write": 100.0, "siw_ipis_per_write": 100.0}
    assert judged(({"siw_wakeups_per_write": 0.0}, worse)).verdict == "PASS"


@pytest.mark.parametrize("missing", COUNTED)
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(missing: str, state: str) -> None:
    off = {name: value for name, value in OFF.items() if state == "on" or name != missing}
    on = {name: value for name, value in ON.items() if state == "off" or name != missing}
    rounds = (Round("off", 0, series(off)), Round("on", 0, series(on)))
    (result,) = judge([RawRun("cq-poll", "cvm", rounds, {})], [], RULES).results
    assert result.verdict == "UNDECIDED"
    assert missing in result.why


def test_nothing_measured_is_undecided() -> None:
    assert judged().verdict == "UNDECIDED"


def test_why_states_figures_and_tolerances() -> None:
    why = judged(GOOD).why
    assert "4.50 off, 0.020 on (at most 0.25 allowed" in why
    assert "5.00 off, 5.50 on (at most 2 more allowed" in why
    assert "all data as written" in why
    why = judged(({"wakeups_per_write": 1.0}, {})).why
    assert "only 1.00 completion events per write" in why
    assert "at least 2 expected" in why
