# SPDX-License-Identifier: Apache-2.0
"""The payload disk: the package as it is here, its command, the tools, and nothing else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import cvmtune
from cvmtune.lab.payload import write_payload

PACKAGE = "usr/lib/python3/dist-packages/cvmtune"
SCRIPT = "echo ä\n"


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("payload")
    tools = directory / "tools"
    tools.mkdir()
    (tools / "cvmtune_ipi.ko").write_bytes(b"\x7fELF module")
    (tools / "pingpong").write_bytes(b"\x7fELF program")
    (tools / "pingpong").chmod(0o755)
    (tools / "kvm/aarch64").mkdir(parents=True)
    (tools / "kvm/aarch64/psci_test").write_bytes(b"\x7fELF selftest")
    if os.geteuid() == 0:
        os.chown(tools / "pingpong", 1234, 1234)
    target = directory / "payload.tar"
    write_payload(target, [tools], {"run/cvmtune/start-guest": SCRIPT, "/etc/absolute": "x" * 1000})
    return target


@pytest.fixture(scope="module")
def members(payload: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(payload) as tar:
        return {member.name: member for member in tar.getmembers()}


def content(payload: Path, name: str) -> bytes:
    with tarfile.open(payload) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read()


def test_holds_the_package_as_it_is_here(payload: Path, members: dict[str, tarfile.TarInfo]) -> None:
    source = Path(cvmtune.__file__).parent
    here = {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name.removeprefix(f"{PACKAGE}/") for name in members if name.startswith(PACKAGE)}
    assert packed == here
    assert {"cli/__init__.py", "lab/agent.py", "features/soft_ipi/knob.py"} <= packed
    for name in here:
        assert content(payload, f"{PACKAGE}/{name}") == (source / name).read_bytes()


def test_holds_nothing_that_was_compiled_here(members: dict[str, tarfile.TarInfo]) -> None:
    assert not [name for name in members if "__pycache__" in name or name.endswith(".pyc")]


def test_command_can_be_run(payload: Path, members: dict[str, tarfile.TarInfo]) -> None:
    command = members["usr/local/bin/cvmtune"]
    assert command.mode == 0o755
    text = content(payload, command.name).decode()
    assert text.startswith("#!/usr/bin/python3\n")
    done = subprocess.run(
        [sys.executable, "-", "--version"], input=text, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cvmtune {cvmtune.__version__}\n"


def test_holds_the_tools(payload: Path, members: dict[str, tarfile.TarInfo]) -> None:
    assert content(payload, "opt/cvmtune/cvmtune_ipi.ko") == b"\x7fELF module"
    assert content(payload, "opt/cvmtune/kvm/aarch64/psci_test") == b"\x7fELF selftest"
    assert members["opt/cvmtune/pingpong"].mode & 0o111


def test_holds_the_given_files(payload: Path, members: dict[str, tarfile.TarInfo]) -> None:
    assert content(payload, "run/cvmtune/start-guest") == SCRIPT.encode()
    assert content(payload, "etc/absolute") == b"x" * 1000
    assert members["etc/absolute"].mode == 0o644
    assert not [name for name in members if name.startswith("/") or ".." in name]


def test_all_is_owned_by_root(members: dict[str, tarfile.TarInfo]) -> None:
    for member in members.values():
        assert (member.uid, member.gid) == (0, 0)
        assert member.uname in ("", "root")
        assert member.gname in ("", "root")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 9000, 10240])
def test_is_whole_sectors(tmp_path: Path, size: int) -> None:
    target = tmp_path / "payload.tar"
    write_payload(target, [], {"file": "x" * size})
    assert target.stat().st_size % 512 == 0
    with tarfile.open(target) as tar:
        assert tar.getmember("file").size == size


def test_a_plain_tar_unpacks_it_from_a_disk(payload: Path, tmp_path: Path) -> None:
    """As init does; a disk may be longer than the file on it."""
    data = payload.read_bytes() + bytes(4096)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(tmp_path, filter="data")
    assert (tmp_path / "run/cvmtune/start-guest").read_text() == SCRIPT


def test_without_tools_there_is_no_place_for_them(tmp_path: Path) -> None:
    write_payload(tmp_path / "payload.tar", [], {})
    with tarfile.open(tmp_path / "payload.tar") as tar:
        assert not [name for name in tar.getnames() if name.startswith("opt")]
