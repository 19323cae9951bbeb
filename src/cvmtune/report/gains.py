# SPDX-License-Identifier: Apache-2.0
"""What several features gain, alone and together; factorial.py computes it."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.report.stats import Effect, Stats


@dataclass(frozen=True)
class Cell:
    """One combination of features that were on, and what it gained over none of them."""

    on: tuple[str, ...]
    values: Stats
    gain: Effect | None


@dataclass(frozen=True)
class Gain:
    """What a feature gains: alone, as the last to be turned on, and in the mean over all settings of the
    others (geometric); None where the combinations for it were not measured."""

    factor: str
    alone: Effect
    last: Effect | None
    overall: Effect | None


@dataclass(frozen=True)
class Interaction:
    """By how much the gain of one feature is larger with the other on than with it off."""

    first: str
    second: str
    effect: Effect


@dataclass(frozen=True)
class Step:
    """A feature to turn on after those of the steps before: what it gains then, and all so far together."""

    factor: str
    gain: Effect
    together: Effect


@dataclass(frozen=True)
class Factorial:
    """A metric under the combinations of several features, on one machine.

    `steps` are what to turn on, in that order, as far as 95 % intervals tell.
    """

    machine: str
    metric: str
    title: str
    unit: str
    factors: tuple[str, ...]
    cells: tuple[Cell, ...]
    gains: tuple[Gain, ...]
    interactions: tuple[Interaction, ...]
    steps: tuple[Step, ...]

    @property
    def rounds(self) -> int | None:
        """How many rounds all of it rests on; None where that is unknown."""
        return next((gain.alone.rounds for gain in self.gains), None)
