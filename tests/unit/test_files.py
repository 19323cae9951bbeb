# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all; and which are trusted.

As root other owners are real; an ordinary user pretends to be somebody else.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.files import MAX_BYTES, read_trusted, write_whole

STRANGER = 54321
IS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "a directory"
    directory.mkdir()
    path = directory / "a file"
    path.write_text("text\n")
    give_group(directory)
    give_group(path)
    return path


def give_group(path: Path) -> None:
    """Have the group be another than root's."""
    if IS_ROOT:
        os.chown(path, -1, STRANGER)


def refusal(path: Path) -> CvmtuneError:
    with pytest.raises(CvmtuneError) as caught:
        read_trusted(path)
    assert caught.value.where
    assert caught.value.next_step
    return caught.value


def follow(error: CvmtuneError) -> None:
    """Do what the error tells to do next."""
    _, _, command = error.next_step.partition(": ")
    subprocess.run(shlex.split(command), check=True)


@pytest.mark.parametrize("text", ["", "one\r\ntwo\n", "µs → ✓\n"])
def test_text_is_returned_as_it_is(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    assert read_trusted(file) == text


def test_relative_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert read_trusted(Path(file.name)) == "text\n"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o755])
def test_what_only_the_owner_writes_is_trusted(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read_trusted(file) == "text\n"


@pytest.mark.parametrize(
    ("mode", "excess"), [(0o646, "o-w"), (0o602, "o-w"), (0o664, "g-w"), (0o620, "g-w"), (0o666, "go-w")]
)
def test_what_others_write_is_not(file: Path, mode: int, excess: str) -> None:
    if mode & 0o020 and file.stat().st_gid == 0:
        pytest.skip("this user's group is root's")
    file.chmod(mode)
    error = refusal(file)
    assert error.where == str(file)
    assert "may write" in error.what
    assert f"chmod {excess} " in error.next_step
    follow(error)
    assert read_trusted(file) == "text\n"


@pytest.mark.parametrize("mode", [0o757, 0o703, 0o775, 0o777])
def test_nor_what_others_replace(file: Path, mode: int) -> None:
    if not mode & 0o002 and file.parent.stat().st_gid == 0:
        pytest.skip("this user's group is root's")
    file.parent.chmod(mode)
    error = refusal(file)
    assert error.where == str(file.parent)
    assert "in its place" in error.what
    follow(error)
    assert read_trusted(file) == "text\n"


def test_sticky_directory_is_as_good_as_its_file(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert read_trusted(file) == "text\n"
    file.chmod(0o646)
    assert "may write" in refusal(file).what


@pytest.mark.skipif(not IS_ROOT, reason="takes root to give a file to root's group")
def test_roots_group_may_write(file: Path) -> None:
    for path in (file, file.parent):
        os.chown(path, -1, 0)
        path.chmod(0o775)
    assert read_trusted(file) == "text\n"


def test_a_strangers_file_is_not_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if IS_ROOT:
        os.chown(file, STRANGER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    file.parent.chmod(0o1755)
    error = refusal(file)
    assert f"user {file.stat().st_uid}" in error.what
    assert error.next_step.endswith(f"chown root '{file}'")
    if IS_ROOT:
        follow(error)
        assert read_trusted(file) == "text\n"


@pytest.mark.skipif(not IS_ROOT, reason="takes root to give a file away")
def test_the_effective_users_file_is_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(file, STRANGER, -1)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert read_trusted(file) == "text\n"


def test_roots_file_is_trusted_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert read_trusted(Path("/etc/passwd")) == Path("/etc/passwd").read_text(encoding="utf-8")


def test_link_counts_as_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_trusted(link) == "text\n"
    file.parent.chmod(0o777)
    assert refusal(link).where == str(file.parent)


def test_directories_link_counts_as_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file.parent, target_is_directory=True)
    assert read_trusted(link / file.name) == "text\n"
    file.parent.chmod(0o777)
    assert refusal(link / file.name).where == str(file.parent)


def test_link_put_there_after_the_look_is_not_followed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    # What realpath() says of a plain file that a link replaces a moment later.
    monkeypatch.setattr(os.path, "realpath", lambda path, strict: os.fspath(path))
    assert read_trusted(file) == "text\n"
    assert "cannot read" in refusal(link).what


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def nothing(path: Path) -> None:
    pass


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)  # a FIFO that is waited for would hang
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (fifo, "not a regular file"),
        (link_to_a_device, "not a regular file"),
        (Path.mkdir, "Is a directory"),
        (unix_socket, "cannot read"),
        (nothing, "No such file"),
        (below_a_file, "Not a directory"),
        (link_to_nowhere, "No such file"),
        (link_to_itself, "symbolic links"),
    ],
)
def test_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], problem: str
) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("d/x"))
    assert problem in refusal(Path("d/x")).what


@pytest.mark.skipif(IS_ROOT, reason="root may read anything")
def test_unreadable_file(file: Path) -> None:
    file.chmod(0)
    error = refusal(file)
    assert "Permission denied" in error.what
    assert error.next_step == "run as root"


def test_size_is_bounded(file: Path) -> None:
    file.write_bytes(b"x" * MAX_BYTES)
    assert len(read_trusted(file)) == 1 << 20
    file.write_bytes(b"x" * (MAX_BYTES + 1))
    assert str(1 << 20) in refusal(file).what


@pytest.mark.parametrize("data", [b"abc\xff", b"abc\xc3", b"abc\xed\xa0\x80"])
def test_what_is_no_utf_8(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert "not UTF-8 at byte 3" in refusal(file).what


def test_nothing_stays_open(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read_trusted(file)
    file.chmod(0o646)
    refusal(file)
    refusal(file.parent)
    refusal(file.parent / "missing")
    assert len(os.listdir("/proc/self/fd")) == before


# Writing


def test_writes_a_file_with_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "ä\n", mode=0o640, sync=True)
    assert path.read_bytes() == "ä\n".encode()
    assert path.stat().st_mode & 0o7777 == 0o640


def test_replaces_a_symlink_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    path = tmp_path / "file"
    path.symlink_to("other")
    write_whole(path, "text")
    assert not path.is_symlink()
    assert ((tmp_path / "other").read_text(), path.read_text()) == ("mine", "text")


def test_what_was_left_aside_is_no_obstacle(tmp_path: Path) -> None:
    """Neither a killed process's rest nor a link that somebody has put there."""
    aside = tmp_path / ".file.new"
    aside.symlink_to(tmp_path / "other")
    write_whole(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_older_file_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("older")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "text", sync=True)
    assert path.read_text() == "older"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", [".", "/", "missing/file"])
def test_where_no_file_can_be(path: str) -> None:
    with pytest.raises(OSError, match="directory"):
        write_whole(Path(path), "text")
