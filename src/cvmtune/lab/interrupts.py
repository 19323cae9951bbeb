# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at a moment when it must not come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Let a Ctrl-C that comes in the block wait for its end.

    For the moment in which something has been started and is not yet known to whoever is to end it. Python
    raises KeyboardInterrupt in the main thread only (signal, "Signals and threads"), so that in any other
    there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came.is_set():
            signal.raise_signal(signal.SIGINT)
