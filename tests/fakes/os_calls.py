# SPDX-License-Identifier: Apache-2.0
"""Watching what a process asks of the kernel, call by call, so that a test can fail it or die there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from unittest.mock import patch

# Those that change files, apart from an open() that creates one. A close() changes none, and the lock that it
# gives up ends with the process too.
CHANGING = ("mkdir", "write", "fsync", "ftruncate", "rename", "unlink")
CALLS = (*CHANGING, "open")

Watch = Callable[[Literal["before", "after"], str, tuple[Any, ...]], None]


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have `watch` called with ("before" or "after", name, arguments) around each of CALLS and flock()."""

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched_call(*args: Any, **kwargs: Any) -> Any:
            watch("before", name, args)
            result = call(*args, **kwargs)
            watch("after", name, args)
            return result

        return watched_call

    with ExitStack() as patches:
        for module, name in [*((os, name) for name in CALLS), (fcntl, "flock")]:
            patches.enter_context(patch.object(module, name, wrap(name, getattr(module, name))))
        yield


@contextmanager
def traced() -> Iterator[list[str]]:
    """Give the list that calls of CHANGING are put into: "fsync FILE", "write FILE TEXT", with bare names."""
    calls: list[str] = []

    def note(when: str, name: str, args: tuple[Any, ...]) -> None:
        if when == "before" and name in CHANGING:
            path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else args[0]
            text = f" {args[1].decode().strip()}" if name == "write" else ""
            calls.append(f"{name} {Path(path).name}{text}")

    with watched(note):
        yield calls


@contextmanager
def in_memory() -> Iterator[Path]:
    """Give a directory that needs no disk, if there can be one: thousands of syncs take minutes on some."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)
