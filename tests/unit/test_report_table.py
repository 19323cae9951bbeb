# SPDX-License-Identifier: Apache-2.0
"""The tables hold every figure whole, also on a narrow terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from cvmtune.report.gains import Factorial, Gain
from cvmtune.report.schema import Baseline, BaselineMetric, Metric, Result, Results, Verdict
from cvmtune.report.stats import Effect, Interval, Stats
from cvmtune.report.table import gains, print_tables
from cvmtune.report.text import format_effect, format_figure


def stats(value: float) -> Stats:
    return Stats(1, value, value, value, (value,))


def told(ratio: float, low: float, high: float) -> Effect:
    return Effect(ratio, Interval(low, high, "95 %"), 7)


def seen(ratio: float, low: float, high: float) -> Effect:
    return Effect(ratio, Interval(low, high, "spread"), 2)


NOTIFY = Metric(
    *("notify", "IPI notification", "ns", "time", "lower"),
    off=stats(103_456),
    on=stats(2_345),
    effect=told(44.1, 40.25, 47.4),
)
SGI = Metric("sgi_per_ipi", "hardware [SGIs] per IPI", "per IPI", "count", "lower", stats(1), stats(0), None)
RESULTS = Results(
    environment={},
    results=(Result("ipi", "cvm", (NOTIFY, SGI), Verdict.PASS, "It [holds]."),),
    baselines=(
        Baseline(
            "plain, feature off",
            "plain",
            (BaselineMetric("notify", "IPI notification", "ns", "time", "lower", stats(3_456)),),
        ),
    ),
)


LONG = Metric(
    "sgi_per_call_sync",
    "Hardware SGIs per call",
    "per IPI",
    "count",
    "lower",
    stats(8_601_335),
    stats(12_345_678),
    seen(0.614, 0.552, 0.683),
)


def test_long_names_and_large_figures_fit_80_columns() -> None:
    file = io.StringIO()
    results = Results({}, (Result("ipi", "cvm", (LONG,), Verdict.PASS, ""),), ())
    print_tables(results, Console(file=file, width=80))
    assert "…" not in file.getvalue()
    for part in ("sgi_per_call_sync (per IPI)", "8.60M", "12.3M", "(0.552 to 0.683)"):
        assert part in file.getvalue()


def test_metrics_of_baselines_alone_are_shown_apart() -> None:
    path = BaselineMetric("send_path", "Instructions to send", "instructions", "count", "lower", stats(147.6))
    results = Results({}, RESULTS.results, (Baseline("plain, feature off", "plain", (path,)),))
    file = io.StringIO()
    print_tables(results, Console(file=file, width=80))
    assert "Beside the experiment" in file.getvalue()
    assert "Instructions to send (instructions)" in file.getvalue()
    assert "148" in file.getvalue()


def printed(width: int) -> str:
    file = io.StringIO()
    print_tables(RESULTS, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_every_figure_is_whole(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    for part in ("PASS", "It [holds].", "ipi on cvm", "notify (ns)", "plain, feature off"):
        assert part in text
    for figure in ("103,456", "2,345", "3,456", "44.1", "[40.2, 47.4]", "n/a"):
        assert figure in text
    for part in ("sgi_per_ipi (per IPI)", "hardware [SGIs] per IPI"):
        assert part in text
    assert "under emulation" in text


def test_counts_stand_apart_from_times_and_first() -> None:
    text = printed(100)
    order = [text.index(part) for part in ("Counts", "sgi_per_ipi", "Times", "notify")]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00199, "0.00199"),
        (0.5, "0.500"),
        (5.123, "5.12"),
        (99.96, "100"),
        (102.7, "103"),
        (1234567.8, "1.23M"),
        (-0.012, "-0.0120"),
        (-250, "-250"),
    ],
)
def test_format_figure(value: float, text: str) -> None:
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (told(5.1, 4.8, 5.6), "5.10 [4.80, 5.60]"),
        (seen(5.1, 4.8, 5.6), "5.10 (4.80 to 5.60)"),
        (told(0.614, 0.552, 0.683), "0.614 [0.552, 0.683]"),
        (Effect(1.0, None), "1.00"),
        (told(1234.5, 0.0, 2e6), "1,234 [0, 2.00M]"),
        (None, "n/a"),
    ],
)
def test_format_effect(effect: Effect | None, text: str) -> None:
    assert format_effect(effect) == text


def test_brackets_and_parentheses_are_explained() -> None:
    said = " ".join(printed(80).split())
    assert "[low, high] is its 95 % interval, which is given from 5 rounds on" in said
    assert "(low to high) is the spread of fewer rounds" in said


def test_notes_are_told_beneath_what_they_are_of() -> None:
    file = io.StringIO()
    result = replace(RESULTS.results[0], notes=("Not settled: [notify].", "Left out: wake."))
    print_tables(replace(RESULTS, results=(result,), notes=("[All] is old.",)), Console(file=file, width=80))
    text = file.getvalue()
    places = [
        text.index(part) for part in ("ipi on cvm", "[notify].", "Left out", "Metrics", "[All] is old.")
    ]
    assert places == sorted(places)
    assert "It [holds]." in text


# What each of several features gains


GAINS = (
    Gain("[ipi]", told(0.625, 0.5, 0.75), told(0.875, 0.8125, 1.5), told(2.25, 2.0, 2.5)),
    Gain("cq-poll", Effect(0.5, None), None, None),
)
INSERTS = Factorial("cvm", "insert", "Inserts [50 a second]", "ns", ("[ipi]", "wfx"), (), GAINS, (), ())


def shown(factorial: Factorial, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(gains(factorial))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_gains_are_a_line_for_each_feature(width: int) -> None:
    text = shown(INSERTS, width)
    assert "…" not in text
    assert "What each feature gains on cvm: Inserts [50 a second]" in text
    rows = [[cell.strip() for cell in re.split("  +", line.strip())] for line in text.splitlines()]
    for row in (
        ["feature", "alone", "added last", "on average"],
        ["[ipi]", "0.625 [0.500, 0.750]", "0.875 [0.812, 1.50]", "2.25 [2.00, 2.50]"],
        ["cq-poll", "0.500", "n/a", "n/a"],
    ):
        assert row in rows


def test_each_factorial_has_its_table_among_the_others() -> None:
    file = io.StringIO()
    factorials = tuple(replace(INSERTS, title=title) for title in ("inserts", "records"))
    print_tables(replace(RESULTS, factorials=factorials), Console(file=file, width=100))
    text = file.getvalue()
    places = [text.index(part) for part in ("ipi on cvm", "on cvm: inserts", "on cvm: records", "Metrics")]
    assert places == sorted(places)
    assert "What each feature gains" not in printed(100)
    assert "Which to turn on first" not in text


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (seen(2.0, 1.5, 2.5), "2 rounds settle nothing, and at least 5 are needed."),
        (Effect(2.0, None, 1), "1 round settles nothing, and at least 5 are needed."),
        (Effect(2.0, None), "the file has no rounds, and at least 5 are needed."),
    ],
)
def test_of_few_rounds_it_is_said_that_they_settle_nothing(effect: Effect, said: str) -> None:
    file = io.StringIO()
    few = replace(INSERTS, gains=(Gain("ipi", effect, None, None),))
    print_tables(replace(RESULTS, factorials=(few,)), Console(file=file, width=100))
    assert f"Which to turn on first is not told: {said}" in file.getvalue()
