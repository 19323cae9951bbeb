# SPDX-License-Identifier: Apache-2.0
"""A captured machine as a System, so that knobs read it as they read one that runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NoReturn

from cvmtune.core.command import Completed
from cvmtune.observe.capture import Capture


class CapturedSystem:
    """A System whose files are a capture's. It can be neither written nor run."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def read_text(self, path: str) -> str:
        if number := self._capture.unreadable.get(path):
            raise OSError(number, os.strerror(number), path)
        if path not in self._capture.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._capture.files[path]

    def write_text(self, path: str, text: str) -> NoReturn:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), path)

    def exists(self, path: str) -> bool:
        return self._capture.has(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise NotImplementedError
