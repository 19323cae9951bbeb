# SPDX-License-Identifier: Apache-2.0
"""The result file, schema 1: what `cvmtune prove --json` writes and `cvmtune report` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.fields import Fields, interval, number
from cvmtune.experiments.rounds import BETTER, KINDS, Better, Heading, Kind
from cvmtune.report.gains import Factorial
from cvmtune.report.stats import Stats

SCHEMA = 1

_HEAD = ("name", "title", "unit", "kind", "better")


class Verdict(StrEnum):
    """What the counts say of a feature; UNDECIDED where they show nothing either way."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Metric(Heading):
    """One metric with the feature off and on.

    `ratio` is off/on of the means where lower is better, on/off where higher is, so above 1 is always
    better; None where the denominator is not positive. `ci95` is its 95 % interval over rounds, None where
    there is none.
    """

    off: Stats
    on: Stats
    ratio: float | None
    ci95: tuple[float, float] | None

    @classmethod
    def from_json(cls, data: object, where: str = "metric") -> Metric:
        fields = Fields(data, where, (*_HEAD, "off", "on", "ratio", "ci95"))
        off, on = fields.one("off", Stats.from_json), fields.one("on", Stats.from_json)
        ratio, ci95 = fields.maybe("ratio", number), fields.maybe("ci95", interval)
        return cls(*_head(fields), off, on, ratio, ci95)


@dataclass(frozen=True)
class Result:
    """The verdict on one feature on one machine, and the metrics that it rests on."""

    feature: str
    machine: str
    metrics: tuple[Metric, ...]
    verdict: Verdict
    why: str

    @classmethod
    def from_json(cls, data: object, where: str = "result") -> Result:
        fields = Fields(data, where, ("feature", "machine", "metrics", "verdict", "why"))
        return cls(
            feature=fields.text("feature"),
            machine=fields.text("machine"),
            metrics=fields.each("metrics", Metric.from_json),
            verdict=fields.choice("verdict", Verdict),
            why=fields.text("why"),
        )


@dataclass(frozen=True)
class BaselineMetric(Heading):
    """One metric of a baseline: there is no off and on, only its values."""

    values: Stats

    @classmethod
    def from_json(cls, data: object, where: str = "metric") -> BaselineMetric:
        fields = Fields(data, where, (*_HEAD, "values"))
        return cls(*_head(fields), fields.one("values", Stats.from_json))


@dataclass(frozen=True)
class Baseline:
    """Something to hold the results against, as an ordinary VM; it has no verdict."""

    name: str
    machine: str
    metrics: tuple[BaselineMetric, ...]

    @classmethod
    def from_json(cls, data: object, where: str = "baseline") -> Baseline:
        fields = Fields(data, where, ("name", "machine", "metrics"))
        metrics = fields.each("metrics", BaselineMetric.from_json)
        return cls(fields.text("name"), fields.text("machine"), metrics)


@dataclass(frozen=True)
class Part:
    """A part of a metric's mean, in the metric's unit."""

    name: str
    title: str
    mean: float

    @classmethod
    def from_json(cls, data: object, where: str = "part") -> Part:
        fields = Fields(data, where, ("name", "title", "mean"))
        return cls(fields.text("name"), fields.text("title"), fields.number("mean"))


@dataclass(frozen=True)
class Breakdown:
    """What a metric's mean is made of in one state of one machine; the parts add up to it."""

    machine: str
    state: str
    metric: str
    title: str
    unit: str
    parts: tuple[Part, ...]

    @classmethod
    def from_json(cls, data: object, where: str = "breakdown") -> Breakdown:
        fields = Fields(data, where, ("machine", "state", "metric", "title", "unit", "parts"))
        return cls(
            machine=fields.text("machine"),
            state=fields.text("state"),
            metric=fields.text("metric"),
            title=fields.text("title"),
            unit=fields.text("unit"),
            parts=fields.each("parts", Part.from_json),
        )


@dataclass(frozen=True)
class Results:
    """A whole result file."""

    environment: Mapping[str, object]
    results: tuple[Result, ...]
    baselines: tuple[Baseline, ...] = ()
    factorials: tuple[Factorial, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()

    def measured(self, metric: Metric) -> tuple[tuple[str, Stats], ...]:
        """All there is of one metric, each with its label: off, on, then every baseline that has it."""
        beside = [
            (baseline.name, other.values)
            for baseline in self.baselines
            for other in baseline.metrics
            if other.name == metric.name
        ]
        return (("off", metric.off), ("on", metric.on), *beside)

    def beside(self) -> tuple[tuple[BaselineMetric, tuple[tuple[str, Stats], ...]], ...]:
        """Metrics that only baselines have, each with its labels and figures: nothing is judged by them."""
        judged = {metric.name for result in self.results for metric in result.metrics}
        found: dict[str, tuple[BaselineMetric, list[tuple[str, Stats]]]] = {}
        for baseline in self.baselines:
            for metric in baseline.metrics:
                if metric.name not in judged:
                    _, figures = found.setdefault(metric.name, (metric, []))
                    figures.append((baseline.name, metric.values))
        return tuple((metric, tuple(figures)) for metric, figures in found.values())

    def to_json(self) -> dict[str, object]:
        """The file's content as objects that json.dumps takes."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Results:
        """Read a file's content; CvmtuneError names the field that is wrong, or the unknown schema."""
        # The number comes first: of another schema, no other complaint would make sense.
        number = data.get("schema") if isinstance(data, dict) else None
        if isinstance(data, dict) and (type(number) is not int or number != SCHEMA):
            raise CvmtuneError(f"schema {number!r} is not known, only {SCHEMA} is", "file.schema")
        optional = ("baselines", "factorials", "breakdowns")
        fields = Fields(data, "file", ("schema", "environment", "results"), optional)
        return cls(
            environment=fields.environment("environment"),
            results=fields.each("results", Result.from_json),
            baselines=fields.each("baselines", Baseline.from_json) if fields.has("baselines") else (),
            factorials=fields.each("factorials", Factorial.from_json) if fields.has("factorials") else (),
            breakdowns=fields.each("breakdowns", Breakdown.from_json) if fields.has("breakdowns") else (),
        )


def load(path: Path) -> Results:
    """Read the result file at `path`; CvmtuneError if it cannot be read or is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CvmtuneError(f"cannot read the result file: {error.strerror}", str(path)) from error
    except (ValueError, RecursionError) as error:
        raise CvmtuneError(f"not a JSON file: {error}", str(path)) from error
    try:
        return Results.from_json(data)
    except CvmtuneError as error:
        raise CvmtuneError(error.what, f"{path}: {error.where}", "was it written by this version?") from error


def _head(fields: Fields) -> tuple[str, str, str, Kind, Better]:
    """What Heading.head() gives."""
    name, title, unit = (fields.text(field) for field in ("name", "title", "unit"))
    return name, title, unit, fields.choice("kind", KINDS), fields.choice("better", BETTER)
