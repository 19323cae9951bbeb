# SPDX-License-Identifier: Apache-2.0
"""Stacked bars: every part is drawn and told, also where one is negative, for a page and as a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.report import plots
from cvmtune.report.schema import Baseline, BaselineMetric, Breakdown, Metric, Part, Result, Results, Verdict
from cvmtune.report.stats import Stats

# Stand-ins of colours, all of which a finished plot has replaced.
PLACEHOLDER = re.compile("#0000(0[1-8]|1[0-6])")


def breakdown(*means: float, state: str = "off", machine: str = "cvm", unit: str = "ns") -> Breakdown:
    parts = tuple(Part(f"part{i}", f"Part number {i}", mean) for i, mean in enumerate(means, 1))
    return Breakdown(machine, state, "write", "A write", unit, parts)


def drawn(group: Sequence[Breakdown], *, for_page: bool = True) -> str:
    return str(plots.stacked(group, "one-", for_page=for_page))


def texts(svg: str) -> list[str]:
    """Of a plot that is well-formed."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [(text.text or "").strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


GROUP = [breakdown(1e6, 2e6, 3e6), breakdown(5e5, 1e6, 7.5e5, state="on")]


@pytest.mark.parametrize("for_page", [True, False])
def test_bars_parts_and_sums_are_told(for_page: bool) -> None:
    found = texts(drawn(GROUP, for_page=for_page))
    for words in (
        *("cvm, off", "cvm, on", "Part number 1", "Part number 2", "Part number 3"),
        *("6.00", "2.25", "mean, ms (emulated)"),
    ):
        assert found.count(words) == 1


def test_other_units_are_as_they_are() -> None:
    found = texts(drawn([breakdown(1e6, 2e6, unit="exits")]))
    assert "3.00M" in found
    assert "mean, exits" in found


def test_colours_of_a_page_follow_its_mode() -> None:
    svg = drawn(GROUP)
    for number in (1, 2, 3):
        assert f"var(--part-{number})" in svg
    assert "var(--part-4)" not in svg
    assert not PLACEHOLDER.search(svg)


def test_a_plot_of_a_page_has_no_background_of_its_own() -> None:
    """It would be white in dark mode, too."""
    assert "#ffffff" not in drawn(GROUP)


def test_colours_of_a_file_are_fixed_and_on_white() -> None:
    svg = drawn(GROUP, for_page=False)
    assert "var(" not in svg
    assert not PLACEHOLDER.search(svg)
    assert "#ffffff" in svg
    # Those of as many parts differ.
    colours = set(re.findall(r"fill: (#\w{6})", svg))
    assert len(colours - {"#ffffff"}) >= 3


def test_a_part_has_its_colour_in_each_bar_that_has_it() -> None:
    """Also where others lack parts, or have them in another order."""
    one, two = Part("one", "First", 1.0), Part("two", "Second", 2.0)
    bars = [Breakdown("cvm", "a", "write", "t", "ns", parts) for parts in ((one, two), (two,), (two, one))]
    svg = drawn(bars)
    # Each bar's segment, and the legend's.
    assert svg.count("var(--part-1)") == 2 + 1
    assert svg.count("var(--part-2)") == 3 + 1
    assert texts(svg).count("First") == texts(svg).count("Second") == 1


def test_a_negative_part_is_drawn_as_nothing() -> None:
    """The others are where they were with a part of 0 in its place; the sum is told as it is."""
    below = [breakdown(2e6, -3e5, 1e6), breakdown(-1.0, 1e6, 1e6, state="on")]
    zero = [breakdown(2e6, 0.0, 1e6), breakdown(0.0, 1e6, 1e6, state="on")]
    with_its_sum, with_that_of_zero = drawn(below), drawn(zero)
    assert texts(with_its_sum).count("2.70") == texts(with_that_of_zero).count("3.00") == 1
    assert "3.00" not in texts(with_its_sum)
    assert with_its_sum.replace("> 2.70<", "> 3.00<") == with_that_of_zero
    assert with_that_of_zero != drawn(GROUP)


@pytest.mark.parametrize(
    ("means", "told"),
    [
        ((1e6, 2e6), "3.00"),
        ((-1e6, 2e6, 4e6), "5.00"),
        ((4e6, 2e6, -1e6), "5.00"),
        ((2e6, -2e6), "0"),
        ((1e6, -3e6), "-2.00"),
        ((-1e6, -5e5), "-1.50"),
    ],
)
@pytest.mark.parametrize("for_page", [True, False])
def test_a_bar_is_labelled_with_the_sum_of_all_its_parts(
    means: tuple[float, ...], told: str, for_page: bool
) -> None:
    # The other bar sets the axis: no tick is at the sum of this one.
    group = [breakdown(*means), breakdown(9.87e6, state="on")]
    svg = drawn(group, for_page=for_page)
    labels = re.findall(r"> ([-\d.]+)</text>", svg)
    assert labels == [told, "9.87"]


