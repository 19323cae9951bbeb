# SPDX-License-Identifier: Apache-2.0
"""The rule by which WFx traps are recommended, with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown, known
from cvmtune.features.feature import Advice
from cvmtune.features.wfx.knob import GUARD, PATH
from cvmtune.features.wfx.vms import OWN_MASK, exits_of, own_mask, waits
from cvmtune.features.wfx.vms import exits as exits_of_vm
from cvmtune.features.words import count, named_vcpus
from cvmtune.observe.capture import KVM
from cvmtune.observe.isolation import core_sharing, kept
from cvmtune.observe.load import Load, VcpuLoad, VmLoad
from cvmtune.observe.unreadable import reason as meaning
from cvmtune.observe.vms import Vm, unowned, unread, unseen, untold

# Exits for WFI and WFE a second that make a vCPU worth naming. Below it idles for long, and its CPU may rest.
MIN_WFX_EXITS = 100.0
# Share of a physical CPU that others may take beside a vCPU that is to have it alone, and share of the time
# that the vCPU may have waited for it. Recorded in the lab: at most 3 % and 5 % where it has it alone, 66 %
# and 25 % beside a task that computes. The first is told by samples, one a tick, and some seconds have few.
MAX_BESIDE = 0.15
MAX_WAITED = 0.1


_Exiting = Mapping[str, Mapping[int, Figure]]
"""Exits for WFI and WFE a second by VM's folder and vCPU."""
_Refusals = Mapping[int, str | Unknown]
"""Why vCPUs, by their ids, have no CPU of their own; Unknown where that cannot be told."""
_Unowned = Mapping[tuple[str, int], str]
"""What unowned() says."""


@dataclass(frozen=True)
class _Ids:
    """Ids of vCPUs, for which one mask is: those that `wait` often on a CPU of their own in every VM, and
    those of which that is in `doubt`. Of those `refused` and of those in doubt it is said why."""

    waiting: Sequence[int]
    doubt: Mapping[int, str]
    refused: _Refusals
    owners: Set[int]


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Name the ids of vCPUs that have a physical CPU of their own in every VM, and wait often."""
    if load.place.role != "host":
        return Advice("wfx", "it is the host's feature; here nothing can be set")
    every = [vm.now for vm in load.vms]
    # Where it cannot be told whose mask counts, figures are shown all the same.
    shown = [vm for vm in load.vms if not isinstance(own_mask(vm.now), CpuMask)]
    system = [vm for vm in shown if own_mask(vm.now) is None]
    counted = {vm.now.folder: exits_of(vm, load.seconds) for vm in shown}
    figures = {
        f"{what} a second of VM {vm.now.name}{which}": figure
        for vm in shown
        for what, which, figure in _rates(vm, load.seconds, counted[vm.now.folder])
    }
    if hidden := unseen(load.now):
        figures.setdefault("WFx exits a second", Unknown(hidden))
    if doubt := unseen(load.now) or unread(every) or _odd_mask(every) or untold(every):
        return Advice("wfx", doubt, figures=figures)
    if not system:
        reason = "no VM runs" if not load.vms else "all VMs have masks of their own, which count instead"
        return Advice("wfx", reason)
    # A core that another VM has as well is nobody's own.
    strangers, pairs = core_sharing(load.now, every)
    why = {**strangers, **unowned(every)}
    exiting = {vm.now.folder: waits(vm, load.seconds, MIN_WFX_EXITS, counted[vm.now.folder]) for vm in system}
    ids = _ids(load, system, why, exiting)
    left_out = "; ".join(
        [*map(_words, ids.refused.values()), *_doubts(ids.doubt), *_by_vm(load, system, why, exiting, ids)]
    )
    if not ids.owners:
        return Advice("wfx", f"{_none_has(ids.refused)}: {left_out}", figures=figures)
    if not ids.waiting:
        reason = f"no vCPU with a CPU of its own makes {MIN_WFX_EXITS:g} WFx exits a second"
        if ids.doubt:
            reason = "it cannot be told which vCPUs wait often"
        if left_out:
            reason = f"{reason}; left out: {left_out}"
        return Advice("wfx", reason, figures=figures)
    if refusal := _no_control(load):
        many = len(ids.waiting) > 1
        own = "have CPUs of their own and wait" if many else "has a CPU of its own and waits"
        reason = f"{named_vcpus(ids.waiting)} {own} often; {refusal}"
        return Advice("wfx", reason, figures=figures)
    found = _untrapped(load, system, ids.waiting, exiting, left_out, figures)
    # WFI lets the core's other thread have all of it; work between waits it has to share, as with traps.
    smt = (
        f"; on two threads of one core, which a WFI leaves to the other: vCPUs {', '.join(pairs)}"
        if pairs
        else ""
    )
    return replace(found, cost=f"{found.cost}{smt}")


def _none_has(refused: _Refusals) -> str:
    told = [not isinstance(one, Unknown) for one in refused.values()]
    if not any(told):
        return "it cannot be told whether a vCPU has a CPU of its own"
    return f"no vCPU {'has' if all(told) else 'is known to have'} a CPU of its own"


def _words(refusal: str | Unknown) -> str:
    return refusal.why if isinstance(refusal, Unknown) else refusal


def _odd_mask(machines: Sequence[Vm]) -> str:
    """Whose mask of its own is not understood, so that it cannot be told whether the system's counts."""
    odd = ((vm.name, own_mask(vm)) for vm in machines)
    return next((f"VM {name}: {mask.why}" for name, mask in odd if isinstance(mask, Unknown)), "")


