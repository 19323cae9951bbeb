# SPDX-License-Identifier: Apache-2.0
"""What users set by name: one object has the TOML key, the option, its help, the parser and the knob.

The values that people write are words, whose meaning may depend on the machine ("all", "last"). parse() makes
a value of them, once; from there it travels as what it is, a CpuMask or a number, until the knob writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import UsageError
from cvmtune.tuning.file_knob import FileKnob, MaskKnob, V
from cvmtune.tuning.parameter import Microseconds, Switch

# What messages call the types of TOML.
TYPES = {str: "a string in quotes", int: "an integer", bool: "true or false", list: "a list", dict: "a table"}
# TOML's integers would be decimal, and masks are not.
MASK = "a hex mask such as 'c', a list such as '2-3,6', 'off', 'all' or 'all-but-first'"
_NOBODY = CpuMask(frozenset())


@dataclass(frozen=True)
class Facts:
    """What decides about settings on one machine.

    `role` is "guest" or "host", or "machine" if it is neither; `present` has the names of the settings that
    its kernel offers. `own_cpus`: in a guest, that its vCPUs lose no time to others; on a host, that each
    vCPU's thread is pinned to a CPU of its own; None where that cannot be told. `why` is what that rests on,
    or why it is not known.
    """

    role: str
    online: CpuMask
    possible: CpuMask
    present: frozenset[str]
    own_cpus: bool | None
    why: str = ""


@dataclass(frozen=True)
class Setting(Generic[V]):
    """A setting: `name` is its TOML key and its option, `types` are what TOML may give it.

    `parse` raises ValueError if the text is no value of it, whatever the machine; `allowed` says what is one.
    `show` gives a value as people want to see it. `off` is the value that switches a feature off, None for a
    setting that switches none.
    """

    name: str
    metavar: str
    help: str
    types: tuple[type, ...]
    allowed: str
    knob: FileKnob[V]
    parse: Callable[[str, Facts], V]
    show: Callable[[V], str]
    off: V | None = None

    @property
    def is_mask(self) -> bool:
        return isinstance(self.knob, MaskKnob)

    def shown(self, text: str) -> str:
        """Show a value that is in its knob's canonical form; another text, as a journal may have, as it
        is."""
        try:
            return self.show(self.knob.decode(text))
        except ValueError:
            return text

    def resolve(self, text: str, facts: Facts) -> V:
        """Return the value of what a user wrote; UsageError if it is none.

        Whether the machine can have this value is left for the knob to say, but words as "all" mean only CPUs
        that it has.
        """
        try:
            return self.parse(text, facts)
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}", next_step=f"give {self.allowed}") from error

    def check(self, value: object) -> str:
        """Return as text what TOML gives for it; UsageError if it can be no value of it."""
        # A boolean is an integer to isinstance().
        if type(value) not in self.types:
            wanted = " or ".join(TYPES[kind] for kind in self.types)
            raise UsageError(f"{self.name}: {value!r} is not {wanted}", next_step=f"give {self.allowed}")
        text = ("N", "Y")[value] if isinstance(value, bool) else str(value)
        self.resolve(text, _ANY)
        return text


Settings = Mapping[str, Setting[Any]]
"""Settings by name, in the order in which they are applied: a bound or guard is in force before what it
bounds, and, undone in reverse order, until after it."""


def by_name(settings: Sequence[Setting[Any]]) -> Settings:
    """Return the settings by their names."""
    return {one.name: one for one in settings}


def find(settings: Settings, name: str) -> Setting[Any]:
    """Return the setting of that name; UsageError if there is none."""
    if name not in settings:
        raise UsageError(f"no setting {name!r}", next_step=f"choose from {', '.join(settings)}")
    return settings[name]


def is_off(setting: Setting[Any], text: str) -> bool:
    """Tell whether a value, as people write it or canonical, switches the setting's feature off."""
    return setting.off is not None and text in ("off", setting.knob.encode(setting.off))


def mask(
    name: str, help: str, knob: MaskKnob, everything: Callable[[Facts], CpuMask], metavar: str = "MASK"
) -> Setting[CpuMask]:
    """Return a setting that is a mask; `everything` is what "all" means on a machine."""

    def parse(text: str, facts: Facts) -> CpuMask:
        match text:
            case "off":
                return _NOBODY
            case "all":
                return everything(facts)
            case "all-but-first":
                return CpuMask(frozenset(list(everything(facts))[1:]))
            case _:
                return CpuMask.parse(text)

    return Setting(name, metavar, help, (str,), MASK, knob, parse, CpuMask.both_forms, _NOBODY)


def microseconds(name: str, help: str, knob: Microseconds) -> Setting[int]:
    """Return a setting that is a number of microseconds."""
    allowed = "a whole number of microseconds, less than 2^32"
    return Setting(name, "N", help, (int, str), allowed, knob, lambda text, _: number(text, 1 << 32), str)


def switch(name: str, help: str, knob: Switch) -> Setting[bool]:
    """Return a setting that is on or off."""
    words = {"on": True, "Y": True, "off": False, "N": False}

    def parse(text: str, facts: Facts) -> bool:
        if text not in words:
            raise ValueError(f"{text!r} is neither on nor off")
        return words[text]

    return Setting(name, "on|off", help, (bool, str), "true or on, false or off", knob, parse, knob.encode)


def number(text: str, end: int) -> int:
    """Return a whole number below `end`; ValueError if the text is none. Leading zeros do not count."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= end:
        raise ValueError(f"{text!r} is no whole number from 0 to {end - 1}")
    return int(text)


# Whether a text is a value at all does not depend on the machine.
_ANY = Facts("guest", CpuMask(frozenset({0})), CpuMask(frozenset({0})), frozenset(), None)
