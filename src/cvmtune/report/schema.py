# SPDX-License-Identifier: Apache-2.0
"""The result file, schema 1: what `cvmtune prove --json` writes and `cvmtune report` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import BETTER, KINDS, Better, Fields, Kind

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
class Effect:
    """A gain as a ratio, above 1 where it is one, and its 95 % interval over rounds, None where there is
    none."""

    ratio: float
    ci95: tuple[float, float] | None

    @classmethod
    def from_json(cls, data: object, where: str = "effect") -> Effect:
        fields = Fields(data, where, ("ratio", "ci95"))
        return cls(fields.number("ratio"), _interval(fields) if fields.has("ci95") else None)


@dataclass(frozen=True)
class Cell:
    """One combination of features that were on, and what it gained over none of them."""

    on: tuple[str, ...]
    values: Stats
    gain: Effect | None

    @classmethod
    def from_json(cls, data: object, where: str = "cell") -> Cell:
        fields = Fields(data, where, ("on", "values", "gain"))
        gain = fields.one("gain", Effect.from_json) if fields.has("gain") else None
        return cls(fields.texts("on"), fields.one("values", Stats.from_json), gain)


@dataclass(frozen=True)
class Gain:
    """What a feature gains: alone, as the last to be turned on, and in the mean over all settings of the
    others (geometric); None where the combinations for it were not measured."""

    factor: str
    alone: Effect
    last: Effect | None
    overall: Effect | None

    @classmethod
    def from_json(cls, data: object, where: str = "gain") -> Gain:
        fields = Fields(data, where, ("factor", "alone", "last", "overall"))
        last, overall = (
            fields.one(name, Effect.from_json) if fields.has(name) else None for name in ("last", "overall")
        )
        return cls(fields.text("factor"), fields.one("alone", Effect.from_json), last, overall)


@dataclass(frozen=True)
class Interaction:
    """By how much the gain of one feature is larger with the other on than with it off."""

    first: str
    second: str
    effect: Effect

    @classmethod
    def from_json(cls, data: object, where: str = "interaction") -> Interaction:
        fields = Fields(data, where, ("first", "second", "effect"))
        return cls(fields.text("first"), fields.text("second"), fields.one("effect", Effect.from_json))


@dataclass(frozen=True)
class Step:
    """A feature to turn on after those of the steps before: what it gains then, and all so far together."""

    factor: str
    gain: Effect
    together: Effect

    @classmethod
    def from_json(cls, data: object, where: str = "step") -> Step:
        fields = Fields(data, where, ("factor", "gain", "together"))
        gain, together = (fields.one(name, Effect.from_json) for name in ("gain", "together"))
        return cls(fields.text("factor"), gain, together)


@dataclass(frozen=True)
class Factorial:
    """A metric under the combinations of several features, on one machine."""

    machine: str
    metric: str
    title: str
    unit: str
    factors: tuple[str, ...]
    cells: tuple[Cell, ...]
    gains: tuple[Gain, ...]
    interactions: tuple[Interaction, ...]
    steps: tuple[Step, ...]

    @classmethod
    def from_json(cls, data: object, where: str = "factorial") -> Factorial:
        names = ("machine", "metric", "title", "unit", "factors", "cells", "gains", "interactions", "steps")
        fields = Fields(data, where, names)
        return cls(
            machine=fields.text("machine"),
            metric=fields.text("metric"),
            title=fields.text("title"),
            unit=fields.text("unit"),
            factors=fields.texts("factors"),
            cells=fields.each("cells", Cell.from_json),
            gains=fields.each("gains", Gain.from_json),
            interactions=fields.each("interactions", Interaction.from_json),
            steps=fields.each("steps", Step.from_json),
        )


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


def _interval(fields: Fields) -> tuple[float, float]:
    ends = fields.numbers("ci95")
    if len(ends) != 2 or ends[0] > ends[1]:
        raise fields.error("ci95", "expected two numbers, the lower first")
    return ends[0], ends[1]
