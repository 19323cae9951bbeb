# SPDX-License-Identifier: Apache-2.0
"""What is told of long work, where there is no terminal and where there is one."""

from __future__ import annotations

import io

import pytest

from cvmtune.lab import progress
from cvmtune.lab.progress import BarProgress, LineProgress, SilentProgress, terminal_progress


def test_lines_say_begin_and_end() -> None:
    stream = io.StringIO()
    with LineProgress(stream).step("building", total=10) as step:
        step.advance(5)
        step.note("smp.o")
    assert stream.getvalue().splitlines() == ["building: ...", "building: done, 0 s"]


def test_lines_say_that_it_failed() -> None:
    stream = io.StringIO()
    with pytest.raises(OSError, match="no"), LineProgress(stream).step("building"):
        raise OSError("no")
    assert stream.getvalue().splitlines()[-1] == "building: failed, 0 s"


def test_lines_in_between_tell_how_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    stream = io.StringIO()
    with LineProgress(stream).step("building", total=10) as step:
        step.note("smp.o")
        step.advance(5)
        step.advance(50)
    lines = stream.getvalue().splitlines()
    assert lines[2] == "building: 50 %, 0 s, smp.o"
    assert lines[3] == "building: 99 %, 0 s, smp.o", "an estimate that was too low is not the end"


def test_no_terminal_means_lines() -> None:
    assert isinstance(terminal_progress(io.StringIO()), LineProgress)


def test_bars_can_nest_and_be_used_again() -> None:
    stream = io.StringIO()
    bars = BarProgress(stream)
    with bars.step("outer", total=2) as outer, bars.step("inner [0]") as inner:
        inner.note("file [a]")
        outer.advance()
    with bars.step("again", total=1):
        pass
    text = stream.getvalue()
    assert "outer" in text
    assert "inner [0]" in text, "square brackets are no markup here"
    assert "again" in text


def test_silence() -> None:
    with SilentProgress().step("building", total=1) as step:
        step.advance()
        step.note("smp.o")
