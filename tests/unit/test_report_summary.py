# SPDX-License-Identifier: Apache-2.0
"""The summary says what the results say, the same each time, and its pictures stand by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.report import summarise, summary
from cvmtune.report.judge import judge
from cvmtune.report.rule import Goal, Rule
from cvmtune.report.schema import Metric, Result, Results, Verdict
from cvmtune.report.stats import Effect, Interval, Stats
from cvmtune.report.summary import PAGE, files, page
from cvmtune.report.text import format_effect
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import CLOSED, MAIN_METRICS
from cvmtune.workloads.blackbox.verdict import REQUESTED
from tests.fakes.bound import BLACKBOX, RULES

COMBINATIONS, FEATURES = BLACKBOX.states, BLACKBOX.names
SINGLES = FEATURES

ENVIRONMENT: dict[str, object] = {
    "date": "2025-03-04 05:06 UTC",
    "cvmtune": "1.2.3",
    "kernel": "Linux version 6.12.1-test (someone@somewhere) (gcc 12) #1 SMP",
    "emulator": "QEMU emulator version 7.2.0",
    "computer": "Some Processor, 2 CPUs",
}
GAIN = {"ipi": 2.0, "vtimer": 1.25, "cq-poll": 1.5, "wfx": 1.2}
MS = 1e6
# With all features on, and else.
COUNTS = {
    **{"ipis": (0.25, 10.0), "wakeups": (0.25, 4.0), "exits": (0.25, 20.0), "wfx_exits": (0.25, 6.0)},
    **{"timer_exits": (0.25, 5.0), "redundant_exits": (0.025, 2.0)},
}
# Of these, whose they are: there are as few with it alone.
WHOSE = {"ipis": "ipi", "wakeups": "cq-poll", "wfx_exits": "wfx", "redundant_exits": "vtimer"}


def series(on: frozenset[str], index: int, title: str, scale: float = 1.0) -> tuple[Series, ...]:
    """A round in which each feature has its gain in all latencies; every other round is a fifth slower."""
    found = []
    for load, ms in zip(MAIN_METRICS, (8.0, 20.0, 6.0), strict=True):
        mean = scale * ms * MS * (1.0, 1.2)[index % 2]
        for feature in on:
            mean /= GAIN[feature]
        found.append(Series(load, f"{title}: {load}", "ns", "time", "lower", (0.5 * mean, 1.5 * mean)))
        for part, share in (("client", 0.75), ("rpc", 0.5), ("rtt", -0.25)):
            found.append(Series(f"{load}/{part}", f"{title}: {part}", "ns", "time", "lower", (share * mean,)))
        counts = {f"{load}_{name}": (name, values) for name, values in COUNTS.items()}
        counts[f"{CLOSED[load]}_exits"] = ("exits without a rate", COUNTS["exits"])
        for name, (what, (all_on, other)) in counts.items():
            each = all_on if on == set(FEATURES) or WHOSE.get(what) in on else other
            found.append(Series(name, f"{title}: {what} of {load}", "per tx", "count", "lower", (each,)))
        found.append(Series(f"{load}_lost", f"{title}: lost of {load}", "tx", "count", "lower", (0.0,)))
    return tuple(found)


def outcome(title: str) -> Round:
    """Of the whole run: all is there, and whole."""
    names = {"all_lost": "transactions", "damage": "findings"}
    return Round(
        AFTER, 0, tuple(Series(name, title, unit, "count", "lower", (0.0,)) for name, unit in names.items())
    )


def results(
    states: Sequence[str] = tuple(COMBINATIONS),
    *,
    title: str = "Database",
    rounds: int = 6,
    environment: Mapping[str, object] = ENVIRONMENT,
) -> Results:
    judged = tuple(
        Round(state, index, series(COMBINATIONS[state], index, title))
        for index in range(rounds)
        for state in states
    )
    vm = Round("off", 0, series(frozenset(), 0, title, 0.5))
    return judge(
        [RawRun("blackbox", "cvm", (*judged, outcome(title)), environment)],
        [RawRun("blackbox", "vm", (vm,), environment)],
        RULES,
    )


@pytest.fixture(scope="module")
def whole() -> Results:
    return results()


@pytest.fixture(scope="module")
def written(whole: Results) -> Mapping[str, str]:
    return files(whole, RULES)


@pytest.fixture(scope="module")
def text(written: Mapping[str, str]) -> str:
    return written[PAGE]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, by line, as a reader of Markdown splits them; all lines of one are alike."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if len(lines) > 1 and re.fullmatch(r"\|( --- \|)+", lines[1]):
            assert all(line.startswith("|") and line.endswith("|") for line in lines)
            found.append([[cell.strip() for cell in line[1:-1].split("|")] for line in lines])
    for table in found:
        assert {len(line) for line in table} == {len(table[0])}
    return found


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the tables whose heading begins with that."""
    return [row for table in tables(text) if table[0][0] == first for row in table[2:]]


