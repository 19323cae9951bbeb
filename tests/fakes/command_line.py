# SPDX-License-Identifier: Apache-2.0
"""The command line, called as a function."""

from __future__ import annotations

from cvmtune import cli


def status(*argv: str) -> int:
    """The status that the command ends with, however it does."""
    try:
        return cli.main(argv)
    except SystemExit as end:
        return int(end.code or 0)
