# SPDX-License-Identifier: Apache-2.0
"""The helper kernel/modules/auditlog.c, built for this computer: what it logs, and what its check finds."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.core import command
from cvmtune.core.command import Completed
from cvmtune.core.system import LocalSystem
from cvmtune.workloads import audit_log

MODULES = Path(__file__).resolve().parents[2] / "kernel" / "modules"
CPUS = sorted(os.sched_getaffinity(0))
# Of one thread, and of the other: the same where the computer has but one.
WRITER, PRODUCERS = CPUS[0], CPUS[-1]
BLOCK = 4096  # of a record, as the header says
# What it may say of a record.
NO_RECORD, CUT_SHORT = "no record", "cut short"
NOT_NEXT, CHANGED = "not its producer's next", "not what was logged"

pytestmark = pytest.mark.skipif(
    (shutil.which("gcc") is None or shutil.which("make") is None)
    and os.environ.get("CVMTUNE_REQUIRE_TOOLS") != "1",
    reason="gcc or make is not installed",
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the helpers, as the lab builds them, but for this computer."""
    where = tmp_path_factory.mktemp("helpers")
    argv = ["make", "-C", str(MODULES), "CROSS_COMPILE=", f"OUT={where}", "helpers"]
    command.run(argv, timeout=120).check()
    return where


def auditlog(tools: Path, *words: object) -> Completed:
    return command.run([f"{tools}/auditlog", *map(str, words)], timeout=60)


def write(tools: Path, file: Path, producers: int, records: int, rate: int = 0) -> Completed:
    return auditlog(tools, "write", file, producers, records, rate, WRITER, PRODUCERS, 0)


def check(tools: Path, file: Path) -> Completed:
    return auditlog(tools, "check", file)


def blocks(file: Path) -> list[bytes]:
    data = file.read_bytes()
    assert len(data) % BLOCK == 0
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


