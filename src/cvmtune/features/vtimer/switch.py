# SPDX-License-Identifier: Apache-2.0
"""The virtual timer's modes, for experiments.

What a monitor does that does not mask depends on how far a guest gets before the interrupt reaches it again,
compared with an exit and an entry. So the interrupt's travel time is given in those, as this machine makes
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import Host
from cvmtune.features.trial import Switch
from cvmtune.features.vtimer.knob import MODES, VtimerMode, VtimerTravel
from cvmtune.features.vtimer.metrics import REDUNDANT_EVENTS, TIMER_EVENTS
from cvmtune.lab.specs import MachineName

MASKED, HW_BIT, UNMASKED = MODES

# The travel of an interrupt, in times of an exit and an entry. On an Ampere Altra it is at most 596 ns, an
# ordinary VM's exit and entry are 306 (kvm-unit-tests, micro-bench: timer_10ms less hvc, and hvc). Those of a
# confidential VM take at least twice as long, as the request for this feature has it of interrupts.
TRAVEL_EXITS = 1.0

MACHINES = (MachineName.CVM,)
"""Nobody but a monitor masks."""


@dataclass(frozen=True)
class Timer:
    """The virtual timer of a guest, as its host has it; `folder` is the VM's in debugfs."""

    host: System
    folder: str

    @staticmethod
    def of(host: Host) -> Timer:
        return Timer(host.system, host.vm_folder())

    @property
    def knob(self) -> VtimerMode:
        return VtimerMode(self.folder)

    @property
    def has_modes(self) -> bool:
        """Whether the VM is confidential."""
        return self.host.exists(self.knob.path)

    @contextmanager
    def mode(self, mode: str) -> Iterator[None]:
        """Have this one of MODES."""
        with applied(self.knob, self.host, mode):
            yield

    @contextmanager
    def travel(self, ns: float) -> Iterator[None]:
        """Have interrupts travel for so long, of a VM that is confidential, on a kernel with the model."""
        time = VtimerTravel()
        # A kernel without the model has none, and no state that needs it.
        if not (self.host.exists(time.path) and self.has_modes):
            yield
            return
        own = self.host.read_text(self.knob.path).strip()
        other = MASKED if own != MASKED else HW_BIT
        # A VM has the time that there was when its mode was set: that is another when the time changes.
        with self.mode(other), applied(time, self.host, f"{ns:.0f}"), self.mode(own):
            yield


class VtimerSwitch(Switch):
    """On: the monitor masks an expired timer. Off: it does not."""

    name = "vtimer"
    noun = "the masked timer"
    machines = MACHINES
    on_host = True
    events = (TIMER_EVENTS, REDUNDANT_EVENTS)

    def has(self, bench: Bench) -> bool:
        return bench.host is not None and Timer.of(bench.host).has_modes

    @contextmanager
    def prepare(self, bench: Bench, exit_ns: float | None) -> Iterator[None]:
        if bench.host is None or exit_ns is None:
            yield
            return
        with Timer.of(bench.host).travel(exit_ns * TRAVEL_EXITS):
            yield

    @contextmanager
    def switched(self, bench: Bench, *, on: bool, cpu: int) -> Iterator[None]:
        if bench.host is None or not self.has(bench):
            yield
            return
        with Timer.of(bench.host).mode(MASKED if on else UNMASKED):
            yield
