# SPDX-License-Identifier: Apache-2.0
"""Untrapped WFx on and off, for experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.core.cpumask import CpuMask
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied
from cvmtune.features.trial import Switch
from cvmtune.features.wfx.knob import Wfx
from cvmtune.features.wfx.metrics import WFX_EXITS
from cvmtune.lab.specs import MachineName

MACHINES = (MachineName.VM, MachineName.CVM)
"""It is the host's."""


class WfxSwitch(Switch):
    """On: no vCPU of the guest is trapped."""

    name = "wfx"
    noun = "untrapped WFx"
    machines = MACHINES
    on_host = True
    events = (WFX_EXITS,)

    def has(self, bench: Bench) -> bool:
        return bench.host is not None

    @contextmanager
    def switched(self, bench: Bench, *, on: bool, cpu: int) -> Iterator[None]:
        host = bench.host
        if host is None or (not on and not host.system.exists(Wfx.path)):
            yield
            return
        with applied(Wfx(), host.system, everyone(bench) if on else "0"):
            yield


def everyone(bench: Bench) -> str:
    """The mask of all the guest's vCPUs."""
    host = bench.need_host("WFx traps are the host's", "use vm or cvm")
    return CpuMask(frozenset(host.vcpu_threads())).to_hex()
