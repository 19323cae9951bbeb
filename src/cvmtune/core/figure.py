# SPDX-License-Identifier: Apache-2.0
"""Figures that may not be known. What could not be read or told is never shown as zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Unknown:
    """A figure that cannot be told; `why` is a clause, as "debugfs cannot be read"."""

    why: str

    def __str__(self) -> str:
        return f"cannot be told: {self.why}"


Figure: TypeAlias = "float | Unknown"

# The kernel counts interrupts in 32 bits. No counter of one CPU, thread or port makes that many a second:
# what seems to has begun anew.
MOST_PER_S = 1e7
_WRAP = 1 << 32


def growth(before: Figure, after: Figure, seconds: float, *, what: str, bits: int = 64) -> Figure:
    """Return by how much a counter grew in `seconds`; Unknown if either value is, or if it went backwards.

    One of 32 bits that went past its end is told from one that began anew by MOST_PER_S. `what` names the
    counter, for the reason.
    """
    if isinstance(before, Unknown):
        return before
    if isinstance(after, Unknown):
        return after
    if after >= before:
        return after - before
    wrapped = after + _WRAP - before
    if bits == 32 and before < _WRAP and wrapped <= MOST_PER_S * seconds:
        return wrapped
    return Unknown(f"{what} went backwards")


def rate(before: Figure, after: Figure, seconds: float, *, what: str, bits: int = 64) -> Figure:
    """Return growth() a second."""
    grown = growth(before, after, seconds, what=what, bits=bits)
    return grown if isinstance(grown, Unknown) else grown / seconds


def total(figures: Iterable[Figure]) -> Figure:
    """Return the sum; Unknown, as the first that is, if one is. A part must not pass for the whole."""
    found = 0.0
    for one in figures:
        if isinstance(one, Unknown):
            return one
        found += one
    return found


def known(figure: Figure) -> float | None:
    """Return the number, or None where there is none: as JSON shows it."""
    return None if isinstance(figure, Unknown) else figure


def reasons(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Return why figures are unknown, by name: what JSON has beside their nulls."""
    return {name: one.why for name, one in figures.items() if isinstance(one, Unknown)}
