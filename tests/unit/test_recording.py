# SPDX-License-Identifier: Apache-2.0
"""What was recorded comes back whole, and what is no recording is an error that says so."""

from __future__ import annotations

import errno
import json
import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import UsageError
from cvmtune.observe.capture import Capture
from cvmtune.observe.captured import CapturedSystem
from cvmtune.observe.recording import dump, parse
from cvmtune.observe.reduction import reduced
from tests.fakes.capture import GUEST, HOST

PATH = "/sys/kernel/mask"
EMPTY: dict[str, Any] = {"files": {}, "unreadable": {}}
CONTENT: dict[str, Any] = {"schema": 1, "before": EMPTY, "after": EMPTY}

# Undecodable names come from the kernel as lone surrogates.
texts = st.text(st.characters() | st.characters(categories=["Cs"]))
captures = st.builds(
    Capture, st.dictionaries(texts, texts), st.dictionaries(texts, st.integers(1, 4095), max_size=3)
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=6,
)


@given(captures, captures)
def test_recording_comes_back(before: Capture, after: Capture) -> None:
    """Whole but for what nobody reads, of which nothing is left the second time."""
    found = parse(dump(before, after), "a.json")
    assert found == (reduced(before), reduced(after))
    assert parse(dump(*found), "a.json") == found


def test_form_of_a_recording() -> None:
    text = dump(Capture(GUEST), Capture(HOST, {PATH: errno.EACCES}))
    assert json.loads(text) == {
        "schema": 1,
        "before": {"files": dict(reduced(Capture(GUEST)).files), "unreadable": {}},
        "after": {"files": dict(reduced(Capture(HOST)).files), "unreadable": {PATH: errno.EACCES}},
    }
    assert text.endswith("}\n")
    assert dump(Capture(dict(reversed([*GUEST.items()]))), Capture({})) == dump(Capture(GUEST), Capture({}))


def test_what_more_a_recording_has_does_not_matter() -> None:
    assert parse(json.dumps({**CONTENT, "host": "x"}), "") == (Capture({}), Capture({}))


def changed(**parts: object) -> str:
    return json.dumps({**CONTENT, **parts})


SCHEMAS: list[object] = [0, 2, "1", None, [1]]
NO_CAPTURES: list[object] = [None, [], "", {}, {"files": {}}, {"unreadable": {}}]
NO_FILES: list[object] = [None, [], "", {"/a": 1}, {"/a": None}, {"/a": ["x"]}]
NO_ERRORS: list[object] = [None, "x", [], 0, -1, 4096, 2**80, float("nan"), float("inf")]


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "{", "[]", "{}", "null", "1", '"schema"', "NaN", "\0", '{"schema": 1}'),
        *(changed(schema=schema) for schema in SCHEMAS),
        *(changed(before=one) for one in NO_CAPTURES),
        *(changed(after={**EMPTY, "files": files}) for files in NO_FILES),
        *(changed(after={**EMPTY, "unreadable": {"/a": number}}) for number in NO_ERRORS),
        "[" * 100_000,
        '{"schema": 1, "before": ' + '{"files": ' * 100_000,
        "9" * 10_000,
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_recording(text: str) -> None:
    with pytest.raises(UsageError, match="not a recording of counters") as caught:
        parse(text, "a.json")
    assert caught.value.where == "a.json"
    assert "recommend --record" in caught.value.next_step


@given(st.text())
def test_any_text_is_no_recording(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text, "a.json")


@given(
    trees | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    trees | st.dictionaries(st.text(max_size=5), st.integers(-1, 5000), max_size=2),
)
def test_any_content(files: Any, unreadable: Any) -> None:
    """What is taken can be looked at."""
    one = {"files": files, "unreadable": unreadable}
    try:
        seen, _ = parse(changed(before=one, after=one), "a.json")
    except UsageError:
        return
    system = CapturedSystem(seen)
    for path, text in seen.files.items():
        assert path in seen.unreadable or system.read_text(path) == text
    for path, number in seen.unreadable.items():
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            system.read_text(path)
