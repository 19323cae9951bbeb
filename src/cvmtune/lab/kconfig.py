# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration from fragments, and the proof that kconfig did what they ask.

kconfig drops, without a word, an option whose dependencies are not met. A kernel that lacks what somebody
asked for is not built here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvmtune.lab.errors import BadConfig

_LINE = re.compile(r"CONFIG_(\w+)=(.+)")
_OFF = re.compile(r"# CONFIG_(\w+) is not set")


@dataclass(frozen=True)
class Option:
    """A line of a fragment: `value` is as in a .config file, "n" for off."""

    symbol: str
    value: str
    fragment: str

    def __str__(self) -> str:
        return f"CONFIG_{self.symbol}={self.value}"


def read_fragments(fragments: Iterable[Path]) -> tuple[Option, ...]:
    """Return the options that the fragments ask for; what a later one says replaces what an earlier one said.

    Raises BadConfig for a line that is neither an option, nor a comment, nor empty, and for an option that
    comes twice in one fragment.
    """
    options: dict[str, Option] = {}
    for fragment in fragments:
        for number, line in enumerate(fragment.read_text().splitlines(), start=1):
            if not line or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadConfig(f"neither CONFIG_X=VALUE nor a comment: {line!r}", f"{fragment}:{number}")
            option = Option(match[1], match[2], fragment.name)
            before = options.get(option.symbol)
            if before and before.fragment == option.fragment:
                raise BadConfig(f"CONFIG_{option.symbol} comes twice", f"{fragment}:{number}")
            options[option.symbol] = option
    return tuple(options.values())


def to_text(options: Sequence[Option]) -> str:
    """Return the options as a file for KCONFIG_ALLCONFIG."""
    return "".join(f"{option}\n" for option in options)


def check(options: Sequence[Option], config: Path) -> None:
    """Raise BadConfig naming every option of which `config`, a .config file, says something else."""
    got = _read_config(config)
    wrong = [
        f"{option}, wanted by {option.fragment}, became {got.get(option.symbol, 'n')}"
        for option in options
        if got.get(option.symbol, "n") != option.value
    ]
    if wrong:
        raise BadConfig(
            "\n  ".join(["kconfig did not do what the fragments ask", *wrong]),
            str(config),
            "a dependency is missing: see the symbol's `depends on` in the source's Kconfig files",
        )


def _read_config(config: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in config.read_text().splitlines():
        if match := _LINE.fullmatch(line):
            values[match[1]] = match[2]
        elif match := _OFF.fullmatch(line):
            values[match[1]] = "n"
    return values
