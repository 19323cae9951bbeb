# SPDX-License-Identifier: Apache-2.0
"""The settings of WFx traps, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.features.wfx.knob import MAX_VCPUS, Wfx, WfxGuard
from cvmtune.features.words import count
from cvmtune.tuning.setting import Facts, mask, switch

WFX_GUARD = switch("wfx-guard", "trap them while something else wants their CPU", WfxGuard())


def _every_vcpu(facts: Facts) -> CpuMask:
    if not facts.possible:
        raise ValueError("which CPUs this machine can have cannot be told")
    # More vCPUs than the host has CPUs cannot each have one of their own.
    return CpuMask(frozenset(range(min(len(facts.possible), MAX_VCPUS))))


WFX = mask("wfx", "ids of vCPUs whose WFx is not trapped, on a host: as --ipi", Wfx(), _every_vcpu)


def costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    """Say what is paid for these values, each setting's new one."""
    if ids := len(after.get(WFX.name, ())):
        show, go = ("shows", "goes") if ids == 1 else ("show", "go")
        cpus = count(ids, "physical CPU")
        yield f"up to {cpus} for each VM {show} as busy, always, and {go} no deeper than WFI"
