# SPDX-License-Identifier: Apache-2.0
"""The patch queue: what is in it, and how a source tree gets it without ever being left half patched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cvmtune.core.command import Completed, run
from cvmtune.core.errors import UsageError
from cvmtune.lab.errors import PatchDoesNotApply

_SERIES = "series.toml"
# Where the diff begins; before it comes the mail's head, if there is any.
_DIFF = b"diff --git "
_CONDITION = re.compile(r"(>=|<)(\d+(?:\.\d+)*)")
_FAILED_HUNK = re.compile(r"^error: (?:patch failed: )?([^:]+):", re.MULTILINE)
# Beside the pristine copies: all files that a queue in this tree has ever touched, one a line.
_TOUCHED = "touched"
_FILES = "files"
_SCRATCH = "patched"


@dataclass(frozen=True)
class Patch:
    """A patch of the queue. `purpose` says in one line what it is for."""

    path: Path
    purpose: str

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def files(self) -> frozenset[str]:
        """The files that it changes, adds or removes, relative to the source tree."""
        # Fields: lines added, lines removed, path; the queue has no renames (see kernel_edit).
        numstat = run_git(self.path.parent, "apply", "--numstat", "-z", self.name).check().stdout
        return frozenset(record.split("\t", 2)[2] for record in numstat.split("\0") if record)

    @cached_property
    def added(self) -> frozenset[str]:
        """The files that it adds."""
        return self._summary("create")

    @cached_property
    def removed(self) -> frozenset[str]:
        """The files that it removes."""
        return self._summary("delete")

    def digest(self) -> str:
        """Return the SHA-256 of its file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def diff_digest(self) -> str:
        """Return the SHA-256 of what it does, the message and the rest of the mail's head left out."""
        return hashlib.sha256(b"\n".join(self.path.read_bytes().partition(_DIFF)[1:])).hexdigest()

    def _summary(self, verb: str) -> frozenset[str]:
        lines = run_git(self.path.parent, "apply", "--summary", self.name).check().stdout
        return frozenset(re.findall(rf"^ {verb} mode \d+ (.+)$", lines, re.MULTILINE))


@dataclass(frozen=True)
class Series:
    """A patch queue, in order, and the directory that it is in.

    `base` is the range of kernel versions it is made for, e.g. ">=6.12,<6.13".
    """

    directory: Path
    base: str
    patches: tuple[Patch, ...]

    @property
    def files(self) -> frozenset[str]:
        """All files that any of the patches touches."""
        return frozenset().union(*(patch.files for patch in self.patches))

    def fits(self, version: tuple[int, ...]) -> bool:
        """Tell whether the queue is made for that kernel version."""
        return all(
            version >= bound if relation == ">=" else version < bound
            for relation, bound in _conditions(self.base)
        )


def read_series(kernel_directory: Path, version: tuple[int, ...]) -> Series:
    """Return the queue for that kernel version, one of the directories of kernel/queue.

    Raises UsageError if there is none, or if any queue is not as it should be.
    """
    queues = kernel_directory / "queue"
    found = [_read_queue(path.parent) for path in sorted(queues.glob(f"*/{_SERIES}"))]
    for series in found:
        if series.fits(version):
            return series
    bases = " or ".join(series.base for series in found) or "no kernel"
    raise UsageError(f"the queue is for kernels {bases}, not for {'.'.join(map(str, version))}", str(queues))


def write_series(directory: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write names and purposes of the patches, in order, after the series file's head, which stays."""
    path = directory / _SERIES
    head = path.read_text().partition("[[patch]]")[0].rstrip("\n") + "\n"
    # A JSON string is a TOML basic string too.
    quoted = ((_quote(name), _quote(purpose)) for name, purpose in entries)
    path.write_text(head + "".join(f"\n[[patch]]\nfile = {name}\npurpose = {why}\n" for name, why in quoted))


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _read_queue(directory: Path) -> Series:
    path = directory / _SERIES
    try:
        content = tomllib.loads(path.read_text())
        base = str(content["base"])
        entries = [(str(entry["file"]), str(entry["purpose"])) for entry in content.get("patch", [])]
        _conditions(base)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"not a series of patches: {error!r}", str(path)) from error
    patches = tuple(Patch(directory / file, purpose) for file, purpose in entries)
    listed = {patch.name for patch in patches}
    present = {file.name for file in directory.glob("*.patch")}
    if listed != present or len(listed) != len(patches):
        differ = sorted(listed ^ present) or ["a name that comes twice"]
        raise UsageError(f"series.toml and the patches beside it differ: {', '.join(differ)}", str(path))
    return Series(directory, base, patches)


