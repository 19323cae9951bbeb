# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab kernel ...`: work on the patch queue."""

from __future__ import annotations

import sys
from pathlib import Path

from cvmtune.lab import kernel_edit
from cvmtune.lab.cache import Cache
from cvmtune.lab.kernel_checks import run_checks
from cvmtune.lab.kernel_source import find_source
from cvmtune.lab.progress import terminal_progress
from cvmtune.lab.project import kernel_directory


def edit(tree: Path | None) -> int:
    """Make a git tree of the kernel's source with each patch of the queue as a commit."""
    cache, progress = Cache(), terminal_progress()
    tree = tree or _default_tree(cache)
    kernel_edit.edit(kernel_directory(), find_source(cache, progress), tree, progress)
    print(f"{tree}\n  change the commits after tag cvmtune-base there, then: cvmtune lab kernel save")
    return 0


def save(tree: Path | None) -> int:
    """Write the commits of that tree back as the queue."""
    for name in kernel_edit.save(kernel_directory(), tree or _default_tree(Cache())):
        print(name)
    return 0


def check(*, quick: bool) -> int:
    """Run the checks on the queue; return 0 if all pass, else 1."""
    results = run_checks(Cache(), terminal_progress(), quick=quick)
    for result in results:
        print(f"{'ok' if result.passed else 'FAILED'}: {result.name}")
        if not result.passed:
            print(result.detail, file=sys.stderr)
    return 0 if all(result.passed for result in results) else 1


def _default_tree(cache: Cache) -> Path:
    return cache.directory("edit") / "linux"
