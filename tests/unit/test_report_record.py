# SPDX-License-Identifier: Apache-2.0
"""A result file holds every round as it was measured, and each boot's environment once."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cvmtune
from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import Better, Heading, Kind, RawRun, Round, Series
from cvmtune.report import render
from cvmtune.report.judge import judge
from cvmtune.report.load import load
from cvmtune.report.record import Record, encode, json_schema
from cvmtune.report.schema import Result, Results, Verdict
from tests.fakes.bound import RULES

Place = tuple[str | int, ...]

SCHEMA_FILE = Path(cvmtune.__file__).parent / "report" / "results.schema.json"


# What a file may hold

finite = st.floats(allow_nan=False, allow_infinity=False)
HEADINGS = [
    Heading(name, f"Title of {name}", unit, kind, better)
    for number, name in enumerate(("notify", "write", "write/queue", "a,b [ü]"))
    for unit, kind, better in ((f"unit {number}", get_args(Kind)[number % 2], get_args(Better)[number // 2]),)
]


@st.composite
def series(draw: st.DrawFn) -> tuple[Series, ...]:
    chosen = draw(st.lists(st.sampled_from(HEADINGS), unique=True))
    samples = st.lists(finite | st.integers(-1000, 1000), min_size=1, max_size=3).map(tuple)
    return tuple(Series(*heading.head(), draw(samples)) for heading in chosen)


rounds = st.lists(
    st.builds(
        Round,
        st.sampled_from(("off", "on", "ipi+wfx")),
        st.integers(0, 3),
        series(),
        st.none() | st.floats(0, 1),
    ),
    max_size=4,
    unique_by=lambda one: (one.state, one.index),
).map(tuple)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(st.text(), values, max_size=2)


@st.composite
def measured(draw: st.DrawFn) -> tuple[list[RawRun], list[RawRun]]:
    """Runs of two boots, whose environments may be alike."""
    boots = [draw(objects), draw(objects)]

    def run(environment: Mapping[str, object]) -> RawRun:
        machine = draw(st.sampled_from(("cvm", "vm")))
        return RawRun(
            draw(st.sampled_from(("ipi", "wfx"))), machine, draw(rounds), environment, draw(objects)
        )

    judged, beside = [], []
    for environment in boots:
        judged += [run(environment) for _ in range(draw(st.integers(0, 2)))]
        beside += [run(environment) for _ in range(draw(st.integers(0, 2)))]
    return judged, beside


@given(measured())
def test_a_file_is_read_as_it_was_written(runs: tuple[list[RawRun], list[RawRun]]) -> None:
    judged, beside = runs
    text = encode(Record.of(judged, beside, ()))
    jsonschema.validate(json.loads(text), json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    again = msgspec.json.decode(text, type=Record).runs()
    assert again == (judged, beside)
    both = [*again[0], *again[1]]
    for one, other in zip(both, [*judged, *beside], strict=True):
        # Runs of one boot still share its environment, and no others do.
        assert [two.environment is one.environment for two in both] == [
            two.environment is other.environment for two in [*judged, *beside]
        ]


def test_schema_in_the_package_is_that_of_the_types() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json_schema(), (
        "make it anew: python -c 'import cvmtune.report.record as r; print(r.json_schema(), end=\"\")' "
        f">{SCHEMA_FILE}"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schema()))


# One file, of all that there may be

NOTIFY = Heading("notify", "Time of an IPI", "ns", "time", "lower")
SGI = Heading("sgi_per_ipi", "SGIs per IPI", "per IPI", "count", "lower")
QUEUE = Heading("notify/queue", "Of it in a queue", "ns", "time", "lower")


def at_once(state: str, index: int, sgi: float, *times: float, waited: float | None = None) -> Round:
    part = Series(*QUEUE.head(), (0.5,))
    return Round(
        state, index, (Series(*SGI.head(), (sgi,)), Series(*NOTIFY.head(), times), part), waited=waited
    )


FIRST: dict[str, object] = {"kernel": "6.12", "boot_seconds": 30.5}
SECOND: dict[str, object] = {"kernel": "6.12", "boot_seconds": 30.5}
JUDGED = [
    RawRun(
        "ipi",
        "plain",
        (at_once("off", 0, 1.0, 10.0, 12.0, waited=0.25), at_once("on", 0, 0.0, 2.0, 2.5)),
        FIRST,
        {"section_us": 31},
    )
]
BESIDE = [
    RawRun("ipi", "plain", (at_once("nohlt", 0, 1.0, 5.0),), FIRST),
    RawRun("ipi", "vm", (at_once("off", 0, 1.0, 9.0),), SECOND),
]
RESULTS = [Result("ipi", "plain", (), Verdict.PASS, "It says so.")]


def content(
    judged: Sequence[RawRun] = JUDGED,
    beside: Sequence[RawRun] = BESIDE,
    results: Sequence[Result] = RESULTS,
) -> Any:
    return json.loads(encode(Record.of(judged, beside, results)))


def test_the_form_of_a_file() -> None:
    headings = {
        one.name: {"title": one.title, "unit": one.unit, "kind": one.kind, "better": one.better}
        for one in (SGI, NOTIFY, QUEUE)
    }
    nohlt = {"sgi_per_ipi": [1.0], "notify": [5.0], "notify/queue": [0.5]}
    found = content()
    assert found == {
        "schema": 2,
        "boots": [
            {
                "environment": FIRST,
                "runs": [
                    {
                        **{"experiment": "ipi", "machine": "plain", "judged": True},
                        "findings": {"section_us": 31},
                        "headings": headings,
                        "rounds": [
                            {
                                **{"state": "off", "index": 0, "waited": 0.25},
                                "samples": {**nohlt, "notify": [10.0, 12.0]},
                            },
                            {
                                **{"state": "on", "index": 0, "waited": None},
                                "samples": {**nohlt, "sgi_per_ipi": [0.0], "notify": [2.0, 2.5]},
                            },
                        ],
                    },
                    {
                        **{"experiment": "ipi", "machine": "plain", "judged": False, "findings": {}},
                        "headings": headings,
                        "rounds": [{"state": "nohlt", "index": 0, "waited": None, "samples": nohlt}],
                    },
                ],
            },
            # It looks like the first, and is another.
            {
                "environment": SECOND,
                "runs": [
                    {
                        **{"experiment": "ipi", "machine": "vm", "judged": False, "findings": {}},
                        "headings": headings,
                        "rounds": [
                            {
                                **{"state": "off", "index": 0, "waited": None},
                                "samples": {**nohlt, "notify": [9.0]},
                            }
                        ],
                    }
                ],
            },
        ],
        "verdicts": [{"experiment": "ipi", "machine": "plain", "verdict": "PASS", "why": "It says so."}],
    }
    # Series stay in their order, which is that of the tables.
    assert list(found["boots"][0]["runs"][0]["headings"]) == ["sgi_per_ipi", "notify", "notify/queue"]


def test_rounds_that_disagree_on_a_metric_make_no_file() -> None:
    other = Round("on", 0, (Series("notify", NOTIFY.title, "s", "time", "lower", (1.0,)),))
    run = RawRun("ipi", "plain", (at_once("off", 0, 1.0, 1.0), other), {})
    with pytest.raises(CvmtuneError, match="disagree") as caught:
        Record.of([run], [], ())
    assert caught.value.where == "notify"


def test_boots_stand_in_the_order_of_both_lists_where_there_is_one() -> None:
    first, second, third = (RawRun("ipi", "vm", (), {"boot": number}) for number in range(3))
    for judged, beside, expected in (
        ([second], [first, second, third], [0, 1, 2]),
        ([first, third], [second, third], [0, 1, 2]),
        ([first, second], [second, first], [0, 1]),
        ([first, second, first], [], [0, 1]),
    ):
        boots = Record.of(judged, beside, ()).boots
        assert [boot.environment["boot"] for boot in boots] == expected
        assert sum(len(boot.runs) for boot in boots) == len(judged) + len(beside)


# Read again


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_rounds_are_judged_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", content())
    assert load(path, RULES) == judge(JUDGED, BESIDE, RULES)
    (result,) = load(path, RULES).results
    assert result.why != "It says so."


def test_a_verdict_that_is_another_now_is_told(tmp_path: Path) -> None:
    told = [Result("ipi", "plain", (), Verdict.FAIL, ""), Result("ipi", "vm", (), Verdict.FAIL, "")]
    found = load(write(tmp_path / "results.json", content(results=told)), RULES)
    assert found.results[0].verdict == "PASS"
    assert found.notes == ("ipi on plain: this version judges PASS, the file says FAIL.",)


def test_an_experiment_without_a_rule_is_shown_undecided(tmp_path: Path) -> None:
    found = load(write(tmp_path / "results.json", content()), {})
    (result,) = found.results
    assert (result.verdict, result.why) == ("UNDECIDED", "This version has no rule for the experiment.")
    assert [metric.name for metric in result.metrics] == ["sgi_per_ipi", "notify"]
    assert found.notes == ("ipi on plain: this version judges UNDECIDED, the file says PASS.",)


def test_runs_that_disagree_on_a_metric_are_named_with_the_file(tmp_path: Path) -> None:
    data = content()
    data["boots"][1]["runs"][0]["headings"]["notify"]["unit"] = "s"
    data["boots"][1]["runs"][0]["machine"] = "plain"
    data["boots"][1]["runs"][0]["rounds"][0]["state"] = "nohlt"
    path = write(tmp_path / "results.json", data)
    with pytest.raises(CvmtuneError, match="disagree") as caught:
        load(path, RULES)
    assert caught.value.where == f"{path}: notify"


RUN = ("boots", 0, "runs", 0)
ROUND = (*RUN, "rounds", 1)
IN_RUN = "`$.boots[0].runs[0]"
IN_ROUND = f"{IN_RUN}.rounds[1]"
IN_HEADING = f"{IN_RUN}.headings[...]"
ABSENT = object()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("boots",), {}, "Expected `array`, got `object` - at `$.boots`"),
        (("boots",), ABSENT, "missing required field `boots`"),
        (("extra",), 1, "unknown field `extra`"),
        (("boots", 0, "environment"), None, "at `$.boots[0].environment`"),
        ((*RUN, "experiment"), 1, f"Expected `str`, got `int` - at {IN_RUN}.experiment`"),
        ((*RUN, "judged"), "yes", f"at {IN_RUN}.judged`"),
        ((*RUN, "colour"), 1, f"unknown field `colour` - at {IN_RUN}`"),
        ((*RUN, "findings"), ABSENT, f"missing required field `findings` - at {IN_RUN}`"),
        ((*RUN, "headings", "notify", "kind"), "speed", f"'speed' - at {IN_HEADING}.kind`"),
        ((*RUN, "headings", "notify", "better"), None, f"at {IN_HEADING}.better`"),
        ((*RUN, "headings", "notify"), ABSENT, f"has 'notify', which has no heading - at {IN_RUN}`"),
        ((*ROUND, "index"), 0.5, f"at {IN_ROUND}.index`"),
        ((*ROUND, "state"), "off", f"round 'off 0' appears twice - at {IN_RUN}`"),
        ((*ROUND, "waited"), "half", f"at {IN_ROUND}.waited`"),
        ((*ROUND, "samples", "notify"), [], f"length >= 1 - at {IN_ROUND}.samples[...]`"),
        ((*ROUND, "samples", "notify"), [1, None], f"at {IN_ROUND}.samples[...][1]`"),
        ((*ROUND, "samples", "notify"), [1, True], f"at {IN_ROUND}.samples[...][1]`"),
        ((*ROUND, "samples", "notify"), [10**400], f"out of range - at {IN_ROUND}.samples[...][0]`"),
        (("verdicts", 0, "verdict"), "MAYBE", "at `$.verdicts[0].verdict`"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_the_file(
    tmp_path: Path, place: Place, value: object, message: str
) -> None:
    data = copy.deepcopy(content())
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    if value is ABSENT:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path = write(tmp_path / "results.json", data)
    with pytest.raises(CvmtuneError) as caught:
        load(path, RULES)
    assert message in caught.value.what
    assert caught.value.where == str(path)


# Written


def test_render_writes_what_was_measured_in_place_of_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("older")
    results = judge(JUDGED, BESIDE, RULES)
    render(results, RULES, html=None, json=path, judged=JUDGED, beside=BESIDE)
    assert load(path, RULES) == results
    assert json.loads(path.read_text())["verdicts"][0]["why"] == results.results[0].why
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_render_into_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CvmtuneError, match="cannot write"):
        render(Results({}, ()), {}, html=None, json=tmp_path / "absent" / "results.json")


def test_render_leaves_nothing_aside_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(CvmtuneError, match="cannot write"):
        render(Results({}, ()), {}, html=None, json=tmp_path / "taken")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
