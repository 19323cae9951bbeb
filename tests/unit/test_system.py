# SPDX-License-Identifier: Apache-2.0
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import LocalSystem, Readable, System

MASK = "/sys/kernel/mask"


@pytest.fixture
def local(tmp_path: Path) -> LocalSystem:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    return LocalSystem(tmp_path)


def test_is_a_system(local: LocalSystem) -> None:
    system: System = local
    assert system.run(["echo", "here"]).check().stdout == "here\n"
    readable: Readable = local
    assert readable.list("/sys") == ["kernel"]


def test_reads_under_its_root(local: LocalSystem) -> None:
    (local.root / "sys/kernel/mask").write_text("3\n")
    assert local.read_text(MASK) == "3\n"


def test_default_root_is_this_machine() -> None:
    assert LocalSystem().exists("/proc/self/status")


def test_reads_bytes_that_are_not_utf8(local: LocalSystem) -> None:
    (local.root / "sys/kernel/mask").write_bytes(b"3\xff\n")
    assert local.read_text(MASK) == "3\N{REPLACEMENT CHARACTER}\n"


def test_exists(local: LocalSystem) -> None:
    assert local.exists("/sys/kernel")
    assert not local.exists(MASK)


@pytest.mark.parametrize("act", [lambda s: s.read_text(MASK), lambda s: s.write_text(MASK, "3\n")])
def test_missing_file_is_enoent(local: LocalSystem, act: Callable[[System], object]) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        act(local)
    assert caught.value.errno == errno.ENOENT


def test_write_creates_nothing(local: LocalSystem) -> None:
    with pytest.raises(FileNotFoundError):
        local.write_text(MASK, "3\n")
    assert list((local.root / "sys/kernel").iterdir()) == []


def test_write_does_not_truncate(local: LocalSystem) -> None:
    file = local.root / "sys/kernel/mask"
    file.write_text("ffffffff\n")
    local.write_text(MASK, "3\n")
    assert file.read_text() == "3\nffffff\n"


def test_write_refuses_a_symlink(local: LocalSystem) -> None:
    target = local.root / "target"
    target.write_text("0\n")
    (local.root / "sys/kernel/mask").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links") as caught:
        local.write_text(MASK, "3\n")
    assert caught.value.errno == errno.ELOOP
    assert caught.value.filename == MASK
    assert target.read_text() == "0\n"


@pytest.mark.parametrize("link", ["sys", "sys/module", "sys/module/kvm/parameters"])
@pytest.mark.parametrize("target", ["root/elsewhere", "elsewhere"])
@pytest.mark.parametrize("absolute", [True, False])
def test_write_refuses_a_symlink_on_the_way(tmp_path: Path, link: str, target: str, absolute: bool) -> None:
    """Wherever it leads, within the root too."""
    root = tmp_path / "root"
    path = "/sys/module/kvm/parameters/wfx_guard"
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text("N\n")
    moved = tmp_path / target
    (root / link).rename(moved)
    (root / link).symlink_to(moved if absolute else os.path.relpath(moved, (root / link).parent))
    local = LocalSystem(root)
    assert local.read_text(path) == "N\n"
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Not a directory") as caught:
        local.write_text(path, "Y\n")
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.filename == path
    assert len(os.listdir("/proc/self/fd")) == before
    assert file.read_text() == "N\n"


def test_write_takes_a_root_behind_a_symlink(tmp_path: Path) -> None:
    """Whoever names a root has chosen it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/mask").write_text("0\n")
    (tmp_path / "link").symlink_to("real")
    LocalSystem(tmp_path / "link").write_text("/mask", "3\n")
    assert (tmp_path / "real/mask").read_text() == "3\n"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/sys/kernel", errno.EISDIR),
        ("/sys/kernel/mask/more", errno.ENOTDIR),
        ("/sys/none/mask", errno.ENOENT),
        ("/", errno.ENOENT),
        ("", errno.ENOENT),
    ],
)
def test_write_to_what_is_no_file(local: LocalSystem, path: str, number: int) -> None:
    (local.root / "sys/kernel/mask").write_text("0\n")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:  # noqa: PT011, its number tells more than its words
        local.write_text(path, "3\n")
    assert caught.value.errno == number
    assert caught.value.filename == path
    assert len(os.listdir("/proc/self/fd")) == before


def test_lists_names_in_order(local: LocalSystem) -> None:
    for name in ("b", "a", ".c", "B"):
        (local.root / "sys/kernel" / name).touch()
    (local.root / "sys/kernel/d").mkdir()
    assert local.list("/sys/kernel") == [".c", "B", "a", "b", "d"]
    assert local.list("/sys/kernel/d") == []
    assert local.list("/") == ["sys"]


@pytest.mark.parametrize(("path", "number"), [("/sys/none", errno.ENOENT), (MASK, errno.ENOTDIR)])
def test_list_of_what_is_no_directory(local: LocalSystem, path: str, number: int) -> None:
    (local.root / "sys/kernel/mask").touch()
    with pytest.raises(OSError) as caught:  # noqa: PT011, its number tells more than its words
        local.list(path)
    assert caught.value.errno == number


def test_write_is_one_write_of_the_whole_text(local: LocalSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    (local.root / "sys/kernel/mask").write_text("0\n")
    written: list[bytes] = []
    real_write = os.write

    def spy(descriptor: int, data: bytes) -> int:
        written.append(data)
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", spy)
    local.write_text(MASK, "ffffffff,ffffffff\n")
    monkeypatch.undo()
    assert written == [b"ffffffff,ffffffff\n"]


def test_short_write_is_an_error_and_is_not_continued(
    local: LocalSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = local.root / "sys/kernel/mask"
    file.write_text("0\n")
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:1]))
    with pytest.raises(OSError, match="short write, 1 of 3 bytes") as caught:
        local.write_text(MASK, "ff\n")
    monkeypatch.undo()
    assert caught.value.errno == errno.EIO
    assert file.read_text() == "f\n"


@pytest.mark.parametrize("outcome", ["written", "short", "refused"])
def test_write_leaves_no_descriptor_open(
    local: LocalSystem, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    def fake_write(descriptor: int, data: bytes) -> int:
        if outcome == "refused":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return len(data) - (outcome == "short")

    (local.root / "sys/kernel/mask").write_text("0\n")
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fake_write)
        if outcome == "written":
            local.write_text(MASK, "3\n")
        else:
            with pytest.raises(OSError, match=r"short write|Invalid argument"):
                local.write_text(MASK, "3\n")
    assert len(os.listdir("/proc/self/fd")) == before


def test_run_passes_input() -> None:
    assert LocalSystem().run(["cat"], input="3\n").stdout == "3\n"


def test_run_names_a_command_that_takes_too_long() -> None:
    with pytest.raises(CvmtuneError, match="sleep 60 did not end within"):
        LocalSystem().run(["sleep", "60"], timeout=0.2)


def test_run_names_a_command_that_is_missing() -> None:
    with pytest.raises(CvmtuneError, match="cannot start no-such-program"):
        LocalSystem().run(["no-such-program"])