def _no_control(load: Load) -> str:
    """Why the mask cannot be set; nothing if it can."""
    if PATH in load.now.unreadable:
        return f"the mask cannot be read: {meaning(load.now, PATH, load.now.unreadable[PATH])}"
    return "" if PATH in load.now.files else "this kernel cannot untrap them"


def _ids(load: Load, system: Sequence[VmLoad], why: _Unowned, exiting: _Exiting) -> _Ids:
    refused = _refused(why, system)
    owners = {vcpu.now.vcpu for vm in system for vcpu in vm.vcpus} - refused.keys()
    # One that is named makes no such exits: that it waits shows only while it is not.
    named = _named(load)
    waiting = []
    doubt: dict[int, str] = {}
    for vcpu in sorted(owners):
        rates = [one[vcpu] for one in exiting.values() if vcpu in one]
        if vcpu in named or any((known(rate) or 0.0) >= MIN_WFX_EXITS for rate in rates):
            waiting.append(vcpu)
        elif unknown := next((rate for rate in rates if isinstance(rate, Unknown)), None):
            doubt[vcpu] = unknown.why
    return _Ids(waiting, doubt, refused, owners)


def _doubts(doubt: Mapping[int, str]) -> Iterator[str]:
    """Of which vCPUs it cannot be told whether they wait often, by reason."""
    for why in dict.fromkeys(doubt.values()):
        yield f"{named_vcpus([vcpu for vcpu, one in doubt.items() if one == why])}, as {why}"


def _untrapped(
    load: Load,
    system: Sequence[VmLoad],
    waiting: Sequence[int],
    exiting: _Exiting,
    left_out: str,
    figures: Mapping[str, Figure],
) -> Advice:
    settings: dict[str, object] = {"wfx": CpuMask(frozenset(waiting))}
    guard = ""
    if GUARD in load.now.files:
        settings = {"wfx-guard": True, **settings}
        guard = "; the guard traps again while something else wants their CPU"
    elif GUARD in load.now.unreadable:
        guard = f"; whether the guard is on cannot be told, and it is not set: {load.now.why_not(GUARD)}"
    threads = [vcpu for vm in system for vcpu in vm.vcpus if vcpu.now.vcpu in waiting]
    # Two VMs of one process have the same threads.
    cpus = len({vcpu.now.pinned_to for vcpu in threads})
    exits = sum(known(one.get(vcpu, 0.0)) or 0.0 for one in exiting.values() for vcpu in waiting)
    beside = max(known(vcpu.beside) or 0.0 for vcpu in threads if vcpu.beside is not None)
    return Advice(
        "wfx",
        f"{named_vcpus(waiting)} of {count(len(system), 'VM')} "
        f"{'is' if len(threads) == 1 else 'are each'} pinned to a CPU of {_its(load, threads)}, of which "
        f"at most {beside:.1%} went to others"
        f"{f'; left out: {left_out}' if left_out else ''}",
        settings,
        gain=f"up to {exits:.0f} exits a second fewer, and as many sleeps and wake-ups of vCPU threads",
        cost=(
            f"{count(cpus, 'physical CPU')} that {'shows' if cpus == 1 else 'show'} as 100 % "
            f"busy and {'reaches' if cpus == 1 else 'reach'} no idle state deeper than WFI{guard}"
        ),
        figures=figures,
    )


