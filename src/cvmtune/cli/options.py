# SPDX-License-Identifier: Apache-2.0
"""What the options of several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

MACHINES = ("plain", "vm", "cvm")
FLAVOURS = ("default", "debug", "kcsan", "absent", "unpatched")
_LONGEST = 1e6  # seconds
_LONGEST_MIN = 1e4
Handler = Callable[[argparse.Namespace], int]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(commands: Commands, name: str, help: str, handler: Handler) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--verbose", action="store_true", help="say more, also of errors")
    parser.set_defaults(handler=handler)
    return parser


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def output_options(parser: argparse.ArgumentParser) -> None:
    json_option(parser)
    dry_run_option(parser)


def dry_run_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    # Written so that "nan" is refused too; what poll(2) can wait ends at 24 days.
    if not 0 < (seconds := float(text)) <= _LONGEST:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, at most {_LONGEST:g}")
    return seconds


def minutes(text: str) -> float:
    # As above.
    if not 0 < (minutes := float(text)) <= _LONGEST_MIN:
        raise argparse.ArgumentTypeError(f"a number of minutes above 0, at most {_LONGEST_MIN:g}")
    return minutes
