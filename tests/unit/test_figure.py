# SPDX-License-Identifier: Apache-2.0
"""Figures that may not be known: nothing unknown becomes a number, and no counter's wrap or reset a load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.figure import MOST_PER_S, Figure, Unknown, growth, known, rate, reasons, total

COUNTS = st.integers(0, (1 << 32) - 1)
HIDDEN = Unknown("hidden")


@given(COUNTS, st.integers(0, 1000))
def test_a_counter_of_32_bits_grows_across_its_end(before: int, more: int) -> None:
    after = (before + more) % (1 << 32)
    assert growth(before, after, 10, what="IPI0", bits=32) == more


@given(COUNTS, COUNTS, st.floats(0.1, 100))
def test_growth_is_never_negative_and_never_beyond_what_can_be(
    before: int, after: int, seconds: float
) -> None:
    grown = growth(before, after, seconds, what="IPI0", bits=32)
    if after < before and not isinstance(grown, Unknown):
        assert 0 <= grown <= MOST_PER_S * seconds


def test_a_counter_that_begins_anew_is_unknown() -> None:
    assert growth(3_000_000_000, 5, 10, what="IPI0", bits=32) == Unknown("IPI0 went backwards")
    assert growth(100, 5, 10, what="ctxt") == Unknown("ctxt went backwards")
    assert str(rate(100, 5, 10, what="ctxt")) == "cannot be told: ctxt went backwards"


@pytest.mark.parametrize("pair", [(HIDDEN, 5), (5, HIDDEN), (HIDDEN, HIDDEN)])
def test_what_is_unknown_stays_unknown(pair: tuple[float | Unknown, float | Unknown]) -> None:
    assert growth(*pair, 10, what="ctxt") == rate(*pair, 10, what="ctxt") == HIDDEN


def test_rate_and_total() -> None:
    assert rate(10, 30, 10, what="ctxt") == 2
    assert total([]) == 0
    assert total([1, 2.5]) == 3.5
    # A part is not the whole.
    assert total([1, HIDDEN, 2]) == HIDDEN


def test_json_has_null_and_why() -> None:
    figures: dict[str, Figure] = {"a": 1.0, "b": HIDDEN}
    assert {name: known(one) for name, one in figures.items()} == {"a": 1.0, "b": None}
    assert reasons(figures) == {"b": "hidden"}
