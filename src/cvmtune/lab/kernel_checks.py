# SPDX-License-Identifier: Apache-2.0
"""What the patch queue and the C test sources must pass before anything is booted.

Each patch: checkpatch without a word, and, with the patches before it, a build of what it touches without a
warning that is ours, from the compiler (W=1) or from sparse. New files: kernel-doc.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cvmtune.core.command import Completed, format_command, run
from cvmtune.lab import kconfig
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import MissingTool
from cvmtune.lab.guest_tools import module_sources
from cvmtune.lab.kbuild import build_environment, make_command, require_tools
from cvmtune.lab.kernel import FLAVOURS, KernelInputs, gather_inputs
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.lab.patches import apply_patches, pristine_copy
from cvmtune.lab.progress import Progress

_CHECKPATCH = (
    *("perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", "--quiet", "--show-types"),
    # It wants an entry in MAINTAINERS for every new file; the queue is not in the kernel and has none.
    "--ignore=FILE_PATH_CHANGES",
)
_KERNEL_DOC = ("perl", "scripts/kernel-doc", "-none", "-Werror")
_DIAGNOSTIC = re.compile(r"(?:\.\./)?(\S+?):(\d+):(?:\d+:)? (?:fatal )?(?:warning|error): .*")
_FAILURE = re.compile(r"error: |\*\*\*")
# C files there are not built into the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/")

# In the cache, what has passed.
_KIND = "kernel-checks"
_PASSED = "passed.json"

# What is checked, on what, and what finds the problems.
_Job = tuple[str, str, Callable[[], list[str]]]


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
    """Run all checks and return their results, of those that failed too.

    `quick` builds the whole queue only, not each of its states. What has passed in whole is not checked again
    until something that it depends on changes. Raises what kernel.build() does, but a build that fails is a
    result.
    """
    inputs = gather_inputs(FLAVOURS["default"], cache, progress)
    require_tools(inputs.toolchain)
    if shutil.which("sparse") is None:
        raise MissingTool({"sparse": "sparse"})
    material = {**_key_material(inputs), "quick": str(quick)}
    if (passed := cache.find(_KIND, material)) is not None:
        names = json.loads((passed / _PASSED).read_text())
        return [CheckResult(check, subject, ()) for check, subject in names]
    with cache.lock(SourceTree.LOCK):
        checker = _Checker(inputs, cache, progress)
        jobs = checker.jobs(quick)
        results = []
        with progress.step("checking the patch queue and the test sources", len(jobs)) as step:
            for check, subject, examine in jobs:
                step.note(f"{check}: {subject}")
                results.append(CheckResult(check, subject, tuple(examine())))
                step.advance()
        checker.finish()
    if all(result.ok for result in results):
        text = json.dumps([(result.check, result.subject) for result in results])

        def fill(directory: Path) -> None:
            (directory / _PASSED).write_text(text)

        cache.get_or_fill(_KIND, material, fill)
    return results


def _key_material(inputs: KernelInputs) -> Mapping[str, str]:
    """All that decides what the checks find: the checks themselves are part of it."""
    files = [*module_sources(), Path(__file__)]
    return {
        **inputs.key_material(),
        **{f"file {path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "sparse": run(["sparse", "--version"]).check().stdout,
    }


class _Checker:
    """The tree with the whole queue applied, and an output directory of its own in it."""

    def __init__(self, inputs: KernelInputs, cache: Cache, progress: Progress) -> None:
        self._inputs = inputs
        self._cache = cache
        self._tree = SourceTree(cache)
        self._patches = inputs.series.patches
        self._tree.unpack(inputs.source, progress)
        apply_patches(self._patches, self._tree.path, self._tree.pristine)
        self._times = {
            path: path.stat().st_mtime_ns
            for path in (self._tree.path / file for file in inputs.series.files)
            if path.exists()
        }
        self._output = self._tree.output("checks")
        self._output.mkdir(exist_ok=True)
        self._log = cache.directory("logs") / "kernel-checks.log"
        self._log.unlink(missing_ok=True)

    def jobs(self, quick: bool) -> list[_Job]:
        """Return the checks to run, in order. The builds come last, for they take patches away."""
        states = range(1, len(self._patches) + 1)[-1 if quick else 0 :]
        tests = [path for path in module_sources() if path.suffix in (".c", ".h")]
        return [
            *(("checkpatch", patch.name, partial(self._checkpatch, patch.path)) for patch in self._patches),
            *(("checkpatch", path.name, partial(self._checkpatch, path, "--file")) for path in tests),
            *(("kernel-doc", file, partial(self._kernel_doc, file)) for file in self._new_sources()),
            *(("build", self._patches[n - 1].name, partial(self._build, n)) for n in states),
        ]

    def finish(self) -> None:
        """Give the patched files their times back, so that no other output directory is rebuilt for nothing.

        Their content is that of the whole queue again: the last build was of that.
        """
        for path, time in self._times.items():
            os.utime(path, ns=(time, time))

    def _checkpatch(self, path: Path, *options: str) -> list[str]:
        return _lines(self._run([*_CHECKPATCH, *options, str(path.resolve())]))

    def _kernel_doc(self, file: str) -> list[str]:
        return _lines(self._run([*_KERNEL_DOC, file]))

    def _build(self, applied: int) -> list[str]:
        """Build what the queue touches, with the first `applied` patches; return our warnings and errors."""
        apply_patches(self._patches[:applied], self._tree.path, self._tree.pristine)
        allconfig = self._output / "cvmtune-allconfig"
        # Symbols that later patches bring are ignored.
        allconfig.write_text(kconfig.to_text(self._inputs.options))
        make = make_command(self._cache, self._inputs.toolchain, f"O={self._output.name}")
        configured = self._run([*make, f"KCONFIG_ALLCONFIG={allconfig}", "allnoconfig"])
        if configured.status:
            return _lines(configured)
        objects = [
            file.removesuffix(".c") + ".o"
            for file in sorted(self._inputs.series.files)
            if file.endswith(".c") and not file.startswith(_NOT_KERNEL) and (self._tree.path / file).exists()
        ]
        built = self._run([*make, "W=1", "C=2", *objects])
        return [
            line
            for line in dict.fromkeys(built.stdout.splitlines())
            if self._is_ours(line) or (built.status and _FAILURE.search(line))
        ] or _silent_failure(built)

    def _is_ours(self, line: str) -> bool:
        """Tell whether the line is a warning or an error at a line of the source that the queue adds."""
        match = _DIAGNOSTIC.fullmatch(line)
        return match is not None and int(match[2]) in self._added_lines(match[1])

    def _added_lines(self, file: str) -> Container[int]:
        if file not in self._inputs.series.files:
            return ()
        new = (self._tree.path / file).read_text().splitlines()
        pristine = pristine_copy(self._tree.pristine, file)
        old = pristine.read_text().splitlines() if pristine else []
        opcodes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        return {line + 1 for tag, _, _, first, end in opcodes if tag != "equal" for line in range(first, end)}

    def _new_sources(self) -> list[str]:
        return [
            file
            for file in sorted(self._inputs.series.files)
            if file.endswith((".c", ".h")) and pristine_copy(self._tree.pristine, file) is None
        ]

    def _run(self, argv: Sequence[str]) -> Completed:
        return run(argv, cwd=self._tree.path, env=build_environment(), log=self._log)


def _lines(completed: Completed) -> list[str]:
    """Return what a tool has said that says nothing when it is content."""
    return [line for line in completed.stdout.splitlines() if line.strip()] or _silent_failure(completed)


def _silent_failure(completed: Completed) -> list[str]:
    if completed.status == 0:
        return []
    return [f"{format_command(completed.argv)} ended with status {completed.status}"]
