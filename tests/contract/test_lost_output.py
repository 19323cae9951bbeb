# SPDX-License-Identifier: Apache-2.0
"""What a command did decides its status, not what becomes of the report on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmtune.tuning.journal import Journal
from tests.fakes.controls import IPI

APPLY = ["apply", "--ipi", "2-3"]


@dataclass(frozen=True)
class Ended:
    """How a process ended, what it printed as far as that could be read, and what it left."""

    status: int
    out: str
    err: str
    mask: str
    journal: list[dict[str, object]]
    """The last mark of each entry."""


@contextmanager
def reader_gone() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def full_disk() -> Iterator[int]:
    full = os.open("/dev/full", os.O_WRONLY)
    yield full
    os.close(full)


def ended(
    root: Path,
    commands: Sequence[Sequence[str]],
    *,
    kind: str = "our_guest",
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    before: Callable[[], None] | None = None,
    **environment: str,
) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.printing_command", str(root), kind, json.dumps(commands)],
        env={**os.environ, "COLUMNS": "10000", **environment},
        cwd=Path(__file__).parents[2],
        stdout=stdout,
        stderr=stderr,
        preexec_fn=before,
        check=False,
    )
    out, err = ((text or b"").decode("latin-1") for text in (done.stdout, done.stderr))
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    marks = [entry.marks[-1] for entry in Journal(root / "var/lib/cvmtune").entries()]
    return Ended(done.returncode, out, err, (root / IPI.lstrip("/")).read_text().strip(), marks)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("sink", [reader_gone, full_disk])
def test_report_that_is_lost(
    tmp_path: Path, sink: Callable[[], AbstractContextManager[int]], json_option: list[str], unbuffered: str
) -> None:
    with sink() as lost:
        applied = ended(tmp_path / "a", [[*APPLY, *json_option]], stdout=lost, PYTHONUNBUFFERED=unbuffered)
        back = ended(
            tmp_path / "b", [APPLY, ["rollback", *json_option]], stdout=lost, PYTHONUNBUFFERED=unbuffered
        )
    assert (applied.status, applied.mask, applied.journal) == (0, "c", [{"complete": True}])
    assert (back.status, back.mask, back.journal) == (0, "0", [])
    # Of a reader that went, which may be `head`, nobody is told.
    told = "cvmtune: not all could be printed: No space left on device\n" if sink is full_disk else ""
    assert applied.err == back.err == told


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        ([["status"]], 0),
        ([APPLY, ["verify"]], 0),
        ([["apply", "--ipi", "2-9"]], 3),
        ([["apply", "--ipi", "nonsense"]], 2),
        ([["apply", "database", "--cq-poll", "off"]], 0),
        ([["recommend", "--seconds", "nan"]], 2),
        ([["--help"]], 0),
    ],
)
def test_every_command_ends_by_what_it_did_with_nowhere_to_say_it(
    tmp_path: Path, commands: list[list[str]], status: int
) -> None:
    with full_disk() as full:
        assert ended(tmp_path / "full", commands, stdout=full, stderr=full).status == status

    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    # The journal must not be where standard output was.
    closed = ended(tmp_path / "closed", commands, before=close_all)
    assert closed.status == status
    assert all(mark == {"complete": True} for mark in closed.journal)


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "ascii"])
def test_terminal_without_the_characters(tmp_path: Path, encoding: str) -> None:
    # Its encoding is told to Python in one way or the other.
    found = ended(tmp_path / "s", [["status"]], kind="vendor_guest", PYTHONIOENCODING=encoding)
    assert found.status == 0
    assert r"\ufffd\ufffd: its I/O hangs" in found.out


@pytest.mark.parametrize("name", ["数据", "\udcca\udcfd"])
@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
def test_profile_in_a_place_that_the_terminal_cannot_show(
    tmp_path: Path, name: str, json_option: list[str]
) -> None:
    profile = tmp_path / name / "p.toml"
    profile.parent.mkdir()
    profile.write_text('[set]\nipi = "2-3"\n')
    profile.chmod(0o644)
    escaped = name.encode("ascii", "backslashreplace").decode()
    argv = ["apply", str(profile), *json_option]
    found = ended(tmp_path / "there", [argv], PYTHONIOENCODING="latin-1")
    assert (found.status, found.mask, found.err) == (0, "c", "")
    assert escaped in found.out
    missing = ended(tmp_path / "gone", [["apply", f"{profile}.toml"]], PYTHONIOENCODING="latin-1")
    assert (missing.status, missing.mask) == (3, "0")
    assert escaped in missing.err
