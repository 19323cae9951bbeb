# SPDX-License-Identifier: Apache-2.0
"""What the patch queue and the C test sources must pass before anything is booted.

Each patch: checkpatch without a word, and, with the patches before it, a build of what it touches without a
warning that is ours, from the compiler (W=1) or from sparse. New files: kernel-doc.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.command import Completed, run
from cvmtune.lab import kconfig
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import MissingTool
from cvmtune.lab.guest_tools import selftest_sources
from cvmtune.lab.kbuild import build_environment, make_command, require_tools
from cvmtune.lab.kernel import FLAVOURS, KernelInputs, gather_inputs
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.lab.patches import Patch, apply_patches
from cvmtune.lab.progress import Progress

# MAINTAINERS has no entry for what is not in the kernel yet, so that every new file is said to lack one.
_CHECKPATCH = ("perl", "scripts/checkpatch.pl", "--strict", "--terse", "--quiet", "--show-types")
_CHECKPATCH_IGNORED = "--ignore=FILE_PATH_CHANGES"
_KERNEL_DOC = ("perl", "scripts/kernel-doc", "-none", "-Werror")
_DIAGNOSTIC = re.compile(r"(?:\.\./)?(\S+?):(\d+):(?:\d+:)? (?:fatal )?(?:warning|error): .*")
_FAILURE = re.compile(r"error: |\*\*\*")
# C files there are not built into the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/")


@dataclass(frozen=True)
class CheckResult:
    """A check of one subject, a patch or a file; `problems` are the tool's own lines."""

    check: str
    subject: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def run_checks(cache: Cache, progress: Progress, *, quick: bool) -> list[CheckResult]:
    """Run all checks and return their results, failed ones too. `quick` builds the whole queue only.

    Raises what kernel.build() does if checks cannot be run at all.
    """
    inputs = gather_inputs(FLAVOURS["default"], cache, progress)
    require_tools(inputs.toolchain)
    if shutil.which("sparse") is None:
        raise MissingTool({"sparse": "sparse"})
    with cache.lock(SourceTree.LOCK):
        tree = SourceTree(cache)
        tree.unpack(inputs.source, progress)
        patches = inputs.series.patches
        apply_patches(patches, tree.path, tree.pristine)
        sources = selftest_sources()
        new_files = [file for file in sorted(inputs.series.files) if not tree.has_pristine(file)]
        states = [len(patches)] if quick else range(1, len(patches) + 1)
        with progress.step(
            "checking the patch queue", len(patches) + len(sources) + 10 * len(states)
        ) as step:
            results = []

            def check(name: str, subject: str, examine: Callable[[], Iterable[str]], units: int = 1) -> None:
                step.note(f"{name}: {subject}")
                results.append(CheckResult(name, subject, tuple(examine())))
                step.advance(units)
