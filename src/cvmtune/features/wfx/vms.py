# SPDX-License-Identifier: Apache-2.0
"""What KVM's debugfs tells of WFx traps in a VM: its own mask, and its exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown, rate, total
from cvmtune.observe.load import VmLoad
from cvmtune.observe.procfs import parse_counts
from cvmtune.observe.vms import Vm

# In the VM's folder; those of KVM itself count for the whole VM.
OWN_MASK = "wfx_trap_config"
STATISTICS = "wfx_trap_stats"
_KVMS_OWN = ("wfi_exit_stat", "wfe_exit_stat")
_WHAT = "its count of WFx exits"


def own_mask(vm: Vm) -> CpuMask | Unknown | None:
    """The VM's own choice of untrapped vCPUs, None if it goes by the system's."""
    if OWN_MASK in vm.unreadable:
        return Unknown(f"{OWN_MASK} cannot be read: {vm.unreadable[OWN_MASK]}")
    text = vm.files.get(OWN_MASK)
    if text is None or text.strip() == "system":
        return None
    try:
        return CpuMask.from_hex(text)
    except ValueError:
        return Unknown(f"{OWN_MASK} shows something else than a mask")


def rows(vm: Vm) -> Sequence[Mapping[str, int]]:
    """What is counted by vCPU; nothing on a kernel without the feature."""
    return parse_counts(vm.files.get(STATISTICS, ""))


def exits(load: VmLoad, seconds: float) -> Figure:
    """Exits for WFI and WFE of all vCPUs, a second."""
    if load.before is None:
        return Unknown("the VM came meanwhile")
    then, now = (total(vm.figure(file) for file in _KVMS_OWN) for vm in (load.before, load.now))
    return rate(then, now, seconds, what=_WHAT)


def exits_of(load: VmLoad, seconds: float) -> dict[int, Figure]:
    """The same by vCPU, of those for which it is counted."""
    now = by_vcpu(load.now)
    then = by_vcpu(load.before) if load.before else {}
    was = {vcpu.thread: vcpu.vcpu for vcpu in load.before.vcpus} if load.before else {}
    found: dict[int, Figure] = {}
    for vcpu in load.now.vcpus:
        if vcpu.vcpu in now and vcpu.thread not in was:
            found[vcpu.vcpu] = Unknown("its thread came meanwhile")
        elif vcpu.vcpu in now and was[vcpu.thread] in then:
            found[vcpu.vcpu] = rate(then[was[vcpu.thread]], now[vcpu.vcpu], seconds, what=_WHAT)
    return found


def waits(load: VmLoad, seconds: float, least: float, counted: Mapping[int, Figure]) -> Mapping[int, Figure]:
    """Exits for WFI and WFE a second by vCPU, of all whose threads can be told.

    Where they are counted for the VM only, they are those vCPUs' whose threads have slept: a trapped WFI lets
    the thread sleep, and so may other things, which the VM's count bounds. It is unknown whether a vCPU makes
    `least` of them if its sleeps do not settle it. `counted` is what exits_of() says.
    """
    if len(counted) == len(load.vcpus):
        return counted
    whole = exits(load, seconds)
    if len(load.vcpus) == 1:
        return {load.vcpus[0].now.vcpu: whole}
    slept = total(one.sleeps for one in load.vcpus)
    return {
        one.now.vcpu: counted.get(one.now.vcpu, _by_sleeps(one.sleeps, slept, whole, least))
        for one in load.vcpus
    }


def _by_sleeps(sleeps: Figure, slept: Figure, whole: Figure, least: float) -> Figure:
    """A vCPU's part of the `whole` VM's exits, by its own sleeps and all that were slept."""
    if isinstance(whole, Unknown):
        return whole
    if whole < least:
        # Whosever they are.
        return whole if isinstance(sleeps, Unknown) else min(whole, sleeps)
    if isinstance(sleeps, Unknown):
        return sleeps
    if isinstance(slept, Unknown):
        return slept
    # All vCPUs' together are no more than the VM's.
    part = sleeps * min(1.0, whole / slept) if slept else 0.0
    if part < least <= min(sleeps, whole):
        return Unknown("the threads of its VM's vCPUs sleep more often than these make WFx exits")
    if part < least <= part + whole - slept:
        return Unknown("its VM's vCPUs make more WFx exits than their threads sleep, as with halt polling")
    return part


def by_vcpu(vm: Vm) -> dict[int, int]:
    """Exits for WFI and WFE since the VM's start, of the vCPUs for which they are counted."""
    columns = {"vcpu", "wfi_exits", "wfe_exits"}
    return {row["vcpu"]: row["wfi_exits"] + row["wfe_exits"] for row in rows(vm) if columns <= row.keys()}
