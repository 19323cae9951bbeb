# SPDX-License-Identifier: Apache-2.0
"""The experiment `cq-poll`: 4 KiB writes to NFS over RDMA, with completion queues polled and not.

It runs in a guest, server and client both, over each software RDMA provider, with the lab's module cvmtune_cq
beside them. It collects; verdict.py judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.counters import Counters
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.experiments.rounds import Series
from cvmtune.experiments.tracing import counted
from cvmtune.features.cq_poll import books, metrics
from cvmtune.features.cq_poll.knob import MODULE, CqIdleUs, CqOwners, CqPoll
from cvmtune.features.cq_poll.metrics import poller_seconds
from cvmtune.features.trial import Switch
from cvmtune.lab.specs import MachineName
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import Mount, WriteLoad

_WORK_EVENT = "workqueue/workqueue_execute_start"
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class CqPollState(State):
    """Whether queues are polled, how long the poller looks on (0: always), and whose feature is on beside."""

    polled: bool = False
    idle_us: int = 0
    beside: Switch | None = None


@dataclass(frozen=True)
class CqPollScale:
    """How much is done in a round.

    `rate` (writes a second) must be one that every machine sustains: then off and on do the same work.
    `depths` has the writes of each closed loop by its queue depth.
    """

    rate: int = 60
    writes: int = 100
    depths: tuple[tuple[int, int], ...] = ((1, 200), (8, 400), (32, 800))
    messages: int = 200
    gap_us: int = 300
    idle_s: float = 1.0
    poll_cpu: int = 1


@dataclass(frozen=True)
class Site:
    """A machine with NFS mounted over RDMA in its guest."""

    bench: Bench
    mount: Mount


@dataclass(frozen=True)
class CqPollExperiment(Experiment[Site, CqPollState]):
    """The experiment; in the end the guest has neither the modules nor the mounts."""

    scale: CqPollScale = CqPollScale()
    others: tuple[Switch, ...] = ()
    name: ClassVar[str] = "cq-poll"
    usual: ClassVar[Usual] = Usual(15.0, 20.0)

    @property
    def states(self) -> Mapping[str, CqPollState]:
        states = [
            CqPollState(OFF),
            CqPollState(ON, polled=True),
            CqPollState("on, sleeping after 1 ms", polled=True, idle_us=1000),
        ]
        for other in self.others:
            states.append(CqPollState(f"{other.noun} alone", beside=other))
            states.append(CqPollState(f"on, with {other.noun}", polled=True, beside=other))
        return {state.name: state for state in states}

    def form(self, *, brief: bool) -> Form:
        # The verdict goes by the first provider.
        return (
            Form(parts=nfs_rdma.PROVIDERS[:1])
            if brief
            else Form(baselines=self._baselines, parts=nfs_rdma.PROVIDERS)
        )

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        few = max(1, rounds // 2)  # a round of it takes long
        others = Measurement(
            self.name, machine, tuple(name for name in self.states if name not in (OFF, ON)), few
        )
        return [replace(one, parts=nfs_rdma.PROVIDERS) for one in (*self.on_vm(machine, few), others)]

    @contextmanager
    def prepare(self, bench: Bench) -> Iterator[None]:
        guest, tools = bench.guest, bench.tools
        # Else the module's own CQs would not be polled.
        with (
            loaded_module(guest, tools, MODULE),
            loaded_module(guest, tools, books.MODULE),
            applied(CqOwners(), guest, books.OWNERS),
        ):
            yield

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Site]:
        with nfs_rdma.mounted(bench.guest, part) as mount:
            # The first load lays its file out, which would count as the first round's.
            nfs_rdma.write(mount, WriteLoad(writes=8))
            yield Site(bench, mount)

    @contextmanager
    def entered(self, site: Site, state: CqPollState) -> Iterator[None]:
        guest, cpu = site.bench.guest, self.scale.poll_cpu
        with ExitStack() as stack:
            for other in self.others:
                stack.enter_context(other.switched(site.bench, on=other is state.beside, cpu=cpu))
            if state.polled:
                stack.enter_context(applied(CqIdleUs(), guest, str(state.idle_us)))
                stack.enter_context(applied(CqPoll(), guest, str(cpu)))
            yield

    def measure(self, site: Site, state: CqPollState, index: int) -> Iterator[Series]:
        provider = site.mount.provider
        # The first provider is the one that the rules judge by; the other's metrics say whose they are.
        prefix = "" if provider == nfs_rdma.PROVIDERS[0] else f"{provider}_"
        for one in _Round(site.bench, site.mount, self.scale).series():
            yield replace(one, name=f"{prefix}{one.name}", title=f"{one.title}, over {provider}")


@dataclass(frozen=True)
class _Round:
    """A round, over the mount's provider."""

    bench: Bench
    mount: Mount
    scale: CqPollScale

    def series(self) -> Iterator[Series]:
        yield from self._books()
        yield from self._data()
        yield from self._events()
        yield from self._at_rate()
        yield from self._closed()
        yield from self._idle()

    def _read(self) -> Counters:
        return Counters.read(self.bench.guest, self.bench.host)

    def _books(self) -> Iterator[Series]:
        """Work requests of our own: none may be lost, and how long each took to be noticed."""
        guest, scale = self.bench.guest, self.scale
        load = {"kind": "pingpong", "n": scale.messages, "gap_us": scale.gap_us}
        samples = books.run(guest, self.mount.provider, **load)
        found = books.result(guest)
        posted = found["posted_send"] + found["posted_recv"]
        handled = found["handled_send"] + found["handled_recv"]
        yield metrics.HANDLED_PER_POSTED.value(handled / posted)
        yield metrics.VIOLATIONS.value(sum(found[name] for name in books.MUST_BE_0))
        yield metrics.COMPLETION.series(samples)

    def _data(self) -> Iterator[Series]:
        """Whether what was written is read back."""
        try:
            verified = nfs_rdma.verify(self.mount, mb=1)
        except nfs_rdma.DataDamaged:
            verified = 0
        yield metrics.VERIFIED.value(verified / nfs_rdma.blocks(1))

    def _events(self) -> Iterator[Series]:
        """What each of many writes, one after the other, makes the machine do."""
        writes = self.scale.writes
        with counted(self.bench.guest, (metrics.WAKEUP_EVENT, _WORK_EVENT)) as events:
            fired, before = events.read(), self._read()
            nfs_rdma.write(self.mount, WriteLoad(writes))
            now, after = events.read(), self._read()
        amounts = {
            metrics.WAKEUPS_PER_WRITE: now[metrics.WAKEUP_EVENT] - fired[metrics.WAKEUP_EVENT],
            metrics.WORKS_PER_WRITE: now[_WORK_EVENT] - fired[_WORK_EVENT],
            metrics.IPIS_PER_WRITE: after.ipis - before.ipis,
            metrics.INTERRUPTS_PER_WRITE: after.interrupts - before.interrupts,
            metrics.SWITCHES_PER_WRITE: after.switches - before.switches,
        }
        for metric, amount in amounts.items():
            yield metric.value(amount / writes)
        if self.bench.host:
            yield metrics.EXITS_PER_WRITE.value((after.exits - before.exits) / writes)

    def _at_rate(self) -> Iterator[Series]:
        """Writes as they come to a system whose users wait for it."""
        guest, scale = self.bench.guest, self.scale
        before, polled = self._read(), poller_seconds(guest)
        written = nfs_rdma.write(self.mount, WriteLoad(scale.writes, rate=scale.rate, depth=8))
        after, polled_after = self._read(), poller_seconds(guest)
        yield metrics.write_at(scale.rate).series(written.latencies_ns)
        yield metrics.WRITE_RTT.value(written.rpc.rtt_ms * _NS_PER_MS / written.rpc.ops)
        yield metrics.WRITE_EXE.value(written.rpc.execute_ms * _NS_PER_MS / written.rpc.ops)
        span = after.uptime_s - before.uptime_s
        yield metrics.POLLER_USE.value((polled_after - polled) / span)
        if self.bench.host:
            yield metrics.WRITE_CPU_USE.value((after.vmm_s - before.vmm_s) / span)

    def _closed(self) -> Iterator[Series]:
        """Closed loops with the first provider alone: the other's say the same, and take their time."""
        for depth, writes in self.scale.depths if self.mount.provider == nfs_rdma.PROVIDERS[0] else ():
            written = nfs_rdma.write(self.mount, WriteLoad(writes, depth=depth))
            yield metrics.write_by(depth).series(written.latencies_ns)

    def _idle(self) -> Iterator[Series]:
        """What polling takes while there is nothing to poll for."""
        guest = self.bench.guest
        before, polled = self._read(), poller_seconds(guest)
        guest.run(["sleep", str(self.scale.idle_s)]).check()
        after, polled_after = self._read(), poller_seconds(guest)
        span = after.uptime_s - before.uptime_s
        yield metrics.POLLER_IDLE_USE.value((polled_after - polled) / span)
