# SPDX-License-Identifier: Apache-2.0
"""WFx traps on a host: how often vCPUs entered untrapped since their VM's start, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.feature import NOBODY, FeatureStatus, Risk
from cvmtune.features.status import of_setting, sums
from cvmtune.features.wfx.settings import WFX, WFX_GUARD
from cvmtune.features.wfx.vms import own_mask, rows
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.vms import unowned, vms


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return what it is set to, and what it did for the VMs that run."""
    machines = vms(capture)
    counted = [row for vm in machines for row in rows(vm)]
    statistics = sums(counted, ("entries", "untrapped", "guarded", "wfi_exits", "wfe_exits"))
    statistics["vms"] = float(len(machines))

    def did() -> Iterator[str]:
        yield f"{len(machines)} VMs"
        if counted:
            yield f"{statistics['untrapped']:.0f} of {statistics['entries']:.0f} entries untrapped"
        for vm in machines:
            if (mask := own_mask(vm)) is not None:
                yield f"VM {vm.name} has a mask of its own, {mask.both_forms()}"

    found = of_setting(capture, WFX, WFX_GUARD, did(), statistics)
    if found.status == "absent" and where.role != "host":
        return FeatureStatus(WFX.name, "elsewhere", problem="it is the host's")
    return found


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return the VMs whose untrapped vCPUs take their CPUs from others."""
    if status.settings.get(WFX_GUARD.name):
        return
    machines = vms(capture)
    why = unowned(machines)
    for vm in machines:
        own = own_mask(vm)
        named = status.settings.get(WFX.name, NOBODY) if own is None else own
        shared = [vcpu.vcpu for vcpu in vm.vcpus if vcpu.vcpu in named and (vm.folder, vcpu.vcpu) in why]
        if shared:
            first = shared[0]
            yield Risk(
                f"WFx of vCPUs {CpuMask(frozenset(shared)).to_list()} of VM {vm.name} is not trapped, "
                f"and vCPU {first} {why[vm.folder, first]}: idle, it takes its CPU from others",
                "pin each to a CPU of its own, take it off the mask, or turn the guard on (wfx-guard)",
            )
