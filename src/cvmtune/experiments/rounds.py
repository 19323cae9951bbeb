# SPDX-License-Identifier: Apache-2.0
"""What an experiment hands over: raw samples by round, and the strict reader of such files.

Collecting is apart from judging, so that a run can be judged again from disk, by later rules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from cvmtune.core.errors import CvmtuneError

Kind = Literal["count", "time"]
Better = Literal["lower", "higher"]
KINDS: tuple[Kind, ...] = ("count", "time")
BETTER: tuple[Better, ...] = ("lower", "higher")

PART = "/"
"""In the name of a series: it is a part of another's mean."""

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """The samples of one metric in one round, in `unit`.

    A name with a slash is a part of another metric: "write/queue" has the means that add up, with those of
    the other parts, to that of "write". ValueError if there are none, or one is not a finite number.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"series {self.name!r} has no samples")
        if not all(is_finite(sample) for sample in self.samples):
            raise ValueError(f"series {self.name!r} has a sample that is not a finite number")

    @classmethod
    def from_json(cls, data: object, where: str = "series") -> Series:
        """Read what `RawRun.to_json` wrote; CvmtuneError names the field that is wrong."""
        fields = Fields(data, where, ("name", "title", "unit", "kind", "better", "samples"))
        return cls(
            name=fields.text("name"),
            title=fields.text("title"),
            unit=fields.text("unit"),
            kind=fields.choice("kind", KINDS),
            better=fields.choice("better", BETTER),
            samples=fields.numbers("samples"),
        )


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
    """

    state: str
    index: int
    series: tuple[Series, ...]

    def __post_init__(self) -> None:
        _refuse_repeats("series", (series.name for series in self.series))

    @classmethod
    def from_json(cls, data: object, where: str = "round") -> Round:
        """Read what `RawRun.to_json` wrote; CvmtuneError names the field that is wrong."""
        fields = Fields(data, where, ("state", "index", "series"))
        series = fields.each("series", Series.from_json)
        return fields.build(lambda: cls(fields.text("state"), fields.integer("index"), series))


@dataclass(frozen=True)
class RawRun:
    """All rounds of one experiment on one machine, between one boot and its shutdown."""

    feature: str
    machine: str
    rounds: tuple[Round, ...]
    environment: Mapping[str, object]

    def __post_init__(self) -> None:
        _refuse_repeats("round", (f"{one.state} {one.index}" for one in self.rounds))

    def to_json(self) -> dict[str, object]:
        """The run as objects that json.dumps takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, where: str = "run") -> RawRun:
        """Read what `to_json` wrote; CvmtuneError names the field that is wrong."""
        fields = Fields(data, where, ("feature", "machine", "rounds", "environment"))
        rounds = fields.each("rounds", Round.from_json)
        environment = fields.environment("environment")
        return fields.build(lambda: cls(fields.text("feature"), fields.text("machine"), rounds, environment))


class Fields:
    """One JSON object, read strictly: no field missing, none unknown, every complaint with its path."""

    def __init__(self, data: object, where: str, names: Iterable[str], optional: Iterable[str] = ()) -> None:
        self._where = where
        required = set(names)
        if not isinstance(data, dict):
            raise CvmtuneError(f"expected an object, found {_kind_of(data)}", where)
        self._data: dict[str, object] = data
        for name in sorted(required - data.keys()):
            raise self.error(name, "missing")
        for name in sorted(data.keys() - required - set(optional), key=str):
            raise self.error(str(name), "unknown field")

    def error(self, name: str, problem: str) -> CvmtuneError:
        """The error to raise for field `name`."""
        return CvmtuneError(problem, f"{self._where}.{name}")

    def build(self, make: Callable[[], T]) -> T:
        """`make()`, with its ValueError turned into an error that names this object."""
        try:
            return make()
        except ValueError as error:
            raise CvmtuneError(str(error), self._where) from error

    def text(self, name: str) -> str:
        value = self._data[name]
        if not isinstance(value, str):
            raise self.error(name, f"expected text, found {_kind_of(value)}")
        return value

    def integer(self, name: str) -> int:
        value = self._data[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(name, f"expected a whole number, found {_kind_of(value)}")
        return value

    def number(self, name: str) -> float:
        return _number(self._data[name], f"{self._where}.{name}")

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of at least one finite number."""
        values = self._list(name)
        if not values:
            raise self.error(name, "empty")
        return tuple(_number(value, f"{self._where}.{name}[{i}]") for i, value in enumerate(values))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, which may be empty."""
        values = self._list(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(f"{name}[{i}]", f"expected text, found {_kind_of(value)}")
        return tuple(str(value) for value in values)

    def choice(self, name: str, options: tuple[T, ...]) -> T:
        value = self._data[name]
        for option in options:
            if value == option:
                return option
        raise self.error(name, f"expected one of {', '.join(map(str, options))}, found {value!r}")

    def each(self, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """Every element of a list, read by `read(element, path)`."""
        return tuple(read(value, f"{self._where}.{name}[{i}]") for i, value in enumerate(self._list(name)))

    def one(self, name: str, read: Callable[[object, str], T]) -> T:
        """A nested object, read by `read(value, path)`."""
        return read(self._data[name], f"{self._where}.{name}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._data.get(name) is not None

    def environment(self, name: str) -> Mapping[str, object]:
        """An object whose values are texts, numbers, lists or objects."""
        value = self._data[name]
        if not isinstance(value, dict):
            raise self.error(name, f"expected an object, found {_kind_of(value)}")
        for key, item in value.items():
            if not isinstance(item, (str, int, float, list, dict)):
                problem = f"expected text, number, list or object, found {_kind_of(item)}"
                raise self.error(f"{name}.{key}", problem)
        return value

    def _list(self, name: str) -> list[object] | tuple[object, ...]:
        value = self._data[name]
        # to_json leaves tuples as they are: json.dumps writes both alike.
        if not isinstance(value, (list, tuple)):
            raise self.error(name, f"expected a list, found {_kind_of(value)}")
        return value


def is_finite(value: float) -> bool:
    """Whether `value` fits a float and is neither NaN nor infinite; it may be an integer of any size."""
    return abs(value) <= sys.float_info.max


def _number(value: object, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise CvmtuneError(f"expected a number, found {_kind_of(value)}", where)
    if not is_finite(value):
        raise CvmtuneError("expected a finite number", where)
    return float(value)


def _kind_of(value: object) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} appears twice")
        seen.add(name)
