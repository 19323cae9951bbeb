# SPDX-License-Identifier: Apache-2.0
"""The patch queue on a small source tree: applied whole or not at all, edited and saved without a trace."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from cvmtune.core.errors import UsageError
from cvmtune.lab.errors import PatchDoesNotApply
from cvmtune.lab.kernel_edit import edit, save
from cvmtune.lab.kernel_source import Source
from cvmtune.lab.patches import Patch, apply_patches, pristine_copy, read_series
from cvmtune.lab.progress import SilentProgress

VERSION = (6, 12, 117)
QUEUE = "queue/6.12"
SERIES = f"{QUEUE}/series.toml"
HEAD = """\
# SPDX-License-Identifier: Apache-2.0
#
# A comment that stays.
base = ">=6.12,<6.13"
"""
SMP = "".join(f"line {number}\n" for number in range(1, 31))
SOURCE = {
    ".gitignore": "*.o\n*.tmp\n\n#\n# Debian packaging: ignore everything at the top\n#\n/*\n!/debian/\n",
    "arch/smp.c": SMP,
    "arch/Kconfig": "config A\n",
    "old.txt": "to be removed\n",
    "ignored.tmp": "a file of the source that its own .gitignore names\n",
    "script.sh": "#!/bin/sh\n",
}

Content = dict[str, tuple[str, bool]]


def git(tree: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@invalid")
    argv = ["git", *identity, *arguments]
    return subprocess.run(argv, cwd=tree, check=True, capture_output=True, text=True).stdout


def commit(tree: Path, subject: str, *, amend: bool = False) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", f"--message={subject}", "--date=2026-01-02T03:04:05", *["--amend"] * amend)


def content(tree: Path) -> Content:
    return {
        str(path.relative_to(tree)): (path.read_text(), bool(path.stat().st_mode & 0o100))
        for path in sorted(tree.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def write(tree: Path, file: str, text: str) -> None:
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    (tree / file).write_text(text)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    top = tmp_path / "linux-source"
    for file, text in SOURCE.items():
        write(top, file, text)
    tarball = tmp_path / "source.tar.xz"
    with tarfile.open(tarball, "w:xz") as tar:
        tar.add(top, "linux-source-6.12")
    return Source("6.12.117-1", tarball)


@pytest.fixture
def kernel(tmp_path: Path, source: Source) -> Path:
    """Return a kernel/ directory with a queue of three patches, made as a developer would."""
    kernel = tmp_path / "kernel"
    (kernel / QUEUE).mkdir(parents=True)
    (kernel / SERIES).write_text(HEAD)
    tree = tmp_path / "first-edit"
    edit(kernel, source, tree, SilentProgress())
    write(tree, "arch/smp.c", SMP.replace("line 10\n", "line ten\n"))
    commit(tree, "arch: change a line")
    write(tree, "arch/new.c", "new\n")
    write(tree, "arch/smp.c", SMP.replace("line 10\n", "line ten\nline ten and a half\n"))
    (tree / "old.txt").unlink()
    commit(tree, "arch: add and remove files\n\nWith umlauts: äöü.")
    write(tree, "arch/Kconfig", "config A\nconfig B\n")
    (tree / "script.sh").chmod(0o755)
    commit(tree, 'arch: an "option"')
    save(kernel, tree)
    return kernel


@pytest.fixture
def build(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source tree as unpacked, and the place for pristine copies."""
    return tmp_path / "linux-source", tmp_path / "pristine"


def patches_of(kernel: Path) -> tuple[Patch, ...]:
    return read_series(kernel, VERSION).patches


def test_save_writes_patches_and_series(kernel: Path) -> None:
    series = read_series(kernel, VERSION)
    assert [(patch.name, patch.purpose) for patch in series.patches] == [
        ("0001-arch-change-a-line.patch", "arch: change a line"),
        ("0002-arch-add-and-remove-files.patch", "arch: add and remove files"),
        ("0003-arch-an-option.patch", 'arch: an "option"'),
    ]
    assert (kernel / SERIES).read_text().startswith(HEAD)
    first = series.patches[0].path.read_text()
    assert first.startswith("From 0000000000000000000000000000000000000000 ")
    assert "Subject: [PATCH] arch: change a line" in first
    assert series.files == {"arch/smp.c", "arch/new.c", "old.txt", "arch/Kconfig", "script.sh"}


def test_edit_then_save_changes_nothing(kernel: Path, source: Source, tmp_path: Path) -> None:
    before = content(kernel)
    tree = tmp_path / "edit"
    edit(kernel, source, tree, SilentProgress())
    assert git(tree, "log", "--format=%an %ad %s", "--date=short").splitlines() == [
        'Ann 2026-01-02 arch: an "option"',
        "Ann 2026-01-02 arch: add and remove files",
        "Ann 2026-01-02 arch: change a line",
        git(tree, "log", "-1", "--format=%an %ad %s", "--date=short", "cvmtune-base").strip(),
    ]
    save(kernel, tree)
    assert content(kernel) == before


