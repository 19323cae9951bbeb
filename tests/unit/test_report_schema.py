# SPDX-License-Identifier: Apache-2.0
"""The result file survives a round trip, and is refused with the field's path where it is wrong."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import BETTER, KINDS
from cvmtune.report import render, schema
from cvmtune.report.gains import Cell, Effect, Factorial, Gain, Interaction, Step
from cvmtune.report.schema import Baseline, BaselineMetric, Breakdown, Metric, Part, Result, Results, Verdict
from cvmtune.report.stats import Stats

Place = tuple[str | int, ...]

finite = st.floats(allow_nan=False, allow_infinity=False)
stats = (
    st.lists(finite, min_size=1, max_size=4)
    .map(tuple)
    .flatmap(
        lambda kept: st.builds(
            Stats, n=st.integers(len(kept)), median=finite, p99=finite, mean=finite, samples=st.just(kept)
        )
    )
)
kinds, betters = st.sampled_from(KINDS), st.sampled_from(BETTER)
intervals = st.tuples(finite, finite).map(lambda ends: (min(ends), max(ends)))
metrics = st.builds(
    Metric,
    kind=kinds,
    better=betters,
    off=stats,
    on=stats,
    ratio=st.none() | finite,
    ci95=st.none() | intervals,
)
measured = st.builds(
    Result, metrics=st.lists(metrics, max_size=2).map(tuple), verdict=st.sampled_from(Verdict)
)
effects = st.builds(Effect, ratio=finite, ci95=st.none() | intervals)
factorials = st.builds(
    Factorial,
    cells=st.lists(st.builds(Cell, values=stats, gain=st.none() | effects), max_size=2).map(tuple),
    gains=st.lists(
        st.builds(Gain, alone=effects, last=st.none() | effects, overall=st.none() | effects), max_size=2
    ).map(tuple),
    interactions=st.lists(st.builds(Interaction, effect=effects), max_size=2).map(tuple),
    steps=st.lists(st.builds(Step, gain=effects, together=effects), max_size=2).map(tuple),
)
breakdowns = st.builds(Breakdown, parts=st.lists(st.builds(Part, mean=finite), max_size=2).map(tuple))
results = st.builds(
    Results,
    environment=st.dictionaries(st.text(), st.text() | st.integers() | finite | st.lists(finite)),
    results=st.lists(measured, max_size=2).map(tuple),
    baselines=st.lists(
        st.builds(
            Baseline,
            metrics=st.lists(
                st.builds(BaselineMetric, kind=kinds, better=betters, values=stats), max_size=2
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    factorials=st.lists(factorials, max_size=2).map(tuple),
    breakdowns=st.lists(breakdowns, max_size=2).map(tuple),
)


def figures() -> dict[str, Any]:
    return {"n": 3, "median": 2, "p99": 3, "mean": 2, "samples": [1, 2, 3]}


HEAD = {"name": "notify", "title": "t", "unit": "ns", "kind": "time", "better": "lower"}
GOOD: dict[str, Any] = {
    "schema": 1,
    "environment": {"kernel": "6.12"},
    "results": [
        {
            "feature": "ipi",
            "machine": "cvm",
            "metrics": [{**HEAD, "off": figures(), "on": figures(), "ratio": 5.1, "ci95": [4.8, 5.6]}],
            "verdict": "PASS",
            "why": "because",
        }
    ],
    "baselines": [{"name": "vm, feature off", "machine": "vm", "metrics": [{**HEAD, "values": figures()}]}],
}


def effect() -> dict[str, Any]:
    return {"ratio": 1.5, "ci95": [1.25, 2]}


# With all that there may be.
FULL: dict[str, Any] = {
    **GOOD,
    "factorials": [
        {
            **{"machine": "cvm", "metric": "insert", "title": "Inserts", "unit": "ns"},
            "factors": ["ipi", "wfx"],
            "cells": [
                {"on": [], "values": figures(), "gain": None},
                {"on": ["ipi", "wfx"], "values": figures(), "gain": effect()},
            ],
            "gains": [
                {"factor": "ipi", "alone": {"ratio": 2, "ci95": None}, "last": None, "overall": None},
                {"factor": "wfx", "alone": effect(), "last": effect(), "overall": effect()},
            ],
            "interactions": [{"first": "ipi", "second": "wfx", "effect": effect()}],
            "steps": [{"factor": "wfx", "gain": effect(), "together": {"ratio": 2.0, "ci95": None}}],
        }
    ],
    "breakdowns": [
        {
            **{"machine": "cvm", "state": "off", "metric": "insert", "title": "Inserts", "unit": "ns"},
            "parts": [{"name": "queue", "title": "in a queue", "mean": -0.5}],
        }
    ],
}


@given(results)
def test_survives_json(data: Results) -> None:
    assert Results.from_json(json.loads(json.dumps(data.to_json()))) == data


def test_reads_what_render_wrote(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("older")
    render(Results.from_json(GOOD), {}, html=None, json=path)
    assert schema.load(path) == Results.from_json(GOOD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_baselines_may_be_absent() -> None:
    data = {key: value for key, value in GOOD.items() if key != "baselines"}
    assert Results.from_json(data).baselines == ()


def test_factorials_and_breakdowns_are_read_as_they_are() -> None:
    found = Results.from_json(FULL)
    some, values = Effect(1.5, (1.25, 2.0)), Stats(3, 2.0, 3.0, 2.0, (1.0, 2.0, 3.0))
    assert found.factorials == (
        Factorial(
            machine="cvm",
            metric="insert",
            title="Inserts",
            unit="ns",
            factors=("ipi", "wfx"),
            cells=(Cell((), values, None), Cell(("ipi", "wfx"), values, some)),
            gains=(Gain("ipi", Effect(2.0, None), None, None), Gain("wfx", some, some, some)),
            interactions=(Interaction("ipi", "wfx", some),),
            steps=(Step("wfx", some, Effect(2.0, None)),),
        ),
    )
    assert found.breakdowns == (
        Breakdown("cvm", "off", "insert", "Inserts", "ns", (Part("queue", "in a queue", -0.5),)),
    )


@pytest.mark.parametrize("field", ["baselines", "factorials", "breakdowns"])
def test_files_of_earlier_versions_lack_what_came_later(field: str) -> None:
    whole = Results.from_json(FULL)
    absent = Results.from_json({key: value for key, value in FULL.items() if key != field})
    null = Results.from_json({**FULL, field: None})
    for one in (absent, null):
        for name in ("environment", "results", "baselines", "factorials", "breakdowns"):
            assert getattr(one, name) == (() if name == field else getattr(whole, name))


def test_a_metric_is_measured_off_on_and_in_baselines() -> None:
    data = Results.from_json(GOOD)
    labels = [label for label, _ in data.measured(data.results[0].metrics[0])]
    assert labels == ["off", "on", "vm, feature off"]


METRIC = ("results", 0, "metrics", 0)
FACTORIAL = ("factorials", 0)
CELL, GAIN, INTERACTION = (*FACTORIAL, "cells", 1), (*FACTORIAL, "gains", 1), (*FACTORIAL, "interactions", 0)
BREAKDOWN = ("breakdowns", 0)


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("schema",), 2, "file.schema"),
        (("schema",), "1", "file.schema"),
        (("schema",), True, "file.schema"),
        (("results",), None, "file.results"),
        (("extra",), 1, "file.extra"),
        (("environment", "kernel"), None, "file.environment.kernel"),
        (("results", 0, "verdict"), "MAYBE", "file.results[0].verdict"),
        (("results", 0, "machine"), None, "file.results[0].machine"),
        (("results", 0, "why"), None, "file.results[0].why"),
        ((*METRIC, "kind"), "speed", "file.results[0].metrics[0].kind"),
        ((*METRIC, "ratio"), "5", "file.results[0].metrics[0].ratio"),
        ((*METRIC, "ci95"), [1], "file.results[0].metrics[0].ci95"),
        ((*METRIC, "ci95"), [2, 1], "file.results[0].metrics[0].ci95"),
        ((*METRIC, "off", "n"), 2, "file.results[0].metrics[0].off.n"),
        ((*METRIC, "off", "p99"), None, "file.results[0].metrics[0].off.p99"),
        ((*METRIC, "on", "samples"), [1, None], "file.results[0].metrics[0].on.samples[1]"),
        (("baselines", 0, "metrics", 0, "values"), 1, "file.baselines[0].metrics[0].values"),
        (("factorials",), {}, "file.factorials"),
        (FACTORIAL, "insert", "file.factorials[0]"),
        ((*FACTORIAL, "metric"), 1, "file.factorials[0].metric"),
        ((*FACTORIAL, "machine"), None, "file.factorials[0].machine"),
        ((*FACTORIAL, "title"), [], "file.factorials[0].title"),
        ((*FACTORIAL, "unit"), True, "file.factorials[0].unit"),
        ((*FACTORIAL, "factors"), "ipi", "file.factorials[0].factors"),
        ((*FACTORIAL, "factors"), ["ipi", 2], "file.factorials[0].factors[1]"),
        ((*FACTORIAL, "cells"), {}, "file.factorials[0].cells"),
        ((*CELL, "on"), None, "file.factorials[0].cells[1].on"),
        ((*CELL, "on"), ["ipi", None], "file.factorials[0].cells[1].on[1]"),
        ((*CELL, "values", "mean"), "2", "file.factorials[0].cells[1].values.mean"),
        ((*CELL, "gain"), 1.5, "file.factorials[0].cells[1].gain"),
        ((*CELL, "gain", "ratio"), None, "file.factorials[0].cells[1].gain.ratio"),
        ((*CELL, "gain", "ci95"), [2, 1], "file.factorials[0].cells[1].gain.ci95"),
        ((*GAIN, "factor"), 1, "file.factorials[0].gains[1].factor"),
        ((*GAIN, "alone"), None, "file.factorials[0].gains[1].alone"),
        ((*GAIN, "last"), 2.5, "file.factorials[0].gains[1].last"),
        ((*GAIN, "last", "ratio"), "2", "file.factorials[0].gains[1].last.ratio"),
        ((*GAIN, "overall", "ci95"), [1], "file.factorials[0].gains[1].overall.ci95"),
        ((*INTERACTION, "first"), None, "file.factorials[0].interactions[0].first"),
        ((*INTERACTION, "second"), 2, "file.factorials[0].interactions[0].second"),
        ((*INTERACTION, "effect"), None, "file.factorials[0].interactions[0].effect"),
        ((*INTERACTION, "effect", "ci95"), ["1", 2], "file.factorials[0].interactions[0].effect.ci95[0]"),
        (("breakdowns",), "insert", "file.breakdowns"),
        ((*BREAKDOWN, "machine"), 1, "file.breakdowns[0].machine"),
        ((*BREAKDOWN, "state"), None, "file.breakdowns[0].state"),
        ((*BREAKDOWN, "metric"), [], "file.breakdowns[0].metric"),
        ((*BREAKDOWN, "title"), 1, "file.breakdowns[0].title"),
        ((*BREAKDOWN, "unit"), 1, "file.breakdowns[0].unit"),
        ((*BREAKDOWN, "parts"), {}, "file.breakdowns[0].parts"),
        ((*BREAKDOWN, "parts", 0), None, "file.breakdowns[0].parts[0]"),
        ((*BREAKDOWN, "parts", 0, "name"), 1, "file.breakdowns[0].parts[0].name"),
        ((*BREAKDOWN, "parts", 0, "title"), None, "file.breakdowns[0].parts[0].title"),
        ((*BREAKDOWN, "parts", 0, "mean"), None, "file.breakdowns[0].parts[0].mean"),
    ],
)
def test_refuses_a_wrong_field(place: Place, value: object, where: str) -> None:
    data = copy.deepcopy(FULL)
    at(data, place[:-1])[place[-1]] = value
    with pytest.raises(CvmtuneError) as caught:
        Results.from_json(data)
    assert caught.value.where == where


def at(data: Any, place: Place) -> Any:
    for step in place:
        data = data[step]
    return data


def objects(data: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """The place and the path of each object in a file whose fields are known by name."""
    if isinstance(data, dict):
        yield place, "file" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in items:
        if step != "environment":
            yield from objects(value, (*place, step))


OBJECTS = list(objects(FULL))


@pytest.mark.parametrize(("place", "path"), OBJECTS, ids=[path for _, path in OBJECTS])
def test_refuses_a_missing_and_an_unknown_field_of_each_object(place: Place, path: str) -> None:
    optional = ("baselines", "factorials", "breakdowns")
    for name in [name for name in at(FULL, place) if place or name not in ("schema", *optional)]:
        data = copy.deepcopy(FULL)
        del at(data, place)[name]
        with pytest.raises(CvmtuneError) as caught:
            Results.from_json(data)
        assert (caught.value.what, caught.value.where) == ("missing", f"{path}.{name}")
    data = copy.deepcopy(FULL)
    at(data, place)["colour"] = 1
    with pytest.raises(CvmtuneError) as caught:
        Results.from_json(data)
    assert (caught.value.what, caught.value.where) == ("unknown field", f"{path}.colour")


def test_refuses_a_file_without_schema() -> None:
    with pytest.raises(CvmtuneError, match="schema None"):
        Results.from_json({})


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"schema": 1}', "\xff", "[" * 100_000])
def test_load_names_the_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CvmtuneError) as caught:
        schema.load(path)
    assert str(path) in caught.value.where


def test_load_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(CvmtuneError, match="No such file"):
        schema.load(tmp_path / "absent.json")


def test_render_into_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CvmtuneError, match="cannot write"):
        render(Results.from_json(GOOD), {}, html=None, json=tmp_path / "absent" / "results.json")


def test_render_leaves_nothing_aside_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(CvmtuneError, match="cannot write"):
        render(Results.from_json(GOOD), {}, html=None, json=tmp_path / "taken")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
