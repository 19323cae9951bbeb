# SPDX-License-Identifier: Apache-2.0
"""The page is well formed, complete, self-contained, and safe whatever the file says."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cvmtune.report import render
from cvmtune.report.gains import Cell, Factorial, Gain, Interaction, Step
from cvmtune.report.html import page
from cvmtune.report.schema import Baseline, BaselineMetric, Breakdown, Metric, Part, Result, Results, Verdict
from cvmtune.report.stats import Effect, Interval, Stats
from tests.fakes.bound import RULES, TRIALS

VOID = {"meta", "link", "br", "hr", "img", "input"}


def stats(*samples: float) -> Stats:
    return Stats(len(samples), samples[0], samples[-1], samples[0], samples)


def told(ratio: float, low: float, high: float) -> Effect:
    """By seven rounds."""
    return Effect(ratio, Interval(low, high, "95 %"), 7)


def seen(ratio: float, low: float, high: float) -> Effect:
    """In two rounds."""
    return Effect(ratio, Interval(low, high, "spread"), 2)


def results(text: str = "plain words", feature: str = "ipi") -> Results:
    """Two results and a baseline, with `text` wherever a file holds free text."""
    notify = Metric(
        "notify", text, "ns", "time", "lower", stats(7e3, 9e3), stats(1e3, 2e3), told(5.0, 4.8, 5.2)
    )
    narrow = Metric(
        "hackbench", text, "s", "time", "lower", stats(4.1, 4.3), stats(4.2), told(0.98, 0.9, 1.1)
    )
    zero = Metric("cold", text, "ns", "time", "lower", stats(0, 5), stats(0), None)
    sgi = Metric("sgi_per_ipi", text, "per IPI", "count", "lower", stats(1.0), stats(0.0), None)
    exits = Metric("exits_per_ipi", text, text, "count", "lower", stats(0.0), stats(-0.1), None)
    beside = BaselineMetric("notify", text, "ns", "time", "lower", stats(4e3, 5e3))
    return Results(
        environment={"kernel": text, "cpus": 4, "list": [text, 1], "machine": {"cvm": text, "none": None}},
        results=(
            Result(
                feature, "cvm", (notify, narrow, zero, sgi, exits), Verdict.PASS, text, (f"Left: {text}",)
            ),
            Result(feature, "plain", (notify, sgi), Verdict.UNDECIDED, text),
        ),
        baselines=(Baseline(f"vm, {text}", "vm", (beside,)),),
        notes=(f"Know: {text}",),
    )


def factorial(text: str = "plain words") -> Results:
    """The above with what several features gain, and with what two metrics are made of."""
    half = told(2.0, 1.75, 2.5)
    cells = (
        Cell((), stats(8e6, 9e6), None),
        Cell(("ipi",), stats(4e6), Effect(2.0, None, 7)),
        Cell((text,), stats(7e6), told(1.14, 1.1, 1.2)),
        Cell(("ipi", text), stats(3e6), told(2.67, 2.5, 2.75)),
    )
    gains = (Gain("ipi", half, half, half), Gain(text, told(1.14, 1.1, 1.2), None, None))
    interactions = (Interaction("ipi", text, told(1.17, 0.9, 1.3)),)
    steps = (
        Step(text, told(1.14, 1.1, 1.2), Effect(1.14, None, 7)),
        Step("ipi", told(2.33, 2.2, 2.4), told(2.67, 2.5, 2.75)),
    )
    inserts = Factorial("cvm", "insert", text, text, ("ipi", text), cells, gains, interactions, steps)
    singles = replace(inserts, metric="audit", cells=cells[:3], interactions=(), steps=())
    parts = (Part("queue", text, 5e6), Part("wire", "on the wire", -1e3), Part("disk", "on disk", 3e6))
    breakdowns = tuple(
        Breakdown("cvm", state, metric, text, "ns", parts)
        for metric in ("insert", "audit")
        for state in ("off", "on", text)
    )
    beside = results(text)
    return replace(beside, factorials=(inserts, singles), breakdowns=breakdowns)


class Page(HTMLParser):
    """Checks that what is opened is closed in order, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def text() -> str:
    return page(results(), RULES)


