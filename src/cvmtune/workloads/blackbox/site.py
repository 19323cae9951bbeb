# SPDX-License-Identifier: Apache-2.0
"""A machine with the database running in its guest, and the rounds that are measured there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.rounds import Series
from cvmtune.experiments.tracing import EventCounts
from cvmtune.features.trial import Switch
from cvmtune.observe.nfs import OpStatistics
from cvmtune.workloads import audit_log, postgres
from cvmtune.workloads.audit_log import AuditLoad
from cvmtune.workloads.blackbox import counting
from cvmtune.workloads.blackbox.counting import Growth, Reading
from cvmtune.workloads.blackbox.loads import (
    BlackboxScale,
    DatabaseLoad,
    closed_loads,
    main_loads,
    more_loads,
)
from cvmtune.workloads.blackbox.metrics import Named
from cvmtune.workloads.nfs_rdma import Mount
from cvmtune.workloads.postgres import Database

_AUDIT_FILE = "audit.log"
_NS_PER_MS = 1e6
# The parts of a mean latency.
_TRANSACTION = {
    "begin": "till the client's thread begins",
    "client": "client, and messages to and from the server",
    "server": "server process, without its log",
    "flush": "log's flush, outside of its WRITEs",
    "rpc": "WRITE: queue, and until its task ends",
    "rtt": "WRITE: from sending to the reply",
}
_RECORD = {
    "begin": "till the producer's thread hands it over",
    "handoff": "till the writer has it",
    "flush": "write, outside of its WRITE",
    "rpc": "WRITE: queue, and until its task ends",
    "rtt": "WRITE: from sending to the reply",
    "answer": "till the producer knows",
}


@dataclass(frozen=True)
class Site:
    """One guest with its host, if it has one, its mount, and how much is done.

    `server` ends the database's server when it is closed. `closed` and `more` are which loads off and on have
    beside those that all states have: those without a rate, and all.
    """

    bench: Bench
    switches: tuple[Switch, ...]
    scale: BlackboxScale
    mount: Mount
    events: EventCounts
    server: ExitStack
    database: Database
    exit_ns: float
    closed: bool
    more: bool

    def round(self, index: int, *, compared: bool) -> Iterator[Series]:
        few = counting.everywhere(self.switches)
        yield from self._log("audit", self.scale.audit_rate, index)
        for load in main_loads(self.scale):
            yield from self._transact(load, index)
        if compared and self.closed:
            yield from self._log("audit_closed", 0, index, few)
            for load in closed_loads(self.scale):
                yield from self._transact(load, index, few)
        if compared and self.more:
            for load in more_loads(self.scale):
                yield from self._transact(load, index, few)

    def _read(self) -> Reading:
        return counting.read(self.bench, self.switches, self.mount, self.events)

    @contextmanager
    def _watched(self, readings: list[Reading]) -> Iterator[None]:
        """Add what has been counted before the `with` block, and after it."""
        readings.append(self._read())
        yield
        readings.append(self._read())

    def _transact(
        self, load: DatabaseLoad, index: int, counts: Sequence[str] | None = None
    ) -> Iterator[Series]:
        wanted = replace(load.load, seed=index)
        readings: list[Reading] = []
        done = postgres.transact(self.database, wanted, self._watched(readings))
        grown = Growth(self.switches, *readings)
        # What it takes to start and to connect is not the transactions'.
        least = replace(wanted, transactions=wanted.clients, rate=None)
        readings = []
        fewest = postgres.transact(self.database, least, self._watched(readings))
        start = Growth(self.switches, *readings)
        yield load.latency("Database").series(done.latencies_ns)
        if wanted.rate:
            served = (all - lag for all, lag in zip(done.latencies_ns, done.lags_ns, strict=True))
            yield load.served().series(served)
        count = done.count
        yield from counting.series(load, grown, start, count, wanted.clients, counts)
        title = "Of the transactions that the client saw committed, those that are not seen"
        yield load.lost(title, "transactions").value(float(done.missing + fewest.missing))
        lag = sum(done.lags_ns) / count
        server = done.server.active_ms * _NS_PER_MS / count
        flush = (done.server.write_ms + done.server.sync_ms) * _NS_PER_MS / count
        execute, rtt = _rpc_ns(grown.rpc, count)
        parts = {
            "begin": lag,
            "client": sum(done.latencies_ns) / count - lag - server,
            "server": server - flush,
            "flush": flush - execute,
            "rpc": execute - rtt,
            "rtt": rtt,
        }
        yield from _parts(load, _TRANSACTION, parts)

    def _log(self, name: str, rate: int, index: int, counts: Sequence[str] | None = None) -> Iterator[Series]:
        scale, path = self.scale, f"{self.mount.path}/{_AUDIT_FILE}"
        guest, tools = self.bench.guest, self.bench.tools
        cpus = (scale.server_cpu, scale.client_cpu)
        least = AuditLoad(scale.producers, 1, 0, *cpus, seed=index)
        before = self._read()
        audit_log.log(guest, tools, path, least)
        start = Growth(self.switches, before, self._read())
        load = AuditLoad(scale.producers, scale.records, rate, *cpus, seed=index)
        before = self._read()
        records = audit_log.log(guest, tools, path, load)
        grown = Growth(self.switches, before, self._read())
        how = f"{rate} a second" if rate else "one after another"
        named = Named(name, f"record by {load.producers} producers, {how}", "record")
        count = len(records)
        yield named.latency("Audit log").series(record.latency for record in records)
        yield from counting.series(named, grown, start, count, least.total, counts)
        lost = count - audit_log.intact(guest, tools, path)
        title = "Of the records that were answered, those that are not in the file as they were"
        yield named.lost(title, "records").value(float(lost))
        execute, rtt = _rpc_ns(grown.rpc, count)
        parts = {
            "begin": sum(record.late for record in records) / count,
            "handoff": sum(record.handoff for record in records) / count,
            "flush": sum(record.write for record in records) / count - execute,
            "rpc": execute - rtt,
            "rtt": rtt,
            "answer": sum(record.answer for record in records) / count,
        }
        yield from _parts(named, _RECORD, parts)


def _rpc_ns(rpc: OpStatistics, count: int) -> tuple[float, float]:
    """Per one of `count`: the time of its WRITEs from start to end, and of that from sending to the reply."""
    if not rpc.ops:
        raise CvmtuneError("nothing was written to the storage", "mountstats")
    return rpc.execute_ms * _NS_PER_MS / count, rpc.rtt_ms * _NS_PER_MS / count


def _parts(load: Named, titles: Mapping[str, str], parts: Mapping[str, float]) -> Iterator[Series]:
    for part, metric in load.parts(titles).items():
        yield metric.value(parts[part])