# What the page says


def test_the_same_results_give_the_same_text(whole: Results, written: Mapping[str, str]) -> None:
    again = results()
    assert again == whole
    assert files(again, RULES) == written


def test_says_when_on_what_and_that_times_are_emulated(text: str) -> None:
    assert text.startswith(
        "Measured 2025-03-04 05:06 UTC with cvmtune 1.2.3 on Linux version 6.12.1-test, "
        "in QEMU emulator version 7.2.0 on Some Processor, 2 CPUs. Times are emulated"
    )


def test_of_runs_that_differ_the_first_is_named() -> None:
    each = {"run 1, ipi on cvm": "2025-03-04", "run 2, ipi on vm": "2025-03-05"}
    assert page(Results({**ENVIRONMENT, "date": each}, ()), RULES).startswith("Measured 2025-03-04 with")


def test_an_environment_that_says_nothing_still_gives_a_page() -> None:
    assert page(Results({}, ()), RULES).startswith("Measured unknown with cvmtune unknown on unknown")


def test_verdicts_are_there_with_what_was_saved(text: str) -> None:
    assert rows(text, "experiment")[0][:3] == [
        *("blackbox, cvm", "PASS", "Database: ipis of tpcb: 10.0 → 0.250")
    ]


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        ("ipi", "sgi_per_ipi"),
        ("vtimer", "timer_exits_per_section"),
        ("cq-poll", "wakeups_per_write"),
        ("wfx", "wfx_per_futex_rtt"),
        ("warp", None),
    ],
)
def test_each_feature_has_one_figure(feature: str, name: str | None) -> None:
    metrics = (count("other", 7.0, 5.0), *([count(name, 4.0, 0.5)] if name else []))
    text = page(Results(ENVIRONMENT, (Result(feature, "plain", metrics, Verdict.UNDECIDED, ""),)), RULES)
    what = f"Title of {name}: 4.00 → 0.500" if name else "n/a"
    assert [row[:3] for row in rows(text, "experiment")] == [[f"{feature}, plain", "UNDECIDED", what]]


def count(name: str, off: float, on: float) -> Metric:
    return Metric(name, f"Title of {name}", "each", "count", "lower", one(off), one(on), None)


def one(value: float) -> Stats:
    return Stats(1, value, value, value, (value,))


LATENCIES = "latency in ms: mean; p50, p95, p99 (of how many)"


def test_latencies_are_in_ms_with_what_all_features_gain(text: str) -> None:
    """Half, and one and a half times, of 20 and of 24 ms, three times each: 10, 12, 30, 36."""
    found = {row[0]: row[1:] for row in rows(text, LATENCIES)}
    assert list(found) == [f"Database: {load}" for load in MAIN_METRICS]
    off, on, gain, beside = found["Database: tpcb"]
    assert off == "22.0; 21.0, 36.0, 36.0 (12)"
    product = 2.0 * 1.25 * 1.5 * 1.2
    # With intervals of no width, as each round has the same gains.
    assert gain == "4.50 [4.50, 4.50]"
    assert [float(figure) for figure in re.findall(r"[\d.]+", on)] == pytest.approx(
        [*(value / product for value in (22.0, 21.0, 36.0, 36.0)), 12], abs=0.01
    )
    # Of an ordinary VM that is twice as fast, in the first round alone.
    assert beside == f"{10 / (22.0 / product):.2f}"


def test_without_an_ordinary_vm_nothing_is_said_of_it(whole: Results) -> None:
    found = rows(page(replace(whole, baselines=()), RULES), LATENCIES)
    assert [row[-1] for row in found] == ["n/a"] * 3


