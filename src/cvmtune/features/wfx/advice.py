# SPDX-License-Identifier: Apache-2.0
"""The rule by which WFx traps are recommended, with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown, known
from cvmtune.features.feature import Advice
from cvmtune.features.wfx.knob import GUARD, PATH
from cvmtune.features.wfx.vms import OWN_MASK, exits_of, own_mask, rates
from cvmtune.features.wfx.vms import exits as exits_of_vm
from cvmtune.features.words import count, cpu_list
from cvmtune.observe.capture import KVM
from cvmtune.observe.isolation import core_sharing
from cvmtune.observe.load import Load, VcpuLoad, VmLoad
from cvmtune.observe.vms import unowned

# Exits for WFI and WFE a second that make a vCPU worth naming. Below it idles for long, and its CPU may rest.
MIN_WFX_EXITS = 100.0
# Share of a physical CPU that others may take beside a vCPU that is to have it alone, and share of the time
# that the vCPU may have waited for it. Recorded in the lab: at most 3 % and 5 % where it has it alone, 66 %
# and 25 % beside a task that computes. The first is told by samples, one a tick, and some seconds have few.
MAX_BESIDE = 0.15
MAX_WAITED = 0.1


_Exiting = Mapping[str, Mapping[int, float]]
"""Exits for WFI and WFE a second by VM's folder and vCPU."""
_Strangers = Mapping[tuple[str, int], str]
"""vCPUs whose core another VM has as well, by VM's folder and id, and how."""


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Name the ids of vCPUs that have a physical CPU of their own in every VM, and wait often."""
    if load.place.role != "host":
        return Advice("wfx", "it is the host's feature; here nothing can be set")
    system = [vm for vm in load.vms if own_mask(vm.now) is None]
    if not system:
        reason = "no VM runs" if not load.vms else "all VMs have masks of their own, which count instead"
        if "/sys/kernel/debug" in load.now.unreadable:
            reason = "VMs cannot be seen without debugfs: run as root, with /sys/kernel/debug mounted"
        return Advice("wfx", reason)
    figures = {
        f"WFx exits a second of VM {vm.now.name}{which}": rate
        for vm in system
        for which, rate in _rates(load, vm)
    }
    unseen = [vm.now.name for vm in system if not vm.vcpus]
    if unseen:
        reason = f"the threads of the vCPUs of VM {', '.join(unseen)} cannot be told by their names"
        return Advice("wfx", reason, figures=figures)
    strangers, pairs = core_sharing(load.now, [vm.now for vm in load.vms])
    refused = _refused(load.vms, system, strangers)
    owners = {vcpu.now.vcpu for vm in system for vcpu in vm.vcpus} - refused.keys()
    exiting = {vm.now.folder: rates(vm, load.seconds) for vm in system}
    # One that is named makes no such exits: that it waits shows only while it is not.
    named = _named(load)
    waiting = sorted(
        vcpu for vcpu in owners if vcpu in named or _most(exiting, system, vcpu) >= MIN_WFX_EXITS
    )
    left_out = f"{_reasons(refused)}{_by_vm(load, system, exiting, waiting, strangers)}"
    if not owners:
        return Advice("wfx", f"no vCPU has a CPU of its own: {left_out}", figures=figures)
    if not waiting:
        reason = f"no vCPU with a CPU of its own makes {MIN_WFX_EXITS:g} WFx exits a second"
        if left_out:
            reason = f"{reason}; left out: {left_out}"
        return Advice("wfx", reason, figures=figures)
    if PATH not in load.now.files:
        reason = (
            f"vCPUs {cpu_list(waiting)} have CPUs of their own and wait often; this kernel cannot untrap them"
        )
        return Advice("wfx", reason, figures=figures)
    exits = sum(_waits(exiting, system, vcpu) for vcpu in waiting)
    found = _untrapped(load, system, waiting, exits, left_out, figures)
    # WFI lets the core's other thread have all of it; work between waits it has to share, as with traps.
    smt = (
        f"; on two threads of one core, which a WFI leaves to the other: vCPUs {', '.join(pairs)}"
        if pairs
        else ""
    )
    return replace(found, cost=f"{found.cost}{smt}")


def _untrapped(
    load: Load,
    system: Sequence[VmLoad],
    waiting: Sequence[int],
    exits: float,
    left_out: str,
    figures: Mapping[str, float],
) -> Advice:
    settings: dict[str, object] = {"wfx": CpuMask(frozenset(waiting))}
    guard = ""
    if GUARD in load.now.files:
        settings = {"wfx-guard": True, **settings}
        guard = "; the guard traps again while something else wants their CPU"
    threads = [vcpu for vm in system for vcpu in vm.vcpus if vcpu.now.vcpu in waiting]
    return Advice(
        "wfx",
        f"vCPUs {cpu_list(waiting)} of {count(len(system), 'VM')} are each pinned to a CPU of "
        f"{_its(threads)}, beside them at most {max(_known(vcpu.beside) for vcpu in threads):.1%} of it went "
        "to others"
        f"{f'; left out: {left_out}' if left_out else ''}",
        settings,
        gain=f"up to {exits:.0f} exits a second fewer, and as many sleeps and wake-ups of vCPU threads",
        cost=(
            f"{count(len(threads), 'physical CPU')} that show as 100 % busy and reach no idle state "
            f"deeper than WFI{guard}"
        ),
        figures=figures,
    )


def _by_vm(
    load: Load, system: Sequence[VmLoad], exiting: _Exiting, waiting: Sequence[int], strangers: _Strangers
) -> str:
    """What masks of their own VMs could have beyond that for all, where the kernel has such masks."""
    told = []
    for vm in system:
        path = f"{KVM}/{vm.now.folder}/{OWN_MASK}"
        refused = _refused(load.vms, [vm], strangers)
        mask = CpuMask(
            frozenset(
                vcpu.now.vcpu
                for vcpu in vm.vcpus
                if vcpu.now.vcpu not in refused and _waits(exiting, [vm], vcpu.now.vcpu) >= MIN_WFX_EXITS
            )
        )
        if path in load.now.files and not mask <= CpuMask(frozenset(waiting)):
            told.append(f"; VM {vm.now.name} alone could have {mask.both_forms()}, written to its {path}")
    return "".join(told)


def _refused(every: Sequence[VmLoad], those: Sequence[VmLoad], strangers: _Strangers) -> dict[int, str]:
    """The ids of vCPUs that lack a CPU of their own in one of those VMs, for which one mask is, and why."""
    why = {**strangers, **unowned([vm.now for vm in every])}
    refused: dict[int, str] = {}
    for vm in those:
        for vcpu in vm.vcpus:
            if shares := why.get((vm.now.folder, vcpu.now.vcpu)) or _disturbed(vcpu):
                refused.setdefault(vcpu.now.vcpu, f"vCPU {vcpu.now.vcpu} of VM {vm.now.name} {shares}")
    return refused


def _disturbed(vcpu: VcpuLoad) -> str:
    """What shows that others run on the CPU that a vCPU is bound to; nothing if they do not."""
    if isinstance(vcpu.beside, Unknown):
        return f"is on CPU {vcpu.now.pinned_to}, and who else runs there {vcpu.beside}"
    if vcpu.beside is not None and vcpu.beside > MAX_BESIDE:
        return f"shares CPU {vcpu.now.pinned_to} with others, which took {vcpu.beside:.0%} of it"
    if vcpu.waited > MAX_WAITED:
        return f"waited {vcpu.waited:.1%} of the time for CPU {vcpu.now.pinned_to}"
    return ""


def _known(share: Figure | None) -> float:
    # Those of whom it is not known have been refused.
    return 0.0 if share is None else known(share) or 0.0


def _waits(exiting: _Exiting, vms: Sequence[VmLoad], vcpu: int) -> float:
    """Exits for WFI and WFE a second of the vCPUs with that id; a VM's where they are counted for it only."""
    return sum(exiting[vm.now.folder].get(vcpu, 0.0) for vm in vms)


def _most(exiting: _Exiting, vms: Sequence[VmLoad], vcpu: int) -> float:
    """The most that one vCPU with that id makes of them."""
    return max(_waits(exiting, [vm], vcpu) for vm in vms)


def _named(load: Load) -> CpuMask:
    try:
        return CpuMask.from_hex(load.now.get(PATH) or "0")
    except ValueError:
        return CpuMask(frozenset())


def _rates(load: Load, vm: VmLoad) -> list[tuple[str, float]]:
    """Exits for WFI and WFE a second of a VM, and of each of its vCPUs where these are counted."""
    of_vcpus = exits_of(vm)
    each = ((vcpu.now.vcpu, of_vcpus.get(vcpu.now.vcpu)) for vcpu in vm.vcpus)
    counted = [
        ("", exits_of_vm(vm)),
        *((f", vCPU {vcpu}", found) for vcpu, found in each if found is not None),
    ]
    return [(which, found / load.seconds) for which, found in counted]


def _its(threads: Sequence[VcpuLoad]) -> str:
    return "its own, reserved" if all(vcpu.reserved for vcpu in threads) else "its own"


def _reasons(refused: Mapping[int, str]) -> str:
    return "; ".join(refused.values())
