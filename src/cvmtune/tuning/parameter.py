# SPDX-License-Identifier: Apache-2.0
"""Knobs of module parameters, each with one value. Any value is safe at any time, so unlike the features' own
controls these need no look at the machine."""

from __future__ import annotations

import re
from typing import ClassVar

from cvmtune.core.system import System
from cvmtune.tuning.file_knob import FileKnob, V

_MAX = (1 << 32) - 1
# The kernel takes a leading zero for octal.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")

# What users write, in any case, for the kernel's own Y and N.
_SWITCH = {"y": True, "1": True, "on": True, "n": False, "0": False, "off": False}


class Parameter(FileKnob[V]):
    """A FileKnob whose every value may be set."""

    def _permit(self, system: System, *values: V) -> None:
        """Nothing is refused."""


class Number(Parameter[int]):
    """A whole number, which the kernel keeps as unsigned int."""

    unit: ClassVar[str]  # in messages, "microseconds"

    def __init_subclass__(cls) -> None:
        cls.form = f"give a whole number of {cls.unit}, 0 to {_MAX}, without leading zeros"

    def decode(self, text: str) -> int:
        value = text.strip()
        if not _NUMBER.fullmatch(value) or int(value) > _MAX:
            raise ValueError(f"{text!r} is no number of {self.unit} from 0 to {_MAX}")
        return int(value)

    def encode(self, value: int) -> str:
        return str(value)


class Microseconds(Number):
    """A time in microseconds."""

    unit = "microseconds"


class Nanoseconds(Number):
    """A time in nanoseconds."""

    unit = "nanoseconds"


class Switch(Parameter[bool]):
    """A boolean, which the kernel shows as "Y" or "N"."""

    form = "give Y or N"

    def decode(self, text: str) -> bool:
        try:
            return _SWITCH[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{text!r} is neither Y nor N") from None

    def encode(self, value: bool) -> str:
        return "Y" if value else "N"


class Words(Parameter[str]):
    """A text, of a form that `pattern` gives."""

    pattern: ClassVar[re.Pattern[str]]

    def decode(self, text: str) -> str:
        value = text.strip()
        if not self.pattern.fullmatch(value):
            raise ValueError(f"{text!r} is no {self.noun}")
        return value

    def encode(self, value: str) -> str:
        return value
