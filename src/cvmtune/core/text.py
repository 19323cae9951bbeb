# SPDX-License-Identifier: Apache-2.0
"""Plain tables for terminals: inside guests there is no library for them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

_GAP = "  "
_NARROWEST = 24


def columns(rows: Sequence[Sequence[str]], *, indent: str = "", width: int | None = None) -> str:
    """Return rows of equally many cells as lines, aligned; the last column is wrapped to the terminal."""
    if not rows:
        return ""
    width = width or shutil.get_terminal_size((120, 24)).columns
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    taken = len(indent) + sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    lines = []
    for row in rows:
        start = indent + "".join(
            cell.ljust(size) + _GAP for cell, size in zip(row, widths[:-1], strict=False)
        )
        lines += hang(start, row[-1], max(_NARROWEST, width - taken))
    return "".join(f"{line.rstrip()}\n" for line in lines)


def hang(start: str, text: str, width: int) -> list[str]:
    """Return `text` wrapped to `width`, its first line after `start` and the others below that."""
    first, *others = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [start + first, *(" " * len(start) + line for line in others)]
