# SPDX-License-Identifier: Apache-2.0
"""What KVM's debugfs tells of WFx traps in a VM: its own mask, and its exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.load import VmLoad
from cvmtune.observe.procfs import parse_counts
from cvmtune.observe.vms import Vm

# In the VM's folder; those of KVM itself count for the whole VM.
OWN_MASK = "wfx_trap_config"
STATISTICS = "wfx_trap_stats"
_KVMS_OWN = ("wfi_exit_stat", "wfe_exit_stat")


def own_mask(vm: Vm) -> CpuMask | None:
    """The VM's own choice of untrapped vCPUs, None if it goes by the system's."""
    try:
        return CpuMask.from_hex(vm.files.get(OWN_MASK, "system"))
    except ValueError:
        # "system", or nothing that we could know.
        return None


def rows(vm: Vm) -> Sequence[Mapping[str, int]]:
    """What is counted by vCPU; nothing on a kernel without the feature."""
    return parse_counts(vm.files.get(STATISTICS, ""))


def exits(load: VmLoad) -> int:
    """Exits for WFI and WFE of all vCPUs meanwhile."""
    now, before = (sum(vm.number(file) for file in _KVMS_OWN) for vm in (load.now, load.before))
    return max(0, now - before)


def exits_of(load: VmLoad) -> dict[int, int]:
    """The same by vCPU, of those for which it is counted; none of one whose thread has come meanwhile."""
    now, before = by_vcpu(load.now), by_vcpu(load.before)
    was = {vcpu.thread: vcpu.vcpu for vcpu in load.before.vcpus}
    found = {}
    for vcpu in load.now.vcpus:
        if vcpu.vcpu in now and vcpu.thread not in was:
            found[vcpu.vcpu] = 0
        elif vcpu.vcpu in now and was[vcpu.thread] in before:
            found[vcpu.vcpu] = max(0, now[vcpu.vcpu] - before[was[vcpu.thread]])
    return found


def rates(load: VmLoad, seconds: float) -> dict[int, float]:
    """Exits for WFI and WFE a second by vCPU; where they are counted for the VM only, an equal share each."""
    counted = exits_of(load)
    share = exits(load) / max(1, len(load.vcpus))
    return {one.now.vcpu: counted.get(one.now.vcpu, share) / seconds for one in load.vcpus}


def by_vcpu(vm: Vm) -> dict[int, int]:
    """Exits for WFI and WFE since the VM's start, of the vCPUs for which they are counted."""
    columns = {"vcpu", "wfi_exits", "wfe_exits"}
    return {row["vcpu"]: row["wfi_exits"] + row["wfe_exits"] for row in rows(vm) if columns <= row.keys()}
