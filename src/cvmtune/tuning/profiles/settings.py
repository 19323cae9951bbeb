# SPDX-License-Identifier: Apache-2.0
"""What may be set, and what the words that people write for it mean on one machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cvmtune.core.cpumask import MAX_CPUS, CpuMask
from cvmtune.core.errors import UsageError
from cvmtune.features.cq_poll.knob import OFF
from cvmtune.features.wfx.knob import MAX_VCPUS

# What messages call the types of TOML.
TYPES = {str: "a string in quotes", int: "an integer", bool: "true or false", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class Facts:
    """What decides about settings on one machine.

    `role` is "guest" or "host", or "machine" if it is neither; `present` has the names of the settings that
    its kernel offers. `own_cpus`: in a guest, that its vCPUs lose no time to others; on a host, that each
    vCPU's thread is pinned to a CPU of its own; None where that cannot be told.
    """

    role: str
    online: CpuMask
    possible: CpuMask
    present: frozenset[str]
    own_cpus: bool | None


@dataclass(frozen=True)
class Setting:
    """A setting: the types that TOML may give it, what it may be, and how to get what its knob takes.

    `resolve` raises ValueError if the text is no such value, whatever the machine.
    """

    types: tuple[type, ...]
    allowed: str
    resolve: Callable[[str, Facts], str]


def resolve_setting(name: str, text: str, facts: Facts) -> str:
    """Return in the form that its knob takes what a user wrote for a setting; UsageError if it is wrong.

    Whether the machine can have this value is left for the knob to say, but words as "all" mean only CPUs
    that it has.
    """
    if name not in SETTINGS:
        raise UsageError(f"no setting {name!r}", next_step=f"choose from {', '.join(SETTINGS)}")
    try:
        return SETTINGS[name].resolve(text, facts)
    except ValueError as error:
        raise UsageError(f"{name}: {error}", next_step=f"give {SETTINGS[name].allowed}") from error


def check_value(name: str, value: object) -> str:
    """Return as text what TOML gives for a setting; UsageError if it can be no value of it."""
    if name not in SETTINGS:
        raise UsageError(f"no setting {name!r}", next_step=f"choose from {', '.join(SETTINGS)}")
    setting = SETTINGS[name]
    # A boolean is an integer to isinstance().
    if type(value) not in setting.types:
        wanted = " or ".join(TYPES[kind] for kind in setting.types)
        raise UsageError(f"{name}: {value!r} is not {wanted}", next_step=f"give {setting.allowed}")
    text = ("N", "Y")[value] if isinstance(value, bool) else str(value)
    resolve_setting(name, text, _ANY)
    return text


def _microseconds(text: str, facts: Facts) -> str:
    return _number(text, 1 << 32)


def _ipi(text: str, facts: Facts) -> str:
    return _mask(text, facts.online)


def _cq_poll(text: str, facts: Facts) -> str:
    match text:
        case "off" | "-1":
            return OFF
        case "last":
            return str(max(facts.online))
        case _:
            return _number(text, MAX_CPUS)


def _wfx_guard(text: str, facts: Facts) -> str:
    match text:
        case "on" | "Y":
            return "Y"
        case "off" | "N":
            return "N"
        case _:
            raise ValueError(f"{text!r} is neither on nor off")


def _wfx(text: str, facts: Facts) -> str:
    # More vCPUs than the host has CPUs cannot each have one of their own.
    vcpus = min(len(facts.possible), MAX_VCPUS)
    return _mask(text, CpuMask(frozenset(range(vcpus))))


def _mask(text: str, everything: CpuMask) -> str:
    match text:
        case "off":
            mask = CpuMask(frozenset())
        case "all":
            mask = everything
        case "all-but-first":
            mask = CpuMask(frozenset(list(everything)[1:]))
        case _:
            mask = CpuMask.parse(text)
    return mask.to_hex()


def _number(text: str, end: int) -> str:
    # Printed anew: to the kernel a leading zero means octal.
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= end:
        raise ValueError(f"{text!r} is no whole number from 0 to {end - 1}")
    return str(int(text))


_MICROSECONDS = Setting((int, str), "a whole number of microseconds, less than 2^32", _microseconds)
# TOML's integers would be decimal, and masks are not.
_MASK = "a hex mask such as 'c', a list such as '2-3,6', 'off', 'all' or 'all-but-first'"

# Those of knobs.catalogue.KNOBS, in its order.
SETTINGS: Mapping[str, Setting] = {
    "ipi-poll-us": _MICROSECONDS,
    "ipi": Setting((str,), _MASK, _ipi),
    "cq-idle-us": _MICROSECONDS,
    "cq-poll": Setting((int, str), "the number of a CPU, 'off' or 'last'", _cq_poll),
    "wfx-guard": Setting((bool, str), "true or on, false or off", _wfx_guard),
    "wfx": Setting((str,), _MASK, _wfx),
}

# Whether a text is a value at all does not depend on the machine.
_ANY = Facts("guest", CpuMask(frozenset({0})), CpuMask(frozenset({0})), frozenset(), None)
