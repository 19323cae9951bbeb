# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL in a guest: a cluster that is made, brought up, loaded with transactions, and checked.

    with running(guest, "/mnt/database") as database:
        done = transact(database, TransactionLoad("insert", transactions=100, rate=20))

Every transaction is committed synchronously, by PostgreSQL's defaults: `commit` returns when the log is on
stable storage. Pages have checksums. What would write at times of its own (checkpoints, vacuum) is put off,
so that two runs do the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System

# Not by Debian's wrappers of the same names: they are Perl programs, and take their time.
BINARIES = "/usr/lib/postgresql/15/bin"
USER = "postgres"  # the server refuses to be root
_NAME = "postgres"
_SOCKETS = "/var/run/postgresql"  # where Debian's programs look
_LOG = f"{_SOCKETS}/log"
_TRANSACTIONS = f"{_SOCKETS}/transactions"  # pgbench adds its number, and that of the thread
_SCRIPT = f"{_SOCKETS}/script.sql"
_NS_PER_US = 1e3
_NS_PER_MS = 1e6
_SETTINGS = """
listen_addresses = ''
shared_buffers = 64MB
checkpoint_timeout = 1d
autovacuum = off
jit = off
track_wal_io_timing = on
"""
_TABLE = """
create extension amcheck;
create extension pg_prewarm;
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    who int not null,
    what text not null
);
"""
# One protected record, whose client waits for its commit; and pgbench's own transaction, from a file: for its
# builtin it asks the server about its tables first, in the time that is to be the transactions'.
_TEXTS = {
    "insert": "insert into audit (who, what) values (:client_id, 'transfer approved');\n",
    "tpcb": """\\set aid random(1, 100000)
\\set tid random(1, 10)
\\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (:tid, 1, :aid, :delta, current_timestamp);
end;
""",
}
# What pgbench's TPC-B transaction keeps equal, and what its tables and ours are read by.
_BALANCES = """
select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
       (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history);
"""
_TABLES = {"insert": "audit", "tpcb": "pgbench_history"}
# A session's figures are there when it has ended, which its client does not wait for.
_STATISTICS = """
do $$ begin
    while exists (select from pg_stat_activity where datname = 'postgres' and backend_type = 'client backend')
    loop
        perform pg_sleep(0.01), pg_stat_clear_snapshot();
    end loop;
end $$;
select pg_stat_force_next_flush();
select wal_write, wal_sync, wal_write_time, wal_sync_time,
       (select active_time from pg_stat_database where datname = 'postgres') from pg_stat_wal;
"""
_LOGGED = re.compile(r"\d+ \d+ (\d+) \d+ \d+ \d+(?: (\d+))?")
_CONNECTIONS_S = 600.0
# What pg_ctl waits for a start, which may be a recovery on a slow computer; its own is 60 s.
_RECOVERY_S = 560

SCRIPTS = tuple(_TABLES)
"""The transactions there are: "insert" adds a record, "tpcb" pgbench's own, as in TPC-B."""

