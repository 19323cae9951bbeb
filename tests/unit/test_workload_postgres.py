# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL cluster is made, brought up, loaded and checked, and what its programs print is read right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.workloads import postgres
from cvmtune.workloads.postgres import (
    Database,
    Statistics,
    TransactionLoad,
    command,
    damaged_blocks,
    parse_log,
    transact,
)
from tests.fakes.database import (
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
    program, *options = command(TransactionLoad("insert", 100))
    assert program == f"{BINARIES}pgbench"
    assert {
        *("--no-vacuum", "--protocol=prepared", "--random-seed=1", f"--file={SCRIPT}", "--client=1"),
        *("--jobs=1", "--transactions=100", "--log", f"--log-prefix={TRANSACTIONS}"),
    } == set(options)


def test_transactions_of_pgbench_at_a_rate() -> None:
    options = command(TransactionLoad("tpcb", 100, clients=4, rate=30))
    wanted = {f"--file={SCRIPT}", "--rate=30", "--client=4", "--jobs=4", "--transactions=25"}
    assert wanted <= set(options)
    assert not any(option.startswith("--builtin") for option in options)


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_random_numbers_are_those_of_the_seed(guest: Guest, database: Database, seed: int) -> None:
    assert f"--random-seed={seed}" in command(TransactionLoad("tpcb", 10, seed=seed))
    transact(database, TransactionLoad("insert", 10, rate=20, seed=seed))
    assert [load["random-seed"] for load in guest.postgres.loads] == [str(seed)]


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_no_more_transactions_than_asked_for(transactions: int, clients: int) -> None:
    """pgbench is told how many each client does."""
    options = command(TransactionLoad("insert", transactions, clients))
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
        writes=5000, syncs=5000, write_ms=300.25, sync_ms=700.5, active_ms=90_000.125
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
    database.warm([TransactionLoad("insert", 10), TransactionLoad("tpcb", 20, clients=2)])
    prewarm, update = (sql for _, sql in guest.postgres.queries[:2])
    assert "pg_prewarm(" in prewarm
    # Tables and indexes of pgbench and ours.
    assert {"'pgbench%'", "'audit%'"} <= set(prewarm.rstrip(";").split())
    # It is a change of the page, not of what is in it, and no more apart than rows that fill one.
    found = re.fullmatch(r"update pgbench_accounts set abalance = abalance where aid % (\d+) = 0;", update)
    assert found
    # A page has 8192 bytes, 24 of them its header; a row takes 128, and 4 to be found by.
    assert 1 < int(found[1]) <= (8192 - 24) // (128 + 4)
    kinds = [(load["client"], load["transactions"]) for load in guest.postgres.loads]
    assert kinds == [("1", "10"), ("2", "10")]
    assert guest.postgres.rows == {"audit": 80, "pgbench_history": 520}


def test_warming_that_fails_is_an_error(guest: Guest, database: Database) -> None:
    guest.fails = "/psql"
    with pytest.raises(CvmtuneError, match="refused"):
        database.warm([TransactionLoad("insert", 10)])
    assert guest.postgres.loads == []
    guest.fails = ""


# What is known of its rows


def test_rows_are_counted_once_to_be_known(guest: Guest, database: Database) -> None:
    assert [database.known_rows("insert") for _ in range(3)] == [70, 70, 70]
    assert len(guest.postgres.queries) == 1
    # Each script by itself.
    assert database.known_rows("tpcb") == 500
    assert len(guest.postgres.queries) == 2


def test_known_rows_are_those_that_were_counted_last(guest: Guest, database: Database) -> None:
    assert database.known_rows("insert") == 70
    guest.postgres.rows["audit"] = 75
    assert database.known_rows("insert") == 70
    assert database.rows("insert") == 75
    assert database.known_rows("insert") == 75


@pytest.mark.parametrize("loses", [0, 3])
def test_load_leaves_known_what_is_there_after_it(guest: Guest, database: Database, loses: int) -> None:
    guest.postgres.loses = loses
    transact(database, TransactionLoad("insert", 10))
    queries = len(guest.postgres.queries)
    assert database.known_rows("insert") == 80 - loses
    assert len(guest.postgres.queries) == queries
    # What the load before has lost is none of this one's.
    guest.postgres.loses = 0
    assert transact(database, TransactionLoad("insert", 10)).missing == 0


def test_rows_are_not_counted_before_a_load(guest: Guest, database: Database) -> None:
    """What a count leaves to be written would be the load's."""
    transact(database, TransactionLoad("insert", 10))
    guest.commands.clear()
    guest.postgres.queries.clear()
    transact(database, TransactionLoad("insert", 10))
    asked = ["count" if "count(*)" in sql else "statistics" for _, sql in guest.postgres.queries]
    assert asked == ["statistics", "statistics", "count"]
    assert [one.split()[0] for one in guest.commands] == ["sh", "psql", "pgbench", "psql", "sh", "psql"]


def test_nobody_knows_what_another_knows(guest: Guest, database: Database) -> None:
    other = Database(guest, CLUSTER)
    assert database.known_rows("insert") == 70
    guest.postgres.rows["audit"] = 71
    assert other.known_rows("insert") == 71


# A server that ends without order


def test_crash_reads_again_what_was_stored(guest: Guest, database: Database) -> None:
    database.crash()
    control = f"pg_ctl --pgdata {CLUSTER} --wait --timeout=560"
    assert guest.commands == [
        f"{control} --mode=immediate stop",
        "drop caches",
        f"{control} --log /var/run/postgresql/log start",
    ]
    assert guest.postgres.running == CLUSTER


def test_crash_forgets_nothing_that_was_known(guest: Guest, database: Database) -> None:
    guest.postgres.crash_loses = {"audit": 4}
    assert database.known_rows("insert") == 70
    database.crash()
    assert database.known_rows("insert") == 70
    assert database.rows("insert") == 66


@pytest.mark.parametrize("step", ["--mode=immediate", "start"])
def test_crash_that_fails_is_an_error(guest: Guest, step: str) -> None:
    with postgres.running(guest, CLUSTER) as database:
        guest.fails = step
        with pytest.raises(CvmtuneError, match="refused"):
            database.crash()
        # What did not end is not started.
        asked = [one for one in guest.commands if one.endswith((" start", " stop"))]
        assert asked[-1].endswith(" start" if step == "start" else f"{step} stop")
        guest.fails = ""
        guest.postgres.running = CLUSTER


# A load


def test_what_becomes_of_a_load(guest: Guest, database: Database) -> None:
    """What the server does before and after it is none of its statistics."""
    done = transact(database, TransactionLoad("insert", 10, rate=20))
    assert done.latencies_ns == tuple(1000.0 * (LATENCY_US + n) for n in range(10))
    assert done.lags_ns == tuple(1000.0 * (LAG_US + n) for n in range(10))
    assert done.count == 10
    assert done.missing == 0
    assert done.server == pytest.approx(
        Statistics(10, 10, 10 * LOG_WRITE_MS, 10 * LOG_SYNC_MS, 10 * ACTIVE_MS), abs=0.2
    )


def test_nothing_waits_to_begin_without_a_rate(database: Database) -> None:
    done = transact(database, TransactionLoad("tpcb", 3))
    assert done.latencies_ns == tuple(1000.0 * (UNDELAYED_US + n) for n in range(3))
    assert done.lags_ns == (0, 0, 0)


def test_log_of_an_earlier_load_is_no_part_of_it(database: Database) -> None:
    transact(database, TransactionLoad("insert", 12, clients=4))
    assert transact(database, TransactionLoad("insert", 6, clients=2)).count == 6


def test_script_is_one_record_that_is_committed(guest: Guest, database: Database) -> None:
    transact(database, TransactionLoad("insert", 1))
    # One statement outside of a transaction is one; the client waits for its commit.
    assert guest.postgres.written[SCRIPT].count(";") == 1
    assert guest.postgres.written[SCRIPT].startswith("insert into audit ")


# The text of "tpcb-like" in pgbench's manual, "What Is the 'Transaction' Actually Performed in pgbench?", and
# the variables that pgbench.c sets for it.
TPCB_LIKE = """\\set aid random(1, 100000 * :scale)
\\set tid random(1, 10 * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, NOW);
END;
""".replace("NOW", "CURRENT_TIMESTAMP")


def test_script_is_the_transaction_of_pgbench_at_scale_1(guest: Guest, database: Database) -> None:
    transact(database, TransactionLoad("tpcb", 1))
    at_scale_1 = TPCB_LIKE.replace(" * :scale", "").replace(":bid", "1")
    assert guest.postgres.written[SCRIPT] == at_scale_1.lower()
    assert "--scale=1" in postgres.SETUP.splitlines()


def test_script_is_that_of_the_load(guest: Guest, database: Database) -> None:
    texts = []
    for script in ("insert", "tpcb", "insert"):
        transact(database, TransactionLoad(script, 1))
        texts.append(guest.postgres.written[SCRIPT])
    assert texts[0] == texts[2] != texts[1]
    assert guest.postgres.rows == {"audit": 72, "pgbench_history": 501}
    assert set(postgres.SCRIPTS) == {"insert", "tpcb"}


def test_what_was_to_be_written_later_is_written_before(guest: Guest, database: Database) -> None:
    transact(database, TransactionLoad("insert", 1))
    assert guest.commands[0].startswith("sh -c cat >")
    assert guest.commands[0].endswith("&& sync")


def test_script_that_cannot_be_written_is_an_error(guest: Guest, database: Database) -> None:
    guest.fails = "sync"
    with pytest.raises(CvmtuneError, match="refused"):
        transact(database, TransactionLoad("insert", 1))
    assert guest.postgres.loads == []
    guest.fails = ""


def test_something_beside_lasts_as_long_as_the_transactions(guest: Guest, database: Database) -> None:
    @contextmanager
    def marked() -> Iterator[None]:
        guest.commands.append("enter")
        yield
        guest.commands.append("exit")

    transact(database, TransactionLoad("insert", 5), marked())
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
    assert transact(database, TransactionLoad(script, 10)).missing == loses


@pytest.mark.parametrize(("transactions", "clients", "wanted"), [(10, 1, 10), (10, 4, 8), (9, 3, 9)])
def test_transactions_that_were_not_logged_are_an_error(
    guest: Guest, database: Database, transactions: int, clients: int, wanted: int
) -> None:
    load = TransactionLoad("insert", transactions, clients)
    done = transact(database, load)
    assert (done.count, done.missing) == (wanted, 0)
    guest.postgres.forgets = 1
    with pytest.raises(CvmtuneError, match=rf"of {wanted} transactions it logged {wanted - 1} \(pgbench\)"):
        transact(database, load)


def test_pgbench_that_fails_is_an_error(guest: Guest, database: Database) -> None:
    guest.fails = "/pgbench"
    with pytest.raises(CvmtuneError, match=r"pgbench .* ended with status 1\n.*refused"):
        transact(database, TransactionLoad("insert", 10))
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
    assert guest.commands[-1] == f"pg_ctl --pgdata {CLUSTER} --wait --timeout=560 --mode=fast stop"
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
    assert "create extension pg_prewarm;" in table
    (initdb,) = (one.split() for one in guest.commands if one.startswith("initdb "))
    (pgbench,) = (one.split() for one in guest.commands if one.startswith("pgbench "))
    assert initdb[1:3] == ["--pgdata", "/var/lib/new"]
    assert [*initdb[3:], *pgbench[1:]] == postgres.SETUP.splitlines()[: len(initdb) + len(pgbench) - 4]
    assert "--data-checksums" in initdb
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