def test_segments_follow_each_other() -> None:
    """Each begins where that before it ends, in the order of the parts."""
    spans = segments(drawn([breakdown(1e6, 2e6, -1e6, 4e6)]))
    starts, ends = [low for low, _ in spans], [high for _, high in spans]
    assert starts[1:] == pytest.approx(ends[:-1], abs=0.01)
    widths = [high - low for low, high in spans]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 0, 4], abs=0.01)


def segments(svg: str) -> list[tuple[float, float]]:
    """The left and right ends of the first segment of each part, in the order of the colours."""
    spans: dict[int, tuple[float, float]] = {}
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        colour = re.search(r"fill: var\(--part-(\d)\)", path.get("style") or "")
        if colour:
            across = [float(x) for x in re.findall(r"[ML] ([-\d.]+) ", path.get("d") or "")]
            spans.setdefault(int(colour[1]), (min(across), max(across)))
    return [spans[number] for number in sorted(spans)]


@pytest.mark.parametrize(
    "group",
    [
        [breakdown(-1e6, -2.0)],
        [breakdown(0.0, 0.0), breakdown(0.0, 0.0, state="on")],
        [breakdown(1e12)],
        [breakdown(1e-9)],
        [breakdown(*[1e6] * 9)],
        [breakdown(1e6, state=f"state {i}") for i in range(16)],
    ],
    ids=["all negative", "all zero", "large", "small", "many parts", "many bars"],
)
@pytest.mark.filterwarnings("error")
def test_what_is_out_of_the_ordinary(group: list[Breakdown]) -> None:
    for for_page in (True, False):
        svg = drawn(group, for_page=for_page)
        assert {f"cvm, {one.state}" for one in group} <= set(texts(svg))
        assert not PLACEHOLDER.search(svg)
        assert not re.search(r"\b(nan|inf)\b", svg)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=8).map(lambda means: breakdown(*means)),
        min_size=1,
        max_size=3,
    )
)
def test_any_means_give_a_plot(group: list[Breakdown]) -> None:
    assert texts(drawn(group)).count("cvm, off") == len(group)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "--><b>", '"&lt;', "$x_", "a|b]]>"])
def test_text_stays_text(hostile: str) -> None:
    group = [Breakdown(hostile, "off", "write", "t", hostile, (Part("p", hostile, 1.0),))]
    for for_page in (True, False):
        found = texts(drawn(group, for_page=for_page))
        assert {f"{hostile}, off", hostile, f"mean, {hostile}"} <= set(found)


def test_identifiers_begin_with_the_prefix() -> None:
    svg = drawn(GROUP)
    identifiers = [element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers)) > 0
    assert all(one and one.startswith("one-") for one in identifiers)
    references = re.findall(r"url\(#([^)]*)\)", svg) + re.findall('href="#([^"]*)"', svg)
    assert references
    assert set(references) <= set(identifiers)


def test_is_reproducible() -> None:
    assert drawn(GROUP) == drawn(GROUP)


def test_a_distribution_is_a_file_of_its_own() -> None:
    """With the lines of off, on, and each baseline that has the metric."""

    def stats(*samples: float) -> Stats:
        return Stats(len(samples), samples[0], samples[-1], samples[0], samples)

    write = Metric("write", "A write", "ns", "time", "lower", stats(7e6, 9e6), stats(1e6, 2e6), None)
    beside = BaselineMetric("write", "A write", "ns", "time", "lower", stats(3e6, 4e6))
    baselines = (
        Baseline("vm, feature off", "vm", (beside,)),
        Baseline("plain, <other>", "plain", (beside,)),
        Baseline("cvm, nohlt", "cvm", ()),
    )
    results = Results({}, (Result("blackbox", "cvm", (write,), Verdict.PASS, ""),), baselines)
    svg = str(plots.distribution(write, results, "one-"))
    found = texts(svg)
    assert {"off", "on", "vm, feature off", "plain, <other>", "ns"} <= set(found)
    assert "cvm, nohlt" not in found
    assert not PLACEHOLDER.search(svg)
    assert "var(" not in svg
