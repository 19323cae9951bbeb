# SPDX-License-Identifier: Apache-2.0
"""The experiment `wfx`: waits of idle vCPUs, with WFI and WFE trapped as KVM does and not.

It runs in a guest and on its host, with the lab's helper pingpong in the guest and our kernel on the host,
whose vCPU threads it pins: one vCPU a physical CPU, as the feature is meant for, or all on one. It collects;
verdict.py judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import HaltPoll
from cvmtune.experiments.rounds import Series
from cvmtune.features.trial import Switch
from cvmtune.features.wfx.knob import WfxGuard
from cvmtune.features.wfx.site import DEFAULT_SCALE, Site, WfxScale, site_of
from cvmtune.features.wfx.switch import MACHINES
from cvmtune.lab.specs import MachineName

BOOT_POLICY = "untrapped by boot parameter"
"""Measured as off, on a host that was booted with BOOT_POLICY_APPEND."""
BOOT_POLICY_APPEND = ("kvm-arm.wfi_trap_policy=notrap", "kvm-arm.wfe_trap_policy=notrap")


@dataclass(frozen=True)
class WfxState(State):
    """What is on in a state, whether KVM polls before a vCPU sleeps, which others' feature is on, and whether
    all vCPUs share one physical CPU."""

    untrapped: bool = False
    halt_polling: bool = True
    guarded: bool = False
    beside: Switch | None = None
    shared: bool = False


@dataclass(frozen=True)
class WfxExperiment(Experiment[Site, WfxState]):
    """The experiment; in the end masks, guard and the vCPU threads' CPUs are what they were."""

    scale: WfxScale = DEFAULT_SCALE
    others: tuple[Switch, ...] = ()
    name: ClassVar[str] = "wfx"
    usual: ClassVar[Usual] = Usual(1.0, 12.0)
    machines: ClassVar[tuple[MachineName, ...]] = MACHINES

    @property
    def states(self) -> Mapping[str, WfxState]:
        states = [
            WfxState(OFF),
            WfxState(ON, untrapped=True),
            WfxState("off, no halt polling", halt_polling=False),
            WfxState("on, guarded", untrapped=True, guarded=True),
        ]
        for other in self.others:
            states.append(WfxState(f"{other.noun} and no WFx untrapped", beside=other))
            states.append(WfxState(f"on, with {other.noun}", untrapped=True, beside=other))
        states += [
            WfxState("two vCPUs on one CPU, off", shared=True),
            WfxState("two vCPUs on one CPU, on", shared=True, untrapped=True),
            WfxState("two vCPUs on one CPU, on, guarded", shared=True, untrapped=True, guarded=True),
            WfxState(BOOT_POLICY),
        ]
        return {state.name: state for state in states}

    def form(self, *, brief: bool) -> Form:
        return Form() if brief else Form(baselines=self._baselines)

    def _baselines(self, machine: MachineName, rounds: int) -> list[Measurement]:
        few, vm = max(1, rounds // 2), MachineName.VM
        states = tuple(state for state in self.states if state not in (OFF, ON, BOOT_POLICY))
        return [
            *([Measurement(self.name, vm, (OFF, ON), few)] if machine != vm else []),
            Measurement(self.name, machine, states, few),
            Measurement(self.name, machine, (BOOT_POLICY,), few, host_append=BOOT_POLICY_APPEND),
        ]

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Site]:
        yield site_of(bench, self.scale)

    @contextmanager
    def entered(self, site: Site, state: WfxState) -> Iterator[None]:
        """All of a state but the mask of vCPUs, which changes within a round."""
        host = site.hypervisor
        with ExitStack() as stack:
            stack.enter_context(host.pinned(shared=state.shared))
            for other in self.others:
                on = other is state.beside
                stack.enter_context(other.switched(site.bench, on=on, cpu=self.scale.named))
            stack.enter_context(applied(WfxGuard(), host.system, "Y" if state.guarded else "N"))
            if not state.halt_polling:
                stack.enter_context(applied(HaltPoll(), host.system, "0"))
            yield

    def measure(self, site: Site, state: WfxState, index: int) -> Iterator[Series]:
        return site.round(untrapped=state.untrapped)
