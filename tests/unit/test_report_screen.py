# SPDX-License-Identifier: Apache-2.0
"""What is told of results on one screen."""

from __future__ import annotations

import io

from rich.console import Console

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.report.judge import judge
from cvmtune.report.schema import Results
from cvmtune.report.screen import show
from tests.fakes.bound import RULES
from tests.fakes.experiments import ALL_FEATURES, COUNTED


def series(feature: str, *, on: bool) -> tuple[Series, ...]:
    rule = RULES[feature]
    assert rule.goal
    main = rule.goal.metrics[0]
    counts = [
        Series(name, f"A count of {feature}", "each", "count", "lower", (values[on],))
        for name, values in COUNTED[feature].items()
        if name not in (rule.headline, main)
    ]
    headline = Series(rule.headline, f"Count of {feature}", "each", "count", "lower", (5.0 - 4.9 * on,))
    time = Series(main, "Time", "ns", "time", "lower", (300.0 - 200.0 * on,))
    return (*counts, headline, time)


def results(*, useless: bool = False) -> Results:
    raws = [
        RawRun(
            feature,
            "cvm",
            tuple(
                Round(state, index, series(feature, on=state == "on" and not useless))
                for index in range(2)
                for state in ("off", "on")
            ),
            {},
        )
        for feature in ALL_FEATURES
    ]
    return judge(raws, [], RULES)


def shown(found: Results, width: int = 80) -> list[str]:
    stream = io.StringIO()
    show(found, RULES, Console(file=stream, width=width), verbose=False)
    return stream.getvalue().splitlines()


def test_it_fits_a_screen_whatever_the_verdicts_are() -> None:
    for found in (results(), results(useless=True), Results({}, ())):
        lines = shown(found)
        assert len(lines) <= 40 - 2  # two lines tell which files were written
        assert max(len(line) for line in lines) <= 80
    assert max(len(line) for line in shown(results(), width=200)) <= 80


def test_it_has_a_count_and_what_was_asked_for_of_each() -> None:
    lines = shown(results())
    for feature in ALL_FEATURES:
        assert any(feature in line.split() and f"Count of {feature}: 5.00 →" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "3.00" in text
    assert "Times (emulated" in text


def test_it_says_why_something_is_no_pass() -> None:
    found = results(useless=True)
    text = " ".join(" ".join(shown(found)).split())
    for one in found.results:
        assert one.verdict != "PASS"
        assert f"{one.feature} {one.verdict}: {one.why}"[:200] in text


def test_what_was_not_measured_is_said() -> None:
    raw = RawRun("ipi", "cvm", (), {}, problem="There was no time for it within the budget.")
    text = " ".join(shown(judge([raw], [], RULES)))
    assert "not measured" in text
    assert "ipi UNDECIDED: There was no time for it within the budget." in text
