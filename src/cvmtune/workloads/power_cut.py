# SPDX-License-Identifier: Apache-2.0
"""A guest whose power fails while a database commits, and what is there when it is back.

The database is on NFS over RDMA, whose server keeps it on a disk that outlives the guest. Clients tell of
each commit on the guest's console as soon as they know of it: what is read there outside was promised.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import Series
from cvmtune.features.trial import Switch, switched
from cvmtune.lab.errors import LabError
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.specs import GUEST, MachineName
from cvmtune.workloads import database, nfs_rdma, postgres
from cvmtune.workloads.postgres import BINARIES, Database

COMMITTED = Measure("cut_committed", "Commits told of before the power cut", "commits", better="higher")
CUT_LOST = Measure("cut_lost", "Of these, lost by it", "commits")
CUT_DAMAGE = Measure("cut_damage", "Damage found in the database after it", "findings")

_DISK = "/run/disk/store"
_STORE_MB = 512
# How many commits there must be before the power fails, and how long they may take, in seconds.
_COMMITS = 100
_PATIENCE = 600.0
_CONSOLE = "/dev/ttyAMA0"
# With its end: a line that the power cut broke off tells of another number.
_SAID = re.compile(r"^committed (\d+)\r?\n", re.MULTILINE)


def cut_power(
    lab: Lab, machine: MachineName, switches: Sequence[Switch], *, synchronous: bool = True
) -> tuple[Series, ...]:
    """Cut a guest's power while it commits with all features on that it can have; return what is there when
    it is back.

    Not `synchronous`, commits are told of before they are durable, and some are lost: the check is one.
    """
    archive = database.build(lab)
    with tempfile.TemporaryDirectory(dir=lab.cache.directory("work")) as directory:
        store = Path(directory) / "store"
        command.run(["mke2fs", "-q", "-t", "ext4", str(store), f"{_STORE_MB}M"]).check()
        options = BootOptions(store=store)
        with lab.boot(machine, options=options, tools=(archive,)) as first:
            promised = _commit_until_cut(first, switches, synchronous)
        with (
            lab.boot(machine, options=options, tools=(archive,)) as second,
            stored(Bench.of(second, GUEST_TOOLS), switches, fill=False) as running,
        ):
            found = held(running)
            damage = running.damage()
    return series(promised, found, damage)


def _commit_until_cut(machine: Machine, switches: Sequence[Switch], synchronous: bool) -> frozenset[int]:
    """Have the guest commit, cut its power, and return what was promised by then."""
    promised: frozenset[int] | None = None
    bench = Bench.of(machine, GUEST_TOOLS)
    features = [one.name for one in switches if bench.machine in one.machines]
    try:
        with (
            stored(bench, switches, fill=True) as running,
            switched(bench, switches, features, cpu=0),
        ):
            start_clients(running, synchronous=synchronous)
            _wait_for_commits(machine)
            machine.cut_power()
            promised = _promised(machine)
    except LabError:
        # Whatever is to be undone in a guest without power fails. Before, it is no power cut that has failed.
        if promised is None:
            raise
    assert promised is not None
    return promised


def _promised(machine: Machine) -> frozenset[int]:
    return acknowledged(machine.console(GUEST).read_text(errors="replace"))


def _wait_for_commits(machine: Machine) -> None:
    end = time.monotonic() + _PATIENCE
    while len(told := _promised(machine)) < _COMMITS:
        if time.monotonic() > end:
            raise CvmtuneError(f"only {len(told)} commits in {_PATIENCE:g} s", str(machine.console(GUEST)))
        time.sleep(0.2)


@contextmanager
def stored(bench: Bench, switches: Sequence[Switch], *, fill: bool) -> Iterator[Database]:
    """Have the database run for the `with` block, on the disk; with `fill` it is put there first."""
    guest = bench.guest

    def unpack(directory: str) -> None:
        if fill:
            database.unpack(guest, bench.tools, directory)

    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch.prepare(bench, None))
        mount = stack.enter_context(nfs_rdma.mounted(guest, disk=_DISK, fill=unpack))
        yield stack.enter_context(postgres.running(guest, f"{mount.path}/{database.CLUSTER}"))


def start_clients(running: Database, *, synchronous: bool = True) -> None:
    """Start two clients that commit records one after the other, and tell of each, and one of TPC-B.

    Where they are not `synchronous` a commit may be told of before it is durable, so that some are lost.
    """
    how = "on" if synchronous else "off"
    sql = "insert into audit (who, what) values (0, 'transfer') returning 'committed ' || id;"
    insert = [f"{BINARIES}/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    psql = shlex.join(postgres.as_user(insert))
    client = f"(echo 'set synchronous_commit = {how};'; yes {shlex.quote(sql)}) | {psql} >{_CONSOLE} 2>&1 &"
    pgbench = shlex.join(postgres.as_user([f"{BINARIES}/pgbench", "--no-vacuum", "--time=600"]))
    running.guest.run(["sh", "-c", f"{client} {client} {pgbench} >/dev/null 2>&1 &"]).check()


def acknowledged(console: str) -> frozenset[int]:
    """The records that a guest's console tells are committed."""
    return frozenset(int(found) for found in _SAID.findall(console))


def held(running: Database) -> frozenset[int]:
    """The records that the database holds."""
    return frozenset(int(row[0]) for row in running.query("select id from audit;"))


def series(promised: frozenset[int], found: frozenset[int], damage: int) -> tuple[Series, ...]:
    """The outcome of a power cut as metrics."""
    return (
        COMMITTED.value(len(promised)),
        CUT_LOST.value(len(promised - found)),
        CUT_DAMAGE.value(damage),
    )