_INITDB = ("--data-checksums", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync")
_PGBENCH = ("--initialize", "--quiet", "--scale=1")
SETUP = "\n".join((*_INITDB, *_PGBENCH, _SETTINGS, _TABLE))
"""What a cluster is made by, beside the programs."""


@dataclass(frozen=True)
class Database:
    """A server that runs on a cluster, in directory `cluster` of the guest."""

    guest: System
    cluster: str
    _known: dict[str, int] = field(default_factory=dict)

    def query(self, sql: str, name: str = _NAME) -> list[list[str]]:
        """Run SQL in the database of that name; return the rows that its statements give."""
        argv = [f"{BINARIES}/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        argv += ["--set=ON_ERROR_STOP=1", f"--dbname={name}"]
        done = _run(self.guest, argv, input=sql)
        return [line.split("|") for line in done.splitlines()]

    def rows(self, script: str) -> int:
        """The number of transactions of that script that the database holds."""
        self._known[script] = int(self.query(f"select count(*) from {_TABLES[script]};")[-1][0])
        return self._known[script]

    def known_rows(self, script: str) -> int:
        """What rows() has told last: to count is work, and leaves some for later."""
        return self._known[script] if script in self._known else self.rows(script)

    def warm(self, loads: Iterable[TransactionLoad]) -> None:
        """Have tables and indexes in the server's memory, each page of them changed, and each load run.

        The first change of a page since the last checkpoint writes all of it to the log. Whoever was measured
        first would pay for that.
        """
        tables = "relname like 'pgbench%' or relname like 'audit%'"
        self.query(f"select pg_prewarm(oid) from pg_class where {tables};")
        # At least one row of each page: 61 rows of 128 bytes fill one.
        self.query("update pgbench_accounts set abalance = abalance where aid % 61 = 0;")
        for load in loads:
            transact(self, load)

    def crash(self) -> None:
        """End the server without order, forget what was read, and have it recover from what it had stored."""
        _run(self.guest, [*_control(self.cluster), "--mode=immediate", "stop"])
        _drop_caches(self.guest)
        _start(self.guest, self.cluster)

    def statistics(self) -> Statistics:
        """What the server has counted so far."""
        # Asked in another database: else the question would be work of this one.
        return Statistics(*map(float, self.query(_STATISTICS, "template1")[-1]))

    def damage(self) -> int:
        """The number of lines that pg_amcheck has to complain of, and of balances that do not agree."""
        argv = [f"{BINARIES}/pg_amcheck", "--all", "--heapallindexed", "--no-strict-names"]
        found = self.guest.run(as_user(argv), timeout=_CONNECTIONS_S)
        # 2: it found something, and says it on lines of its own (pg_amcheck's manual).
        if found.status not in (0, 2):
            found.check()
        complaints = max(1, len(found.stdout.splitlines())) if found.status else 0
        return complaints + len(set(self.query(_BALANCES)[-1])) - 1


@dataclass(frozen=True)
class Statistics:
    """What a server has counted: writes and syncs of its log, their times and that of its sessions at work.

    Times are in milliseconds (pg_stat_wal; pg_stat_database.active_time, from a message's arrival until the
    session waits for the next). A session's are counted when it has ended.
    """

    writes: float
    syncs: float
    write_ms: float
    sync_ms: float
    active_ms: float

    def __sub__(self, earlier: Statistics) -> Statistics:
        names = [one.name for one in fields(self)]
        return Statistics(*(getattr(self, name) - getattr(earlier, name) for name in names))


@dataclass(frozen=True)
class TransactionLoad:
    """Transactions of a script by `clients` at a time, each of which has a connection and a thread.

    With `rate` (transactions a second of all clients together) they begin at random, as a Poisson process,
    the same in every run, and a client that is late has its next ones wait. Without it each client begins
    the next when the one before has ended. `seed` decides when they begin, and on which rows they are.
    """

    script: str
    transactions: int
    clients: int = 1
    rate: int | None = None
    seed: int = 1


@dataclass(frozen=True)
class Transacted:
    """What became of a load, in nanoseconds: each transaction's latency, from when it was due, and how much
    of that it had waited to begin; and what the server counted meanwhile."""

    latencies_ns: tuple[float, ...]
    lags_ns: tuple[float, ...]
    server: Statistics
    missing: int

    @property
    def count(self) -> int:
        return len(self.latencies_ns)


def create(guest: System, cluster: str) -> None:
    """Make a cluster with pgbench's tables, at scale 1, and ours; the server has ended in order then."""
    guest.run(["install", "-d", "-o", USER, "-g", USER, "-m", "700", cluster]).check()
    _run(guest, [f"{BINARIES}/initdb", "--pgdata", cluster, *_INITDB])
    guest.run(["sh", "-c", f"cat >>{cluster}/postgresql.conf"], input=_SETTINGS).check()
    with running(guest, cluster) as database:
        _run(guest, [f"{BINARIES}/pgbench", *_PGBENCH])
        database.query(_TABLE)


@contextmanager
def running(guest: System, cluster: str) -> Iterator[Database]:
    """Have the server run on a cluster for the `with` block; it may have ended without order before."""
    guest.run(["install", "-d", "-o", USER, "-g", USER, _SOCKETS]).check()
    stop = [*_control(cluster), "--mode=fast", "stop"]
    try:
        _start(guest, cluster)
        yield Database(guest, cluster)
    except BaseException:
        # It may be there or not, as a Ctrl-C came while it was started, or it has not recovered.
        guest.run(as_user(stop), timeout=_CONNECTIONS_S)
        raise
    _run(guest, stop)


def _start(guest: System, cluster: str) -> None:
    try:
        _run(guest, [*_control(cluster), "--log", _LOG, "start"])
    except CvmtuneError as error:
        said = guest.run(["cat", _LOG]).stdout
        raise CvmtuneError(f"the server does not start: {said or error}", cluster) from error


def damaged_blocks(guest: System, cluster: str) -> int:
    """The number of blocks of a cluster, whose server has ended, that are not what their checksums say."""
    _drop_caches(guest)
    argv = [f"{BINARIES}/pg_checksums", "--check", "--pgdata", cluster]
    done = guest.run(as_user(argv), timeout=_CONNECTIONS_S)
    match = re.search(r"^Bad checksums:\s+(\d+)$", done.stdout, re.MULTILINE)
    if not match:
        done.check()
        raise CvmtuneError("it does not tell how many checksums are bad", "pg_checksums")
    return int(match[1])


def transact(
    database: Database, load: TransactionLoad, during: AbstractContextManager[object] | None = None
) -> Transacted:
    """Put the load on the server, with `during` entered for just as long."""
    guest = database.guest
    # What was left to be written later is not this load's.
    script = f"cat >{_SCRIPT} && rm -f {_TRANSACTIONS}.* && sync"
    guest.run(["sh", "-c", script], input=_TEXTS[load.script]).check()
    held, before = database.known_rows(load.script), database.statistics()
    with during or nullcontext():
        _run(guest, command(load))
    server = database.statistics() - before
    latencies, lags = parse_log(guest.run(["sh", "-c", f"cat {_TRANSACTIONS}.*"]).check().stdout)
    wanted = load.transactions // load.clients * load.clients
    if len(latencies) != wanted:
        raise CvmtuneError(f"of {wanted} transactions it logged {len(latencies)}", "pgbench")
    missing = held + len(latencies) - database.rows(load.script)
    return Transacted(latencies, lags, server, missing)


def command(load: TransactionLoad) -> list[str]:
    """pgbench's command line for a load."""
    argv = [
        *(f"{BINARIES}/pgbench", "--no-vacuum", "--protocol=prepared", f"--file={_SCRIPT}"),
        *(f"--random-seed={load.seed}", f"--client={load.clients}", f"--jobs={load.clients}"),
        *(f"--transactions={load.transactions // load.clients}", "--log", f"--log-prefix={_TRANSACTIONS}"),
    ]
    return argv if load.rate is None else [*argv, f"--rate={load.rate}"]


def parse_log(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return latencies and lags, in ns, of the transactions in pgbench's logs, one after the other.

    A line is: client, number, latency in microseconds, script, the time in s and in us, and the lag in
    microseconds where there was a rate (pgbench's manual, "Per-Transaction Logging"); the lag is part of the
    latency. Without a rate nothing waits to begin.
    """
    latencies, lags = [], []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LOGGED.fullmatch(line)
        if not match:
            raise CvmtuneError(f"cannot read {line!r}", f"pgbench's log, line {number}")
        latencies.append(float(match[1]) * _NS_PER_US)
        lags.append(float(match[2] or 0) * _NS_PER_US)
    return tuple(latencies), tuple(lags)


def _control(cluster: str) -> list[str]:
    return [f"{BINARIES}/pg_ctl", "--pgdata", cluster, "--wait", f"--timeout={_RECOVERY_S}"]


def _drop_caches(guest: System) -> None:
    """Have what is read from now on be read from where it is kept."""
    guest.write_text("/proc/sys/vm/drop_caches", "3\n")


def as_user(argv: list[str]) -> list[str]:
    """The command line that has the user of the database run this."""
    # Not in root's directory, which it may not enter.
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--reset-env"]
    return ["env", "--chdir=/", *user, *argv]


def _run(guest: System, argv: list[str], input: str | None = None) -> str:
    return guest.run(as_user(argv), timeout=_CONNECTIONS_S, input=input).check().stdout
