# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab kernel ...`: work on the patch queue."""

from __future__ import annotations

from pathlib import Path

from cvmtune.core.command import format_command
from cvmtune.lab import kernel_edit
from cvmtune.lab.cache import Cache
from cvmtune.lab.kernel_checks import run_checks
from cvmtune.lab.kernel_source import find_source
from cvmtune.lab.progress import terminal_progress
from cvmtune.lab.project import kernel_directory


def edit(tree: Path | None) -> int:
    """Make a git tree of the kernel's source with each patch of the queue as a commit."""
    cache, progress = Cache(), terminal_progress()
    where = tree or _default_tree()
    kernel_edit.edit(kernel_directory(), find_source(cache, progress), where, progress)
    save_command = ["cvmtune", "lab", "kernel", "save", *(["--tree", str(tree)] if tree else [])]
    print(f"{where}\n  change the commits after tag cvmtune-base there, then: {format_command(save_command)}")
    return 0


def save(tree: Path | None) -> int:
    """Write the commits of that tree back as the queue."""
    for name in kernel_edit.save(kernel_directory(), tree or _default_tree()):
        print(name)
    return 0


def check(*, quick: bool) -> int:
    """Run the checks on the queue; return 0 if all pass, else 1."""
    results = run_checks(Cache(), terminal_progress(), quick=quick)
    for result in results:
        print(f"{'ok' if result.ok else 'FAILED'}: {result.check}: {result.subject}")
        for problem in result.problems:
            print(f"    {problem}")
    return 0 if all(result.ok for result in results) else 1


def _default_tree() -> Path:
    # Not in the cache: `lab clean` must not remove what somebody works on.
    return kernel_directory().parent / "build" / "linux"