def apply_patches(patches: Sequence[Patch], tree: Path, pristine: Path) -> list[str]:
    """Make `tree` the pristine source plus `patches`, whichever patches it has now; return the files changed.

    Hunks must fit exactly, though not at their line. Only files whose content changes are written, so that
    make rebuilds no more than it must. PatchDoesNotApply is raised before the tree is touched. A crash on the
    way is mended by the next call: it starts from the pristine copies, which are complete before the tree is
    touched.
    """
    touched = _keep_pristine(frozenset().union(*(patch.files for patch in patches)), tree, pristine)
    scratch = pristine / _SCRATCH
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir()
    for file in touched:
        if copy := pristine_copy(pristine, file):
            _copy(copy, scratch / file)
    for patch in patches:
        _apply(patch, scratch)
    return [file for file in sorted(touched) if _update(scratch / file, tree / file)]


def pristine_copy(pristine: Path, file: str) -> Path | None:
    """Return the source's own version of a file that a queue has touched; None if the source has none."""
    copy = pristine / _FILES / file
    return copy if copy.exists() else None


def run_git(directory: Path, *arguments: str) -> Completed:
    """Run git in `directory`, so that it does the same whatever the user's settings and surroundings are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = {
        # In a repository that surrounds the cache, "git apply" would skip, without a word, all files that it
        # takes for outside of the current directory.
        "GIT_CEILING_DIRECTORIES": str(directory.resolve().parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C.UTF-8",
    }
    return run(["git", *arguments], cwd=directory, env=kept | settings)


def _conditions(base: str) -> list[tuple[str, tuple[int, ...]]]:
    conditions = []
    for text in base.split(","):
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"base {base!r}: {text!r} is neither >=VERSION nor <VERSION")
        conditions.append((match[1], tuple(int(part) for part in match[2].split("."))))
    return conditions


def _keep_pristine(files: frozenset[str], tree: Path, pristine: Path) -> frozenset[str]:
    """Keep the tree's own version of the files not touched before; return all that have ever been touched."""
    register = pristine / _TOUCHED
    known = frozenset(register.read_text().splitlines() if register.exists() else ())
    for file in files - known:
        if (tree / file).exists():
            _copy(tree / file, pristine / _FILES / file)
    touched = known | files
    pristine.mkdir(parents=True, exist_ok=True)
    # Registered only now: after a crash above, the tree is as it was, and copying starts again.
    aside = register.with_suffix(".new")
    aside.write_text("".join(f"{file}\n" for file in sorted(touched)))
    aside.replace(register)
    return touched


def _apply(patch: Patch, scratch: Path) -> None:
    result = run_git(scratch, "apply", "--whitespace=nowarn", str(patch.path.resolve()))
    if result.status == 0:
        return
    hunk = _FAILED_HUNK.search(result.stderr)
    raise PatchDoesNotApply(
        patch.name,
        hunk[1] if hunk else "",
        result.stderr.strip(),
        "rebase the queue in the tree of `cvmtune lab kernel edit`; the build tree is as it was",
    )


def _update(wanted: Path, target: Path) -> bool:
    """Make `target` what `wanted` is, if it is not already; tell whether anything was to do."""
    if not wanted.exists():
        existed = target.exists()
        target.unlink(missing_ok=True)
        return existed
    if target.exists() and _content(target) == _content(wanted):
        return False
    _copy(wanted, target)
    return True


def _content(file: Path) -> tuple[bytes, bool]:
    return file.read_bytes(), os.access(file, os.X_OK)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(target.name + ".cvmtune-new")
    # The time of the copy, not of the original: make must see that even a step back is a change.
    shutil.copyfile(source, aside)
    shutil.copymode(source, aside)
    aside.replace(target)
