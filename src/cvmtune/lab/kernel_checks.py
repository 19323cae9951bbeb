# SPDX-License-Identifier: Apache-2.0
"""What the patch queue and the C test sources must pass before anything is booted.

Each patch: checkpatch without a word, and, with the patches before it, a build of what the queue touches
without a warning that is ours, from the compiler (W=1) or from sparse. New files: kernel-doc. What has passed
is not checked again until something that it depends on changes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cvmtune.core.command import run
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import MissingTool
from cvmtune.lab.guest_tools import module_sources
from cvmtune.lab.kbuild import build_environment, require_tools
from cvmtune.lab.kernel import FLAVOURS, KernelInputs, gather_inputs
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.lab.kernel_states import StateBuilder, complaints
from cvmtune.lab.patches import Patch
from cvmtune.lab.progress import Progress, Step

_CHECKPATCH = (
    *("perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", "--quiet", "--show-types"),
    # It wants an entry in MAINTAINERS for every new file; the queue is not in the kernel and has none.
    "--ignore=FILE_PATH_CHANGES",
)
_KERNEL_DOC = ("perl", "scripts/kernel-doc", "-none", "-Werror")
# What is there is no part of a kernel's build.
_NOT_BUILT = ("Documentation/", "samples/", "tools/")
# In the cache, a check that has passed.
_KIND = "kernel-checks"


@dataclass(frozen=True)
class CheckResult:
    """A check of one subject, a patch or a file; `problems` are the tool's own lines."""

    check: str
    subject: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class _Check:
    """A check that can be run. `material` is all that decides what `examine` finds."""

    name: str
    subject: str
    material: Mapping[str, str]
    examine: Callable[[], list[str]]

    def run(self, cache: Cache, step: Step) -> CheckResult:
        """Run it; in the cache, remember that it has passed."""
        step.note(f"{self.name}: {self.subject}")
        problems = tuple(self.examine())
        if not problems:
            cache.get_or_fill(_KIND, self.material, lambda directory: None)
        step.advance()
        return CheckResult(self.name, self.subject, problems)


def run_checks(cache: Cache, progress: Progress, *, quick: bool) -> list[CheckResult]:
    """Run what has not passed yet, two checks at a time; return all results, of those that failed too.

    `quick` builds the whole queue only, not each of its states. Raises what kernel.build() does, but a build
    that fails is a result.
    """
    inputs = gather_inputs(FLAVOURS["default"], cache, progress)
    require_tools(inputs.toolchain)
    if shutil.which("sparse") is None:
        raise MissingTool({"sparse": "sparse"})
    checker = _Checker(inputs, cache)
    of_texts, of_states = checker.texts(), checker.states()[-1 if quick else 0 :]
    of_files = checker.files()
    checks = [*of_texts, *of_files, *of_states]
    results = {
        (check.name, check.subject): CheckResult(check.name, check.subject, ())
        for check in checks
        if cache.find(_KIND, check.material) is not None
    }

    def due(some: Sequence[_Check]) -> list[_Check]:
        return [check for check in some if (check.name, check.subject) not in results]

    if remaining := due(checks):
        with cache.lock(SourceTree.CHECKS):
            checker.prepare(progress)
            with progress.step("checking the patch queue and the test sources", len(remaining)) as step:
                # States in their order: little is built from one to the next.
                in_tree = [*due(of_states), *due(of_files)]
                for result in _run_by_two(in_tree, due(of_texts), lambda check: check.run(cache, step)):
                    results[result.check, result.subject] = result
    return [results[check.name, check.subject] for check in checks]


def _run_by_two(
    in_order: Sequence[_Check], others: Sequence[_Check], run_one: Callable[[_Check], CheckResult]
) -> list[CheckResult]:
    """Run `in_order` one by one, and beside them the others, whose order does not matter."""
    remaining = deque(others)

    def run_others() -> list[CheckResult]:
        done = []
        while remaining:
            try:
                check = remaining.popleft()
            except IndexError:  # the other thread was faster
                break
            done.append(run_one(check))
        return done

    with ThreadPoolExecutor(1) as pool:
        try:
            beside = pool.submit(run_others)
            done = [*map(run_one, in_order), *run_others()]
        finally:
            # On the way out, as after a Ctrl-C, the other thread ends with the check that it is at.
            remaining.clear()
        return done + beside.result()


class _Checker:
    """Makes the checks of a queue and of the test sources."""

    def __init__(self, inputs: KernelInputs, cache: Cache) -> None:
        self._patches = inputs.series.patches
        self._states = StateBuilder(inputs, cache)
        self._common = {"source": inputs.source.version, "checks": _digest(Path(__file__))}

    def prepare(self, progress: Progress) -> None:
        """Have what the checks are run in."""
        self._states.prepare(progress)

    def texts(self) -> list[_Check]:
        """Return the checks of patches and of test sources as they stand, which need no patched tree."""
        sources = [path for path in module_sources() if path.suffix in (".c", ".h")]
        files = [*((patch.path, ()) for patch in self._patches), *((path, ("--file",)) for path in sources)]
        return [
            _Check(
                "checkpatch",
                path.name,
                {**self._common, "check": "checkpatch", "name": path.name, "content": _digest(path)},
                partial(self._complaints, [*_CHECKPATCH, *options, str(path.resolve())]),
            )
            for path, options in files
        ]

    def files(self) -> list[_Check]:
        """Return the checks of files that the queue adds, as it makes them."""
        added: frozenset[str] = frozenset()
        known: frozenset[str] = frozenset()
        for patch in self._patches:
            added = (added | (patch.added - known)) - patch.removed
            known |= patch.files
        return [
            _Check(
                "kernel-doc",
                file,
                {
                    **self._common,
                    "check": "kernel-doc",
                    "name": file,
                    **_digests([patch for patch in self._patches if file in patch.files]),
                },
                partial(self._kernel_doc, file),
            )
            for file in sorted(added)
            if file.endswith((".c", ".h"))
        ]

    def states(self) -> list[_Check]:
        """Return the builds, in order: the queue up to each patch that can change what is built."""
        material = {**self._common, **self._states.key_material(), "check": "build"}
        building = [patch for patch in self._patches if any(map(_is_built, patch.files))]
        return [
            _Check(
                "build",
                patch.name,
                {**material, **_digests(building[:n])},
                partial(self._states.build, self._patches.index(patch) + 1),
            )
            for n, patch in enumerate(building, start=1)
        ]

    def _kernel_doc(self, file: str) -> list[str]:
        self._states.apply(len(self._patches))
        return self._complaints([*_KERNEL_DOC, file])

    def _complaints(self, argv: Sequence[str]) -> list[str]:
        # Without a log: of two that write to it at a time, each would take the other's lines for its own.
        return complaints(run(argv, cwd=self._states.path, env=build_environment()))


def _is_built(file: str) -> bool:
    return not file.startswith(_NOT_BUILT)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digests(patches: Sequence[Patch]) -> dict[str, str]:
    return {f"patch {n}": patch.diff_digest() for n, patch in enumerate(patches, start=1)}
