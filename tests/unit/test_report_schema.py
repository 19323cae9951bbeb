# SPDX-License-Identifier: Apache-2.0
"""The result file survives a round trip, and is refused with the field's path where it is wrong."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.bench.raw import BETTER, KINDS
from cvmtune.core.errors import CvmtuneError
from cvmtune.report import render, schema
from cvmtune.report.schema import VERDICTS, Baseline, BaselineMetric, Metric, Result, Results, Stats

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
    Result, metrics=st.lists(metrics, max_size=2).map(tuple), verdict=st.sampled_from(VERDICTS)
)
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


@given(results)
def test_survives_json(data: Results) -> None:
    assert Results.from_json(json.loads(json.dumps(data.to_json()))) == data


def test_reads_what_render_wrote(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("older")
    render(Results.from_json(GOOD), html=None, json=path)
    assert schema.load(path) == Results.from_json(GOOD)
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_baselines_may_be_absent() -> None:
    data = {key: value for key, value in GOOD.items() if key != "baselines"}
    assert Results.from_json(data).baselines == ()


def test_a_metric_is_measured_off_on_and_in_baselines() -> None:
    data = Results.from_json(GOOD)
    labels = [label for label, _ in data.measured(data.results[0].metrics[0])]
    assert labels == ["off", "on", "vm, feature off"]


METRIC = ("results", 0, "metrics", 0)


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
    ],
)
def test_refuses_a_wrong_field(place: tuple[str | int, ...], value: object, where: str) -> None:
    data = copy.deepcopy(GOOD)
    target: Any = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with pytest.raises(CvmtuneError) as caught:
        Results.from_json(data)
    assert caught.value.where == where


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
        render(Results.from_json(GOOD), html=None, json=tmp_path / "absent" / "results.json")


def test_render_leaves_nothing_aside_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(CvmtuneError, match="cannot write"):
        render(Results.from_json(GOOD), html=None, json=tmp_path / "taken")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
