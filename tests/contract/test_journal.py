# SPDX-License-Identifier: Apache-2.0
"""The journal: what it keeps, what it makes of a torn or foreign file, whom it trusts."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.tuning.journal import Entry, Journal
from tests.fakes.kernel import os_error
from tests.fakes.os_calls import CALLS, traced, watched

RECORD = {"who": "profile database", "changes": [{"name": "ipi", "before": "3"}]}

Log = list[tuple[Mapping[str, object], list[dict[str, object]]]]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def begin(journal: Journal, record: Mapping[str, object] = RECORD) -> Entry:
    with journal.locked():
        return journal.begin(record)


def log(journal: Journal) -> Log:
    """Return what another process would find."""
    return [(entry.record, entry.marks) for entry in Journal(journal.directory).entries()]


def names(journal: Journal) -> set[str]:
    return {path.name for path in journal.directory.iterdir()}


# what it keeps


def test_entry_and_its_marks_are_there_for_others(journal: Journal) -> None:
    entry = begin(journal)
    assert log(journal) == [(RECORD, [])]
    entry.mark(begin=0)
    entry.mark(done=0, text="two\nlines \N{SNOWMAN}")
    marks = [{"begin": 0}, {"done": 0, "text": "two\nlines \N{SNOWMAN}"}]
    assert log(journal) == [(RECORD, marks)]
    assert (entry.record, entry.marks) == (RECORD, marks)


def test_entry_is_json_lines(journal: Journal) -> None:
    entry = begin(journal)
    entry.mark(begin=0)
    text = (journal.directory / "0001.journal").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [RECORD, {"begin": 0}]
    assert text.endswith("\n")


def test_entries_come_oldest_first(journal: Journal) -> None:
    for number in range(12):
        begin(journal, {"number": number})
    assert [record["number"] for record, _ in log(journal)] == list(range(12))


def test_order_is_by_number_and_not_by_text(journal: Journal) -> None:
    begin(journal, {"number": 9999})
    os.rename(journal.directory / "0001.journal", journal.directory / "9999.journal")
    assert begin(journal, {"number": 10000}).path.name == "10000.journal"
    assert [record["number"] for record, _ in log(journal)] == [9999, 10000]


def test_removed_entry_is_gone_and_the_others_stay(journal: Journal) -> None:
    for number in range(3):
        begin(journal, {"number": number})
    Journal(journal.directory).entries()[1].remove()
    assert [record["number"] for record, _ in log(journal)] == [0, 2]
    begin(journal, {"number": 3})
    assert [record["number"] for record, _ in log(journal)] == [0, 2, 3]


def test_another_process_goes_on_with_an_entry(journal: Journal) -> None:
    begin(journal).mark(begin=0)
    Journal(journal.directory).entries()[0].mark(undone=0)
    assert log(journal) == [(RECORD, [{"begin": 0}, {"undone": 0}])]


def test_all_that_it_makes_is_its_owners_alone(journal: Journal) -> None:
    begin(journal)
    made = [journal.directory, *journal.directory.iterdir()]
    assert len(made) == 3
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made} == {0}


def test_reading_makes_nothing(journal: Journal) -> None:
    assert journal.entries() == []
    assert not journal.directory.exists()
    journal.directory.mkdir()
    assert journal.entries() == []
    assert names(journal) == set()


def test_other_files_are_no_entries(journal: Journal) -> None:
    begin(journal)
    for name in (
        "1.journal",
        "00001.journal",
        "0002.journal~",
        "0003.journal.new",
        "x0004.journal",
        "README",
    ):
        (journal.directory / name).write_text("no entry")
    assert log(journal) == [(RECORD, [])]


def test_too_long_a_record_is_refused(journal: Journal) -> None:
    with pytest.raises(CvmtuneError, match="at most"):
        begin(journal, {"text": "x" * (1 << 20)})
    assert log(journal) == []


# the order in which it gets to the disk


def test_record_is_on_the_disk_before_it_has_its_name_and_both_before_begin_returns(journal: Journal) -> None:
    with journal.locked(), traced() as calls:
        journal.begin({"a": 1})
    assert calls == ["unlink new", 'write new {"a": 1}', "fsync new", "rename new", "fsync journal"]


def test_mark_is_one_write_and_on_the_disk_when_it_returns(journal: Journal) -> None:
    entry = begin(journal)
    with traced() as calls:
        entry.mark(begin=0)
    assert calls == ["ftruncate 0001.journal", 'write 0001.journal {"begin": 0}', "fsync 0001.journal"]


def test_removal_is_on_the_disk_when_it_returns(journal: Journal) -> None:
    entry = begin(journal)
    with traced() as calls:
        entry.remove()
    assert calls == ["unlink 0001.journal", "fsync journal"]


def test_new_directory_is_on_the_disk_when_it_is_locked(journal: Journal) -> None:
    with traced() as calls, journal.locked():
        pass
    assert calls == ["mkdir journal", f"fsync {journal.directory.parent.name}"]
    with traced() as calls, journal.locked():
        pass
    assert calls == ["mkdir journal"]  # in vain: it is there


# what a power cut may leave


@pytest.mark.parametrize("marks", [0, 1, 2])
def test_incomplete_last_line_is_no_mark(journal: Journal, marks: int) -> None:
    whole = [{"begin": 0}, {"done": 0}]
    entry = begin(journal)
    for mark in whole[:marks]:
        entry.mark(**mark)
    text = entry.path.read_bytes()
    lost = b'{"complete": true}'
    for length in range(1, len(lost) + 1):
        entry.path.write_bytes(text + lost[:length])
        assert log(journal) == [(RECORD, whole[:marks])]


def test_mark_after_an_incomplete_line_takes_its_place(journal: Journal) -> None:
    entry = begin(journal)
    for torn in (b"{", b'{"begin": 0}', b"\0" * 100):
        entry.path.write_bytes(entry.path.read_bytes() + torn)
        found = Journal(journal.directory).entries()[0]
        found.mark(torn=len(torn))
    assert log(journal) == [(RECORD, [{"torn": 1}, {"torn": 12}, {"torn": 100}])]


def test_mark_after_one_that_failed_half_way_takes_its_place(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = begin(journal)
    real_write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: real_write(file, data[:5]))
        with pytest.raises(CvmtuneError, match="cannot write the journal: No space"):
            entry.mark(begin=0)
    assert entry.marks == []
    entry.mark(begin=1)
    assert log(journal) == [(RECORD, [{"begin": 1}])]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_begin_that_failed_leaves_no_entry_and_no_trace_after_the_next(journal: Journal, call: str) -> None:
    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name) == ("before", call):
            raise os_error(errno.EIO)

    with journal.locked():
        with watched(fail), pytest.raises(CvmtuneError, match="cannot write the journal: Input/output error"):
            journal.begin({"failed": True})
        assert names(journal) == {"lock", "new"}
        assert log(journal) == []
        journal.begin(RECORD)
    assert names(journal) == {"lock", "0001.journal"}
    assert log(journal) == [(RECORD, [])]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (b"", 1, "no end"),
        (b'{"who": "x"', 1, "no end"),
        (b'{"who": "x"}', 1, "no end"),
        (b"\n", 1, "no JSON"),
        (b"[]\n", 1, "no JSON object"),
        (b'{}\n{"begin": 0\n{}\n', 2, "no JSON"),
        (b'{}\n{"begin": 0}{"done": 0}\n', 2, "no JSON"),
        (b"{}\n{}\n\xff\n", 3, "no JSON"),
        (b"{}\n{}\n\0\0\0\n", 3, "no JSON"),
        (b"{}\n3\n", 2, "no JSON object"),
        (b"[" * 100_000 + b"\n", 1, "no JSON"),
        (b"{}\n" * 400_000, 1, "more than 1048576 bytes"),
    ],
)
def test_anything_else_malformed_is_told_with_its_place(
    journal: Journal, text: bytes, line: int, problem: str
) -> None:
    begin(journal)
    entry = begin(journal)
    entry.path.write_bytes(text)
    with pytest.raises(CvmtuneError, match=problem) as caught:
        journal.entries()
    assert caught.value.where == f"{journal.directory}/0002.journal, line {line}"
    assert "then remove the file" in caught.value.next_step
    assert caught.value.exit_code == 3


# one at a time


def test_another_process_is_refused_at_once(journal: Journal) -> None:
    script = (
        "import sys; from pathlib import Path; from cvmtune.tuning.journal import Journal\n"
        "with Journal(Path(sys.argv[1])).locked(): print('locked', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(journal.directory)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CvmtuneError, match="another cvmtune is changing this system") as caught:
            begin(journal)
        assert caught.value.exit_code == 3
        assert log(journal) == []  # reading needs no lock
        other.kill()
    begin(journal)
    assert log(journal) == [(RECORD, [])]


def test_lock_is_given_up_by_an_error_too(journal: Journal) -> None:
    with pytest.raises(RuntimeError), journal.locked():
        raise RuntimeError
    begin(journal)


def test_error_within_is_passed_on_as_it_is(journal: Journal) -> None:
    """An OSError of what is done under the lock is none of the journal's."""
    with pytest.raises(PermissionError), journal.locked():
        raise PermissionError