@pytest.fixture(scope="module")
def log(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three producers, four records each. Tests copy it."""
    file = tmp_path_factory.mktemp("log") / "log"
    write(tools, file, 3, 4).check()
    return file


# Writing


@pytest.mark.parametrize(("producers", "records"), [(1, 1), (1, 7), (2, 3), (3, 4), (64, 2)])
@pytest.mark.parametrize("rate", [0, 1_000_000])
def test_a_line_and_a_block_a_record(
    tools: Path, tmp_path: Path, producers: int, records: int, rate: int
) -> None:
    began = time.monotonic_ns()
    done = write(tools, tmp_path / "log", producers, records, rate).check()
    took = time.monotonic_ns() - began
    total = producers * records
    rows = [[int(word) for word in line.split(" ")] for line in done.stdout.splitlines()]
    assert len(rows) == total
    assert all(len(row) == 4 for row in rows)
    # A difference of times the wrong way round would be some 2**64.
    assert all(0 <= ns <= took for row in rows for ns in row)
    # A write takes the writer, who is one, so they follow upon each other.
    assert sum(row[2] for row in rows) <= took
    assert len(blocks(tmp_path / "log")) == total
    assert done.stderr == ""
    assert check(tools, tmp_path / "log").check().stdout == f"{total}\n"


def producers_of(file: Path) -> list[int]:
    """Whose the records are, in the order of the file."""
    return [int.from_bytes(block[8:12], "little") for block in blocks(file)]


def test_times_of_a_producer_follow_upon_each_other(tools: Path, tmp_path: Path) -> None:
    """Without a rate a record is due when the one before is answered."""
    began = time.monotonic_ns()
    said = write(tools, tmp_path / "log", 3, 20).check().stdout
    took = time.monotonic_ns() - began
    spent = Counter[int]()
    for producer, line in zip(producers_of(tmp_path / "log"), said.splitlines(), strict=True):
        spent[producer] += sum(map(int, line.split()))
    assert spent.keys() == {0, 1, 2}
    assert max(spent.values()) <= took


def splitmix64(state: int) -> Iterator[int]:
    """Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014."""
    last = 2**64 - 1
    while True:
        state = state + 0x9E3779B97F4A7C15 & last
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & last
        z = (z ^ z >> 27) * 0x94D049BB133111EB & last
        yield z ^ z >> 31


def dues(producer: int, producers: int, rate: int) -> Iterator[float]:
    """When a producer's records are due, in ns from the start: all together come `rate` a second."""
    due = 0.0
    for number in splitmix64(producer):
        due += -1e9 * producers / rate * math.log1p(-(number >> 11) / 2**53)
        yield due


@pytest.mark.parametrize("rate", [5000, 1_000_000])
def test_records_are_due_at_random_and_lines_are_in_the_order_of_the_file(
    tools: Path, tmp_path: Path, rate: int
) -> None:
    """What is due is known, and from it when all else was: one writer writes one record after the other."""
    said = write(tools, tmp_path / "log", 3, 20, rate).check().stdout
    due = {producer: dues(producer, 3, rate) for producer in range(3)}
    written = 0.0
    answered = dict.fromkeys(range(3), 0.0)
    margin = 20  # each was rounded down to a nanosecond
    for producer, line in zip(producers_of(tmp_path / "log"), said.splitlines(), strict=True):
        late, handoff, write_ns, answer = map(int, line.split())
        offered = next(due[producer]) + late
        assert offered >= answered[producer] - margin
        assert offered + handoff >= written - margin
        written = offered + handoff + write_ns
        answered[producer] = written + answer


def test_records_of_a_producer_are_in_order_and_none_is_another(log: Path) -> None:
    found = blocks(log)
    numbers: dict[int, list[int]] = {}
    for producer, block in zip(producers_of(log), found, strict=True):
        numbers.setdefault(producer, []).append(int.from_bytes(block[12:16], "little"))
    assert numbers == {producer: [0, 1, 2, 3] for producer in range(3)}
    assert len({block[16:] for block in found}) == 12
    # So that damage cannot hide in what is the same everywhere.
    assert all(len(set(block[16:])) > 200 for block in found)


def test_log_is_the_same_in_every_run(tools: Path, tmp_path: Path, log: Path) -> None:
    write(tools, tmp_path / "log", 3, 4, 1_000_000).check()
    assert sorted(blocks(tmp_path / "log")) == sorted(blocks(log))


def test_what_bench_reads(tools: Path, tmp_path: Path) -> None:
    load = audit_log.AuditLoad(2, 5, 0, WRITER, PRODUCERS)
    file = tmp_path / "log"
    for _ in range(2):  # in place of the one before
        assert len(audit_log.log(LocalSystem(), str(tools), str(file), load)) == 10
        assert audit_log.intact(LocalSystem(), str(tools), str(file)) == 10
    with file.open("r+b") as opened:
        opened.seek(5000)
        opened.write(b"spoilt")
    assert audit_log.intact(LocalSystem(), str(tools), str(file)) == 0


def test_each_record_is_durable_before_the_answer(tools: Path, tmp_path: Path) -> None:
    """The file is open with O_DSYNC and O_APPEND, as the kernel tells of a run that would take a day."""
    file = tmp_path / "log"
    argv = [f"{tools}/auditlog", "write", str(file), "1", "100000", "1", str(WRITER), str(PRODUCERS), "0"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            flags = 0
            end = time.monotonic() + 60
            while not flags and time.monotonic() < end:
                assert process.poll() is None
                for link in Path(f"/proc/{process.pid}/fd").iterdir():
                    if os.readlink(link) == str(file):
                        said = Path(f"/proc/{process.pid}/fdinfo/{link.name}").read_text()
                        flags = int(said.partition("flags:")[2].split()[0], 8)
        finally:
            process.kill()
    assert flags & os.O_DSYNC
    assert flags & os.O_APPEND
    assert flags & os.O_ACCMODE == os.O_WRONLY


# What fails


def test_file_that_is_there_is_left_alone(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("precious")
    done = write(tools, tmp_path / "log", 1, 1)
    assert (done.status, done.stdout) == (1, "")
    assert "File exists" in done.stderr
    assert (tmp_path / "log").read_text() == "precious"


def test_directory_that_is_not_there(tools: Path, tmp_path: Path) -> None:
    done = write(tools, tmp_path / "none" / "log", 1, 1)
    assert done.status == 1
    assert "No such file" in done.stderr


@pytest.mark.parametrize("thread", [0, 1])
def test_cpu_that_is_not_there(tools: Path, tmp_path: Path, thread: int) -> None:
    cpus = [WRITER, PRODUCERS]
    cpus[thread] = 1023  # the last that can be named
    done = auditlog(tools, "write", tmp_path / "log", 1, 1, 0, *cpus, 0)
    assert (done.status, done.stdout) == (1, "")
    assert "CPU" in done.stderr


@pytest.mark.parametrize("size", [2 * BLOCK, 2 * BLOCK + 100])
def test_record_that_cannot_be_written_is_not_answered(tools: Path, tmp_path: Path, size: int) -> None:
    """Nothing is told then, be the write refused or cut short."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    argv = [
        f"{tools}/auditlog",
        "write",
        str(tmp_path / "log"),
        "1",
        "3",
        "0",
        str(WRITER),
        str(PRODUCERS),
        "0",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, preexec_fn=limit, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "write to the log" in done.stderr
    assert (tmp_path / "log").stat().st_size == size


def test_output_that_goes_nowhere_is_an_error(tools: Path, tmp_path: Path) -> None:
    argv = [
        f"{tools}/auditlog",
        "write",
        str(tmp_path / "log"),
        "1",
        "3",
        "0",
        str(WRITER),
        str(PRODUCERS),
        "0",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert b"standard output" in done.stderr


FILE = "log"


@pytest.mark.parametrize(
    "words",
    [
        *((), ("write",), ("check",), ("read", FILE), ("check", FILE, "more")),
        *(("write", FILE, 1, 1, 0, 0, 0), ("write", FILE, 1, 1, 0, 0, 0, 0, 0), ("check", FILE, *[0] * 6)),
        *(("write", FILE, producers, 1, 0, 0, 0, 0) for producers in (0, -1, 65, "", "x", "1x", "1 ", 2**65)),
        *(("write", FILE, 1, records, 0, 0, 0, 0) for records in (0, -1, 1_000_001, "", "1.5")),
        *(("write", FILE, 1, 1, rate, 0, 0, 0) for rate in (-1, 1_000_001, "", "fast")),
        *(("write", FILE, 1, 1, 0, cpu, 0, 0) for cpu in (-1, 1024, "", "all")),
        *(("write", FILE, 1, 1, 0, 0, cpu, 0) for cpu in (-1, 1024, "", "0,1")),
        *(("write", FILE, 1, 1, 0, 0, 0, seed) for seed in (-1, 1_000_001, "", "x")),
    ],
    ids=repr,
)
def test_wrong_usage(tools: Path, tmp_path: Path, words: tuple[object, ...]) -> None:
    done = command.run([f"{tools}/auditlog", *map(str, words)], cwd=tmp_path, timeout=60)
    assert (done.status, done.stdout) == (2, "")
    assert "usage: auditlog write FILE PRODUCERS RECORDS RATE CPU_WRITER CPU_PRODUCERS SEED\n" in done.stderr
    assert list(tmp_path.iterdir()) == []


# What the check finds


def test_no_file_to_check(tools: Path, tmp_path: Path) -> None:
    done = check(tools, tmp_path / "log")
    assert (done.status, done.stdout) == (1, "")
    assert "No such file" in done.stderr


def test_directory_is_no_log(tools: Path, tmp_path: Path) -> None:
    assert check(tools, tmp_path).status == 1


def test_log_without_records(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    assert check(tools, tmp_path / "log").check().stdout == "0\n"


Checked = Callable[[bytes], Completed]


@pytest.fixture(scope="module")
def checked(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """Check a log that consists of these bytes."""
    file = tmp_path_factory.mktemp("copy") / "log"

    def one(data: bytes) -> Completed:
        file.write_bytes(data)
        return check(tools, file)

    return one


def assert_damaged(done: Completed, at: int, *why: str) -> None:
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr in [f"auditlog: record {at} of the file: {one}\n" for one in why]


@settings(max_examples=60)
@given(st.integers(0, 12 * BLOCK - 1), st.integers(1, 255))
def test_byte_that_changed_anywhere_is_found(checked: Checked, log: Path, at: int, by: int) -> None:
    data = bytearray(log.read_bytes())
    data[at] ^= by
    assert_damaged(checked(bytes(data)), at // BLOCK, NO_RECORD, NOT_NEXT, CHANGED)


@pytest.mark.parametrize("at", [0, 7, 8, 11, 12, 15, 16, 4095])
@pytest.mark.parametrize("record", [0, 5, 11])
def test_bit_that_changed_at_the_edge_of_a_field_is_found(
    checked: Checked, log: Path, record: int, at: int
) -> None:
    data = bytearray(log.read_bytes())
    data[record * BLOCK + at] ^= 1
    assert checked(bytes(data)).status == 1


@pytest.mark.parametrize("size", [1, 15, 16, 512, 4095])
@pytest.mark.parametrize("whole", [0, 5, 11])
def test_log_cut_short_is_found(checked: Checked, log: Path, whole: int, size: int) -> None:
    assert_damaged(checked(log.read_bytes()[: whole * BLOCK + size]), whole, CUT_SHORT)


@pytest.mark.parametrize("whole", range(13))
def test_log_without_its_last_records_is_told_by_the_number(checked: Checked, log: Path, whole: int) -> None:
    assert checked(log.read_bytes()[: whole * BLOCK]).check().stdout == f"{whole}\n"


def positions(log: Path, producer: int) -> list[int]:
    """Where a producer's records are."""
    return [at for at, one in enumerate(producers_of(log)) if one == producer]


@pytest.mark.parametrize("producer", range(3))
@pytest.mark.parametrize("number", range(4))
def test_record_left_out(checked: Checked, log: Path, producer: int, number: int) -> None:
    found = blocks(log)
    mine = positions(log, producer)
    del found[mine[number]]
    done = checked(b"".join(found))
    if number == 3:
        # After its last one a producer may have logged no more; the number tells.
        assert done.check().stdout == "11\n"
    else:
        assert_damaged(done, mine[number + 1] - 1, NOT_NEXT)


@pytest.mark.parametrize("producer", range(3))
@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (0, 3), (2, 3)])
def test_records_of_a_producer_swapped(
    checked: Checked, log: Path, producer: int, one: int, other: int
) -> None:
    found = blocks(log)
    mine = positions(log, producer)
    found[mine[one]], found[mine[other]] = found[mine[other]], found[mine[one]]
    assert_damaged(checked(b"".join(found)), mine[one], NOT_NEXT)


@pytest.mark.parametrize("at", range(12))
def test_record_that_is_there_twice(checked: Checked, log: Path, at: int) -> None:
    found = blocks(log)
    assert_damaged(checked(b"".join([*found[: at + 1], *found[at:]])), at + 1, NOT_NEXT)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("at", [0, 4, 11])
def test_block_that_was_never_written(checked: Checked, log: Path, at: int, fill: bytes) -> None:
    found = blocks(log)
    found[at] = BLOCK * fill
    assert_damaged(checked(b"".join(found)), at, NO_RECORD)


def test_record_of_another_in_a_producers_place(checked: Checked, log: Path) -> None:
    """Its header is right, and what it says is not."""
    found = blocks(log)
    one, other = positions(log, 0)[2], positions(log, 1)[2]
    found[one] = found[one][:16] + found[other][16:]
    assert_damaged(checked(b"".join(found)), one, CHANGED)
