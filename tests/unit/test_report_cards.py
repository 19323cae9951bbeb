# SPDX-License-Identifier: Apache-2.0
"""What a card says first: the count, what got worse, what was asked for, what it costs."""

from __future__ import annotations

import pytest

from cvmtune.report.cards import card
from cvmtune.report.rule import Goal, Rule
from cvmtune.report.schema import Metric, Result, Verdict
from cvmtune.report.stats import Effect, Interval, Stats

RULE = Rule(
    lambda evidence: (Verdict.PASS, ""),
    "sgis",
    ("use",),
    Goal("7 µs → 3 µs", ("notify", "call"), 2.33),
)


def stats(value: float) -> Stats:
    return Stats(1, value, value, value, (value,))


def metric(name: str, title: str, off: float, on: float, interval: Interval | None) -> Metric:
    kind = "time" if name in ("notify", "call", "hackbench") else "count"
    effect = Effect(off / on, interval, 5) if on else None
    return Metric(name, title, "each", kind, "lower", stats(off), stats(on), effect)  # type: ignore[arg-type]


SGIS = metric("sgis", "Hardware interrupts per IPI", 1.02, 0.008, None)
NOTIFY = metric("notify", "Notification", 500, 20, Interval(21, 31, "95 %"))
CALL = metric("call", "Call", 20, 10, Interval(1.5, 2.1, "95 %"))
USE = metric("use", "CPUs that it takes", 1.1, 2.2, Interval(0.4, 0.6, "95 %"))


def result(*metrics: Metric, why: str = "Why.") -> Result:
    return Result("ipi", "cvm", metrics, Verdict.PASS, why)


def test_it_says_what_a_reader_wants() -> None:
    one = card(result(SGIS, NOTIFY, CALL, USE), RULE)
    assert one.found == "Hardware interrupts per IPI: 1.02 off, 0.00800 on."
    assert one.asked == (
        "Asked for, of hardware: 7 µs → 3 µs, a ratio of 2.33. Emulated, off/on: "
        "Notification: 25.0 [21.0, 31.0], met; Call: 2.00 [1.50, 2.10], missed."
    )
    assert one.costs == ("CPUs that it takes: 1.10 off, 2.20 on.",)
    assert one.worse == ""


@pytest.mark.parametrize(
    ("interval", "worse"),
    [
        (Interval(0.1, 0.2, "95 %"), True),
        (Interval(0.1, 0.2, "spread"), True),
        (Interval(0.1, 1.2, "95 %"), False),
        (Interval(0.96, 0.99, "95 %"), False),
        (None, True),
    ],
)
def test_what_got_worse_is_said_first(interval: Interval | None, worse: bool) -> None:
    slower = metric("hackbench", "Messages", 10, 90, interval)
    said = card(result(SGIS, slower), RULE).worse
    assert said.startswith("What was worse, as off/on: Messages (0.111") == worse
    assert bool(said) == worse


def test_of_much_that_got_worse_the_worst_is_said() -> None:
    many = [metric(f"m{n}", f"Metric {n}", n, 10, Interval(0.0, n / 10, "95 %")) for n in range(1, 8)]
    said = card(result(SGIS, *many), RULE).worse
    assert [f"Metric {n} " in said for n in range(1, 8)] == [True] * 4 + [False] * 3
    assert said.endswith("; and 3 more, in the details.")


def test_without_a_rule_or_a_count_the_verdict_speaks() -> None:
    for one in (card(result(SGIS), None), card(result(NOTIFY), RULE)):
        assert one.found == "Why."
        assert one.headline is None
    assert card(result(), None).title == "ipi"
