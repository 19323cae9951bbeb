# SPDX-License-Identifier: Apache-2.0
"""What is told of commits before a power cut is read out of any console, and compared with what is there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.host import Host
from cvmtune.features.trial import switches_of
from cvmtune.lab.specs import MachineName
from cvmtune.workloads.postgres import Database
from cvmtune.workloads.power_cut import acknowledged, held, series, start_clients, stored
from tests.fakes.bound import TRIALS
from tests.fakes.database import PORT, Machine
from tests.fakes.machine import PID

SWITCHES = switches_of(load() for load in TRIALS.values())

CONSOLE = "/dev/ttyAMA0"
DISK = "/run/disk/store"


# What a console tells


def test_commits_among_the_lines_of_a_console() -> None:
    console = (
        "[    0.000000] Booting Linux on physical CPU 0x0\r\n"
        "committed 1\r\ncommitted 2\r\n"
        "[   12.345678] rdma_rxe: loaded\r\n"
        "committed 33\r\n"
    )
    assert acknowledged(console) == {1, 2, 33}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ends_of_lines(end: str) -> None:
    assert acknowledged(f"committed 1{end}committed 2{end}") == {1, 2}


def test_number_told_twice_is_one_commit() -> None:
    assert acknowledged("committed 7\r\ncommitted 7\r\n") == {7}


@pytest.mark.parametrize(
    "line",
    [
        *("", "committed", "committed ", "committed x", "committed 1x", "committed -1", "committed 1 2"),
        *("uncommitted 1", " committed 1", "Committed 1", "committed  1", "committed\t1", "committed 1 "),
        # Cut in two by the kernel's lines, so that nobody knows the whole number.
        *("committed 1[    9.8] nfs: server not responding", "[    9.8] nfs: committed 1", "3"),
        *("ERROR:  terminating connection", "set synchronous_commit = on;", "committed 1\0", "\ufffd 1"),
    ],
)
def test_line_that_tells_of_no_commit(line: str) -> None:
    assert acknowledged(f"{line}\r\n") == set()
    assert acknowledged(f"committed 5\r\n{line}\r\ncommitted 6\r\n") == {5, 6}


NOISE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30).filter(
    lambda line: not line.startswith("committed ")
)


@given(st.lists(st.integers(0, 2**63 - 1) | NOISE, max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_any_noise_between_commits(lines: list[int | str], end: str) -> None:
    console = "".join(f"{line if isinstance(line, str) else f'committed {line}'}{end}" for line in lines)
    assert acknowledged(console) == {line for line in lines if isinstance(line, int)}


@given(st.text())
def test_any_text_for_a_console(console: str) -> None:
    assert len(acknowledged(console)) <= console.count("committed ")


@given(st.lists(st.integers(1, 10**6), max_size=20), st.data())
def test_console_cut_off_anywhere(numbers: list[int], data: st.DataObject) -> None:
    """All whole lines count; of the last one at most its own beginning does."""
    console = "".join(f"committed {number}\r\n" for number in numbers)
    end = data.draw(st.integers(0, len(console)))
    whole = console[:end].count("\n")
    found = acknowledged(console[:end])
    assert found >= set(numbers[:whole])
    assert len(found - set(numbers[:whole])) <= 1


# The outcome

IDS = st.frozensets(st.integers(1, 50))


@given(IDS, IDS, st.integers(0, 20))
def test_outcome_as_metrics(promised: frozenset[int], found: frozenset[int], damage: int) -> None:
    """What is there and was not told of is no loss: the power failed in between."""
    told = {one.name: one for one in series(promised, found, damage)}
    assert told.keys() == {"cut_committed", "cut_lost", "cut_damage"}
    assert told["cut_committed"].samples == (len(promised),)
    assert told["cut_lost"].samples == (sum(1 for one in promised if one not in found),)
    assert told["cut_damage"].samples == (damage,)
    assert {one.kind for one in told.values()} == {"count"}
    assert [told[name].better for name in ("cut_committed", "cut_lost", "cut_damage")] == [
        *("higher", "lower", "lower")
    ]


# The clients


class Scripted:
    """A guest that takes a script and does nothing."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.scripts: list[str] = []

    def read_text(self, path: str) -> str:
        raise AssertionError(f"read {path}")

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError(f"wrote {path}")

    def exists(self, path: str) -> bool:
        raise AssertionError(f"looked for {path}")

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        shell, option, script = argv
        assert (shell, option) == ("sh", "-c")
        self.scripts.append(script)
        return Completed(tuple(argv), self.status, "", "refused" if self.status else "", 0.1)


def script_of(synchronous: bool) -> str:
    guest = Scripted()
    start_clients(Database(guest, "/mnt/database"), synchronous=synchronous)
    (script,) = guest.scripts
    return script