def _by_vm(
    load: Load, system: Sequence[VmLoad], why: _Unowned, exiting: _Exiting, ids: _Ids
) -> Iterator[str]:
    """What masks of their own VMs could have beyond that for all, where the kernel has such masks."""
    for vm in system:
        path = f"{KVM}/{vm.now.folder}/{OWN_MASK}"
        if path not in load.now.files:
            continue
        refused = _refused(why, [vm])
        often = (
            vcpu
            for vcpu, rate in exiting[vm.now.folder].items()
            if vcpu not in refused and (known(rate) or 0.0) >= MIN_WFX_EXITS
        )
        mask = CpuMask(frozenset(often))
        if not mask <= CpuMask(frozenset(ids.waiting)):
            yield f"VM {vm.now.name} alone could have {mask.both_forms()}, written to its {path}"


def _refused(why: _Unowned, those: Sequence[VmLoad]) -> _Refusals:
    """The ids of vCPUs that lack a CPU of their own in one of those VMs, for which one mask is, and why."""
    refused: dict[int, str | Unknown] = {}
    for vm in those:
        for vcpu in vm.vcpus:
            who = f"vCPU {vcpu.now.vcpu} of VM {vm.now.name}"
            shares = why.get((vm.now.folder, vcpu.now.vcpu)) or _disturbed(vcpu)
            if isinstance(shares, Unknown):
                refused.setdefault(vcpu.now.vcpu, Unknown(f"{who} {shares.why}"))
            elif shares and not isinstance(refused.get(vcpu.now.vcpu), str):
                # What is known of one VM settles it for all.
                refused[vcpu.now.vcpu] = f"{who} {shares}"
    return refused


def _disturbed(vcpu: VcpuLoad) -> str | Unknown:
    """What shows that others run on the CPU that a vCPU is bound to, or that it cannot be told; nothing if
    they do not."""
    cpu = vcpu.now.pinned_to
    if isinstance(vcpu.beside, Unknown):
        return Unknown(f"is bound to CPU {cpu}, and whether others run there {vcpu.beside}")
    if isinstance(vcpu.waited, Unknown):
        return Unknown(f"is bound to CPU {cpu}, and how long it waited for that {vcpu.waited}")
    if vcpu.beside is not None and vcpu.beside > MAX_BESIDE:
        return f"shares CPU {cpu} with others, which took {vcpu.beside:.0%} of it"
    if vcpu.waited > MAX_WAITED:
        return f"waited {vcpu.waited:.1%} of the time for CPU {cpu}"
    return ""


def _named(load: Load) -> CpuMask:
    try:
        return CpuMask.from_hex(load.now.get(PATH) or "0")
    except ValueError:
        return CpuMask(frozenset())


def _rates(vm: VmLoad, seconds: float, counted: Mapping[int, Figure]) -> list[tuple[str, str, Figure]]:
    """Exits for WFI and WFE a second of a VM and of each of its vCPUs, or where these are not `counted`, how
    often the vCPU's thread sleeps."""
    each = (
        ("WFx exits", f", vCPU {one.now.vcpu}", counted[one.now.vcpu])
        if one.now.vcpu in counted
        else ("sleeps", f", vCPU {one.now.vcpu}", one.sleeps)
        for one in vm.vcpus
    )
    return [("WFx exits", "", exits_of_vm(vm, seconds)), *each]


def _its(load: Load, threads: Sequence[VcpuLoad]) -> str:
    if not all(vcpu.reserved for vcpu in threads):
        return "its own"
    why = kept(load.now)
    ways = {why.get(vcpu.now.pinned_to or 0, "a cpuset partition's") for vcpu in threads}
    return f"its own, reserved as {', '.join(sorted(ways))}"
