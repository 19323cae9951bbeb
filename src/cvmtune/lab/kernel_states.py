# SPDX-License-Identifier: Apache-2.0
"""Builds of the patch queue's states, the queue up to each patch, for the warnings that it brings."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from cvmtune.core.command import Completed, format_command, run
from cvmtune.lab import kconfig
from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import SETTINGS, build_environment, make_command
from cvmtune.lab.kernel import KernelInputs
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.lab.patches import apply_patches, pristine_copy
from cvmtune.lab.progress import Progress

_DIAGNOSTIC = re.compile(r"(?:\.\./)?(\S+?):(\d+):(?:\d+:)? (?:fatal )?(?:warning|error): .*")
_FAILURE = re.compile(r"error: |\*\*\*")
# C files there are not built into the kernel.
_NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/")

# In the output directory. The tools by which all objects there were checked:
_TOOLS = "cvmtune-tools"
# what the kernel's configuration was made from:
_CONFIGURED = "cvmtune-configured"
# there from the beginning of a build until it has ended without a problem: objects that are not older than
# this file may have had one.
_SUSPECT = "cvmtune-suspect"


class StateBuilder:
    """Builds states of a queue in a tree that nothing else uses.

    Objects in the output directory were checked as they were built, and are gone if that found a problem.
    So a build after a change, which makes and checks what the change affects, finds all that there is.
    """

    def __init__(self, inputs: KernelInputs, cache: Cache) -> None:
        self._inputs = inputs
        self._cache = cache
        self._patches = inputs.series.patches
        self._applied: int | None = None
        self._tree = SourceTree(cache, SourceTree.CHECKS)
        self._output = self._tree.output("checked")
        self._log = cache.directory("logs") / "kernel-checks.log"
        files = sorted(inputs.series.files)
        # Built in each state that has the file, whichever patch touches it.
        self._sources = [file for file in files if file.endswith(".c") and not file.startswith(_NOT_KERNEL)]
        self._tools = {
            "source": inputs.source.version,
            "builder": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
            "compiler": inputs.toolchain.version(),
            "settings": format_command(SETTINGS),
            "sparse": run(["sparse", "--version"]).check().stdout,
        }

    @property
    def path(self) -> Path:
        """The tree."""
        return self._tree.path

    def key_material(self) -> Mapping[str, str]:
        """Return what decides, together with the patches, what a build finds."""
        options = kconfig.to_text(self._inputs.options)
        return {**self._tools, "config": options, "sources": " ".join(self._sources)}

    def prepare(self, progress: Progress) -> None:
        """Have the tree, and an output directory in which no other tools have made anything."""
        self._tree.copy(self._inputs.source, progress)
        tools = self._output / _TOOLS
        text = "".join(f"{name}: {value}\n" for name, value in self._tools.items())
        if self._output.exists() and not (tools.exists() and tools.read_text() == text):
            shutil.rmtree(self._output)
        self._output.mkdir(exist_ok=True)
        tools.write_text(text)
        self._log.unlink(missing_ok=True)

    def apply(self, applied: int) -> None:
        """Make the tree the source with the first `applied` patches."""
        if self._applied != applied:
            apply_patches(self._patches[:applied], self._tree.path, self._tree.pristine)
            self._applied = applied

    def build(self, applied: int) -> list[str]:
        """Build what the queue touches, with the first `applied` patches; return our warnings and errors."""
        self.apply(applied)
        make = make_command(self._cache, self._inputs.toolchain, f"O={self._output.name}")
        if problems := self._configure(make):
            return problems
        sources = [file for file in self._sources if (self._tree.path / file).exists()]
        self._remove_suspects()
        suspect = self._output / _SUSPECT
        suspect.touch()
        # C=1: sparse checks what is compiled, and so what has changed.
        built = self._make([*make, "W=1", "C=1", *(file.removesuffix(".c") + ".o" for file in sources)])
        problems = [
            line
            for line in dict.fromkeys(built.stdout.splitlines())
            if self._is_ours(line) or (built.status and _FAILURE.search(line))
        ] or silent_failure(built)
        if not problems:
            suspect.unlink()
        return problems

    def _configure(self, make: Sequence[str]) -> list[str]:
        """Configure the kernel if what decides its configuration has changed; return what went wrong."""
        # Symbols that later patches bring are ignored.
        options = kconfig.to_text(self._inputs.options)
        files = [
            self._tree.path / file
            for file in sorted(self._inputs.series.files)
            if Path(file).name.startswith("Kconfig")
        ]
        key = options + "".join(f"{path} {_digest(path)}\n" for path in files if path.exists())
        configured = self._output / _CONFIGURED
        if configured.exists() and configured.read_text() == key:
            return []
        configured.unlink(missing_ok=True)
        allconfig = self._output / "cvmtune-allconfig"
        allconfig.write_text(options)
        done = self._make([*make, f"KCONFIG_ALLCONFIG={allconfig}", "allnoconfig"])
        if done.status:
            return complaints(done)
        configured.write_text(key)
        return []

    def _remove_suspects(self) -> None:
        """Remove the objects of a build that found a problem, or was cut short, for it to show again."""
        suspect = self._output / _SUSPECT
        if not suspect.exists():
            return
        since = suspect.stat().st_mtime_ns
        for path in self._output.rglob("*.[os]"):
            if path.stat().st_mtime_ns >= since:
                path.unlink()

    def _is_ours(self, line: str) -> bool:
        """Tell whether the line is a warning or an error at a line of the source that the queue adds."""
        match = _DIAGNOSTIC.fullmatch(line)
        return match is not None and int(match[2]) in self._added_lines(match[1])

    def _added_lines(self, file: str) -> Container[int]:
        # Of files that only later patches touch there is no pristine copy yet.
        if not any(file in patch.files for patch in self._patches[: self._applied]):
            return ()
        new = (self._tree.path / file).read_text().splitlines()
        pristine = pristine_copy(self._tree.pristine, file)
        old = pristine.read_text().splitlines() if pristine else []
        opcodes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        return {line + 1 for tag, _, _, first, end in opcodes if tag != "equal" for line in range(first, end)}

    def _make(self, argv: Sequence[str]) -> Completed:
        return run(argv, cwd=self._tree.path, env=build_environment(), log=self._log)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def complaints(completed: Completed) -> list[str]:
    """Return what a tool has said that says nothing when it is content."""
    said = [*completed.stdout.splitlines(), *completed.stderr.splitlines()]
    return [line for line in said if line.strip()] or silent_failure(completed)


def silent_failure(completed: Completed) -> list[str]:
    """Return a line about a command that has failed; none if it has not."""
    if completed.status == 0:
        return []
    return [f"{format_command(completed.argv)} ended with status {completed.status}"]
