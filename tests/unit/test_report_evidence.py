# SPDX-License-Identifier: Apache-2.0
"""What a count that is too high says of a kernel depends on how busy the computer was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvmtune.report.evidence import BUSY, Evidence, Judged, figure, off_on, worst
from cvmtune.report.schema import Baseline, BaselineMetric, Metric, Verdict
from cvmtune.report.stats import summarise

FAIL, UNDECIDED = (Verdict.FAIL, "broken."), (Verdict.UNDECIDED, "too busy.")


def _verdict(found: Judged | None) -> Verdict | None:
    return found[0] if found else None


def metric(off: float, on: float) -> Metric:
    return Metric("exits", "Exits per IPI", "each", "count", "lower", summarise([off]), summarise([on]), None)


@pytest.mark.parametrize(
    ("on", "waited", "verdict"),
    [
        (0.1, 0.9, None),
        (0.1, 0.0, None),
        (0.2, 0.0, Verdict.FAIL),
        (0.2, BUSY, Verdict.FAIL),
        (0.2, BUSY + 0.01, Verdict.UNDECIDED),
        (0.2, None, Verdict.UNDECIDED),
        (1.0, 0.9, Verdict.FAIL),
        (1.0, None, Verdict.FAIL),
    ],
)
def test_too_high_a_count_fails_unless_the_computer_was_busy(
    on: float, waited: float | None, verdict: Verdict | None
) -> None:
    found = Evidence((), waited=waited).at_most(metric(2.0, on), 0.1)
    assert (found and found[0]) == verdict


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_where_nothing_was_to_be_lowered_a_busy_computer_is_no_fail(off: float) -> None:
    """Of nothing any share is as much as nothing."""
    assert _verdict(Evidence((), waited=0.5).at_most(metric(off, 0.2), 0.1)) == Verdict.UNDECIDED
    assert _verdict(Evidence((), waited=0.0).at_most(metric(off, 0.2), 0.1)) == Verdict.FAIL


def test_a_rule_may_say_what_nothing_is() -> None:
    busy = Evidence((), waited=0.5)
    assert _verdict(busy.at_most(metric(2.0, 1.9), 0.1)) == Verdict.FAIL
    assert _verdict(busy.at_most(metric(2.0, 1.9), 0.1, nothing=1.0)) == Verdict.UNDECIDED
    assert _verdict(busy.at_most(metric(2.0, 2.0), 0.1, nothing=1.0)) == Verdict.FAIL
    assert _verdict(busy.at_most(metric(2.0, 99.0), 0.1, nothing=float("inf"))) == Verdict.UNDECIDED


@pytest.mark.parametrize("waited", [None, 0.0, 0.9])
def test_what_is_exact_is_so_however_busy_the_computer(waited: float | None) -> None:
    evidence = Evidence((), waited=waited)
    assert evidence.exactly(metric(5.0, 0.0), 0.0) is None
    several = replace(metric(5.0, 0.0), on=summarise([0.0, 3.0, -4.0, 0.0]))
    assert evidence.exactly(several, 0.0) == (
        Verdict.FAIL,
        "Exits per IPI: -4 on, where only 0 is right.",
    )
    assert evidence.exactly(metric(5.0, 0.0), 0.0, off=True) == (
        Verdict.FAIL,
        "Exits per IPI: 5 off, where only 0 is right.",
    )


@pytest.mark.parametrize("waited", [None, 0.0, 0.9])
def test_what_was_not_exercised_is_undecided(waited: float | None) -> None:
    evidence = Evidence((), waited=waited)
    assert evidence.exercised(metric(0.9, 0.0), 0.9) is None
    assert evidence.exercised(metric(0.12, 0.0), 0.9) == (
        Verdict.UNDECIDED,
        "Exits per IPI: 0.12 off, where less than 0.9 shows nothing.",
    )


def test_states_beside_are_found_by_their_names() -> None:
    heading = ("exits", "Exits", "each", "count", "lower")
    baselines = [
        Baseline(name, "cvm", (BaselineMetric(*heading, summarise([value])),))  # type: ignore[arg-type]
        for name, value in (("cvm, HW bit", 1.0), ("cvm, no HW bit", 2.0), ("cvm, feature off", 3.0))
    ]
    assert Evidence((), baselines).beside("HW bit")["exits"].mean == 1.0
    assert Evidence((), baselines).beside("bit") == {}


@pytest.mark.parametrize(
    ("on", "waited", "verdict"),
    [
        (0.5, 0.9, None),
        (0.4, 0.0, Verdict.FAIL),
        (0.4, 0.9, Verdict.UNDECIDED),
        (0.4, None, Verdict.UNDECIDED),
        (0.1, 0.9, Verdict.FAIL),
    ],
)
def test_too_low_a_count_fails_unless_the_computer_was_busy(
    on: float, waited: float | None, verdict: Verdict | None
) -> None:
    found = Evidence((), waited=waited).at_least(metric(1.0, on), 0.5, gone=0.1)
    assert (found and found[0]) == verdict


@pytest.mark.parametrize(
    ("waited", "on", "said"),
    [
        (
            0.34,
            0.2,
            "0.2 on, but the computer was too busy to tell: the emulator waited for a CPU 34% of the time.",
        ),
        (0.0, 0.2, "0.2 on, where at most 0.1 is right."),
        (
            None,
            0.2,
            "0.2 on, where at most 0.1 is right, and whether the computer was too busy to tell is unknown.",
        ),
        (0.34, 1.5, "2 off, still 1.5 on."),
    ],
)
def test_the_figure_that_told_it_is_said(waited: float | None, on: float, said: str) -> None:
    found = Evidence((), waited=waited).at_most(metric(2.0, on), 0.1)
    assert found
    assert found[1] == f"Exits per IPI: {said}"


def test_figures_have_three_digits_and_no_exponent() -> None:
    shown = {0.0: "0", 1.0: "1", 0.0077: "0.0077", 1.0243: "1.02", 85.295: "85.3", 7418.2: "7418", 0.1: "0.1"}
    assert {value: figure(value) for value in shown} == shown
    assert off_on(metric(1.0243, 0.0077)) == "Exits per IPI: 1.02 off, 0.0077 on"


def test_a_fail_is_worse_than_an_undecided() -> None:
    assert worst([None, UNDECIDED, FAIL]) == FAIL
    assert worst([UNDECIDED, None]) == UNDECIDED
    assert worst([None]) is None


def test_what_is_missing_is_named() -> None:
    evidence = Evidence((metric(1, 1),))
    assert evidence.missing(("exits",)) is None
    assert evidence.missing(("exits", "sgis")) == (
        Verdict.UNDECIDED,
        "Not measured both off and on: sgis.",
    )
