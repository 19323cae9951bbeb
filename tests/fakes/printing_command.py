# SPDX-License-Identifier: Apache-2.0
"""Commands of the tool on a fake guest, in a process whose standard output and error are as they may be.

The arguments are a directory for the guest, its kind, and a list of commands in JSON. The last command prints
to where the process does, and its status is the process's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

from cvmtune import cli
from cvmtune.commands import site
from tests.fakes.tree import MACHINES, Machine, Mount


def main(root: Path, kind: str, commands: list[list[str]]) -> None:
    machine = MACHINES[kind](root)
    # Latin-1 has no such letters, GBK not the last, and no encoding has what stands for bytes of none.
    for point in ("/данные/é", "/\ufffd\ufffd"):
        machine.mount(Mount(point=point))
    machine.go_on()
    *before, last = commands
    for argv in before:
        assert machine.run(*argv).status == 0
    run_in(machine, last)


def run_in(machine: Machine, argv: list[str]) -> None:
    """End as the console script does on this machine."""
    sys.argv = ["cvmtune", *argv]
    with patch.object(site, "local", lambda: site.Site(machine.system, machine.root)):
        cli.entry()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
