# SPDX-License-Identifier: Apache-2.0
"""Result files as they lie on disk: compressed or not, damaged, of another schema, of schema 1."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.report.gains import Cell, Factorial, Gain, Interaction
from cvmtune.report.load import load
from cvmtune.report.schema import Breakdown, Part, Results
from cvmtune.report.stats import Effect, Interval, Stats
from tests.fakes.bound import RULES

Place = tuple[str | int, ...]


def figures() -> dict[str, Any]:
    return {"n": 3, "median": 2, "p99": 3, "mean": 2, "samples": [1, 2, 3]}


def effect() -> dict[str, Any]:
    return {"ratio": 1.5, "ci95": [1.25, 2]}


HEAD = {"name": "notify", "title": "t", "unit": "ns", "kind": "time", "better": "lower"}
# With all that there may be in schema 1.
OLD: dict[str, Any] = {
    "schema": 1,
    "environment": {"kernel": "6.12", "cpus": 2, "machine": {"run 1": "cvm"}},
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


def read(directory: Path, data: Mapping[str, Any]) -> Results:
    path = directory / "results.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return load(path, RULES)


# Any file


def test_a_compressed_file_is_told_by_its_content(tmp_path: Path) -> None:
    plain = read(tmp_path, OLD)
    for name in ("results.json.gz", "results"):
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(OLD).encode()))
        assert load(tmp_path / name, RULES) == plain
    (tmp_path / "plain.gz").write_text(json.dumps(OLD))
    assert load(tmp_path / "plain.gz", RULES) == plain


@pytest.mark.parametrize("keep", [5, 40, -1])
def test_a_compressed_file_that_was_cut_names_the_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "results.json.gz"
    path.write_bytes(gzip.compress(json.dumps(OLD).encode())[:keep])
    with pytest.raises(CvmtuneError, match="damaged") as caught:
        load(path, RULES)
    assert caught.value.where == str(path)


def test_a_compressed_file_of_which_a_bit_fell_over_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json.gz"
    data = gzip.compress(json.dumps(OLD).encode())
    for place in range(2, len(data), 7):
        if 3 < place < 10:  # date, level and system: nothing rests on them
            continue
        path.write_bytes(bytes(byte ^ (place == at) for at, byte in enumerate(data)))
        with pytest.raises(CvmtuneError, match="damaged") as caught:
            load(path, RULES)
        assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file"),
        ("{", "not a JSON file"),
        ("\xff", "not a JSON file"),
        ('{"schema": NaN}', "not a JSON file"),
        ('{"schema": 2, "boots": ' + "[" * 100_000, "not a JSON file"),
        ("[]", "Expected `object`, got `array`"),
        ("1", "Expected `object`, got `int`"),
        ("{}", "schema None is not known, only 1 and 2 are"),
        *(
            (f'{{"schema": {text}, "colour": 1}}', f"schema {value!r} is not known")
            for text, value in (("3", 3), ("0", 0), ('"1"', "1"), ("true", True), ("2.0", 2.0), ("[]", []))
        ),
        ('{"schema": 1}', "missing required field `environment`"),
        ('{"schema": 2}', "missing required field `boots`"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CvmtuneError) as caught:
        load(path, RULES)
    assert message in caught.value.what
    assert caught.value.where == str(path)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(CvmtuneError, match="cannot read the result file") as caught:
            load(path, RULES)
        assert caught.value.where == str(path)


# Schema 1


def test_old_results_keep_their_verdicts(tmp_path: Path) -> None:
    found = read(tmp_path, OLD)
    (result,) = found.results
    assert (result.feature, result.machine, result.verdict, result.why) == ("ipi", "cvm", "PASS", "because")
    assert found.environment == OLD["environment"]
    labels = [label for label, _ in found.measured(result.metrics[0])]
    assert labels == ["off", "on", "vm, feature off"]


def test_old_factorials_and_breakdowns_are_read_without_steps(tmp_path: Path) -> None:
    found = read(tmp_path, OLD)
    some = Effect(1.5, Interval(1.25, 2.0, "spread"))
    values = Stats(3, 2.0, 3.0, 2.0, (1.0, 2.0, 3.0))
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
            # The file has one, which rests on an interval that is none.
            steps=(),
        ),
    )
    assert found.breakdowns == (
        Breakdown("cvm", "off", "insert", "Inserts", "ns", (Part("queue", "in a queue", -0.5),)),
    )


@pytest.mark.parametrize("field", ["baselines", "factorials", "breakdowns"])
def test_old_files_may_lack_what_came_later(tmp_path: Path, field: str) -> None:
    whole = read(tmp_path, OLD)
    less = read(tmp_path, {key: value for key, value in OLD.items() if key != field})
    for name in ("environment", "results", "baselines", "factorials", "breakdowns"):
        assert getattr(less, name) == (() if name == field else getattr(whole, name))


def test_old_intervals_are_shown_as_a_spread_and_it_is_said_why(tmp_path: Path) -> None:
    found = read(tmp_path, OLD)
    assert found.results[0].metrics[0].effect == Effect(5.1, Interval(4.8, 5.6, "spread"))
    (note,) = found.notes
    assert "shown as spread" in note


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("None was lost. Not settled: a_b, no effect in sight.", "None was lost."),
        (
            "1.5 off. Left out: c. Not settled: x, about 3 more pair(s) of rounds would tell. Not settled: "
            "siw_y, about 19 more pair(s) of rounds would tell.",
            "1.5 off. Left out: c.",
        ),
        (
            "insert: 5.19 → 1.57; mean latency off/on 1.27 [0.997, 1.62], missed. tpcb: 1.58 [1.36, 1.80], "
            "not settled. audit: 1.70 [1.68, 1.72], met.",
            "insert: 5.19 → 1.57; mean latency off/on 1.27 (0.997 to 1.62). tpcb: 1.58 (1.36 to 1.80). "
            "audit: 1.70 (1.68 to 1.72).",
        ),
    ],
)
def test_old_verdicts_do_not_repeat_what_rested_on_intervals(tmp_path: Path, why: str, said: str) -> None:
    (result,) = OLD["results"]
    assert read(tmp_path, {**OLD, "results": [{**result, "why": why}]}).results[0].why == said


METRIC = ("results", 0, "metrics", 0)
GAIN = ("factorials", 0, "gains", 1)


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("results",), None, "$.results"),
        (("environment",), [], "$.environment"),
        (("results", 0, "verdict"), "MAYBE", "$.results[0].verdict"),
        (("results", 0, "why"), None, "$.results[0].why"),
        ((*METRIC, "kind"), "speed", "$.results[0].metrics[0].kind"),
        ((*METRIC, "ratio"), "5", "$.results[0].metrics[0].ratio"),
        ((*METRIC, "ci95"), [1], "$.results[0].metrics[0].ci95"),
        ((*METRIC, "ci95"), [2, 1], "$.results[0].metrics[0]"),
        (
            ("factorials", 0, "interactions", 0, "effect", "ci95"),
            [2, 1],
            "$.factorials[0].interactions[0].effect",
        ),
        ((*METRIC, "ci95"), [1, "2"], "$.results[0].metrics[0].ci95[1]"),
        ((*METRIC, "off", "n"), 2, "$.results[0].metrics[0].off"),
        ((*METRIC, "off", "samples"), [], "$.results[0].metrics[0].off"),
        ((*METRIC, "on", "samples"), [1, None], "$.results[0].metrics[0].on.samples[1]"),
        (("baselines", 0, "metrics", 0, "values"), 1, "$.baselines[0].metrics[0].values"),
        (("factorials", 0, "cells", 1, "on"), ["ipi", None], "$.factorials[0].cells[1].on[1]"),
        ((*GAIN, "last"), 2.5, "$.factorials[0].gains[1].last"),
        ((*GAIN, "overall", "ci95"), [1], "$.factorials[0].gains[1].overall.ci95"),
        (("breakdowns", 0, "parts", 0, "mean"), None, "$.breakdowns[0].parts[0].mean"),
    ],
)
def test_what_is_wrong_in_an_old_file_is_named(
    tmp_path: Path, place: Place, value: object, where: str
) -> None:
    data: Any = copy.deepcopy(OLD)
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(CvmtuneError) as caught:
        read(tmp_path, data)
    assert caught.value.what.endswith(f"at `{where}`")
    assert caught.value.where == str(tmp_path / "results.json")
