# SPDX-License-Identifier: Apache-2.0
"""The experiment `vtimer`: what a guest's timer costs it, with a monitor that masks it and one that does not.

It runs in a guest and on its host, with the lab's module cvmtune_timer and helper pingpong in the guest and
our kernel on the host, whose vCPU threads it pins, one a physical CPU. It collects; verdict.py judges.

The length of the sections in which the guest cannot look after its timer is given in exits and entries, as
this machine makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.rounds import Series
from cvmtune.features.vtimer.site import DEFAULT_SCALE, Site, VtimerScale, prepared
from cvmtune.features.vtimer.switch import HW_BIT, MACHINES, MASKED, UNMASKED
from cvmtune.features.vtimer.verdict import BASELINE
from cvmtune.lab.specs import MachineName


@dataclass(frozen=True)
class VtimerState(State):
    """The mode of the VM in the state; None for one that is not confidential, whose timer nobody but its host
    can have."""

    mode: str | None


HW = BASELINE
ORDINARY = "ordinary VM"
STATES: Mapping[str, VtimerState] = {
    state.name: state
    for state in (
        VtimerState(OFF, UNMASKED),
        VtimerState(ON, MASKED),
        VtimerState(HW, HW_BIT),
        VtimerState(ORDINARY, None),
    )
}


@dataclass(frozen=True)
class VtimerExperiment(Experiment[Site, VtimerState]):
    """The experiment; in the end the VM's mode and the vCPU threads' CPUs are what they were."""

    scale: VtimerScale = DEFAULT_SCALE
    name: ClassVar[str] = "vtimer"
    usual: ClassVar[Usual] = Usual(3.0, 12.0)
    machines: ClassVar[tuple[MachineName, ...]] = MACHINES

    @property
    def states(self) -> Mapping[str, VtimerState]:
        return STATES

    def form(self, *, brief: bool) -> Form:
        return Form(beside=(HW,)) if brief else Form(baselines=self._baselines, beside=(HW,))

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        return [Measurement(self.name, MachineName.VM, (ORDINARY,), max(1, rounds // 2))]

    def site(self, bench: Bench, wanted: Measurement, part: str) -> AbstractContextManager[Site]:
        return prepared(bench, self.scale)

    @contextmanager
    def entered(self, site: Site, state: VtimerState) -> Iterator[None]:
        if state.mode is None:
            yield
            return
        with site.timer.mode(state.mode):
            site.follow()
            yield

    def measure(self, site: Site, state: VtimerState, index: int) -> Iterator[Series]:
        return site.round()

    def findings(self, site: Site) -> Mapping[str, object]:
        return {"exit_and_entry_ns": site.exit_ns, "section_us": site.section_us}
