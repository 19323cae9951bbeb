# SPDX-License-Identifier: Apache-2.0
"""What is counted while a load runs, and what of it is each transaction's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.counters import Counters
from cvmtune.experiments.rounds import Series
from cvmtune.experiments.tracing import EventCounts
from cvmtune.features.trial import Event, Snapshot, Switch
from cvmtune.observe.nfs import OpStatistics
from cvmtune.workloads.blackbox.metrics import CPU_USE, EXITS, SWITCHES, Named
from cvmtune.workloads.nfs_rdma import Mount

_WRITE = "WRITE"

Counted = Mapping[str, tuple[str, float]]
"""By a metric's suffix, what it means, and how many there were."""


@dataclass(frozen=True)
class Reading:
    """What has been counted so far: in guest and host, of the mount's WRITEs, and the processor time of each
    Use, in seconds."""

    snapshot: Snapshot
    rpc: OpStatistics
    used_s: Mapping[str, float]


@dataclass(frozen=True)
class Growth:
    """What was counted between two readings."""

    switches: Sequence[Switch]
    before: Reading
    after: Reading

    @property
    def rpc(self) -> OpStatistics:
        return self.after.rpc - self.before.rpc

    @property
    def nested(self) -> bool:
        """Whether there is a host, which counts too."""
        return self.after.snapshot.vm is not None

    def counts(self) -> Counted:
        before, after = self.before.snapshot.counters, self.after.snapshot.counters
        found = dict(self._events(of_host=False))
        found[SWITCHES] = ("Context switches", float(after.switches - before.switches))
        if self.nested:
            found[EXITS] = ("Exits of all vCPUs", after.exits - before.exits)
            found |= self._events(of_host=True)
        return found

    def _events(self, *, of_host: bool) -> Iterator[tuple[str, tuple[str, float]]]:
        for event in events_of(self.switches):
            before, after = event.read(self.before.snapshot), event.read(self.after.snapshot)
            if event.of_host is of_host and before is not None and after is not None:
                yield event.suffix, (event.title, after - before)

    def cpu_use(self) -> Counted:
        """The CPUs taken meanwhile."""
        before, after = self.before.snapshot.counters, self.after.snapshot.counters
        span = after.uptime_s - before.uptime_s
        found = {
            use.suffix: (use.title, (self.after.used_s[use.suffix] - self.before.used_s[use.suffix]) / span)
            for switch in self.switches
            for use in switch.uses
        }
        if self.nested:
            found[CPU_USE] = ("Physical CPUs that the guest takes", (after.vmm_s - before.vmm_s) / span)
        return found


def events_of(switches: Sequence[Switch]) -> Iterator[Event]:
    """What all these features save."""
    return (event for switch in switches for event in switch.events)


def trace_events(switches: Sequence[Switch]) -> tuple[str, ...]:
    """The trace events that must be counted for that."""
    return tuple(dict.fromkeys(event.trace for event in events_of(switches) if event.trace))


def read(bench: Bench, switches: Sequence[Switch], mount: Mount, traced: EventCounts) -> Reading:
    """What has been counted so far."""
    files = tuple(dict.fromkeys(event.file for event in events_of(switches) if event.file))
    vm = bench.host.statistics(files) if bench.host else None
    counters = Counters.read(bench.guest, bench.host)
    used = {use.suffix: use.seconds(bench.guest) for switch in switches for use in switch.uses}
    return Reading(Snapshot(counters, vm, traced.read()), mount.statistics()[_WRITE], used)


def everywhere(switches: Sequence[Switch]) -> tuple[str, ...]:
    """The suffixes of what is counted under all loads."""
    return (*(event.suffix for event in events_of(switches) if event.everywhere), EXITS)


def series(
    load: Named, grown: Growth, start: Growth, count: int, least: int, wanted: Sequence[str] | None
) -> Iterator[Series]:
    """What was counted, per one of `count`, without what it takes to do but the `least` of them, which
    `start` has; of these suffixes, or of all."""
    at_least = start.counts()
    for suffix, (title, amount) in grown.counts().items():
        if wanted is None or suffix in wanted:
            each = (amount - at_least[suffix][1]) / (count - least)
            yield load.counted(suffix, title).value(each)
    for suffix, (title, cpus) in grown.cpu_use().items():
        if wanted is None or suffix in wanted:
            yield load.used(suffix, title).value(cpus)