def test_latencies_tell_of_how_many_they_are() -> None:
    """Of all there were, of which a result keeps fewer; off and on each have their own."""
    metric = replace(
        latency("tpcb", 2.0), off=replace(one(2 * MS), n=12_345), on=Stats(3, MS, MS, MS, (MS, MS))
    )
    ((title, off, on, *_),) = rows(
        page(Results(ENVIRONMENT, (Result("blackbox", "cvm", (metric,), Verdict.PASS, ""),)), RULES),
        LATENCIES,
    )
    assert title == "tpcb"
    assert off == "2.00; 2.00, 2.00, 2.00 (12345)"
    assert on == "1.00; 1.00, 1.00, 1.00 (3)"


def test_gains_are_those_of_the_results(whole: Results, text: str) -> None:
    found = [table[2:] for table in tables(text) if table[0][1] == "alone"]
    assert len(found) == len(whole.factorials) == 3
    for table, factorial in zip(found, whole.factorials, strict=True):
        assert f"{factorial.title}:\n\n| feature | alone |" in text
        assert table == [
            [
                gain.factor,
                *(format_effect(effect) for effect in (gain.alone, gain.last, gain.overall) if effect),
            ]
            for gain in factorial.gains
        ]
        for pair in factorial.interactions:
            assert f"{pair.first} with {pair.second} {format_effect(pair.effect)}" in text
    assert found[0][0] == ["ipi", *["2.00 [2.00, 2.00]"] * 3]
    # The largest gain first; each comes with what it adds to those before.
    turns = (
        "Turn on first: ipi (2.00 [2.00, 2.00]), then cq-poll (1.50 [1.50, 1.50]), "
        "then vtimer (1.25 [1.25, 1.25]), then wfx (1.20 [1.20, 1.20]). "
        "The others gave no measurable further gain, or were not measured with these."
    )
    assert text.count(turns) == text.count("Turn on first") == 3
    assert "No feature alone" not in text
    assert "not told" not in text


def test_of_steps_that_end_early_the_rest_is_not_named(whole: Results) -> None:
    insert, *others = whole.factorials
    text = page(replace(whole, factorials=(replace(insert, steps=insert.steps[:2]), *others)), RULES)
    assert text.count("then cq-poll (1.50 [1.50, 1.50]). The others gave no measurable") == 1
    assert text.count("then wfx (1.20 [1.20, 1.20]). The others gave no measurable") == 2


def test_where_there_are_no_steps_the_page_says_so(whole: Results) -> None:
    insert, *others = whole.factorials
    text = page(replace(whole, factorials=(replace(insert, steps=()), *others)), RULES)
    assert text.count("\n\nNo feature alone gave a measurable gain.") == 1
    assert text.count("Turn on first") == text.count("The others gave") == 2


