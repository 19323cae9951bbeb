# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL cluster is made, brought up, loaded and checked, and what its programs print is read right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple

import pytest
from fake_database import (
    ACTIVE_MS,
    BALANCES,
    BINARIES,
    LAG_US,
    LATENCY_US,
    LOG_SYNC_MS,
    LOG_WRITE_MS,
    SCRIPT,
    TRANSACTIONS,
    UNDELAYED_US,
    FakePostgres,
)
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.bench import postgres
from cvmtune.bench.postgres import Database, Load, Statistics, command, damaged_blocks, parse_log, transact
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed

CLUSTER = "/mnt/database"
# From pgbench's manual, "Per-Transaction Logging": without a rate, and the same with one.
LOG = "0 199 2241 0 1175850568 995598\n0 200 2465 0 1175850568 998079\n0 201 2513 0 1175850569 608\n"
LOG_WITH_RATE = "0 81 4621 0 1412881037 912698 3005\n0 82 6173 0 1412881037 914578 4304\n"


class Guest:
    """A guest with PostgreSQL; `fails` is a word of the command that fails.

    `commands` has all commands, without what changes the user, and the texts written to files.
    """

    def __init__(self, fails: str = "") -> None:
        self.postgres = FakePostgres()
        self.postgres.clusters.add(CLUSTER)
        self.fails = fails
        self.commands: list[str] = []

    def read_text(self, path: str) -> str:
        raise AssertionError(f"read {path}")

    def write_text(self, path: str, text: str) -> None:
        assert (path, text) == ("/proc/sys/vm/drop_caches", "3\n")
        self.commands.append("drop caches")

    def exists(self, path: str) -> bool:
        raise AssertionError(f"looked for {path}")

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        said = " ".join(argv)
        self.commands.append(said.rpartition(BINARIES)[2])
        if self.fails and self.fails in said:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        done = self.postgres.run(argv, input)
        assert done is not None, argv
        return Completed(tuple(argv), *done, 0.1)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def database(guest: Guest) -> Iterator[Database]:
    with postgres.running(guest, CLUSTER) as database:
        guest.commands.clear()
        yield database


# Command lines


def test_transactions_of_ours_one_after_another() -> None:
    program, *options = command(Load("insert", 100))
    assert program == f"{BINARIES}pgbench"
    assert {
        *("--no-vacuum", "--protocol=prepared", "--random-seed=1", f"--file={SCRIPT}", "--client=1"),
        *("--jobs=1", "--transactions=100", "--log", f"--log-prefix={TRANSACTIONS}"),
    } == set(options)


def test_transactions_of_pgbench_at_a_rate() -> None:
    options = command(Load("tpcb", 100, clients=4, rate=30))
    assert {"--builtin=tpcb-like", "--rate=30", "--client=4", "--jobs=4", "--transactions=25"} <= set(options)
    assert not any(option.startswith("--file") for option in options)


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_no_more_transactions_than_asked_for(transactions: int, clients: int) -> None:
    """pgbench is told how many each client does."""
    options = command(Load("insert", transactions, clients))
    (each,) = (int(option.partition("=")[2]) for option in options if option.startswith("--transactions="))
    assert transactions - clients < clients * each <= transactions


def test_programs_run_as_the_user_of_the_database() -> None:
    argv = postgres.as_user(["psql", "a b"])
    assert argv[-2:] == ["psql", "a b"]
    assert argv[:3] == ["env", "--chdir=/", "setpriv"]
    assert {"--reuid=postgres", "--regid=postgres", "--clear-groups"} <= set(argv)


# pgbench's log


def test_log_without_a_rate_has_no_lags() -> None:
    assert parse_log(LOG) == ((2_241_000, 2_465_000, 2_513_000), (0, 0, 0))


def test_log_with_a_rate_has_lags() -> None:
    assert parse_log(LOG_WITH_RATE) == ((4_621_000, 6_173_000), (3_005_000, 4_304_000))


def test_empty_log() -> None:
    assert parse_log("") == ((), ())


US = st.integers(0, 10**12)
ROWS = st.lists(st.tuples(US, st.none() | US), max_size=20)


def lines(rows: Sequence[tuple[int, int | None]]) -> list[str]:
    return [
        f"{n % 4} {n} {latency} 0 1175850568 {n}" + ("" if lag is None else f" {lag}")
        for n, (latency, lag) in enumerate(rows)
    ]


