# SPDX-License-Identifier: Apache-2.0
"""A thread's affinity, on CPUs of which some are forbidden to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable


class FakeAffinity:
    """What Visitor runs by. `history` has where the thread was told to run."""

    def __init__(self, cpus: int, forbidden: Iterable[int] = ()) -> None:
        self.now = frozenset(range(cpus))
        self.forbidden = set(forbidden)
        self.history: list[frozenset[int]] = []

    def get(self) -> frozenset[int]:
        return self.now

    def set(self, cpus: Iterable[int]) -> None:
        wanted = frozenset(cpus)
        if not wanted - self.forbidden:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.now = wanted
        self.history.append(wanted)
