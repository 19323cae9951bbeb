# SPDX-License-Identifier: Apache-2.0
"""Telling the user what a long command is doing, how far it is, and for how long it has been at it.

All of it goes to standard error: standard output belongs to results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    import rich.progress

# Between two lines about the same step where there is no terminal to draw on, seconds.
_QUIET_SECONDS = 30.0


class Step(Protocol):
    """A piece of work that is going on. Both methods may be called from any thread."""

    def advance(self, count: int = 1) -> None:
        """Say that `count` more units are done."""

    def note(self, text: str) -> None:
        """Say what is being done right now; it replaces the note before."""


class Progress(Protocol):
    """Where progress is told."""

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Step]:
        """Begin a step and end it with the `with` block. `total` units make it up, roughly; None: unknown."""


def terminal_progress(stream: TextIO | None = None) -> Progress:
    """Return bars if `stream` (default: standard error) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


class SilentProgress:
    """Tells nothing."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        yield _SilentStep()


class _SilentStep:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class LineProgress:
    """Writes a line when a step begins and ends, and now and then in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        step = _LineStep(self._stream, title, total)
        step.say("...")
        outcome = "failed"
        try:
            yield step
            outcome = "done"
        finally:
            step.say(f"{outcome}, {step.elapsed()}")


class _LineStep:
    def __init__(self, stream: TextIO, title: str, total: int | None) -> None:
        self._stream = stream
        self._title = title
        self._total = total
        self._done = 0
        self._note = ""
        self._began = self._spoke = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._perhaps_say()

    def note(self, text: str) -> None:
        self._note = text
        self._perhaps_say()

    def _perhaps_say(self) -> None:
        if time.monotonic() - self._spoke < _QUIET_SECONDS:
            return
        self._spoke = time.monotonic()
        # The total is an estimate: what is still going on is not at 100 %.
        far = f"{min(99, 100 * self._done // self._total)} %" if self._total else f"{self._done} done"
        self.say(", ".join(filter(None, [far, self.elapsed(), self._note])))

    def elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"

    def say(self, text: str) -> None:
        print(f"{self._title}: {text}", file=self._stream, flush=True)


class BarProgress:
    """Draws a bar for each step; steps within a step are drawn below it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: rich.progress.Progress | None = None

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        if self._bars:
            with _bar(self._bars, title, total) as step:
                yield step
            return
        with _new_bars(self._stream) as self._bars:
            try:
                with _bar(self._bars, title, total) as step:
                    yield step
            finally:
                self._bars = None


@contextmanager
def _bar(bars: rich.progress.Progress, title: str, total: int | None) -> Iterator[Step]:
    task = bars.add_task(title, total=total, note="")
    try:
        yield _BarStep(bars, task)
        # The total was an estimate; now it is known.
        done = bars.tasks[bars.task_ids.index(task)].completed or 1
        bars.update(task, total=done, completed=done, note="")
    finally:
        bars.stop_task(task)


class _BarStep:
    def __init__(self, bars: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


def _new_bars(stream: TextIO) -> rich.progress.Progress:
    # Imported here: nothing but a terminal needs rich, and it takes a tenth of a second to load.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
    )