# whom it trusts


def everything(journal: Journal) -> list[Callable[[], object]]:
    """Return all that may be done to a journal with an entry."""
    entry = begin(journal)
    return [journal.entries, lambda: begin(journal), lambda: entry.mark(done=0), entry.remove]


def distrusted(journal: Journal, acts: list[Callable[[], object]], problem: str, culprit: Path) -> None:
    before = {path: path.read_bytes() for path in journal.directory.iterdir() if path.is_file()}
    for act in acts:
        with pytest.raises(CvmtuneError, match=f"not to be trusted: .*{problem}") as caught:
            act()
        assert caught.value.where == str(culprit)
        assert caught.value.exit_code == 3
    assert {path: path.read_bytes() for path in journal.directory.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702, 0o1777])
def test_directory_that_others_may_write_to(journal: Journal, mode: int) -> None:
    acts = everything(journal)
    journal.directory.chmod(mode)
    distrusted(journal, acts, f"mode {mode:04o} lets others write", journal.directory)


@pytest.mark.parametrize("mode", [0o755, 0o500])
def test_directory_that_others_may_read(journal: Journal, mode: int) -> None:
    begin(journal)
    journal.directory.chmod(mode)
    assert log(journal) == [(RECORD, [])]
    journal.directory.chmod(0o700)


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_file_that_others_may_write_to(journal: Journal, mode: int) -> None:
    entries, _, mark, _ = everything(journal)
    file = journal.directory / "0001.journal"
    file.chmod(mode)
    distrusted(journal, [entries, mark], f"mode {mode:04o} lets others write", file)


