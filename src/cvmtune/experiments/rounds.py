# SPDX-License-Identifier: Apache-2.0
"""What an experiment hands over: raw samples by round. Collecting is apart from judging."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from cvmtune.core.errors import CvmtuneError

Kind = Literal["count", "time"]
Better = Literal["lower", "higher"]

T = TypeVar("T")

PART = "/"
"""In the name of a series: it is a part of another's mean."""


@dataclass(frozen=True)
class Heading:
    """What a metric is. `title` says what is measured from where to where."""

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better

    def head(self) -> tuple[str, str, str, Kind, Better]:
        """These fields, in their order."""
        return self.name, self.title, self.unit, self.kind, self.better


@dataclass(frozen=True)
class Series(Heading):
    """The samples of one metric in one round, in `unit`.

    A name with a slash is a part of another metric: "write/queue" has the means that add up, with those of
    the other parts, to that of "write". ValueError if there are none, or one is not a finite number.
    """

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"series {self.name!r} has no samples")
        # Not math.isfinite, which an integer may be too large for.
        if not all(abs(sample) <= sys.float_info.max for sample in self.samples):
            raise ValueError(f"series {self.name!r} has a sample that is not a finite number")


def in_turns(states: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Yield each round's index with each state, the order turned every other round, so that drift of the
    machine falls on all alike."""
    for index in range(rounds):
        for state in states if index % 2 == 0 else reversed(states):
            yield index, state


@dataclass(frozen=True)
class Round:
    """One round of an experiment in one state of the feature.

    `state` is "off" or "on", or a name of its own in a baseline (as "nohlt"). The off and the on round
    with the same `index` ran next to each other and are compared as a pair.

    `waited` tells how busy the computer was with other things: the share of the time in which the emulator
    wanted a CPU and had none, from 0 to 1; None where that is unknown.
    """

    state: str
    index: int
    series: tuple[Series, ...]
    waited: float | None = None

    def __post_init__(self) -> None:
        _refuse_repeats("series", (series.name for series in self.series))


@dataclass(frozen=True)
class RawRun:
    """All rounds of one experiment on one machine, between one boot and its shutdown.

    `environment` is the boot's. Runs of one boot share that very object, which is how they are told from runs
    of another boot that looked the same. `findings` is what this run found out beside its rounds.
    `problem` tells why there are no rounds, or too few.
    """

    feature: str
    machine: str
    rounds: tuple[Round, ...]
    environment: Mapping[str, object]
    findings: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""

    def __post_init__(self) -> None:
        _refuse_repeats("round", (f"{one.state} {one.index}" for one in self.rounds))


def headings(rounds: Iterable[Round]) -> dict[str, Heading]:
    """What each series is, parts included, by its name and in order of appearance.

    CvmtuneError where two disagree on the unit, the kind or the better direction.
    """
    found: dict[str, Heading] = {}
    for series in (series for one in rounds for series in one.series):
        first = found.setdefault(series.name, series)
        if (series.unit, series.kind, series.better) != (first.unit, first.kind, first.better):
            raise CvmtuneError("rounds disagree on the metric's unit, kind or better direction", series.name)
    return found


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} appears twice")
        seen.add(name)
