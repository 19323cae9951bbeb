# SPDX-License-Identifier: Apache-2.0
"""The verdict on soft IPI passthrough: what decides it, and at which value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmtune.features.soft_ipi import verdict as rules_ipi
from tests.fakes.rounds import GOOD, IPI, Right, Rounds

UNKNOWN, BUSY = replace(IPI, waited=None), replace(IPI, waited=0.6)


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [
        ({}, {}, "PASS"),
        ({}, {"sgi_per_ipi": 0.05, "exits_per_ipi": 0.1}, "PASS"),
        ({}, {"sgi_per_ipi": 0.0, "exits_per_ipi": -0.01}, "PASS"),
        ({}, {"sgi_per_ipi": 0.06}, "FAIL"),
        ({}, {"exits_per_ipi": 0.11}, "FAIL"),
        ({}, {"sgi_per_ipi": 1.02, "exits_per_ipi": 2.0}, "FAIL"),
        ({"sgi_per_ipi": 0.9}, {}, "PASS"),
        ({"sgi_per_ipi": 0.89}, {}, "UNDECIDED"),
        # Not exercised: then nothing is said of what was on.
        ({"sgi_per_ipi": 0.0, "exits_per_ipi": 0.0}, {"sgi_per_ipi": 0.5}, "UNDECIDED"),
        # What exits were with the feature off decides nothing.
        ({"exits_per_ipi": 0.0}, {}, "PASS"),
    ],
)
def test_verdict(off: dict[str, float], on: dict[str, float], verdict: str) -> None:
    assert IPI.verdict((off, on)) == verdict


@pytest.mark.parametrize(
    ("on", "verdict"),
    [
        ({}, "PASS"),
        ({"sgi_per_ipi": 0.06}, "UNDECIDED"),
        ({"sgi_per_ipi": 0.5}, "UNDECIDED"),
        # Half of them are left: that is no computer's fault.
        ({"sgi_per_ipi": 0.52}, "FAIL"),
        # But exits may be, as many as there are.
        ({"exits_per_ipi": 0.11}, "UNDECIDED"),
        ({"exits_per_ipi": 99.0}, "UNDECIDED"),
    ],
)
@pytest.mark.parametrize("rounds", [UNKNOWN, BUSY], ids=["unknown", "busy"])
def test_computer_that_may_have_been_too_busy(rounds: Rounds, on: dict[str, float], verdict: str) -> None:
    assert rounds.verdict(({}, on)) == verdict


@pytest.mark.parametrize(
    ("constant", "value", "verdict"),
    [
        ("MIN_SGI_PER_IPI_OFF", 1.1, "UNDECIDED"),
        ("MAX_SGI_PER_IPI", 0.001, "FAIL"),
        ("MAX_EXITS_PER_IPI", 0.001, "FAIL"),
    ],
)
def test_each_constant_decides(
    monkeypatch: pytest.MonkeyPatch, constant: str, value: float, verdict: str
) -> None:
    assert IPI.verdict(GOOD) == "PASS"
    monkeypatch.setattr(rules_ipi, constant, value)
    assert IPI.verdict(GOOD) == verdict


def test_counts_are_of_the_mean_over_all_rounds() -> None:
    many = {"sgi_per_ipi": 0.08}
    assert IPI.verdict(({}, many), GOOD) == "PASS"
    assert IPI.verdict(({}, many), ({}, many), GOOD) == "FAIL"


@pytest.mark.parametrize("sgi", [0.002, 0.06])
def test_exits_are_absent_without_a_hypervisor(sgi: float) -> None:
    off = {name: value for name, value in IPI.right.off.items() if name != "exits_per_ipi"}
    on = {name: value for name, value in IPI.right.on.items() if name != "exits_per_ipi"}
    plain = replace(IPI, right=Right(off, on, {}), machine="plain")
    assert plain.verdict(({}, {"sgi_per_ipi": sgi})) == ("PASS" if sgi < 0.05 else "FAIL")


@pytest.mark.parametrize("state", ["off", "on", "both"])
def test_what_was_not_counted_off_and_on_is_undecided(state: str) -> None:
    found = IPI.without("sgi_per_ipi", off=state != "on", on=state != "off")
    assert found == ("UNDECIDED", "Not measured both off and on: sgi_per_ipi.")


def test_nothing_measured_is_undecided() -> None:
    assert IPI.verdict() == "UNDECIDED"


def test_why_is_a_sentence_of_figures() -> None:
    assert IPI.why(GOOD) == "Hardware interrupts per IPI: 1.02 off, 0.008 on."
    exits = "Exits per IPI, less those of an equal time without IPIs"
    assert IPI.why(({}, {"exits_per_ipi": 0.2})) == f"{exits}: 0.2 on, where at most 0.1 is right."
    assert IPI.why(({"sgi_per_ipi": 0.1}, {})) == (
        "Hardware interrupts per IPI: 0.1 off, where less than 0.9 shows nothing."
    )
    # What is wrong for sure is told before what may be the computer's fault.
    assert BUSY.why(({}, {"sgi_per_ipi": 1.0, "exits_per_ipi": 2.0})) == (
        "Hardware interrupts per IPI: 1.02 off, still 1 on."
    )
