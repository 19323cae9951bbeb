# SPDX-License-Identifier: Apache-2.0
"""What a count that is too high says of a kernel depends on how busy the computer was."""

from __future__ import annotations

import pytest

from cvmtune.report.evidence import BUSY, Evidence, worst
from cvmtune.report.schema import Metric, Verdict
from cvmtune.report.stats import summarise

FAIL, UNDECIDED = (Verdict.FAIL, "broken."), (Verdict.UNDECIDED, "too busy.")


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


def test_the_figure_that_told_it_is_said() -> None:
    found = Evidence((), waited=0.34).at_most(metric(2.0, 0.2), 0.1)
    assert found
    assert found[1] == (
        "Exits per IPI: 0.2 with the feature on, where at most 0.1 is right, but the computer was too busy "
        "to tell: the emulator waited for a CPU 34% of the time."
    )


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
