# SPDX-License-Identifier: Apache-2.0
"""The result file, schema 1: what `cvmtune prove --json` writes and `cvmtune report` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cvmtune.bench.raw import BETTER, KINDS, Better, Fields, Kind
from cvmtune.core.errors import CvmtuneError

SCHEMA = 1

Verdict = Literal["PASS", "FAIL", "UNDECIDED"]
VERDICTS: tuple[Verdict, ...] = ("PASS", "FAIL", "UNDECIDED")

_METRIC_HEAD = ("name", "title", "unit", "kind", "better")


@dataclass(frozen=True)
class Stats:
    """Figures over all `n` samples of a metric, in its unit; `samples` may be a thinned selection of them."""

    n: int
    median: float
    p99: float
    mean: float
    samples: tuple[float, ...]

    @classmethod
    def from_json(cls, data: object, where: str = "stats") -> Stats:
        fields = Fields(data, where, ("n", "median", "p99", "mean", "samples"))
        n, samples = fields.integer("n"), fields.numbers("samples")
        if n < len(samples):
            raise fields.error("n", f"{n}, but {len(samples)} samples are listed")
        return cls(n, fields.number("median"), fields.number("p99"), fields.number("mean"), samples)


@dataclass(frozen=True)
class Metric:
    """One metric with the feature off and on.

    `ratio` is off/on of the means where lower is better, on/off where higher is, so above 1 is always
    better; None where the denominator is not positive. `ci95` is its 95 % interval over rounds, None where
    there is none.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better
    off: Stats
    on: Stats
    ratio: float | None
    ci95: tuple[float, float] | None

    @classmethod
    def from_json(cls, data: object, where: str = "metric") -> Metric:
        fields = Fields(data, where, (*_METRIC_HEAD, "off", "on", "ratio", "ci95"))
        return cls(
            name=fields.text("name"),
            title=fields.text("title"),
            unit=fields.text("unit"),
            kind=fields.choice("kind", KINDS),
            better=fields.choice("better", BETTER),
            off=fields.one("off", Stats.from_json),
            on=fields.one("on", Stats.from_json),
            ratio=fields.number("ratio") if fields.has("ratio") else None,
            ci95=_interval(fields) if fields.has("ci95") else None,
        )


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
            verdict=fields.choice("verdict", VERDICTS),
            why=fields.text("why"),
        )


@dataclass(frozen=True)
class BaselineMetric:
    """One metric of a baseline: there is no off and on, only its values."""

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better
    values: Stats

    @classmethod
    def from_json(cls, data: object, where: str = "metric") -> BaselineMetric:
        fields = Fields(data, where, (*_METRIC_HEAD, "values"))
        return cls(
            name=fields.text("name"),
            title=fields.text("title"),
            unit=fields.text("unit"),
            kind=fields.choice("kind", KINDS),
            better=fields.choice("better", BETTER),
            values=fields.one("values", Stats.from_json),
        )


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
class Results:
    """A whole result file."""

    environment: Mapping[str, object]
    results: tuple[Result, ...]
    baselines: tuple[Baseline, ...] = ()

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
        fields = Fields(data, "file", ("schema", "environment", "results"), optional=("baselines",))
        return cls(
            environment=fields.environment("environment"),
            results=fields.each("results", Result.from_json),
            baselines=fields.each("baselines", Baseline.from_json) if fields.has("baselines") else (),
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


def _interval(fields: Fields) -> tuple[float, float]:
    ends = fields.numbers("ci95")
    if len(ends) != 2 or ends[0] > ends[1]:
        raise fields.error("ci95", "expected two numbers, the lower first")
    return ends[0], ends[1]
