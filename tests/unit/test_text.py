# SPDX-License-Identifier: Apache-2.0
"""Tables are aligned, and fit the terminal as far as words do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.text import columns, hang


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("ROLE", "STATE", "WHAT"), ("ipi", "unknown", "one"), ("cq-poll", "on", "")]
    assert columns(rows, width=80) == (
        "ROLE     STATE    WHAT\n"
        "ipi      unknown  one\n"
        "cq-poll  on\n"
    )  # fmt: skip


def test_last_column_is_wrapped_below_itself() -> None:
    rows = [("a", "one two three four five six seven"), ("long", "eight")]
    assert columns(rows, indent="  ", width=34) == (
        "  a     one two three four five\n"
        "        six seven\n"
        "  long  eight\n"
    )  # fmt: skip


def test_last_column_keeps_some_width() -> None:
    """However wide the others are: better too long a line than one word on each."""
    text = "one two three four five six"
    assert columns([("x" * 50, text)], width=40) == (
        f"{'x' * 50}  one two three four five\n"
        f"{'':52}six\n"
    )  # fmt: skip


def test_words_are_not_broken() -> None:
    path = "/sys/devices/system/cpu/cpu0/cpuidle-state/disable"
    assert columns([("-", f"see {path}")], width=30) == f"-  see\n   {path}\n"


def test_lines_have_nothing_at_their_ends() -> None:
    assert columns([("a", ""), ("bb ", "c  ")], indent=" ", width=80) == " a\n bb   c\n"


def test_one_column() -> None:
    assert columns([("one two",), ("three",)], width=80) == "one two\nthree\n"


def test_no_rows() -> None:
    assert columns([]) == ""


def test_rows_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        columns([("a", "b"), ("c",)])


def test_width_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "word " * 30
    monkeypatch.setenv("COLUMNS", "60")
    assert max(len(line) for line in columns([("a", text)]).splitlines()) == len("a  " + "word " * 11) - 1
    monkeypatch.setenv("COLUMNS", "100")
    assert max(len(line) for line in columns([("a", text)]).splitlines()) == len("a  " + "word " * 19) - 1


def test_text_after_its_start() -> None:
    assert hang("* ", "one two three", 7) == ["* one two", "  three"]
    assert hang("* ", "", 7) == ["* "]
    assert hang("* ", "one\ntwo three", 80) == ["* one two three"]


words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=9)


@given(
    st.integers(1, 4).flatmap(lambda size: st.lists(st.tuples(*[words] * size), min_size=1, max_size=4)),
    st.lists(words, min_size=1, max_size=20),
    st.integers(1, 200),
)
def test_any_table(heads: list[tuple[str, ...]], text: list[str], width: int) -> None:
    rows = [(*head, " ".join(text)) for head in heads]
    lines = columns(rows, width=width).splitlines()
    assert " ".join(lines).split() == [word for row in rows for cell in row for word in cell.split()]
    taken = sum(max(len(head[column]) for head in heads) + 2 for column in range(len(heads[0])))
    assert all(len(line) <= max(width, taken + 24) for line in lines)
    # Each row begins at the left, and its other lines below its last cell.
    firsts = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[0] for line in firsts] == [head[0] for head in heads]
    for line in lines:
        assert line[taken : taken + 1].strip()
        assert line[taken - 1] == " "
