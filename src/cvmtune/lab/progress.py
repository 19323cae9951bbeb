# SPDX-License-Identifier: Apache-2.0
"""Telling the user what a long command is doing, how far it is, and for how long it has been at it.

All of it goes to standard error: standard output belongs to results. A terminal has one line, which is
written anew; elsewhere there is a line every half a minute.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    import rich.progress

# Between two lines where there is no terminal to draw on, seconds.
_QUIET_SECONDS = 30.0
_MOMENT = 0.01


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

    def say(self, text: str) -> None:
        """Say something that is to stay."""


def terminal_progress(stream: TextIO | None = None) -> Progress:
    """Return a bar if `stream` (default: standard error) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


class SilentProgress:
    """Tells nothing."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        yield _SilentStep()

    def say(self, text: str) -> None:
        pass


class _SilentStep:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class LineProgress:
    """Writes a line now and then, one when a step fails, and one when a long one ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._spoke: float | None = None

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        step = _LineStep(self, title, total)
        step.perhaps_say("...")
        ended = threading.Event()

        def watch() -> None:
            # What takes long may have nothing to tell meanwhile.
            while not ended.wait(self.due_in):
                step.how_far()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield step
        except BaseException:
            self.say(f"{title}: failed, {step.elapsed:.0f} s")
            raise
        finally:
            ended.set()
            watcher.join()
        if step.elapsed >= _QUIET_SECONDS:
            self.say(f"{title}: done, {step.elapsed:.0f} s")

    def say(self, text: str) -> None:
        self._spoke = time.monotonic()
        print(text, file=self._stream, flush=True)

    @property
    def is_due(self) -> bool:
        """Whether nothing has been said for a while."""
        return self._spoke is None or time.monotonic() - self._spoke >= _QUIET_SECONDS

    @property
    def due_in(self) -> float:
        """In how many seconds something is due, and a moment more."""
        spoke = self._spoke or 0.0
        return max(0.0, spoke + _QUIET_SECONDS - time.monotonic()) + _MOMENT


class _LineStep:
    def __init__(self, progress: LineProgress, title: str, total: int | None) -> None:
        self._progress = progress
        self._title = title
        self._total = total
        self._done = 0
        self._note = ""
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        self.how_far()

    def note(self, text: str) -> None:
        self._note = text
        self.how_far()

    def how_far(self) -> None:
        """Say how far it is, unless something was said just now."""
        # The total is an estimate: what is still going on is not at 100 %.
        share = min(0.99, self._done / self._total) if self._total else 0.0
        far = f"{share:.0%}" if self._total else f"{self._done} done"
        # Of a share that is small nothing can be told.
        to_go = f"about {self.elapsed / share - self.elapsed:.0f} s to go" if share >= 0.1 else ""
        self.perhaps_say(", ".join(filter(None, [far, f"{self.elapsed:.0f} s", to_go, self._note])))

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def perhaps_say(self, text: str) -> None:
        """Say it unless something was said just now."""
        if self._progress.is_due:
            self._progress.say(f"{self._title}: {text}")


class BarProgress:
    """Draws a bar for the innermost step; it leaves nothing behind."""

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

    def say(self, text: str) -> None:
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


@contextmanager
def _bar(bars: rich.progress.Progress, title: str, total: int | None) -> Iterator[Step]:
    around = [task.id for task in bars.tasks if task.visible]
    for task in around:
        bars.update(task, visible=False)
    own = bars.add_task(title, total=total, note="")
    try:
        yield _BarStep(bars, own)
    finally:
        bars.remove_task(own)
        for task in around:
            bars.update(task, visible=True)


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
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
        transient=True,
    )
