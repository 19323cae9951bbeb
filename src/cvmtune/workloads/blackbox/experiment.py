# SPDX-License-Identifier: Apache-2.0
"""The experiment `blackbox`: protected writes of a database, from the client's request to its answer.

It runs in a guest and on its host (any two Systems). PostgreSQL has its data and its log on NFS over RDMA;
pgbench's clients wait for each commit. Beside it several producers have one writer log their records there.
All features are switched together and one by one, in any of their combinations. It collects; report/ judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, combinations
from statistics import median

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import System
from cvmtune.experiments.guest import Counters, Host, applied, loaded_module, written
from cvmtune.experiments.path_length import hypercalls
from cvmtune.experiments.rounds import PART, RawRun, Round, Series, in_turns
from cvmtune.experiments.tracing import EventCounts, counted
from cvmtune.features.cq_poll.experiment import FEATURE as CQ_POLL_MODULE
from cvmtune.features.cq_poll.experiment import IDLE_US
from cvmtune.features.cq_poll.knob import CqPoll
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.wfx.knob import Wfx
from cvmtune.observe.procfs import OpStatistics
from cvmtune.workloads import audit_log, nfs_rdma, postgres
from cvmtune.workloads.nfs_rdma import Mount
from cvmtune.workloads.postgres import Database

FEATURES = ("ipi", "vtimer", "cq-poll", "wfx")
CLUSTER = "database"
"""The cluster's directory, in the mount and in the archive that it comes from."""
ARCHIVE = "database.tar.gz"
"""A file of the guest's tools: the cluster that every run starts from."""

_AUDIT_FILE = "audit.log"
_WAKEUP = "rdma_core/cq_schedule"
_WRITE = "WRITE"
_NS_PER_MS = 1e6
# The counts beside a latency: of the loads by which combinations are compared, and of the others.
_COUNTS = (
    *("ipis", "wakeups", "switches", "exits", "timer_exits", "redundant_exits", "wfx_exits"),
    *("poller_use", "cpu_use"),
)
_FEW = ("ipis", "exits")


def name_of(features: Sequence[str]) -> str:
    """The state in which these features are on, and the others off."""
    if not features:
        return "off"
    return "on" if set(features) == set(FEATURES) else "+".join(features)


COMBINATIONS: Mapping[str, frozenset[str]] = {
    name_of(features): frozenset(features)
    for features in chain.from_iterable(combinations(FEATURES, n) for n in range(len(FEATURES) + 1))
}
"""The states, each with the features that are on in it."""
AFTER = "after all rounds"
"""A state of the database, not of the features."""
SINGLES = tuple(name for name, features in COMBINATIONS.items() if len(features) == 1)


@dataclass(frozen=True)
class Scale:
    """How much is done in a round.

    Rates (a second) must be such that every machine sustains them in every state: then all do the same work,
    and are idle in between, as a system is whose users wait for it. `rates` are those of one client, by the
    script. The audit log's writer is on `server_cpu`, beside the poller; its producers are on the other.
    Each round has its own random numbers, the same in all its states.
    """

    rates: tuple[tuple[str, int], ...] = (("insert", 25), ("tpcb", 12))
    seconds: float = 2.4
    clients: tuple[int, ...] = (1, 2, 4)
    closed_transactions: int = 100
    audit_rate: int = 40
    producers: int = 3
    records: int = 30
    server_cpu: int = 0
    client_cpu: int = 1


DEFAULT_SCALE = Scale()


_SCRIPTS = {"insert": "insert", "tpcb": "TPC-B transaction"}


@dataclass(frozen=True)
class Load:
    """A load of the database as the experiment's metrics name it."""

    name: str
    title: str
    load: postgres.Load


def main_loads(scale: Scale) -> Iterator[Load]:
    """The loads by which the combinations are compared: each script by one client at a rate."""
    for script, rate in scale.rates:
        yield _at_rate(script, script, rate, 1, scale)


