# SPDX-License-Identifier: Apache-2.0
"""What several features gain, alone and together, as the result file has it; factorial.py computes it."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.core.fields import Fields, interval
from cvmtune.report.stats import Stats


@dataclass(frozen=True)
class Effect:
    """A gain as a ratio, above 1 where it is one, and its 95 % interval over rounds, None where there is
    none."""

    ratio: float
    ci95: tuple[float, float] | None

    @classmethod
    def from_json(cls, data: object, where: str = "effect") -> Effect:
        fields = Fields(data, where, ("ratio", "ci95"))
        return cls(fields.number("ratio"), fields.maybe("ci95", interval))


@dataclass(frozen=True)
class Cell:
    """One combination of features that were on, and what it gained over none of them."""

    on: tuple[str, ...]
    values: Stats
    gain: Effect | None

    @classmethod
    def from_json(cls, data: object, where: str = "cell") -> Cell:
        fields = Fields(data, where, ("on", "values", "gain"))
        gain = fields.maybe("gain", Effect.from_json)
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
        last, overall = (fields.maybe(name, Effect.from_json) for name in ("last", "overall"))
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