@pytest.mark.parametrize(("synchronous", "how"), [(True, "on"), (False, "off")])
def test_what_the_clients_do(tmp_path: Path, synchronous: bool, how: str) -> None:
    """The script is run here, with programs that say what they were given and end."""
    # Takes what the first two lines of its input are, if it is psql.
    (tmp_path / "env").write_text(
        "#!/bin/sh\n"
        f'echo "$*" >>{tmp_path}/commands\n'
        f'case "$*" in *psql*) head -n 2 | tee -a {tmp_path}/input; echo problem >&2;; *) echo noise;; esac\n'
    )
    (tmp_path / "env").chmod(0o755)
    script = script_of(synchronous)
    assert script.rstrip().endswith("&")
    here = script.replace(f">{CONSOLE}", f">>{tmp_path}/console") + " wait"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = command.run(["sh", "-c", here], env={**os.environ, "PATH": path}, timeout=60).check()
    assert (done.stdout, done.stderr) == ("", "")
    psql = "psql --no-psqlrc --quiet --tuples-only --no-align"
    ran = [line.rpartition("/")[2] for line in (tmp_path / "commands").read_text().splitlines()]
    assert sorted(ran) == ["pgbench --no-vacuum --time=600", psql, psql]
    given_in = (tmp_path / "input").read_text().splitlines()
    setting = f"set synchronous_commit = {how};"
    (insert,) = set(given_in) - {setting}
    assert sorted(given_in) == sorted([setting, insert] * 2)
    # The two are told of on the console, and errors too; pgbench is not.
    said = (tmp_path / "console").read_text().splitlines()
    assert sorted(said) == sorted([setting, insert, "problem"] * 2)


def test_what_a_client_says_is_what_is_read() -> None:
    """The server puts together the text and the record's number; nothing else is in the row."""
    words = [
        word for word in shlex.split(script_of(True).replace("(", " ").replace(")", " ")) if "audit" in word
    ]
    assert len(words) == 2
    for sql in words:
        _, _, returned = sql.rstrip(";").partition(" returning ")
        text, _, column = returned.partition(" || ")
        assert column == "id"
        assert acknowledged(text.strip("'") + "42\r\n") == {42}


def test_clients_run_as_the_user_of_the_database_and_in_the_background() -> None:
    script = script_of(True)
    assert script.count("--reuid=postgres") == 3
    assert script.count(f">{CONSOLE} 2>&1 &") == 2


def test_clients_that_do_not_start_are_an_error() -> None:
    with pytest.raises(CvmtuneError, match="refused"):
        start_clients(Database(Scripted(2), "/mnt/database"))


# The database on a disk


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def bench(machine: Machine) -> Bench:
    return Bench(machine.guest, Host(machine.host, PID), MachineName.CVM, "/tools")


def test_database_is_put_on_the_disk(machine: Machine) -> None:
    guest = machine.guest
    with stored(bench(machine), SWITCHES, fill=True) as database:
        assert database == Database(guest, "/mnt/database")
        assert guest.database.running == "/mnt/database"
        assert guest.disk == DISK
        # Past NFS: onto the disk, before it was mounted.
        assert guest.unpacked == [("/export", False)]
        assert {"module ib_core_cq_poll", "mount /mnt", "mount /export"} <= set(guest.there)
        assert held(database) == set(range(1, 71))
    assert machine.changed() == set()
    assert PORT in guest.written_texts


def test_database_that_is_on_the_disk_is_left_as_it_is(machine: Machine) -> None:
    with stored(bench(machine), SWITCHES, fill=False):
        assert machine.guest.disk == DISK
        assert machine.guest.unpacked == []
    assert machine.changed() == set()


def test_nothing_is_left_of_a_failing_block(machine: Machine) -> None:
    with pytest.raises(KeyboardInterrupt), stored(bench(machine), SWITCHES, fill=True):
        raise KeyboardInterrupt
    assert machine.changed() == set()


def test_nothing_is_left_of_a_database_that_does_not_start(machine: Machine) -> None:
    machine.guest.database.refuses_to_start = True
    machine.guest.database.server_log = "PANIC:  could not locate a valid checkpoint record\n"
    with (
        pytest.raises(CvmtuneError, match="valid checkpoint record"),
        stored(bench(machine), SWITCHES, fill=False),
    ):
        raise AssertionError("started in spite of it")
    assert machine.changed() == set()


def test_empty_database_holds_nothing(machine: Machine) -> None:
    machine.guest.database.rows["audit"] = 0
    with stored(bench(machine), SWITCHES, fill=True) as database:
        assert held(database) == set()