def closed_loads(scale: Scale) -> Iterator[Load]:
    """Each script by one client, one after another: what is counted is the transactions', not of a time that
    passes between them."""
    for script, _ in scale.rates:
        yield _closed(script, 1, scale)


def more_loads(scale: Scale) -> Iterator[Load]:
    """All others: each script by several clients, at a rate and one after another."""
    for script, rate in scale.rates:
        for clients in scale.clients:
            if clients > 1:
                # More clients have more done, but not as much more: all wait for one log.
                yield _at_rate(f"{script}_{clients}", script, rate * (1 + clients) // 2, clients, scale)
                yield _closed(script, clients, scale)


def _closed(script: str, clients: int, scale: Scale) -> Load:
    load = postgres.Load(script, scale.closed_transactions, clients)
    return Load(f"{script}_{clients}_closed", f"{_by(script, clients)}, one after another", load)


def _at_rate(name: str, script: str, rate: int, clients: int, scale: Scale) -> Load:
    load = postgres.Load(script, round(rate * scale.seconds), clients, rate)
    return Load(name, f"{_by(script, clients)}, {rate} a second", load)


def _by(script: str, clients: int) -> str:
    return f"{_SCRIPTS[script]} by {clients} client{'s' if clients > 1 else ''}"


def collect(
    guest: System,
    machine: str,
    *,
    states: Sequence[str],
    rounds: int,
    host: Host | None,
    tools: str,
    environment: Mapping[str, object],
    scale: Scale = DEFAULT_SCALE,
    more: bool = False,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    """Run `rounds` rounds in each of the states (names of COMBINATIONS).

    Where off and on are both among them, these also have the loads without a rate; with `more` all loads.

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `tools` is the directory in the guest with helper, module and cluster. `advance` is told what is about to
    be done. In the end the database is checked, the mount is gone, and whatever was switched is as it was.
    """
    if unknown := [state for state in states if state not in COMBINATIONS]:
        raise UsageError(f"no state {unknown[0]!r}", next_step=f"states: {', '.join(COMBINATIONS)}")
    collected: list[Round] = []
    with _prepared(guest, host, tools, scale) as bench:
        with bench.database() as database:
            database.warm(load.load for load in main_loads(scale))
            for index, state in in_turns(states, rounds):
                advance(f"{machine}, {state}, round {index + 1} of {rounds}")
                with switched(guest, host, COMBINATIONS[state], poll_cpu=scale.server_cpu):
                    compared = state in ("off", "on")
                    loads = bench.round(
                        database,
                        index,
                        closed=compared and (more or {"off", "on"} <= set(states)),
                        more=compared and more,
                    )
                    collected.append(Round(state, index, tuple(loads)))
            promised = {script: database.known_rows(script) for script in _SCRIPTS}
            database.crash()
            lost = sum(rows - database.rows(script) for script, rows in promised.items())
            wrong = database.damage()
        wrong += postgres.damaged_blocks(guest, bench.cluster)
    collected.append(Round(AFTER, 0, tuple(_outcome(lost, wrong))))
    return RawRun("blackbox", machine, tuple(collected), {**environment, "exit_and_entry_ns": bench.exit_ns})


def _outcome(lost: int, wrong: int) -> Iterator[Series]:
    """What was left of the database, of which the log alone had all that was committed."""
    title = "Transactions lost of all that were committed, when the server was killed after all rounds"
    yield Series("all_lost", title, "transactions", "count", "lower", (float(lost),))
    title = "Damage found in the database then: blocks, indexes and tables, balances"
    yield Series("damage", title, "findings", "count", "lower", (float(wrong),))


@contextmanager
def switched(guest: System, host: Host | None, features: frozenset[str], *, poll_cpu: int) -> Iterator[None]:
    """Have these features on, and the others off, for the `with` block; the poller is on `poll_cpu`.

    UsageError for a feature that this machine cannot have.
    """
    timer = vtimer.Timer(host.system, host.vm_folder()) if host else None
    confidential = timer is not None and timer.host.exists(timer.mode_file)
    for feature, there in (("vtimer", confidential), ("wfx", host is not None)):
        if feature in features and not there:
            raise UsageError("this machine has no such feature", feature, "leave it out, or use cvm")
    everyone = CpuMask.from_list(guest.read_text("/sys/devices/system/cpu/online")).to_hex()
    with ExitStack() as stack:
        if timer and confidential:
            stack.enter_context(timer.mode("on" if "vtimer" in features else "off"))
        if host:
            mask = CpuMask(frozenset(host.vcpu_threads())).to_hex()
            stack.enter_context(applied(Wfx(), host.system, mask if "wfx" in features else "0"))
        stack.enter_context(applied(SoftIpi(), guest, everyone if "ipi" in features else "0"))
        if "cq-poll" in features:
            # As where completions keep coming: it never sleeps.
            stack.enter_context(written(guest, IDLE_US, "0\n"))
            stack.enter_context(applied(CqPoll(), guest, str(poll_cpu)))
        yield


@contextmanager
def _prepared(guest: System, host: Host | None, tools: str, scale: Scale) -> Iterator[_Bench]:
    with ExitStack() as stack:
        stack.enter_context(loaded_module(guest, tools, CQ_POLL_MODULE))
        exit_ns = 0.0
        if host:
            stack.enter_context(host.pinned())
            exit_ns = median(hypercalls(guest, tools))
            timer = vtimer.Timer(host.system, host.vm_folder())
            stack.enter_context(timer.travel(exit_ns * vtimer.TRAVEL_EXITS))
        mount = stack.enter_context(
            nfs_rdma.mounted(guest, fill=lambda directory: unpack(guest, tools, directory))
        )
        events = stack.enter_context(counted(guest, (_WAKEUP,)))
        yield _Bench(guest, host, tools, scale, mount, events, exit_ns)


def unpack(guest: System, tools: str, directory: str) -> None:
    """Put the cluster that every run starts from into a directory, durably."""
    script = f"/bin/busybox zcat {tools}/{ARCHIVE} | /bin/busybox tar -x -C {directory} && sync"
    guest.run(["bash", "-o", "pipefail", "-c", script], timeout=120).check()


@dataclass(frozen=True)
class _Reading:
    """What has been counted so far: in guest and host, of the mount's WRITEs, and completion events."""

    counters: Counters
    timer_exits: float
    wfx_exits: float
    rpc: OpStatistics
    wakeups: int
    redundant_exits: float | None


@dataclass(frozen=True)
class _Growth:
    """What was counted between two readings."""

    before: _Reading
    after: _Reading

    @property
    def rpc(self) -> OpStatistics:
        return self.after.rpc - self.before.rpc

    def counts(self, *, nested: bool) -> dict[str, tuple[str, float]]:
        """By the metric's suffix, what it means, and how many there were."""
        before, after = self.before.counters, self.after.counters
        found = {
            "ipis": ("Hardware IPIs, all CPUs", float(after.ipis - before.ipis)),
            "wakeups": ("Completion events that woke a handler", self.after.wakeups - self.before.wakeups),
            "switches": ("Context switches", after.switches - before.switches),
        }
        if nested:
            found["exits"] = ("Exits of all the guest's vCPUs", after.exits - before.exits)
            found["timer_exits"] = (
                "of these, for the timer",
                self.after.timer_exits - self.before.timer_exits,
            )
            if self.before.redundant_exits is not None and self.after.redundant_exits is not None:
                redundant = self.after.redundant_exits - self.before.redundant_exits
                found["redundant_exits"] = ("of these, for a timer that had been told of already", redundant)
            found["wfx_exits"] = ("of these, for WFI and WFE", self.after.wfx_exits - self.before.wfx_exits)
        return found

    def cpu_use(self, *, nested: bool) -> dict[str, tuple[str, float]]:
        """The CPUs taken meanwhile, in the same form."""
        before, after = self.before.counters, self.after.counters
        span = after.uptime_s - before.uptime_s
        found = {"poller_use": ("CPUs that the poller takes", (after.poller_s - before.poller_s) / span)}
        if nested:
            found["cpu_use"] = ("Physical CPUs that the guest takes", (after.vmm_s - before.vmm_s) / span)
        return found


@dataclass(frozen=True)
class _Bench:
    """One guest with its host, if it has one, its mount, and how much is done."""

    guest: System
    host: Host | None
    tools: str
    scale: Scale
    mount: Mount
    events: EventCounts
    exit_ns: float

    @property
    def nested(self) -> bool:
        return self.host is not None

    @property
    def cluster(self) -> str:
        return f"{self.mount.path}/{CLUSTER}"

    @contextmanager
    def database(self) -> Iterator[Database]:
        with postgres.running(self.guest, self.cluster) as database:
            yield database

    def round(self, database: Database, index: int, *, closed: bool, more: bool) -> Iterator[Series]:
        yield from self._log("audit", self.scale.audit_rate, index)
        for load in main_loads(self.scale):
            yield from self._transact(database, load, index)
        if closed:
            yield from self._log("audit_closed", 0, index, _FEW)
            for load in closed_loads(self.scale):
                yield from self._transact(database, load, index, _FEW)
        if more:
            for load in more_loads(self.scale):
                yield from self._transact(database, load, index, _FEW)

    def _read(self) -> _Reading:
        timer_exits = wfx_exits = 0.0
        redundant_exits = None
        if self.host:
            counted = self.host.statistics()
            timer_exits = sum(counted.timer_exits(vcpu) for vcpu in counted.vcpus)
            if counted.timers is not None:
                redundant_exits = float(sum(row["redundant_exits"] for row in counted.timers.values()))
            wfx_exits = sum(row["wfi_exits"] + row["wfe_exits"] for row in counted.vcpus.values())
        return _Reading(
            Counters.read(self.guest, self.host),
            timer_exits,
            wfx_exits,
            self.mount.statistics()[_WRITE],
            self.events.read()[_WAKEUP],
            redundant_exits,
        )

    @contextmanager
    def _watched(self, readings: list[_Reading]) -> Iterator[None]:
        """Add what has been counted before the `with` block, and after it."""
        readings.append(self._read())
        yield
        readings.append(self._read())

    def _transact(
        self, database: Database, load: Load, index: int, counts: Sequence[str] = _COUNTS
    ) -> Iterator[Series]:
        wanted = replace(load.load, seed=index)
        readings: list[_Reading] = []
        done = postgres.transact(database, wanted, self._watched(readings))
        grown = _Growth(*readings)
        # What it takes to start and to connect is not the transactions'.
        least = replace(wanted, transactions=wanted.clients, rate=None)
        readings = []
        fewest = postgres.transact(database, least, self._watched(readings))
        start = _Growth(*readings)
        missing = float(done.missing + fewest.missing)
        name, title, count = load.name, load.title, done.count
        yield Series(name, f"Database: {title}", "ns", "time", "lower", done.latencies_ns)
        if wanted.rate:
            served = tuple(all - lag for all, lag in zip(done.latencies_ns, done.lags_ns, strict=True))
            title_served = f"Database: {title}, from its beginning"
            yield Series(f"{name}_served", title_served, "ns", "time", "lower", served)
        counted = _per(
            grown.counts(nested=self.nested), start.counts(nested=self.nested), count, wanted.clients
        )
        yield from _series(counted, grown, counts, name, "tx", title)
        title = f"Of the transactions that the client saw committed, those that are not seen: {title}"
        yield Series(f"{name}_lost", title, "transactions", "count", "lower", (missing,))
        lag = sum(done.lags_ns) / count
        server = done.server.active_ms * _NS_PER_MS / count
        flush = (done.server.write_ms + done.server.sync_ms) * _NS_PER_MS / count
        execute, rtt = _rpc_ns(grown.rpc, count)
        yield from _parts(
            name,
            {
                "begin": ("till the client's thread begins", lag),
                "client": (
                    "client, and messages to and from the server",
                    sum(done.latencies_ns) / count - lag - server,
                ),
                "server": ("server process, without its log", server - flush),
                "flush": ("log's flush, outside of its WRITEs", flush - execute),
                "rpc": ("WRITE: queue, and until its task ends", execute - rtt),
                "rtt": ("WRITE: from sending to the reply", rtt),
            },
        )

    def _log(self, name: str, rate: int, index: int, counts: Sequence[str] = _COUNTS) -> Iterator[Series]:
        scale, path = self.scale, f"{self.mount.path}/{_AUDIT_FILE}"
        cpus = (scale.server_cpu, scale.client_cpu)
        least = audit_log.Load(scale.producers, 1, 0, *cpus, seed=index)
        before = self._read()
        audit_log.log(self.guest, self.tools, path, least)
        start = _Growth(before, self._read())
        load = audit_log.Load(scale.producers, scale.records, rate, *cpus, seed=index)
        before = self._read()
        records = audit_log.log(self.guest, self.tools, path, load)
        grown = _Growth(before, self._read())
        how = f"{rate} a second" if rate else "one after another"
        title = f"record by {load.producers} producers, {how}"
        count = len(records)
        latencies = tuple(record.latency for record in records)
        yield Series(name, f"Audit log: {title}", "ns", "time", "lower", latencies)
        counted = _per(grown.counts(nested=self.nested), start.counts(nested=self.nested), count, least.total)
        yield from _series(counted, grown, counts, name, "record", title)
        lost = count - audit_log.intact(self.guest, self.tools, path)
        title = f"Of the records that were answered, those that are not in the file as they were: {title}"
        yield Series(f"{name}_lost", title, "records", "count", "lower", (float(lost),))
        execute, rtt = _rpc_ns(grown.rpc, count)
        write = sum(record.write for record in records) / count
        yield from _parts(
            name,
            {
                "begin": ("till the producer's thread hands it over", sum(r.late for r in records) / count),
                "handoff": ("till the writer has it", sum(r.handoff for r in records) / count),
                "flush": ("write, outside of its WRITE", write - execute),
                "rpc": ("WRITE: queue, and until its task ends", execute - rtt),
                "rtt": ("WRITE: from sending to the reply", rtt),
                "answer": ("till the producer knows", sum(r.answer for r in records) / count),
            },
        )


_Counted = Mapping[str, tuple[str, float]]
"""By a metric's suffix, what it means, and how many there were."""


def _per(all_of_it: _Counted, at_least: _Counted, count: int, least: int) -> _Counted:
    """What was counted, per one of `count`, without what it takes to do but the `least` of them."""
    return {
        suffix: (title, (amount - at_least[suffix][1]) / (count - least))
        for suffix, (title, amount) in all_of_it.items()
    }


def _series(
    counted: _Counted, grown: _Growth, wanted: Sequence[str], name: str, unit: str, what: str
) -> Iterator[Series]:
    for suffix, (title, each) in counted.items():
        if suffix in wanted:
            title = f"{title}, per {unit}: {what}"
            yield Series(f"{name}_{suffix}", title, f"per {unit}", "count", "lower", (each,))
    for suffix, (title, cpus) in grown.cpu_use(nested="exits" in counted).items():
        if suffix in wanted:
            yield Series(f"{name}_{suffix}", f"{title}: {what}", "CPUs", "count", "lower", (cpus,))


def _rpc_ns(rpc: OpStatistics, count: int) -> tuple[float, float]:
    """Per one of `count`: the time of its WRITEs from start to end, and of that from sending to the reply."""
    if not rpc.ops:
        raise CvmtuneError("nothing was written to the storage", "mountstats")
    return rpc.execute_ms * _NS_PER_MS / count, rpc.rtt_ms * _NS_PER_MS / count


def _parts(name: str, parts: Mapping[str, tuple[str, float]]) -> Iterator[Series]:
    for part, (title, ns) in parts.items():
        yield Series(f"{name}{PART}{part}", title, "ns", "time", "lower", (ns,))
