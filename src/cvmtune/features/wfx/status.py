# SPDX-License-Identifier: Apache-2.0
"""WFx traps on a host: how often vCPUs entered untrapped since their VM's start, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown, total
from cvmtune.features.feature import NOBODY, FeatureStatus, Risk
from cvmtune.features.status import of_setting, of_vms
from cvmtune.features.wfx.settings import WFX, WFX_GUARD
from cvmtune.features.wfx.vms import STATISTICS, own_mask
from cvmtune.features.words import count, named_vcpus
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.vms import Vm, unowned, unread, unseen, untold, vms

_COLUMNS = ("entries", "untrapped", "guarded", "wfi_exits", "wfe_exits")
# KVM's own files for what is also counted by vCPU.
_KVMS = {"wfi_exits": "wfi_exit_stat", "wfe_exits": "wfe_exit_stat"}


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return what it is set to, and what it did for the VMs that run."""
    machines = vms(capture)
    hidden = unseen(capture)
    counted = [_counted(vm) for vm in machines]
    statistics = {name: total(one[name] for one in counted) for name in _COLUMNS}
    if hidden:
        statistics = dict.fromkeys(statistics, Unknown(hidden))
    statistics["vms"] = Unknown(hidden) if hidden else float(len(machines))

    def did() -> Iterator[str]:
        yield hidden or count(len(machines), "VM")
        if closed := unread(machines):
            yield closed
        untrapped, entries = statistics["untrapped"], statistics["entries"]
        if not isinstance(untrapped, Unknown) and not isinstance(entries, Unknown) and machines:
            yield f"{untrapped:.0f} of {entries:.0f} entries untrapped"
        for vm in machines:
            if isinstance(mask := own_mask(vm), CpuMask):
                yield f"VM {vm.name} has a mask of its own, {mask.both_forms()}"

    found = of_setting(capture, WFX, WFX_GUARD, did(), statistics)
    if found.status == "absent" and where.role != "host":
        return FeatureStatus(WFX.name, "elsewhere", problem="it is the host's")
    return found


def _counted(vm: Vm) -> dict[str, Figure]:
    """What is counted of a VM since its start, exits by KVM itself where they are not by vCPU."""
    found = of_vms([vm], STATISTICS, _COLUMNS)
    kvms = {name: vm.figure(file) for name, file in _KVMS.items() if isinstance(found[name], Unknown)}
    return found | kvms


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return the VMs whose untrapped vCPUs take their CPUs from others."""
    if status.settings.get(WFX_GUARD.name):
        return
    machines = vms(capture)
    why = unowned(machines)
    for vm in machines:
        own = own_mask(vm)
        if isinstance(own, Unknown):
            continue
        named = status.settings.get(WFX.name, NOBODY) if own is None else own
        shared = [vcpu.vcpu for vcpu in vm.vcpus if vcpu.vcpu in named and (vm.folder, vcpu.vcpu) in why]
        if named and untold([vm]):
            yield Risk(
                f"WFx of {named_vcpus(named)} of VM {vm.name} is not trapped, and {untold([vm])}",
                "see to it that each has a CPU of its own, or turn the guard on (wfx-guard)",
            )
        if shared:
            first = shared[0]
            yield Risk(
                f"WFx of {named_vcpus(shared)} of VM {vm.name} is not trapped, "
                f"and vCPU {first} {why[vm.folder, first]}: idle, it takes its CPU from others",
                "pin each to a CPU of its own, take it off the mask, or turn the guard on (wfx-guard)",
            )
