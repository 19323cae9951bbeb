# SPDX-License-Identifier: Apache-2.0
"""A strict reader of JSON objects, for files that an earlier version or somebody else may have written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from cvmtune.core.errors import CvmtuneError

T = TypeVar("T")


class Fields:
    """One JSON object, read strictly: no field missing, none unknown, every complaint with its path.

    Each method raises CvmtuneError where the field is not what it reads.
    """

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
        """A finite number."""
        return self.one(name, number)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of at least one finite number."""
        values = self.each(name, number)
        if not values:
            raise self.error(name, "empty")
        return values

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, which may be empty."""
        values = self._list(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(f"{name}[{i}]", f"expected text, found {_kind_of(value)}")
        return tuple(str(value) for value in values)

    def choice(self, name: str, options: Iterable[T]) -> T:
        """The option that the field equals."""
        value = self._data[name]
        for option in options:
            if value == option:
                return option
        raise self.error(name, f"expected one of {', '.join(map(str, options))}, found {value!r}")

    def each(self, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """Every element of a list, read by `read(element, path)`."""
        return tuple(read(value, f"{self._where}.{name}[{i}]") for i, value in enumerate(self._list(name)))

    def one(self, name: str, read: Callable[[object, str], T]) -> T:
        """A value, read by `read(value, path)`."""
        return read(self._data[name], f"{self._where}.{name}")

    def maybe(self, name: str, read: Callable[[object, str], T]) -> T | None:
        """The same, or None where the field is null or an optional one that is not there."""
        return self.one(name, read) if self.has(name) else None

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
        return _list(self._data[name], f"{self._where}.{name}")


def is_finite(value: float) -> bool:
    """Whether `value` fits a float and is neither NaN nor infinite; it may be an integer of any size."""
    return abs(value) <= sys.float_info.max


def number(value: object, where: str) -> float:
    """A finite number; CvmtuneError, with the path `where`, if it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise CvmtuneError(f"expected a number, found {_kind_of(value)}", where)
    if not is_finite(value):
        raise CvmtuneError("expected a finite number", where)
    return float(value)


def interval(value: object, where: str) -> tuple[float, float]:
    """A list of two finite numbers, the lower first; CvmtuneError, with the path `where`, if it is none."""
    ends = [number(end, f"{where}[{i}]") for i, end in enumerate(_list(value, where))]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise CvmtuneError("expected two numbers, the lower first", where)
    return ends[0], ends[1]


def _list(value: object, where: str) -> list[object] | tuple[object, ...]:
    # What asdict made has tuples: json.dumps writes both alike.
    if not isinstance(value, (list, tuple)):
        raise CvmtuneError(f"expected a list, found {_kind_of(value)}", where)
    return value


def _kind_of(value: object) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"