def test_lock_that_others_may_write_to(journal: Journal) -> None:
    _, begins, _, _ = everything(journal)
    (journal.directory / "lock").chmod(0o666)
    distrusted(journal, [begins], "lets others write", journal.directory / "lock")


def test_directory_that_is_a_symlink(journal: Journal) -> None:
    acts = everything(journal)
    journal.directory.rename(journal.directory.with_name("elsewhere"))
    journal.directory.symlink_to("elsewhere")
    distrusted(journal, acts, "symlink", journal.directory)


def test_directory_that_is_a_symlink_to_nothing(journal: Journal) -> None:
    elsewhere = journal.directory.with_name("elsewhere")
    journal.directory.symlink_to(elsewhere)
    with pytest.raises(CvmtuneError):
        begin(journal)
    assert not elsewhere.exists()


@pytest.mark.parametrize("kind", ["symlink", "FIFO", "directory"])
def test_entry_that_is_no_regular_file(journal: Journal, kind: str) -> None:
    entries, _, mark, _ = everything(journal)
    file = journal.directory / "0001.journal"
    elsewhere = journal.directory.with_name("elsewhere")
    file.rename(elsewhere)
    before = elsewhere.read_bytes()
    match kind:
        case "symlink":
            file.symlink_to(elsewhere)
        case "FIFO":
            os.mkfifo(file, 0o600)
        case "directory":
            file.mkdir()
    distrusted(journal, [entries], "it is", file)
    with pytest.raises(CvmtuneError):
        mark()
    assert elsewhere.read_bytes() == before


@pytest.mark.parametrize("kind", ["symlink", "dangling"])
@pytest.mark.parametrize("name", ["lock", "new"])
def test_lock_or_temporary_file_that_is_a_symlink_is_not_followed(
    journal: Journal, name: str, kind: str
) -> None:
    begin(journal)
    elsewhere = journal.directory.with_name("elsewhere")
    if kind == "symlink":
        elsewhere.write_text("precious")
    (journal.directory / name).unlink(missing_ok=True)
    (journal.directory / name).symlink_to(elsewhere)
    if name == "lock":
        with pytest.raises(CvmtuneError, match="not to be trusted: it is a symlink"):
            begin(journal)
    else:
        begin(journal)  # removed as what a killed process has left
        assert names(journal) == {"lock", "0001.journal", "0002.journal"}
    assert elsewhere.exists() == (kind == "symlink")
    assert kind == "dangling" or elsewhere.read_text() == "precious"


@pytest.mark.parametrize("name", [".", "0001.journal"])
def test_what_belongs_to_others_is_not_trusted(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    acts = everything(journal)
    path = journal.directory / name
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        distrusted(journal, acts[:1], "belongs to user 12345", path)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        distrusted(journal, acts[:1], "belongs to user", journal.directory)


# permissions


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("call", [*CALLS, "flock"])
def test_lack_of_permission_says_so(journal: Journal, call: str, number: int) -> None:
    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name) == ("before", call):
            raise os_error(number)

    with watched(fail), pytest.raises(CvmtuneError) as caught:
        begin(journal).mark(begin=0)
    assert caught.value.next_step == "run as root"
    assert str(journal.directory) in caught.value.where


def test_journal_that_may_not_be_read_says_so(journal: Journal) -> None:
    begin(journal)

    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name) == ("before", "open"):
            raise os_error(errno.EACCES)

    with (
        watched(fail),
        pytest.raises(CvmtuneError, match="cannot read the journal: Permission denied") as caught,
    ):
        journal.entries()
    assert caught.value.next_step == "run as root"
