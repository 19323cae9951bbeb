# SPDX-License-Identifier: Apache-2.0
"""The verdict on polled completion queues: what decides it, and at which value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmtune.features.cq_poll import verdict as rules_cq_poll
from cvmtune.report.judge import judge
from tests.fakes.bound import RULES
from tests.fakes.rounds import CQ_POLL, GOOD, Rounds

COUNTED = ("handled_per_posted", "violations", "verified", "wakeups_per_write", "ipis_per_write")
EXACT = ("handled_per_posted", "violations", "verified")
UNKNOWN, BUSY = replace(CQ_POLL, waited=None), replace(CQ_POLL, waited=0.6)


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({}, {}, "PASS"),
        ({"wakeups_per_write": 2.0}, {}, "PASS"),
        ({"wakeups_per_write": 1.99}, {}, "UNDECIDED"),
        ({"wakeups_per_write": 0.0}, {"wakeups_per_write": 0.0}, "UNDECIDED"),
        ({}, {"wakeups_per_write": 0.25}, "PASS"),
        ({}, {"wakeups_per_write": 0.26}, "FAIL"),
        ({}, {"wakeups_per_write": 4.78}, "FAIL"),
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
    assert CQ_POLL.verdict((off, on)) == verdict


@pytest.mark.parametrize(
    ("on", "verdict"),
    [
        ({}, "PASS"),
        ({"wakeups_per_write": 0.26}, "UNDECIDED"),
        # A poller that has to share its CPU.
        ({"wakeups_per_write": 4.0}, "UNDECIDED"),
        # One that never was.
        ({"wakeups_per_write": 4.5}, "FAIL"),
        ({"ipis_per_write": 50.0}, "UNDECIDED"),
    ],
)
@pytest.mark.parametrize("rounds", [UNKNOWN, BUSY], ids=["unknown", "busy"])
def test_computer_that_may_have_been_too_busy(rounds: Rounds, on: dict[str, float], verdict: str) -> None:
    assert rounds.verdict(({}, on)) == verdict


@pytest.mark.parametrize(
    ("constant", "value", "off", "on", "verdict"),
    [
        ("MIN_WAKEUPS_OFF", 4.8, {}, {}, "UNDECIDED"),
        ("MIN_WAKEUPS_OFF", 1.0, {"wakeups_per_write": 1.0}, {}, "PASS"),
        ("MAX_WAKEUPS_ON", 0.01, {}, {}, "FAIL"),
        ("MAX_WAKEUPS_ON", 1.0, {}, {"wakeups_per_write": 1.0}, "PASS"),
        ("MAX_ADDED_IPIS", 0.2, {}, {}, "FAIL"),
        ("MAX_ADDED_IPIS", 9.0, {}, {"ipis_per_write": 8.0}, "PASS"),
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
    assert CQ_POLL.verdict((off, on)) != verdict
    monkeypatch.setattr(rules_cq_poll, constant, value)
    assert CQ_POLL.verdict((off, on)) == verdict


def test_share_that_is_nothing_decides_on_a_busy_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_cq_poll, "NOTHING_SAVED", 0.5)
    assert BUSY.verdict(({}, {"wakeups_per_write": 3.0})) == "FAIL"


def test_tolerances_are_of_the_mean_over_all_rounds() -> None:
    high, low = {"wakeups_per_write": 0.375}, {"wakeups_per_write": 0.125}
    assert CQ_POLL.verdict(({}, high), ({}, low)) == "PASS"
    assert CQ_POLL.verdict(({}, high), ({}, low), ({}, high)) == "FAIL"
    assert CQ_POLL.verdict(({"wakeups_per_write": 1.0}, {}), ({"wakeups_per_write": 3.0}, {})) == "PASS"
    assert CQ_POLL.verdict(({}, {"ipis_per_write": 5.8}), ({}, {"ipis_per_write": 3.8})) == "PASS"


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
    """However busy the computer was."""
    bad = {f"{provider}{name}": value}
    pair: tuple[dict[str, float], dict[str, float]] = (bad, {}) if state == "off" else ({}, bad)
    for rounds in (CQ_POLL, UNKNOWN, BUSY):
        verdict, why = rounds.judged(GOOD, GOOD, pair, GOOD)
        assert verdict == "FAIL"
        assert f"{state}, where only {0 if name == 'violations' else 1} is right." in why


def test_what_is_lost_in_one_round_is_not_made_up_for_by_another() -> None:
    less, more = {"handled_per_posted": 0.5}, {"handled_per_posted": 1.5}
    assert CQ_POLL.verdict(({}, less), ({}, more)) == "FAIL"


@pytest.mark.parametrize("name", EXACT)
def test_a_loss_is_told_even_if_nothing_was_woken(name: str) -> None:
    assert CQ_POLL.verdict(({"wakeups_per_write": 0.0}, {name: 0.5})) == "FAIL"


def test_the_other_provider_decides_nothing_else() -> None:
    worse = {"siw_wakeups_per_write": 100.0, "siw_ipis_per_write": 100.0}
    assert CQ_POLL.verdict(({"siw_wakeups_per_write": 0.0}, worse)) == "PASS"


@pytest.mark.parametrize("missing", COUNTED)
@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(missing: str, state: str) -> None:
    found = CQ_POLL.without(missing, off=state != "on", on=state != "off")
    assert found == ("UNDECIDED", f"Not measured both off and on: {missing}.")


def test_nothing_measured_is_undecided() -> None:
    assert CQ_POLL.verdict() == "UNDECIDED"


def test_why_is_a_sentence_of_figures() -> None:
    woken = "Completion events that woke a handler per write"
    assert CQ_POLL.why(GOOD) == f"{woken}: 4.78 off, 0.013 on."
    assert (
        CQ_POLL.why(({"wakeups_per_write": 1.0}, {})) == f"{woken}: 1 off, where less than 2 shows nothing."
    )
    assert CQ_POLL.why(({}, {"wakeups_per_write": 4.7})) == f"{woken}: 4.78 off, still 4.7 on."
    assert CQ_POLL.why(({}, {"ipis_per_write": 6.0})) == (
        "Hardware IPIs of all CPUs per write: 6 on, where at most 4.86 is right."
    )


def test_fault_in_a_round_without_a_counterpart_is_a_fail() -> None:
    """Time may end between on and off."""
    pair, alone = CQ_POLL.run([({}, {})]), CQ_POLL.run([({}, {}), ({}, {"violations": 3.0})])
    rounds = [one for one in alone.rounds if (one.state, one.index) != ("off", 1)]
    assert len(rounds) == len(pair.rounds) + 1
    (result,) = judge([replace(alone, rounds=tuple(rounds))], [], RULES).results
    assert result.verdict == "FAIL"
