# SPDX-License-Identifier: Apache-2.0
"""An audit log is written as asked for, and what the lab's helper says of it is read right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.workloads.audit_log import AuditLoad, Record, intact, log, parse

PATH = "/mnt/audit.log"
LOAD = AuditLoad(producers=3, records=2, rate=40, writer_cpu=0, producer_cpu=1, seed=7)
SAYS = "".join(f"{n} {10 + n} {100 + n} {1000 + n}\n" for n in range(6))


class Guest:
    """A guest whose helper says this, with this status; `fails` is a program that fails."""

    def __init__(
        self, says: str = SAYS, status: int = 0, fails: str = "", errors: str = "auditlog: an error\n"
    ) -> None:
        self.says = says
        self.status = status
        self.errors = errors if status else ""
        self.fails = fails
        self.commands: list[list[str]] = []

    def read_text(self, path: str) -> str:
        raise AssertionError(f"read {path}")

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError(f"wrote {path}")

    def exists(self, path: str) -> bool:
        raise AssertionError(f"looked for {path}")

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        self.commands.append(list(argv))
        if argv[0] == self.fails:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        if argv[0] == "rm":
            return Completed(tuple(argv), 0, "", "", 0.1)
        return Completed(tuple(argv), self.status, self.says, self.errors, 0.1)


# What it prints


def test_a_line_a_record() -> None:
    """Late, hand-off, write, answer: the order in the header of kernel/modules/auditlog.c."""
    (first, second) = parse("1 20 300 4000\n0 0 7 0\n")
    assert first == Record(late=1, handoff=20, write=300, answer=4000)
    assert second == Record(late=0, handoff=0, write=7, answer=0)
    assert first.latency == 4321
    assert second.latency == 7


def test_nothing_printed() -> None:
    assert parse("") == ()


NS = st.integers(0, 10**12)
ROWS = st.lists(st.tuples(NS, NS, NS, NS), max_size=20)


@given(ROWS)
def test_any_times_in_their_order(rows: list[tuple[int, int, int, int]]) -> None:
    found = parse("".join(" ".join(map(str, row)) + "\n" for row in rows))
    assert found == tuple(Record(*row) for row in rows)
    assert [record.latency for record in found] == [sum(row) for row in rows]


@given(ROWS, st.sampled_from(["", "1", "1 2 3", "1 2 3 4 5", "1 2 3 x"]), st.data())
def test_line_without_four_times_is_an_error(
    rows: list[tuple[int, int, int, int]], broken: str, data: st.DataObject
) -> None:
    lines = [" ".join(map(str, row)) for row in rows]
    lines.insert(data.draw(st.integers(0, len(lines))), broken)
    with pytest.raises(CvmtuneError, match="expected lines of 4 whole numbers"):
        parse("".join(f"{line}\n" for line in lines))


# Writing


def test_records_of_all_producers_together() -> None:
    assert LOAD.total == 6


def test_log_is_written_anew() -> None:
    guest = Guest()
    records = log(guest, "/tools", PATH, LOAD)
    assert guest.commands == [
        ["rm", "-f", PATH],
        # As in the header of kernel/modules/auditlog.c.
        ["/tools/auditlog", "write", PATH, "3", "2", "40", "0", "1", "7"],
    ]
    assert [record.late for record in records] == list(range(6))
    assert records[5] == Record(5, 15, 105, 1005)


@pytest.mark.parametrize("told", [0, 5, 7])
def test_records_that_are_not_told_are_an_error(told: int) -> None:
    guest = Guest("1 2 3 4\n" * told)
    with pytest.raises(CvmtuneError, match=rf"of 6 records it tells {told} \(auditlog\)"):
        log(guest, "/tools", PATH, LOAD)


@pytest.mark.parametrize("program", ["rm", "/tools/auditlog"])
def test_program_that_fails_is_an_error(program: str) -> None:
    guest = Guest(fails=program)
    with pytest.raises(CvmtuneError, match=rf"{program} .* ended with status 1\n.*refused"):
        log(guest, "/tools", PATH, LOAD)
    assert guest.commands[-1][0] == program


def test_status_counts_whatever_was_printed() -> None:
    with pytest.raises(CvmtuneError, match="ended with status 1"):
        log(Guest(status=1), "/tools", PATH, LOAD)


# Checking


@pytest.mark.parametrize("number", [0, 5, 90])
def test_records_of_an_intact_log(number: int) -> None:
    guest = Guest(f"{number}\n")
    assert intact(guest, "/tools", PATH) == number
    assert guest.commands == [["/tools/auditlog", "check", PATH]]


def test_log_of_another_seed() -> None:
    guest = Guest()
    log(guest, "/tools", PATH, replace(LOAD, seed=0))
    assert guest.commands[1][-1] == "0"
    assert AuditLoad(3, 2, 40, 0, 1) == replace(LOAD, seed=0)


DAMAGE = "auditlog: record 3 of the file: not what was logged\n"


@pytest.mark.parametrize("says", ["", "90\n"])
def test_damaged_log_has_no_intact_records(says: str) -> None:
    assert intact(Guest(says, 1, errors=DAMAGE), "/tools", PATH) == 0


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        (1, "auditlog: /mnt/audit.log: Input/output error\n"),
        (1, "refused"),
        (1, ""),
        *((status, DAMAGE) for status in (2, 124, 127, -1, -11)),
        *((status, "") for status in (2, 127, -9)),
    ],
)
@pytest.mark.parametrize("says", ["", "90\n"])
def test_check_that_fails_is_no_damage_but_an_error(status: int, errors: str, says: str) -> None:
    with pytest.raises(CvmtuneError, match=r"/tools/auditlog check"):
        intact(Guest(says, status, errors=errors), "/tools", PATH)


def test_damage_is_told_of_by_the_status() -> None:
    guest = Guest("90\n")
    guest.errors = DAMAGE
    assert intact(guest, "/tools", PATH) == 90
