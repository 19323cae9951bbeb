# SPDX-License-Identifier: Apache-2.0
"""The tables hold every figure whole, also on a narrow terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from cvmtune.report.gains import Effect, Factorial, Gain
from cvmtune.report.schema import Baseline, BaselineMetric, Metric, Result, Results, Verdict
from cvmtune.report.stats import Stats
from cvmtune.report.table import format_effect, format_figure, format_ratio, gains, print_tables


def stats(value: float) -> Stats:
    return Stats(1, value, value, value, (value,))


NOTIFY = Metric(
    "notify", "IPI notification", "ns", "time", "lower", stats(103_456), stats(2_345), 44.1, (40.25, 47.4)
)
SGI = Metric(
    "sgi_per_ipi", "hardware [SGIs] per IPI", "per IPI", "count", "lower", stats(1), stats(0), None, None
)
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
    0.614,
    (0.552, 0.683),
)


def test_long_names_and_large_figures_fit_80_columns() -> None:
    file = io.StringIO()
    results = Results({}, (Result("ipi", "cvm", (LONG,), Verdict.PASS, ""),), ())
    print_tables(results, Console(file=file, width=80))
    assert "…" not in file.getvalue()
    for part in ("sgi_per_call_sync (per IPI)", "8.60M", "12.3M", "[0.552, 0.683]"):
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
        (Effect(5.1, (4.8, 5.6)), "5.10 [4.80, 5.60]"),
        (Effect(0.614, (0.552, 0.683)), "0.614 [0.552, 0.683]"),
        (Effect(1.0, None), "1.00"),
        (Effect(1234.5, (0.0, 2e6)), "1,234 [0, 2.00M]"),
    ],
)
def test_format_effect(effect: Effect, text: str) -> None:
    assert format_effect(effect) == text
    assert format_ratio(replace(NOTIFY, ratio=effect.ratio, ci95=effect.ci95)) == text


# What each of several features gains


GAINS = (
    Gain("[ipi]", Effect(0.625, (0.5, 0.75)), Effect(0.875, (0.8125, 1.5)), Effect(2.25, (2.0, 2.5))),
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
        ["feature", "alone", "as the last", "in the mean"],
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
