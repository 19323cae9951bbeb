# SPDX-License-Identifier: Apache-2.0
"""Editing the patch queue: as commits of a git tree, and back into patch files.

Going there and back changes nothing: base, names, dates and form of the patches are all determined.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from cvmtune.core.errors import UsageError
from cvmtune.lab.errors import PatchDoesNotApply
from cvmtune.lab.kernel_source import Source, unpack, upstream
from cvmtune.lab.patches import Patch, read_series, run_git, write_series
from cvmtune.lab.progress import Progress

_BASE = "cvmtune-base"
# The base commit's message: this, then the package's version.
_SOURCE = "linux-source "
# Debian ends the tree's .gitignore with this comment and lines that ignore everything.
_IGNORE_ALL = re.compile(r"\n*#\n# Debian packaging: ignore everything.*", re.DOTALL)
_IDENTITY = ("-c", "user.name=cvmtune", "-c", "user.email=cvmtune@invalid")
_FORMAT = (
    # The length of abbreviated hashes would otherwise grow with the repository.
    *("-c", "core.abbrev=12"),
    *("format-patch", "--quiet", "--zero-commit", "--no-signature", "--no-numbered", "--no-renames"),
)
_PATCH_NAME = re.compile(r"\d+-(.+)\.patch")


def edit(kernel_directory: Path, source: Source, tree: Path, progress: Progress) -> None:
    """Make `tree`, which must not exist, a git tree of the source with a commit for each patch of the queue.

    Authors and dates are the patches' own. Raises PatchDoesNotApply if one does not fit: git then waits in
    `tree` for it to be resolved.
    """
    if tree.exists():
        raise UsageError("there is something already", str(tree), "save your work there, then remove it")
    series = read_series(kernel_directory, source.upstream)
    tree.mkdir(parents=True)
    unpack(source, tree, progress)
    with progress.step("committing the source and the patches to git"):
        ignore = tree / ".gitignore"
        ignore.write_text(_IGNORE_ALL.sub("\n", ignore.read_text()))
        _git(tree, "init", "--quiet", "--initial-branch=queue")
        # Forced, because some files of the source are among those that its own .gitignore names.
        _git(tree, "add", "--all", "--force")
        _git(tree, *_IDENTITY, "commit", "--quiet", f"--message={_SOURCE}{source.version}")
        _git(tree, "tag", _BASE)
        if series.patches:
            _apply_mails(series.patches, tree)


def save(kernel_directory: Path, tree: Path) -> list[str]:
    """Write the commits of `tree` since its base to the queue for its kernel; return the files' names.

    A patch keeps its purpose if its name, apart from the number, stays; that of a new one is its subject.
    Raises UsageError if `tree` has uncommitted changes or is in the midst of a rebase.
    """
    _require_clean(tree)
    version = _git(tree, "log", "-1", "--format=%s", _BASE).strip().removeprefix(_SOURCE)
    series = read_series(kernel_directory, upstream(version))
    purposes = {_title(patch.name): patch.purpose for patch in series.patches}
    with tempfile.TemporaryDirectory() as scratch:
        _git(tree, *_FORMAT, f"--output-directory={scratch}", f"{_BASE}..HEAD")
        formatted = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    subjects = _git(tree, "log", "--reverse", "--format=%s", f"{_BASE}..HEAD").splitlines()
    for patch in series.patches:
        patch.path.unlink()
    for name, content in formatted.items():
        (series.directory / name).write_bytes(content)
    named = zip(formatted, subjects, strict=True)
    write_series(series.directory, [(name, purposes.get(_title(name), subject)) for name, subject in named])
    return list(formatted)


def _apply_mails(patches: tuple[Patch, ...], tree: Path) -> None:
    mails = [str(patch.path.resolve()) for patch in patches]
    result = run_git(tree, *_IDENTITY, "am", "--quiet", "--keep-non-patch", *mails)
    if result.status == 0:
        return
    number = int((tree / ".git/rebase-apply/next").read_text())
    raise PatchDoesNotApply(
        patches[number - 1].name,
        str(tree),
        result.stderr.strip(),
        f"resolve it there (git am --continue takes the rest), then: cvmtune lab kernel save --tree {tree}",
    )


def _require_clean(tree: Path) -> None:
    if not (tree / ".git").is_dir():
        raise UsageError("no git tree", str(tree), "make one with: cvmtune lab kernel edit")
    for state in ("rebase-apply", "rebase-merge"):
        if (tree / ".git" / state).exists():
            raise UsageError("a rebase is not finished", str(tree), "git status, there, tells how to go on")
    if changes := _git(tree, "status", "--porcelain"):
        raise UsageError(f"uncommitted changes:\n{changes.rstrip()}", str(tree), "commit or remove them")


def _git(tree: Path, *arguments: str) -> str:
    """Run git and return its output; raises CvmtuneError if it fails."""
    return run_git(tree, *arguments).check().stdout


def _title(name: str) -> str:
    match = _PATCH_NAME.fullmatch(name)
    return match[1] if match else name
