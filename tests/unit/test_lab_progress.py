# SPDX-License-Identifier: Apache-2.0
"""What is told of long work, where there is no terminal and where there is one."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from cvmtune.lab import progress
from cvmtune.lab.progress import BarProgress, LineProgress, SilentProgress, terminal_progress


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_say_what_begins_and_what_took_long(clock: Clock) -> None:
    stream = io.StringIO()
    with LineProgress(stream).step("building", total=10) as step:
        step.advance(5)
        step.note("smp.o")
        clock.now += 30
    assert stream.getvalue().splitlines() == ["building: ...", "building: done, 30 s"]


def test_lines_come_half_a_minute_apart_whatever_there_is_to_tell(clock: Clock) -> None:
    stream = io.StringIO()
    lines = LineProgress(stream)
    for number in range(100):
        with lines.step(f"step {number}", total=1) as step:
            clock.now += 5
            step.note("half")
            clock.now += 5
            step.advance()
    # It takes 1000 seconds.
    assert len(stream.getvalue().splitlines()) == 34


def test_lines_say_that_it_failed() -> None:
    stream = io.StringIO()
    with pytest.raises(OSError, match="no"), LineProgress(stream).step("building"):
        raise OSError("no")
    assert stream.getvalue().splitlines()[-1] == "building: failed, 0 s"


def test_lines_in_between_tell_how_far(clock: Clock) -> None:
    stream = io.StringIO()
    with LineProgress(stream).step("building", total=10) as step:
        step.note("smp.o")
        clock.now += 60
        step.advance(5)
        clock.now += 40
        step.advance(50)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "building: 50%, 60 s, about 60 s to go, smp.o"
    assert lines[2].startswith("building: 99%, 100 s, "), "an estimate that was too low is not the end"


def test_lines_come_while_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.01)
    stream = io.StringIO()
    with LineProgress(stream).step("measuring"):
        while len(stream.getvalue().splitlines()) < 3:
            time.sleep(0.01)
    assert stream.getvalue().splitlines()[1] == "measuring: 0 done, 0 s"


def test_what_is_said_stays() -> None:
    for kind in (LineProgress, BarProgress):
        stream = io.StringIO()
        one = kind(stream)
        one.say("before [1]")
        with one.step("building"):
            one.say("within [2]")
        assert "before [1]" in stream.getvalue()
        assert "within [2]" in stream.getvalue()


def test_no_terminal_means_lines() -> None:
    assert isinstance(terminal_progress(io.StringIO()), LineProgress)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_can_nest_and_be_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    bars = terminal_progress(stream)
    with bars.step("outer", total=2) as outer:
        with bars.step("inner [0]") as inner:
            inner.note("file [a]")
            time.sleep(0.3)  # for the bar to be drawn
        outer.advance()
        time.sleep(0.3)
    with bars.step("again", total=1):
        time.sleep(0.3)
    text = stream.getvalue()
    assert "outer" in text
    assert "inner [0]" in text, "square brackets are no markup here"
    assert "again" in text


def test_silence() -> None:
    with SilentProgress().step("building", total=1) as step:
        step.advance()
        step.note("smp.o")
