# SPDX-License-Identifier: Apache-2.0
"""A guest whose power fails while a database commits, and what is there when it is back.

The database is on NFS over RDMA, whose server keeps it on a disk that outlives the guest. Clients tell of
each commit on the guest's console as soon as they know of it: what is read there outside was promised.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cvmtune.core.system import System
from cvmtune.experiments.guest import loaded_module
from cvmtune.experiments.rounds import Better, Series
from cvmtune.features.cq_poll.experiment import FEATURE
from cvmtune.workloads import nfs_rdma, postgres
from cvmtune.workloads.blackbox import experiment as blackbox
from cvmtune.workloads.postgres import BINARIES, Database

_DISK = "/run/disk/store"
_CONSOLE = "/dev/ttyAMA0"
# With its end: a line that the power cut broke off tells of another number.
_SAID = re.compile(r"^committed (\d+)\r?\n", re.MULTILINE)


@contextmanager
def stored(guest: System, tools: str, *, fill: bool) -> Iterator[Database]:
    """Have the database run for the `with` block, on the disk; with `fill` it is put there first."""

    def unpack(directory: str) -> None:
        if fill:
            blackbox.unpack(guest, tools, directory)

    with ExitStack() as stack:
        stack.enter_context(loaded_module(guest, tools, FEATURE))
        mount = stack.enter_context(nfs_rdma.mounted(guest, disk=_DISK, fill=unpack))
        yield stack.enter_context(postgres.running(guest, f"{mount.path}/{blackbox.CLUSTER}"))


def start_clients(database: Database, *, synchronous: bool = True) -> None:
    """Start two clients that commit records one after the other, and tell of each, and one of TPC-B.

    Where they are not `synchronous` a commit may be told of before it is durable, so that some are lost.
    """
    how = "on" if synchronous else "off"
    sql = "insert into audit (who, what) values (0, 'transfer') returning 'committed ' || id;"
    insert = [f"{BINARIES}/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    psql = shlex.join(postgres.as_user(insert))
    client = f"(echo 'set synchronous_commit = {how};'; yes {shlex.quote(sql)}) | {psql} >{_CONSOLE} 2>&1 &"
    pgbench = shlex.join(postgres.as_user([f"{BINARIES}/pgbench", "--no-vacuum", "--time=600"]))
    database.guest.run(["sh", "-c", f"{client} {client} {pgbench} >/dev/null 2>&1 &"]).check()


def acknowledged(console: str) -> frozenset[int]:
    """The records that a guest's console tells are committed."""
    return frozenset(int(found) for found in _SAID.findall(console))


def held(database: Database) -> frozenset[int]:
    """The records that the database holds."""
    return frozenset(int(row[0]) for row in database.query("select id from audit;"))


def series(promised: frozenset[int], found: frozenset[int], damage: int) -> tuple[Series, ...]:
    """The outcome of a power cut as metrics."""
    told: tuple[tuple[str, str, str, Better, int], ...] = (
        ("cut_committed", "Commits told of before the power cut", "commits", "higher", len(promised)),
        ("cut_lost", "Of these, lost by it", "commits", "lower", len(promised - found)),
        ("cut_damage", "Damage found in the database after it", "findings", "lower", damage),
    )
    return tuple(
        Series(name, title, unit, "count", better, (float(amount),))
        for name, title, unit, better, amount in told
    )