def test_the_users_git_settings_do_not_matter(
    kernel: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(kernel)
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[format]\n\tpretty = oneline\n\tnoprefix = true\n\tnumbered = true\n\tsignature = me\n"
        "[diff]\n\tmnemonicPrefix = true\n\tcontext = 1\n[core]\n\tautocrlf = true\n\tabbrev = 40\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    tree = tmp_path / "edit"
    edit(kernel, source, tree, SilentProgress())
    save(kernel, tree)
    assert content(kernel) == before


def test_purposes_stay_with_names(kernel: Path, source: Source, tmp_path: Path) -> None:
    path = kernel / SERIES
    path.write_text(path.read_text().replace('purpose = "arch: add', 'purpose = "why: add'))
    tree = tmp_path / "edit"
    edit(kernel, source, tree, SilentProgress())
    git(tree, "reset", "--quiet", "--hard", "cvmtune-base")
    write(tree, "arch/zero.c", "zero\n")
    commit(tree, "arch: zero")
    git(tree, "am", "--quiet", str(kernel / QUEUE / "0001-arch-change-a-line.patch"))
    git(tree, "am", "--quiet", str(kernel / QUEUE / "0002-arch-add-and-remove-files.patch"))
    assert save(kernel, tree) == [
        "0001-arch-zero.patch",
        "0002-arch-change-a-line.patch",
        "0003-arch-add-and-remove-files.patch",
    ]
    assert [patch.purpose for patch in patches_of(kernel)] == [
        "arch: zero",
        "arch: change a line",
        "why: add and remove files",
    ]


def test_debians_ignoring_of_everything_is_dropped(kernel: Path, source: Source, tmp_path: Path) -> None:
    tree = tmp_path / "edit"
    edit(kernel, source, tree, SilentProgress())
    assert (tree / ".gitignore").read_text() == "*.o\n*.tmp\n"
    assert "ignored.tmp" in git(tree, "ls-files")
    write(tree, "forgotten.c", "")
    with pytest.raises(UsageError, match=r"forgotten\.c"):
        save(kernel, tree)


def test_save_refuses_changes_and_unfinished_work(kernel: Path, source: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no git tree"):
        save(kernel, tmp_path)
    before = content(kernel)
    tree = tmp_path / "edit"
    edit(kernel, source, tree, SilentProgress())
    write(tree, "arch/smp.c", "")
    with pytest.raises(UsageError, match=r"uncommitted changes:\n M arch/smp\.c"):
        save(kernel, tree)
    git(tree, "checkout", "--quiet", "arch/smp.c")
    (tree / ".git/rebase-merge").mkdir()
    with pytest.raises(UsageError, match="rebase is not finished"):
        save(kernel, tree)
    assert content(kernel) == before


def test_edit_refuses_a_tree_that_is_there(kernel: Path, source: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="something already"):
        edit(kernel, source, tmp_path, SilentProgress())


def test_edit_leaves_a_conflict_to_git(kernel: Path, source: Source, tmp_path: Path) -> None:
    second = patches_of(kernel)[1].path
    second.write_text(second.read_text().replace(" line 9\n", " line nine\n"))
    tree = tmp_path / "edit"
    with pytest.raises(PatchDoesNotApply, match="0002-arch-add") as error:
        edit(kernel, source, tree, SilentProgress())
    assert "git am --continue" in error.value.next_step
    git(tree, "am", "--skip")
    assert git(tree, "log", "-1", "--format=%s") == 'arch: an "option"\n'


def test_applying_gives_what_git_has(
    kernel: Path, source: Source, build: tuple[Path, Path], tmp_path: Path
) -> None:
    edited = tmp_path / "edit"
    edit(kernel, source, edited, SilentProgress())
    tree, pristine = build
    changed = apply_patches(patches_of(kernel), tree, pristine)
    assert changed == sorted(read_series(kernel, VERSION).files)
    assert {**content(edited), ".gitignore": ("", False)} == {**content(tree), ".gitignore": ("", False)}


def test_any_part_of_the_queue_after_any_other(kernel: Path, build: tuple[Path, Path]) -> None:
    tree, pristine = build
    patches = patches_of(kernel)
    expected: dict[int, Content] = {0: content(tree)}
    for applied in (3, 0, 2, 1, 3, 2, 0, 1):
        apply_patches(patches[:applied], tree, pristine)
        assert expected.setdefault(applied, content(tree)) == content(tree)
    assert len({str(state) for state in expected.values()}) == 4


def test_what_is_the_same_is_not_written(kernel: Path, build: tuple[Path, Path]) -> None:
    tree, pristine = build
    patches = patches_of(kernel)
    apply_patches(patches, tree, pristine)
    written = (tree / "arch/smp.c").stat().st_mtime_ns
    assert apply_patches(patches, tree, pristine) == []
    assert apply_patches(patches[:2], tree, pristine) == ["arch/Kconfig", "script.sh"]
    assert (tree / "arch/smp.c").stat().st_mtime_ns == written
    assert apply_patches(patches[:1], tree, pristine) == ["arch/new.c", "arch/smp.c", "old.txt"]
    assert (tree / "arch/smp.c").stat().st_mtime_ns > written, "make must see that a step back is a change"


def test_pristine_copies_tell_new_files(kernel: Path, build: tuple[Path, Path]) -> None:
    tree, pristine = build
    apply_patches(patches_of(kernel), tree, pristine)
    copy = pristine_copy(pristine, "arch/smp.c")
    assert copy is not None
    assert copy.read_text() == SMP
    assert pristine_copy(pristine, "arch/new.c") is None


@pytest.mark.parametrize("context", [" line 9\n", " line 8\n", " line 13\n"])
def test_a_patch_that_needs_fuzz_is_refused(kernel: Path, build: tuple[Path, Path], context: str) -> None:
    tree, pristine = build
    patches = patches_of(kernel)
    apply_patches(patches[:1], tree, pristine)
    before = content(tree)
    text = patches[1].path.read_text()
    assert context in text
    patches[1].path.write_text(text.replace(context, " other\n"))
    with pytest.raises(PatchDoesNotApply) as error:
        apply_patches(patches, tree, pristine)
    assert content(tree) == before
    assert (error.value.patch, error.value.file) == (patches[1].name, "arch/smp.c")
    assert "patch failed: arch/smp.c" in str(error.value)


def test_a_patch_for_a_missing_file_is_refused(kernel: Path, build: tuple[Path, Path]) -> None:
    tree, pristine = build
    (tree / "old.txt").unlink()
    before = content(tree)
    with pytest.raises(PatchDoesNotApply) as error:
        apply_patches(patches_of(kernel), tree, pristine)
    assert content(tree) == before
    assert error.value.file == "old.txt"


def test_a_tree_left_by_a_crash_is_mended(kernel: Path, build: tuple[Path, Path]) -> None:
    tree, pristine = build
    patches = patches_of(kernel)
    original = content(tree)
    apply_patches(patches, tree, pristine)
    whole = content(tree)
    write(tree, "arch/smp.c", SMP)
    write(tree, "old.txt", "to be")
    (tree / "arch/new.c").unlink()
    (pristine / "patched/half").mkdir()
    apply_patches(patches, tree, pristine)
    assert content(tree) == whole
    apply_patches((), tree, pristine)
    assert content(tree) == original


def test_a_git_repository_around_the_cache_does_not_matter(
    kernel: Path, build: tuple[Path, Path], tmp_path: Path
) -> None:
    git(tmp_path, "init", "--quiet")
    tree, pristine = build
    assert apply_patches(patches_of(kernel), tree, pristine) == sorted(read_series(kernel, VERSION).files)


@pytest.mark.parametrize(
    ("version", "fits"), [((6, 11, 9), False), ((6, 12), True), ((6, 12, 117), True), ((6, 13), False)]
)
def test_the_base_range(kernel: Path, version: tuple[int, ...], fits: bool) -> None:
    assert read_series(kernel, VERSION).fits(version) is fits


def test_the_queue_is_chosen_by_the_kernels_version(kernel: Path) -> None:
    newer = kernel / "queue/7.1"
    newer.mkdir()
    (newer / "series.toml").write_text('base = ">=7.1,<7.2"\n')
    assert len(read_series(kernel, (6, 12, 5)).patches) == 3
    assert (read_series(kernel, (7, 1, 2)).directory, read_series(kernel, (7, 1)).patches) == (newer, ())
    with pytest.raises(UsageError, match=r">=6\.12,<6\.13 or >=7\.1,<7\.2, not for 7\.2"):
        read_series(kernel, (7, 2))


def test_another_queue_is_left_alone_by_save(kernel: Path, source: Source, tmp_path: Path) -> None:
    other = kernel / "queue/6.11"
    other.mkdir()
    (other / "series.toml").write_text('base = ">=6.11,<6.12"\n')
    before = content(kernel)
    edit(kernel, source, tmp_path / "edit", SilentProgress())
    save(kernel, tmp_path / "edit")
    assert content(kernel) == before


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ('base = ">=6.12,<6.13"', 'base = "6.12"'),
        ('base = ">=6.12,<6.13"', ""),
        ('base = ">=6.12,<6.13"', "base = "),
        ('purpose = "arch: change a line"', ""),
        ('file = "0001-arch-change-a-line.patch"', 'file = "0001-other.patch"'),
        ('file = "0001-arch-change-a-line.patch"', 'file = "0003-arch-an-option.patch"'),
    ],
)
def test_a_bad_series_is_refused(kernel: Path, replaced: str, by: str) -> None:
    path = kernel / SERIES
    text = path.read_text()
    assert replaced in text
    path.write_text(text.replace(replaced, by))
    with pytest.raises(UsageError) as error:
        read_series(kernel, VERSION)
    assert str(path) in str(error.value)