@given(ROWS)
def test_any_log(rows: list[tuple[int, int | None]]) -> None:
    found = parse_log("".join(f"{line}\n" for line in lines(rows)))
    assert found == (
        tuple(latency * 1000 for latency, _ in rows),
        tuple((lag or 0) * 1000 for _, lag in rows),
    )


BROKEN = (
    # A transaction that a limit had skipped, one that failed, and others that are none.
    *("0 83 skipped 0 1412881037 914578 4304", "3 0 failed 0 1499414498 84905", "", " ", "pgbench: error"),
    *("0 1 2241 0 1175850568", "0 1 -5 0 1175850568 1", "0 1 2.5 0 1175850568 1", "0 1 2 0 3 4 5 6"),
    *("0 199 2241 0 1175850568 995598 ", "0 199  2241 0 1175850568 995598", "0 1 nan 0 1175850568 1"),
)


@given(ROWS, st.sampled_from(BROKEN), st.data())
def test_error_names_the_line_that_is_broken(
    rows: list[tuple[int, int | None]], broken: str, data: st.DataObject
) -> None:
    text = lines(rows)
    at = data.draw(st.integers(0, len(text)))
    text.insert(at, broken)
    with pytest.raises(CvmtuneError) as caught:
        parse_log("".join(f"{line}\n" for line in text))
    assert caught.value.where == f"pgbench's log, line {at + 1}"
    assert repr(broken) in caught.value.what


@given(st.text())
def test_any_text_for_a_log(text: str) -> None:
    with suppress(CvmtuneError):
        latencies, lags = parse_log(text)
        assert len(latencies) == len(lags) == len(text.splitlines())


# What the server counts

FIGURES = st.builds(Statistics, *[st.integers(0, 2**40).map(float)] * 5)


@given(FIGURES, FIGURES)
def test_difference_of_statistics(earlier: Statistics, more: Statistics) -> None:
    pairs = zip(astuple(earlier), astuple(more), strict=True)
    later = Statistics(*(a + b for a, b in pairs))
    assert later - earlier == more
    assert later - later == Statistics(0, 0, 0, 0, 0)


def test_statistics_by_their_names(database: Database) -> None:
    assert database.statistics() == Statistics(
        writes=5000, syncs=5000, write_ms=300.25, sync_ms=700.5, active_ms=90_000.1
    )


# Queries


def test_rows_of_a_query(guest: Guest, database: Database) -> None:
    assert database.query("select id from audit;")[:3] == [["1"], ["2"], ["3"]]
    assert guest.postgres.queries == [("postgres", "select id from audit;")]
    guest.postgres.balances = ("1", "", "2", "3")
    assert database.query("select sum(abalance);") == [["1", "", "2", "3"]]
    guest.postgres.rows["audit"] = 0
    assert database.query("select id from audit;") == []


def test_query_that_fails_is_an_error(guest: Guest, database: Database) -> None:
    guest.fails = "psql"
    with pytest.raises(CvmtuneError, match="refused"):
        database.query("select 1;")
    guest.fails = ""


@pytest.mark.parametrize(("script", "rows"), [("insert", 70), ("tpcb", 500)])
def test_transactions_that_the_database_holds(database: Database, script: str, rows: int) -> None:
    assert database.rows(script) == rows


def test_first_times_are_over_when_it_is_warm(guest: Guest, database: Database) -> None:
    database.warm([Load("insert", 10), Load("tpcb", 20, clients=2)])
    prewarm, update = (sql for _, sql in guest.postgres.queries[:2])
    assert "pg_prewarm(" in prewarm
    assert "update pgbench_accounts" in update
    assert len(guest.postgres.loads) == 2


# A load


def test_what_becomes_of_a_load(guest: Guest, database: Database) -> None:
    """What the server does before and after it is none of its statistics."""
    done = transact(database, Load("insert", 10, rate=20))
    assert done.latencies_ns == tuple(1000.0 * (LATENCY_US + n) for n in range(10))
    assert done.lags_ns == tuple(1000.0 * (LAG_US + n) for n in range(10))
    assert done.count == 10
    assert done.missing == 0
    assert done.server == pytest.approx(
        Statistics(10, 10, 10 * LOG_WRITE_MS, 10 * LOG_SYNC_MS, 10 * ACTIVE_MS), abs=0.2
    )


def test_nothing_waits_to_begin_without_a_rate(database: Database) -> None:
    done = transact(database, Load("tpcb", 3))
    assert done.latencies_ns == tuple(1000.0 * (UNDELAYED_US + n) for n in range(3))
    assert done.lags_ns == (0, 0, 0)


