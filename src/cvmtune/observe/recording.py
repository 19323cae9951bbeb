# SPDX-License-Identifier: Apache-2.0
"""Two captures of a machine in a file, so that what was measured there can be looked at elsewhere, or again.

The format is JSON: {"schema": 1, "before": CAPTURE, "after": CAPTURE}, a CAPTURE being
{"files": {path: text}, "unreadable": {path: errno}}. reduction.py says what is kept of a file.
"""

from __future__ import annotations

import json
from typing import Any

from cvmtune.core.errors import UsageError
from cvmtune.observe.capture import Capture
from cvmtune.observe.reduction import contents, reduced

__all__ = ["contents", "dump", "parse"]

_SCHEMA = 1
_MAX_ERRNO = 4095  # the kernel's, include/linux/err.h


def dump(before: Capture, after: Capture) -> str:
    """Return the text of a recording, which holds what the rules read and no more."""
    content = {"schema": _SCHEMA, "before": _files(before), "after": _files(after)}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _files(capture: Capture) -> dict[str, object]:
    kept = reduced(capture)
    return {"files": dict(kept.files), "unreadable": dict(kept.unreadable)}


def parse(text: str, where: str) -> tuple[Capture, Capture]:
    """Return the two captures of a recording; UsageError, naming `where`, if it is none."""
    try:
        content = json.loads(text)
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, not {_SCHEMA}")
        return _capture(content["before"]), _capture(content["after"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"not a recording of counters: {error}", where, "recommend --record makes one"
        ) from error


def _capture(content: Any) -> Capture:
    files = {str(path): text for path, text in content["files"].items()}
    unreadable = {str(path): int(number) for path, number in content["unreadable"].items()}
    if not all(isinstance(text, str) for text in files.values()):
        raise ValueError("a file's content is not text")
    if not all(0 < number <= _MAX_ERRNO for number in unreadable.values()):
        raise ValueError("an error's number is none")
    return Capture(files, unreadable)
