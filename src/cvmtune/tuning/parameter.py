# SPDX-License-Identifier: Apache-2.0
"""Knobs of module parameters, each with one value. Any value is safe at any time, so unlike the features' own
controls these need no look at the machine."""

from __future__ import annotations

import re
from typing import ClassVar

from cvmtune.core.system import System
from cvmtune.tuning.file_knob import FileKnob

_MAX = (1 << 32) - 1
# The kernel takes a leading zero for octal.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")

# What users write, in any case, for the kernel's own Y and N.
_SWITCH = {"y": "Y", "1": "Y", "on": "Y", "n": "N", "0": "N", "off": "N"}


class Parameter(FileKnob):
    """A FileKnob whose every value that has a canonical form may be set."""

    def _permit(self, system: System, *values: str) -> None:
        """Nothing is refused."""


class Number(Parameter):
    """A whole number, which the kernel keeps as unsigned int."""

    unit: ClassVar[str]  # in messages, "microseconds"

    def __init_subclass__(cls) -> None:
        cls.form = f"give a whole number of {cls.unit}, 0 to {_MAX}, without leading zeros"

    def _canonical(self, text: str) -> str:
        value = text.strip()
        if not _NUMBER.fullmatch(value) or int(value) > _MAX:
            raise ValueError(f"{text!r} is no number of {self.unit} from 0 to {_MAX}")
        return value


class Microseconds(Number):
    """A time in microseconds."""

    unit = "microseconds"


class Nanoseconds(Number):
    """A time in nanoseconds."""

    unit = "nanoseconds"


class Switch(Parameter):
    """A boolean, "Y" or "N"."""

    form = "give Y or N"

    def _canonical(self, text: str) -> str:
        try:
            return _SWITCH[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{text!r} is neither Y nor N") from None