def test_log_of_an_earlier_load_is_no_part_of_it(database: Database) -> None:
    transact(database, Load("insert", 12, clients=4))
    assert transact(database, Load("insert", 6, clients=2)).count == 6


def test_script_is_one_record_that_is_committed(guest: Guest, database: Database) -> None:
    transact(database, Load("insert", 1))
    # One statement outside of a transaction is one; the client waits for its commit.
    assert guest.postgres.written[SCRIPT].count(";") == 1
    assert guest.postgres.written[SCRIPT].startswith("insert into audit ")


def test_something_beside_lasts_as_long_as_the_transactions(guest: Guest, database: Database) -> None:
    @contextmanager
    def marked() -> Iterator[None]:
        guest.commands.append("enter")
        yield
        guest.commands.append("exit")

    transact(database, Load("insert", 5), marked())
    at = guest.commands.index("enter")
    assert guest.commands[at + 1].startswith("pgbench ")
    assert guest.commands[at + 2] == "exit"
    assert sum(one.startswith("pgbench ") for one in guest.commands) == 1


@pytest.mark.parametrize("script", ["insert", "tpcb"])
@pytest.mark.parametrize("loses", [0, 1, 10])
def test_transactions_that_are_not_there_are_counted(
    guest: Guest, database: Database, script: str, loses: int
) -> None:
    guest.postgres.loses = loses
    assert transact(database, Load(script, 10)).missing == loses


@pytest.mark.parametrize(("transactions", "clients", "wanted"), [(10, 1, 10), (10, 4, 8), (9, 3, 9)])
def test_transactions_that_were_not_logged_are_an_error(
    guest: Guest, database: Database, transactions: int, clients: int, wanted: int
) -> None:
    load = Load("insert", transactions, clients)
    done = transact(database, load)
    assert (done.count, done.missing) == (wanted, 0)
    guest.postgres.forgets = 1
    with pytest.raises(CvmtuneError, match=rf"of {wanted} transactions it logged {wanted - 1} \(pgbench\)"):
        transact(database, load)


def test_pgbench_that_fails_is_an_error(guest: Guest, database: Database) -> None:
    guest.fails = "/pgbench"
    with pytest.raises(CvmtuneError, match=r"pgbench .* ended with status 1\n.*refused"):
        transact(database, Load("insert", 10))
    guest.fails = ""


# Damage


def test_nothing_is_wrong(guest: Guest, database: Database) -> None:
    # Notes of a program that ends with status 0 are no findings.
    guest.postgres.complaints = (0, "a note\n")
    assert database.damage() == 0
    (argv,) = (one for one in guest.commands if one.startswith("pg_amcheck"))
    assert {"--all", "--heapallindexed"} <= set(argv.split())


@given(said=st.lists(st.sampled_from(["heap table", "btree index", "    posting list"]), min_size=1))
def test_each_thing_that_is_wrong_counts(said: list[str]) -> None:
    guest = Guest()
    guest.postgres.complaints = (2, "".join(f"{line}\n" for line in said))
    with postgres.running(guest, CLUSTER) as database:
        assert database.damage() == len(said)


@pytest.mark.parametrize("status", [1, 3, 127, -9])
def test_check_that_fails_is_no_finding_but_an_error(guest: Guest, database: Database, status: int) -> None:
    guest.postgres.complaints = (status, "")
    with pytest.raises(CvmtuneError, match="pg_amcheck"):
        database.damage()


@pytest.mark.parametrize(
    ("balances", "wrong"),
    [
        (BALANCES, 0),
        (("0", "0", "0", "0"), 0),
        (("1201", "1200", "1200", "1200"), 1),
        (("1200", "1200", "1200", "0"), 1),
        (("1", "2", "2", "3"), 2),
        (("1", "2", "3", "4"), 3),
        (("1200", "", "1200", "1200"), 1),  # of an empty table the sum is null
    ],
)
def test_balances_that_do_not_agree(
    guest: Guest, database: Database, balances: tuple[str, ...], wrong: int
) -> None:
    guest.postgres.balances = balances
    assert database.damage() == wrong
    guest.postgres.complaints = (2, "one\ntwo\n")
    assert database.damage() == wrong + 2


@pytest.mark.parametrize("bad", [0, 1, 37])
def test_damaged_blocks(guest: Guest, bad: int) -> None:
    """pg_checksums ends with status 1 if there are any."""
    guest.postgres.bad = bad
    assert damaged_blocks(guest, CLUSTER) == bad
    # From where they are kept, not from memory.
    assert guest.commands[0] == "drop caches"
    assert guest.commands[1:] == [f"pg_checksums --check --pgdata {CLUSTER}"]


