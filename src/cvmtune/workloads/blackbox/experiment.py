# SPDX-License-Identifier: Apache-2.0
"""The experiment `blackbox`: protected writes of a database, from the client's request to its answer.

It runs in a guest and on its host. PostgreSQL has its data and its log on NFS over RDMA; pgbench's clients
wait for each commit. Beside it several producers have one writer log their records there. All features that
it is given are switched together and one by one, in any of their combinations. It collects; verdict.py
judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from statistics import median
from typing import ClassVar

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.path_length import hypercalls
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.experiments.tracing import counted
from cvmtune.features.trial import Switch, switched
from cvmtune.lab.lab import Lab
from cvmtune.lab.specs import MachineName
from cvmtune.workloads import database, nfs_rdma, postgres, power_cut
from cvmtune.workloads.blackbox.counting import trace_events
from cvmtune.workloads.blackbox.loads import DEFAULT_SCALE, SCRIPTS, BlackboxScale, main_loads
from cvmtune.workloads.blackbox.metrics import ALL_LOST, DAMAGE
from cvmtune.workloads.blackbox.site import Site

AFTER = "after all rounds"
"""A state of the database, not of the features."""
POWER_CUT = "power cut"
"""Another."""
_POWER_CUT_TITLE = "the guest's power is cut while it commits, with all features on"


@dataclass(frozen=True)
class BlackboxState(State):
    """The names of the features that are on; the others are off."""

    features: frozenset[str]


def name_of(features: Sequence[str], among: Sequence[str]) -> str:
    """The state in which these features are on, and the others of `among` off; both in the same order."""
    if not features:
        return OFF
    return ON if set(features) == set(among) else "+".join(features)


@dataclass(frozen=True)
class BlackboxExperiment(Experiment[Site, BlackboxState]):
    """The experiment; in the end the database is checked, the mount is gone, and whatever was switched is as
    it was.

    Where off and on are both among the states, these also have the loads without a rate; with `more` all
    loads.
    """

    switches: tuple[Switch, ...]
    scale: BlackboxScale = DEFAULT_SCALE
    name: ClassVar[str] = "blackbox"
    usual: ClassVar[Usual] = Usual(125.0, 53.0)
    machines: ClassVar[tuple[MachineName, ...]] = (MachineName.CVM,)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(switch.name for switch in self.switches)

    @property
    def states(self) -> Mapping[str, BlackboxState]:
        names = self.features
        found = chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))
        states = (BlackboxState(name_of(features, names), frozenset(features)) for features in found)
        return {state.name: state for state in states}

    def form(self, *, brief: bool) -> Form:
        if brief:
            return Form(baselines=self.on_vm, combined=self.features)
        return Form(
            baselines=self._baselines,
            combined=tuple(name for name in self.states if name not in (OFF, ON)),
            more=True,
            also={_POWER_CUT_TITLE: self._cut_power},
        )

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        # What an ordinary VM can have of the features, and what a machine without a hypervisor can.
        return [
            Measurement(self.name, other, (OFF, self._most(other)), max(1, rounds // 2), more=True)
            for other in (MachineName.VM, MachineName.PLAIN)
        ]

    def _most(self, machine: MachineName) -> str:
        """The state in which all is on that the machine can have."""
        return name_of([one.name for one in self.switches if machine in one.machines], self.features)

    def _cut_power(self, lab: Lab, machine: MachineName) -> RawRun:
        outcome = Round(POWER_CUT, 0, power_cut.cut_power(lab, machine, self.switches))
        return RawRun(self.name, str(machine), (outcome,), {})

    def tools(self, lab: Lab) -> tuple[Path, ...]:
        return (database.build(lab),)

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Site]:
        guest, tools = bench.guest, bench.tools
        with ExitStack() as stack:
            exit_ns = 0.0
            if bench.host:
                stack.enter_context(bench.host.pinned())
                exit_ns = median(hypercalls(guest, tools))
            for switch in self.switches:
                stack.enter_context(switch.prepare(bench, exit_ns))
            mount = stack.enter_context(
                nfs_rdma.mounted(guest, fill=lambda directory: database.unpack(guest, tools, directory))
            )
            events = stack.enter_context(counted(guest, trace_events(self.switches)))
            server = stack.enter_context(ExitStack())
            running = server.enter_context(postgres.running(guest, f"{mount.path}/{database.CLUSTER}"))
            running.warm(load.load for load in main_loads(self.scale))
            closed = wanted.more or {OFF, ON} <= set(wanted.states)
            yield Site(
                bench, self.switches, self.scale, mount, events, server, running, exit_ns, closed, wanted.more
            )

    def entered(self, site: Site, state: BlackboxState) -> AbstractContextManager[None]:
        return switched(site.bench, self.switches, state.features, self.scale.server_cpu)

    def measure(self, site: Site, state: BlackboxState, index: int) -> Iterator[Series]:
        return site.round(index, compared=state.name in (OFF, ON))

    def finish(self, site: Site) -> tuple[Round, ...]:
        """What is left of the database, of which the log alone had all that was committed."""
        running = site.database
        promised = {script: running.known_rows(script) for script in SCRIPTS}
        running.crash()
        lost = sum(rows - running.rows(script) for script, rows in promised.items())
        wrong = running.damage()
        site.server.close()
        wrong += postgres.damaged_blocks(site.bench.guest, running.cluster)
        return (Round(AFTER, 0, (ALL_LOST.value(lost), DAMAGE.value(wrong))),)

    def findings(self, site: Site) -> Mapping[str, object]:
        return {"exit_and_entry_ns": site.exit_ns}