@pytest.fixture(scope="module")
def parsed(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def factorial_text() -> str:
    return page(factorial(), RULES)


@pytest.fixture(scope="module")
def factorial_parsed(factorial_text: str) -> Page:
    return Page(factorial_text)


@pytest.fixture(params=["", "factorial_"])
def either(request: pytest.FixtureRequest) -> tuple[str, Page]:
    """The page of results without and with factorials, and what is in it."""
    return request.getfixturevalue(f"{request.param}text"), request.getfixturevalue(f"{request.param}parsed")


def test_is_well_formed(either: tuple[str, Page]) -> None:
    _, parsed = either
    assert parsed.open == []
    assert parsed.tags["main"] == parsed.tags["h1"] == 1


def test_each_colour_of_a_plot_is_one_that_the_page_has(factorial_text: str) -> None:
    for mode in re.findall(r":root \{(.*?)\}", factorial_text, re.DOTALL):
        known = set(re.findall(r"(--[\w-]+):", mode))
        assert {f"--part-{number}" for number in range(1, 8)} <= known
        assert set(re.findall(r"var\((--(?:part|base)-\d)\)", factorial_text)) <= known


def test_shows_gains_interactions_and_combinations(factorial_parsed: Page, parsed: Page) -> None:
    words = " ".join(factorial_parsed.words.split())
    assert words.count("What each feature gains: plain words") == 2
    for row in (
        "Feature Alone Added last On average ipi 2.00 [1.75, 2.50]2.00 [1.75, 2.50]2.00 [1.75, 2.50]",
        "plain words 1.14 [1.10, 1.20]n/an/a",
        "ipi, plain words1.17 [0.900, 1.30]",
        "none8.00M8.00M8.95M9.00Mplain words",
        "ipi4.00M4.00M4.00M4.00Mplain words2.00",
        "ipi, plain words3.00M3.00M3.00M3.00Mplain words2.67 [2.50, 2.75]",
        # In the order of the steps, not of the features.
        "For this load turn on first plain words (gains 1.14 [1.10, 1.20]; all so far 1.14), "
        "then ipi (gains 2.33 [2.20, 2.40]; all so far 2.67 [2.50, 2.75]). "
        "The others gave no measurable further gain, or were not measured with these.",
        "For this load no feature alone gave a measurable gain.",
    ):
        assert row.replace(" ", "") in words.replace(" ", ""), row
    assert parsed.tags["table"] == 4
    # Of both metrics gains and combinations, and of one the interactions.
    assert factorial_parsed.tags["table"] - parsed.tags["table"] == 2 + 2 + 1
    assert words.count("Interactions: by how much") == 1
    assert "What each feature gains:" not in parsed.words
    # Of one metric there are steps, of the other there are none.
    assert words.count("For this load turn on first") == words.count("The others gave") == 1
    assert words.count("For this load no feature alone") == 1
    assert "For this load" not in parsed.words


def test_a_single_step_has_no_second() -> None:
    whole = factorial()
    inserts = whole.factorials[0]
    words = Page(page(replace(whole, factorials=(replace(inserts, steps=inserts.steps[:1]),)), RULES)).words
    assert "turn on first plain words (gains 1.14 [1.10, 1.20]; all so far 1.14). The others" in words
    assert "then ipi" not in words
    assert "no feature alone" not in words


def shown(effect: Effect | None) -> str:
    """What the page's table says of a time with that effect."""
    metric = Metric("notify", "t", "ns", "time", "lower", stats(7e3), stats(1e3), effect)
    words = Page(page(Results({}, (Result("ipi", "cvm", (metric,), Verdict.PASS, ""),)), RULES)).words
    cell = words.partition("Ratio [95 %] or (spread)")[2].partition("ns")[2].partition("on")[0]
    return " ".join(cell.split())


@pytest.mark.parametrize(
    ("effect", "cell"),
    [
        (told(5.0, 4.0, 6.0), "5.00 [4.00, 6.00]better"),
        (told(0.5, 0.4, 0.6), "0.500 [0.400, 0.600]worse"),
        (told(5.0, 1.0, 6.0), "5.00 [1.00, 6.00]not settled"),
        (seen(5.0, 4.0, 6.0), "5.00 (4.00 to 6.00)spread of 2 rounds"),
        (replace(seen(5.0, 4.0, 6.0), rounds=None), "5.00 (4.00 to 6.00)spread"),
        (Effect(5.0, None, 1), "5.001 round"),
        (Effect(5.0, None), "5.00"),
        (None, "n/aa round's mean is not above 0"),
    ],
)
def test_better_and_worse_are_told_by_an_interval_alone(effect: Effect | None, cell: str) -> None:
    assert shown(effect) == cell


def test_of_a_spread_it_is_not_told_what_to_turn_on_first() -> None:
    whole = factorial()
    two = seen(2.0, 1.75, 2.5)
    spread = replace(whole.factorials[1], gains=(Gain("ipi", two, two, two),))
    words = Page(page(replace(whole, factorials=(spread,)), RULES)).words
    assert "Which to turn on first is not told: 2 rounds settle nothing, and at least 5 are needed." in words
    assert "2.00 (1.75 to 2.50)" in words
    assert "For this load" not in words


def test_draws_what_a_mean_is_made_of_once_a_metric(factorial_parsed: Page, parsed: Page) -> None:
    for tag in ("svg", "figure", "figcaption"):
        assert factorial_parsed.tags[tag] - parsed.tags[tag] == 2
    words = factorial_parsed.words
    assert words.count("Where the time goes") == 1
    for label in ("cvm, off", "cvm, on", "cvm, plain words", "on the wire", "on disk"):
        assert words.count(label) == 2
    assert "Where the time goes" not in parsed.words


def test_holds_every_metric_verdict_and_section(parsed: Page) -> None:
    for words in (
        *("notify", "hackbench", "cold", "sgi_per_ipi", "exits_per_ipi", "PASS", "UNDECIDED"),
        *("What these figures can and cannot show", "How to read it", "Environment"),
        *("5.00 [4.80, 5.20]", "not settled", "vm, plain words", "1,000"),
        *("Know: plain words", "Left: plain words", "a round's mean is not above 0"),
    ):
        assert words in parsed.words


def test_draws_every_metric_and_the_count_of_each_card(parsed: Page) -> None:
    assert parsed.tags["figure"] == parsed.tags["figcaption"] == 7
    assert parsed.tags["svg"] == 7 + 2


def test_details_are_folded_away(parsed: Page, text: str) -> None:
    """Each card has its own, and so have the parts of the page that follow."""
    assert parsed.tags["details"] == parsed.tags["summary"] >= 3
    assert "<details open" not in text


def test_is_accessible(either: tuple[str, Page]) -> None:
    _, parsed = either
    assert parsed.tags["table"] == parsed.tags["caption"] >= 4
    assert parsed.tags["th"] == len(parsed.values("scope")) > 0
    assert all(parsed.values("aria-label"))
    assert parsed.values("lang") == ["en"]


def test_identifiers_differ_and_references_resolve(either: tuple[str, Page]) -> None:
    text, parsed = either
    identifiers = parsed.values("id")
    assert len(identifiers) == len(set(identifiers))
    references = re.findall(r"url\(#([^)]*)\)", text) + [one[1:] for one in parsed.values("xlink:href")]
    assert references
    assert set(references) <= set(identifiers)


def test_is_self_contained(either: tuple[str, Page]) -> None:
    text, parsed = either
    assert not {"script", "link", "img", "iframe", "image"} & parsed.tags.keys()
    assert "@import" not in text
    links = [value for name in ("src", "href", "xlink:href") for value in parsed.values(name)]
    assert all(link.startswith("#") for link in links)
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_colours_follow_light_and_dark_mode(either: tuple[str, Page]) -> None:
    text, _ = either
    assert "prefers-color-scheme: dark" in text
    assert "stroke: var(--off)" in text
    assert not re.search("#0000(0[1-8]|1[0-6])", text)


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "--><script>", '"><b onclick="x">', "$x_", "&lt;"]
)
def test_escapes_text(hostile: str) -> None:
    for shown in (results(hostile), factorial(hostile)):
        text = page(shown, RULES)
        parsed = Page(text)
        assert "<script" not in text
        assert not parsed.tags["b"]
        assert parsed.words.count(hostile) >= (30 if shown.factorials else 10)


@pytest.mark.parametrize("feature", tuple(TRIALS))
def test_says_what_a_feature_is(feature: str) -> None:
    """Its title is in place of its name in headings, and what it is about beneath its figures."""
    about = RULES[feature].about
    assert about
    words = " ".join(Page(page(results(feature=feature), RULES)).words.split())
    assert f"PASS {feature} on cvm" not in words
    assert f"PASS {about.title} on cvm" in words
    for paragraph in about.paragraphs:
        assert paragraph in words


def test_knows_no_words_for_another_feature_yet_shows_it() -> None:
    assert "warp on cvm" in Page(page(results(feature="warp"), RULES)).words
    assert "ipi on cvm" in Page(page(results(), {})).words


def test_no_results_still_give_a_page() -> None:
    assert "holds no results" in Page(page(Results({}, ()), RULES)).words


def test_is_reproducible(text: str, factorial_text: str) -> None:
    assert page(results(), RULES) == text
    assert page(factorial(), RULES) == factorial_text


def test_render_writes_both(tmp_path: Path, text: str) -> None:
    html, json = tmp_path / "report.html", tmp_path / "results.json"
    render(results(), RULES, html=html, json=json)
    assert html.read_text(encoding="utf-8") == text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "results.json"]