def test_checksums_that_are_not_told_are_an_error(guest: Guest) -> None:
    guest.postgres.bad = None
    with pytest.raises(CvmtuneError, match=r"does not tell how many checksums are bad \(pg_checksums\)"):
        damaged_blocks(guest, CLUSTER)


def test_checksums_of_a_server_that_runs_are_an_error(guest: Guest, database: Database) -> None:
    with pytest.raises(CvmtuneError, match="cluster must be shut down"):
        damaged_blocks(guest, CLUSTER)


# The server


class Unforeseen(Exception):
    """What nobody expects."""


@pytest.mark.parametrize(
    "error", [CvmtuneError("it fails"), Unforeseen(), KeyboardInterrupt(), SystemExit(3)]
)
def test_server_ends_whatever_fails(guest: Guest, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, postgres.running(guest, CLUSTER):
        raise error
    assert caught.value is error
    assert guest.postgres.running == ""
    assert [one.split()[-1] for one in guest.commands if one.startswith("pg_ctl")] == ["start", "stop"]


def test_server_ends_when_starting_it_is_interrupted(guest: Guest) -> None:
    run = guest.run

    def interrupted(argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        done = run(argv, timeout=timeout, input=input)
        if argv[-1] == "start":
            raise KeyboardInterrupt
        return done

    guest.run = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), postgres.running(guest, CLUSTER):
        raise AssertionError("started in spite of it")
    assert guest.postgres.running == ""


def test_server_ends_in_order(guest: Guest) -> None:
    with postgres.running(guest, CLUSTER) as database:
        assert (database.cluster, database.guest) == (CLUSTER, guest)
    assert guest.commands[-1] == f"pg_ctl --pgdata {CLUSTER} --wait --mode=fast stop"
    assert guest.postgres.running == ""


def test_server_that_does_not_end_is_an_error(guest: Guest) -> None:
    guest.fails = "--mode=fast stop"
    with pytest.raises(CvmtuneError, match=r"pg_ctl .* stop ended"), postgres.running(guest, CLUSTER):
        pass


SERVER_LOG = "FATAL:  data directory has invalid permissions\n"


@pytest.mark.parametrize(("log", "why"), [(SERVER_LOG, SERVER_LOG), ("", "could not start server")])
def test_error_of_a_server_that_does_not_start_carries_its_log(guest: Guest, log: str, why: str) -> None:
    guest.postgres.refuses_to_start, guest.postgres.server_log = True, log
    with pytest.raises(CvmtuneError) as caught, postgres.running(guest, CLUSTER):
        raise AssertionError("started in spite of it")
    assert "the server does not start: " in caught.value.what
    assert why in caught.value.what
    assert caught.value.where == CLUSTER


# A new cluster


def test_new_cluster_is_whole_and_its_server_has_ended(guest: Guest) -> None:
    guest.postgres.clusters.clear()
    postgres.create(guest, "/var/lib/new")
    assert guest.postgres.clusters == {"/var/lib/new"}
    assert guest.postgres.running == ""
    wanted = ["install -d", "initdb", "sh -c cat >>", "install -d", "pg_ctl", "pgbench", "psql", "pg_ctl"]
    for said, start in zip(guest.commands, wanted, strict=True):
        assert said.startswith(start)
    # The server refuses a directory that others may enter.
    assert guest.commands[0].endswith("-m 700 /var/lib/new")
    assert "--initialize" in guest.commands[5]


def test_what_a_cluster_is_made_by_is_its_setup(guest: Guest) -> None:
    postgres.create(guest, "/var/lib/new")
    settings = guest.postgres.written["/var/lib/new/postgresql.conf"]
    ((_, table),) = guest.postgres.queries
    assert settings in postgres.SETUP
    assert table in postgres.SETUP
    assert "create table audit " in table


def test_durability_is_that_of_the_defaults() -> None:
    for word in ("fsync", "synchronous_commit", "full_page_writes", "commit_delay", "wal_level"):
        assert word not in postgres.SETUP


@pytest.mark.parametrize("step", ["install", "initdb", "postgresql.conf", "--initialize", "psql"])
def test_cluster_that_cannot_be_made_is_an_error(guest: Guest, step: str) -> None:
    guest.fails = step
    with pytest.raises(CvmtuneError, match="refused"):
        postgres.create(guest, "/var/lib/new")
    assert guest.postgres.running == ""