def test_features_that_gain_nothing_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that makes it slower nor one that changes nothing is to be turned on."""
    for feature, gain in {"ipi": 1.0, "vtimer": 0.8, "cq-poll": 1.5, "wfx": 0.5}.items():
        monkeypatch.setitem(GAIN, feature, gain)
    assert page(results(), RULES).count("Turn on first: cq-poll (1.50 [1.50, 1.50]). The others") == 3
    monkeypatch.setitem(GAIN, "cq-poll", 0.9)
    text = page(results(), RULES)
    assert text.count("No feature alone gave a measurable gain.") == 3
    assert "Turn on" not in text


def test_a_short_form_says_what_it_has() -> None:
    text = page(results(("off", "on", *SINGLES)), RULES)
    found = [table[2:] for table in tables(text) if table[0][1] == "alone"]
    assert found[0][1] == ["vtimer", "1.25 [1.25, 1.25]", "n/a", "n/a"]
    assert "Interactions" not in text
    # What is on with another was not measured.
    assert text.count("Turn on first: ipi (2.00 [2.00, 2.00]). The others") == 3


def test_few_rounds_have_a_spread_and_settle_nothing() -> None:
    text = page(results(rounds=2), RULES)
    assert "4.50 (4.50 to 4.50)" in text
    assert re.search(r"\d\]", text.partition("Target")[2]) is None
    nothing = "Which to turn on first is not told: 2 rounds settle nothing, and at least 5 are needed."
    assert text.count(nothing) == 3
    assert "Turn on" not in text
    assert "No feature alone" not in text
    assert "insert not told (2 rounds), tpcb not told (2 rounds), audit not told (2 rounds).\n" in text


def test_says_how_to_read_an_interval_and_a_spread(text: str) -> None:
    assert tables(text)[1][0][3] == "off/on, ratio [95 %] or (spread)"
    assert text.count("[low, high] is its 95 % interval") == 1


def test_notes_stand_before_all_figures(whole: Results) -> None:
    text = page(replace(whole, notes=("It is old.",)), RULES)
    assert text.split("\n\n")[1] == "It is old."


def latency(name: str, ratio: float | None, ci95: tuple[float, float] | None = None) -> Metric:
    interval = Interval(*ci95, "95 %") if ci95 else None
    effect = None if ratio is None else Effect(ratio, interval, 7 if ci95 else None)
    return Metric(name, name, "ns", "time", "lower", one(2 * MS), one(MS), effect)


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (Effect(2.0, Interval(1.67, 4.0, "95 %"), 7), "met"),
        (Effect(2.0, Interval(1.6699, 4.0, "95 %"), 7), "not settled"),
        (Effect(2.0, Interval(1.0, 1.67, "95 %"), 7), "not settled"),
        (Effect(2.0, Interval(1.0, 1.6699, "95 %"), 7), "missed"),
        (Effect(2.0, Interval(1.67, 4.0, "spread"), 4), "not told (4 rounds)"),
        (Effect(2.0, Interval(1.0, 1.6699, "spread")), "not told"),
        (Effect(2.0, None, 1), "not told (1 round)"),
        (None, "not told"),
    ],
)
def test_bar_is_met_or_missed_by_a_whole_interval_and_by_no_spread(effect: Effect | None, said: str) -> None:
    metrics = tuple(
        replace(latency(name, None), effect=effect) if name == "tpcb" else latency(name, 2.0, (1.0, 9.0))
        for name in MAIN_METRICS
    )
    # Nobody asked for anything of these.
    metrics = (*metrics, latency("insert_2", 1.0), latency("insert_1_closed", 9.0))
    text = page(Results(ENVIRONMENT, (Result("blackbox", "cvm", metrics, Verdict.PASS, ""),)), RULES)
    wanted = f"insert not settled, tpcb {said}, audit not settled."
    assert f"Target: a ratio of {REQUESTED:g} at a rate; by the 95 % intervals: {wanted}\n" in text


def test_results_without_blackbox_give_a_page_of_verdicts() -> None:
    result = Result(
        "ipi", "cvm", (count("sgi_per_ipi", 1.0, 0.0), latency("notify", 5.0)), Verdict.FAIL, "It says so."
    )
    found = files(Results(ENVIRONMENT, (result,)), RULES)
    assert list(found) == [PAGE]
    text = found[PAGE]
    assert "2025-03-04" in text
    assert tables(text) == [
        [
            [*summary.VERDICTS],
            ["---"] * 5,
            [
                *("ipi, cvm", "FAIL", "Title of sgi_per_ipi: 1.00 → 0"),
                *("IPI notification 7 µs → < 3 µs: 2.33", "notify: 5.00, not told"),
            ],
        ]
    ]
    assert "Target" not in text
    assert "![" not in text


def test_without_its_rule_an_experiment_has_its_verdict(whole: Results) -> None:
    found = files(whole, {})
    assert list(found) == [PAGE]
    assert tables(found[PAGE])[0][2:] == [["blackbox, cvm", "PASS", "n/a", "", "n/a"]]
    assert "Target" not in found[PAGE]


def test_any_experiment_may_have_a_goal() -> None:
    rule = Rule(lambda _: (Verdict.PASS, ""), "warp_ns", goal=Goal("twice as fast", ("warp_ns",), 2.0))
    metrics = (latency("warp_ns", 3.0, (2.5, 3.5)), latency("other_ns", 1.0))
    text = page(Results(ENVIRONMENT, (Result("warp", "vm", metrics, Verdict.PASS, ""),)), {"warp": rule})
    assert tables(text)[0][2][3:] == ["twice as fast: 2", "warp_ns: 3.00 [2.50, 3.50], met"]
    assert "Target" not in text


def test_no_results_give_a_page() -> None:
    assert list(files(Results({}, ()), RULES)) == [PAGE]


def test_other_features_are_beside_blackbox(whole: Results, text: str) -> None:
    other = Result("ipi", "cvm", (count("sgi_per_ipi", 1.0, 0.0), latency("notify", 5.0)), Verdict.PASS, "")
    both = page(replace(whole, results=(other, *whole.results)), RULES)
    assert [row[0] for row in rows(both, "experiment")][:2] == ["ipi, cvm", "blackbox, cvm"]
    # Its times are not among those of the database.
    assert tables(both)[1:] == tables(text)[1:]


@pytest.mark.parametrize("hostile", ["a|b", "|", "||| --- |", "\\|"])
def test_a_title_cannot_break_a_table(text: str, hostile: str) -> None:
    other = page(results(title=hostile), RULES)
    assert [[len(line) for line in table] for table in tables(other)] == [
        [len(line) for line in table] for table in tables(text)
    ]
    metric = replace(count("sgi_per_ipi", 1.0, 0.0), title=hostile)
    verdicts = page(Results({}, (Result(f"ipi{hostile}", hostile, (metric,), Verdict.PASS, ""),)), RULES)
    assert len(rows(verdicts, "experiment")[0]) == 5


# Its pictures


def test_pictures_are_those_of_the_main_metrics(written: Mapping[str, str]) -> None:
    assert set(written) == {
        PAGE,
        *(f"{what}-{load}.svg" for what in ("where-the-time-goes", "latency") for load in MAIN_METRICS),
    }


def test_the_page_shows_each_picture_and_no_other(written: Mapping[str, str], text: str) -> None:
    shown = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert [name for _, name in shown] == [name for name in written if name != PAGE]
    # Who cannot see one reads what it shows.
    assert ("where the time goes audit", "where-the-time-goes-audit.svg") in shown


def test_pictures_are_whole_and_stand_by_themselves(written: Mapping[str, str]) -> None:
    for name, picture in written.items():
        if name == PAGE:
            continue
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in picture
        assert not re.search("#0000(0[1-8]|1[0-6])", picture)
        identifiers = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(identifiers) == len(set(identifiers))
        references = re.findall(r"url\(#([^)]*)\)", picture) + re.findall('href="#([^"]*)"', picture)
        assert set(references) <= set(identifiers)
        # Nothing is loaded from elsewhere.
        assert not re.search(r'href="[^#]|@import|<image', picture)


def words(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    return [(text.text or "").strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_are_of_off_and_on_the_judged_machine_first(written: Mapping[str, str]) -> None:
    found = words(written["where-the-time-goes-tpcb.svg"])
    assert [one for one in found if re.match(r"(cvm|vm|plain), ", one)] == ["cvm, off", "cvm, on", "vm, off"]
    for part in ("client", "rpc", "rtt"):
        assert f"Database: {part}" in found


def test_off_is_before_on_whatever_came_first() -> None:
    found = words(
        files(results(tuple(reversed(tuple(COMBINATIONS)))), RULES)["where-the-time-goes-audit.svg"]
    )
    assert [one for one in found if re.match(r"c?vm, ", one)] == ["cvm, off", "cvm, on", "vm, off"]


def test_latencies_are_drawn_with_those_of_other_machines(written: Mapping[str, str]) -> None:
    assert {"off", "on", "vm, feature off"} <= set(words(written["latency-insert.svg"]))


def test_pictures_are_well_formed_whatever_a_title_says() -> None:
    hostile = "<script>&amp;]]>--\"'"
    found = files(results(("off", "on"), title=hostile), RULES)
    assert len(found) == 7
    for name, picture in found.items():
        if name != PAGE:
            assert "<script" not in picture
            ElementTree.fromstring(picture)
    assert f"{hostile}: rpc" in words(found["where-the-time-goes-audit.svg"])


# On disk


def test_summarise_writes_all_of_it(tmp_path: Path, whole: Results, written: Mapping[str, str]) -> None:
    place = tmp_path / "new" / "summary"
    assert sorted(path.name for path in summarise(whole, RULES, place)) == sorted(written)
    assert {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()} == written


def test_summarise_replaces_what_is_older_and_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("older")
    (tmp_path / "notes").write_text("mine")
    assert summarise(Results(ENVIRONMENT, ()), RULES, tmp_path) == [tmp_path / PAGE]
    assert (tmp_path / PAGE).read_text(encoding="utf-8").startswith("Measured 2025-03-04")
    assert (tmp_path / "notes").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", PAGE]


def test_summarise_into_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(CvmtuneError, match="cannot make the directory") as caught:
            summarise(Results({}, ()), RULES, place)
        assert caught.value.where == str(place)
    assert (tmp_path / "taken").read_text() == "a file"
