# SPDX-License-Identifier: Apache-2.0
"""The kernel's command line, read as the kernel reads it (lib/cmdline.c, kernel/params.c)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cvmtune.observe.capture import Capture

# A blank within quotes ends no parameter.
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
# kstrtouint() in base 10.
_UINT = re.compile(r"\+?([0-9]+)\n?")
_UINT_MAX = (1 << 32) - 1
# Both are made by __setup() in kernel/sched/idle.c.
IDLE = ("nohlt", "hlt")


def parameters(capture: Capture) -> list[tuple[str, str | None]]:
    """Return names and values in order, a value being None where there is no "=".

    In names - and _ are the same, here _; what follows "--" is for init.
    """
    found = []
    for word in _WORD.findall(capture.get("/proc/cmdline") or ""):
        if word == "--":
            break
        name, equals, value = _unquoted(word).partition("=")
        found.append((name.replace("-", "_"), _unquoted(value) if equals else None))
    return found


def switched_on(capture: Capture, names: Iterable[str]) -> str:
    """Return the first of these parameters that is on, "" if none is.

    They are those whose parser (setup_virtcca_cvm_host() in openEuler's kernel, for one) takes an unsigned
    number and acts on any but 0: a 0 that follows takes nothing back.
    """
    given = parameters(capture)
    for name in names:
        if any(_is_on(value) for other, value in given if other == name):
            return name
    return ""


def last(capture: Capture, name: str) -> str | None:
    """Return the value of a parameter of which the last one counts; None if there is none."""
    return next((value for other, value in reversed(parameters(capture)) if other == name), None)


def nohlt(capture: Capture) -> bool:
    """Tell whether idle CPUs poll in the generic idle loop: by the last of nohlt and hlt.

    __setup() goes by how a parameter begins, whatever follows.
    """
    given = [name for name, _ in parameters(capture) if name.startswith(IDLE)]
    return bool(given) and given[-1].startswith("nohlt")


def _is_on(value: str | None) -> bool:
    match = _UINT.fullmatch(value or "")
    return match is not None and 0 < int(match[1]) <= _UINT_MAX


def _unquoted(text: str) -> str:
    return text[1:].removesuffix('"') if text.startswith('"') else text
