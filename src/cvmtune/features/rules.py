# SPDX-License-Identifier: Apache-2.0
"""The rules by which features are recommended, each with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.cq_poll.knob import IDLE_US as CQ_IDLE_US
from cvmtune.features.cq_poll.knob import PATH as CQ_POLL
from cvmtune.features.risks import MAX_STEAL, counts_steal, deep_idle, nohlt
from cvmtune.features.soft_ipi.knob import PATH as SOFT_IPI
from cvmtune.features.soft_ipi.knob import POLL_US as IPI_POLL_US
from cvmtune.features.wfx.knob import GUARD as WFX_GUARD
from cvmtune.features.wfx.knob import PATH as WFX
from cvmtune.observe.capture import KVM
from cvmtune.observe.load import Load, NfsLoad, VcpuLoad, VmLoad
from cvmtune.observe.vms import unowned


@dataclass(frozen=True)
class Advice:
    """What to do about a feature. Without `settings`: leave it as it is, `reason` says why.

    `settings` are values of knobs by their names; `figures` what the reason rests on, by name.
    """

    feature: str
    reason: str
    settings: Mapping[str, str] = field(default_factory=dict)
    gain: str = ""
    cost: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def advise(load: Load) -> list[Advice]:
    """Return one advice for each feature."""
    ipi = advise_ipi(load)
    named = CpuMask.from_hex(ipi.settings["ipi"]) if ipi.settings else CpuMask(frozenset())
    return [ipi, advise_vtimer(load), advise_cq_poll(load, named), advise_wfx(load)]


# Feature 1: soft IPI passthrough

# IPIs a second that a vCPU must take. Of fewer, more than 5 ms apart, most would be awaited longer than the
# bound below lets a vCPU poll: paid for, and not met.
MIN_IPIS = 200.0
# Share of the most loaded vCPU's IPIs that another must take to be named with it: what a machine takes beside
# its load stays below.
MIN_SHARE_OF_MOST = 0.1
# A vCPU that idles less does not poll: it takes its IPIs by interrupt, named or not.
MIN_IDLE = 0.05
# An IPI's way as the request has it, us: 7 through the monitor, less than 3 through memory.
IPI_SAVES_US = 4.0
# The bound of polling, in mean times between IPIs, so that nearly all come while the vCPU polls (of a Poisson
# process all but 2 %); and its ends, us. Beyond the upper one to wake up is cheap against the wait.
BOUND_IN_GAPS = 4.0
BOUND_US = (100, 10_000)


def advise_ipi(load: Load) -> Advice:
    """Name the vCPUs that take many IPIs and idle between them."""
    if load.place.role != "guest":
        return Advice("ipi", "it is a guest's feature: this is no guest, where an IPI costs no exit")
    rates = {cpu: one.taken_ipis for cpu, one in load.cpus.items()}
    most = max(rates.values(), default=0.0)
    figures = {f"IPIs a second taken by CPU {cpu}": rate for cpu, rate in rates.items()}
    busy = [cpu for cpu, rate in rates.items() if rate >= max(MIN_IPIS, most * MIN_SHARE_OF_MOST)]
    if not busy:
        reason = f"no CPU takes {MIN_IPIS:g} IPIs a second; the most is {most:.0f}"
        return Advice("ipi", reason, figures=figures)
    if nohlt(load.now):
        reason = f"{_takers(busy, rates)}, but with nohlt on the command line no CPU polls for them"
        return Advice("ipi", reason, figures=figures)
    if refusal := _overcommitted(load):
        return Advice("ipi", f"{_takers(busy, rates)}, but {refusal}", figures=figures)
    chosen = [cpu for cpu in busy if load.cpus[cpu].idle >= MIN_IDLE or load.cpus[cpu].soft_ipis]
    if not chosen:
        reason = f"{_takers(busy, rates)}, but {_they(busy)} hardly idle: only an idle CPU polls"
        return Advice("ipi", reason, figures=figures)
    if SOFT_IPI not in load.now.files:
        reason = f"{_takers(chosen, rates)}; but this kernel has no soft IPI passthrough"
        return Advice("ipi", reason, figures=figures)
    if deep := deep_idle(load.now, CpuMask(frozenset(chosen))):
        reason = (
            f"{_takers(chosen, rates)}, but cpuidle may take {deep.to_list()} deeper than WFI, where no CPU "
            "polls: disable those states first (cpuidle/state*/disable)"
        )
        return Advice("ipi", reason, figures=figures)
    mask = CpuMask(frozenset(chosen))
    settings = {"ipi": mask.to_hex()}
    idle = sum(load.cpus[cpu].idle for cpu in chosen)
    cpus = _count(len(chosen), "physical CPU")
    busy_for = f"{cpus} busy always, also when nothing is done: this kernel has no bound"
    if IPI_POLL_US in load.now.files:
        gap_us = 1e6 / min(rates[cpu] for cpu in chosen)
        bound_us = _between(BOUND_US, _round_up(BOUND_IN_GAPS * gap_us, 100))
        settings = {"ipi-poll-us": str(bound_us), **settings}
        busy_for = (
            f"up to {idle:.2f} more physical CPUs busy while IPIs come, and {bound_us} us after the last one"
        )
    everyone = f"ALL {len(chosen)} vCPUs poll: " if len(chosen) == len(load.cpus) else ""
    total = sum(rates[cpu] for cpu in chosen)
    return Advice(
        "ipi",
        f"{_takers(chosen, rates)}; they idle {idle:.2f} CPUs' time in all, {_lost(load)}",
        settings,
        gain=(
            f"up to {total:.0f} IPIs a second without an exit; at the {IPI_SAVES_US:g} us each that is the "
            f"feature's goal on hardware, {total * IPI_SAVES_US / 1e6:.1%} of a CPU's time in waits"
        ),
        cost=f"{everyone}{busy_for}",
        figures=figures,
    )


# Feature 2: the virtual timer


def advise_vtimer(load: Load) -> Advice:
    """Tell how it stands: there is nothing to choose, the feature is on for confidential VMs."""
    if load.place.role != "host":
        return Advice("vtimer", "it is the monitor's and the host's feature; a guest has nothing to set")
    modes = {vm.now.name: vm.now.vtimer_mode for vm in load.vms if vm.now.vtimer_mode is not None}
    if not modes:
        reason = "no VM here has it; a host with our patches boots with kvm-arm.cvm_vtimer=masked for it"
        return Advice("vtimer", reason)
    others = [name for name, mode in modes.items() if mode != "masked"]
    if others:
        reason = (
            f"VM {', '.join(others)} is not in mode masked; write that to its vtimer_mode in KVM's debugfs"
        )
        return Advice("vtimer", reason)
    return Advice("vtimer", f"it is on for all {len(modes)} VMs: nothing to set")


# Feature 3: polled completion queues

# RPCs over RDMA a second, of NFS's client and server. Below that a poller finds nothing most of the time.
MIN_RPCS = 100.0
# Share of its time that a CPU must idle to take the poller.
MIN_POLLER_IDLE = 0.25
# The window in mean times from an RPC's sending to its reply, so that the next answer finds the poller awake;
# and its ends, us: the default, and what is no longer worth a CPU.
WINDOW_IN_RTTS = 2.0
WINDOW_US = (1000, 20000)


def advise_cq_poll(load: Load, soft: CpuMask) -> Advice:
    """Name a CPU with time to spare; `soft` are those that are to poll for IPIs, which have none."""
    mounts = [mount for mount in load.mounts if mount.transport == "rdma"]
    served = load.server_rpcs if load.server_over_rdma else 0.0
    rpcs = sum(mount.rpcs for mount in mounts) + served
    figures = {
        **{f"RPCs a second on {mount.point}": mount.rpcs for mount in mounts},
        **({"RPCs a second served": served} if served else {}),
        **{f"{name} a second": rate for name, rate in load.rdma.items()},
    }
    if not mounts and not load.server_over_rdma:
        return Advice("cq-poll", "no NFS over RDMA here, neither a mount nor a server", figures=figures)
    if rpcs < MIN_RPCS:
        reason = f"NFS over RDMA makes {rpcs:.0f} RPCs a second, less than {MIN_RPCS:g}"
        return Advice("cq-poll", reason, figures=figures)
    busy = f"NFS over RDMA makes {rpcs:.0f} RPCs a second"
    if refusal := _overcommitted(load):
        return Advice("cq-poll", f"{busy}, but {refusal}", figures=figures)
    if CQ_POLL not in load.now.files:
        reason = (
            f"{busy}; but ib_core_cq_poll is not loaded, or this kernel lacks it (modprobe ib_core_cq_poll)"
        )
        return Advice("cq-poll", reason, figures=figures)
    if load.place.flavour == "vendor" and load.server_over_rdma:
        reason = (
            f"{busy}, but this vendor's kernel polls only connections made afterwards, and may hang them "
            "when polling changes: stop the NFS server, turn polling on, start it again"
        )
        return Advice("cq-poll", reason, figures=figures)
    if load.place.flavour == "vendor" and mounts:
        reason = (
            f"{busy}, but this vendor's kernel polls only what is mounted afterwards, and may hang a mount "
            f"when polling changes: unmount {', '.join(mount.point for mount in mounts)}, turn polling on, "
            "mount again"
        )
        return Advice("cq-poll", reason, figures=figures)
    if len(load.cpus) < 2:
        return Advice(
            "cq-poll", f"{busy}, but the poller would need one of its CPUs: there is 1", figures=figures
        )
    # One that polls already has its idle time taken by that, and is as good as any.
    now = load.now.get(CQ_POLL) or ""
    at_work = int(now) if now.isdecimal() and int(now) in load.cpus else None
    cpu = _poller_cpu(load, soft) if at_work is None else at_work
    if cpu is None:
        reason = f"{busy}, but no CPU that is free for it idles {MIN_POLLER_IDLE:.0%} of its time"
        return Advice("cq-poll", reason, figures=figures)
    settings = {"cq-poll": str(cpu)}
    busy_for = "always: this kernel's poller never sleeps"
    if CQ_IDLE_US in load.now.files:
        window_us = _between(WINDOW_US, _round_up(WINDOW_IN_RTTS * 1000 * _rtt_ms(mounts), 1000))
        settings = {"cq-idle-us": str(window_us), **settings}
        busy_for = f"while completions come; after {window_us} us without one it sleeps"
    return Advice(
        "cq-poll",
        f"{busy}, {_rtt_ms(mounts):.2f} ms each; CPU {cpu} "
        + ("polls already" if cpu == at_work else f"idles {load.cpus[cpu].idle:.0%} of its time"),
        settings,
        gain=(
            f"answers are found without an interrupt and a worker's wake-up, {rpcs:.0f} a second; the "
            "request puts these at 20 % of a storage write"
        ),
        cost=f"up to 1 CPU, number {cpu}, busy {busy_for}",
        figures=figures,
    )


def _poller_cpu(load: Load, soft: CpuMask) -> int | None:
    """The CPU that idles most; of equals the last, as the first does the machine's chores."""
    # To a host a pinned vCPU's CPU looks idle just when it waits for that vCPU's work.
    kept = load.place.isolated | CpuMask(
        frozenset(
            vcpu.now.pinned_to for vm in load.vms for vcpu in vm.vcpus if vcpu.now.pinned_to is not None
        )
    )
    able = {
        cpu: one.idle for cpu, one in load.cpus.items() if one.idle >= MIN_POLLER_IDLE and cpu not in kept
    }
    # A CPU that polls for IPIs has its idle time taken; still it is better than none.
    free = {cpu: idle for cpu, idle in able.items() if cpu not in soft} or able
    return max(free, key=lambda cpu: (round(free[cpu], 1), cpu), default=None)


def _rtt_ms(mounts: Sequence[NfsLoad]) -> float:
    rpcs = sum(mount.rpcs for mount in mounts)
    return sum(mount.rpcs * mount.rtt_ms for mount in mounts) / rpcs if rpcs else 0.0


# Feature 4: WFx traps

# Exits for WFI and WFE a second that make a vCPU worth naming. Below it idles for long, and its CPU may rest.
MIN_WFX_EXITS = 100.0
# Share of a physical CPU that others may take beside a vCPU that is to have it alone, and share of the time
# that the vCPU may have waited for it. Recorded in the lab: at most 3 % and 5 % where it has it alone, 66 %
# and 25 % beside a task that computes. The first is told by samples, one a tick, and some seconds have few.
MAX_BESIDE = 0.15
MAX_WAITED = 0.1


def advise_wfx(load: Load) -> Advice:
    """Name the ids of vCPUs that have a physical CPU of their own in every VM, and wait often."""
    if load.place.role != "host":
        return Advice("wfx", "it is the host's feature; here nothing can be set")
    system = [vm for vm in load.vms if vm.now.own_mask is None]
    if not system:
        reason = "no VM runs" if not load.vms else "all VMs have masks of their own, which count instead"
        if "/sys/kernel/debug" in load.now.unreadable:
            reason = "VMs cannot be seen without debugfs: run as root, with /sys/kernel/debug mounted"
        return Advice("wfx", reason)
    figures = {
        f"WFx exits a second of VM {vm.now.name}{which}": rate
        for vm in system
        for which, rate in [("", vm.wfx_exits), *((f", vCPU {v.now.vcpu}", v.wfx_exits) for v in vm.vcpus)]
        if rate is not None
    }
    unseen = [vm.now.name for vm in system if not vm.vcpus]
    if unseen:
        reason = f"the threads of the vCPUs of VM {', '.join(unseen)} cannot be told by their names"
        return Advice("wfx", reason, figures=figures)
    refused = _refused(load.vms, system)
    owners = {vcpu.now.vcpu for vm in system for vcpu in vm.vcpus} - refused.keys()
    # One that is named makes no such exits: that it waits shows only while it is not.
    named = _named(load)
    waiting = sorted(vcpu for vcpu in owners if vcpu in named or _most(system, vcpu) >= MIN_WFX_EXITS)
    left_out = f"{_reasons(refused)}{_by_vm(load, system, waiting)}"
    if not owners:
        return Advice("wfx", f"no vCPU has a CPU of its own: {left_out}", figures=figures)
    if not waiting:
        reason = f"no vCPU with a CPU of its own makes {MIN_WFX_EXITS:g} WFx exits a second"
        if left_out:
            reason = f"{reason}; left out: {left_out}"
        return Advice("wfx", reason, figures=figures)
    if WFX not in load.now.files:
        reason = (
            f"vCPUs {_list(waiting)} have CPUs of their own and wait often; this kernel cannot untrap them"
        )
        return Advice("wfx", reason, figures=figures)
    return _untrapped(load, system, waiting, left_out, figures)


def _untrapped(
    load: Load,
    system: Sequence[VmLoad],
    waiting: Sequence[int],
    left_out: str,
    figures: Mapping[str, float],
) -> Advice:
    settings = {"wfx": CpuMask(frozenset(waiting)).to_hex()}
    guard = ""
    if WFX_GUARD in load.now.files:
        settings = {"wfx-guard": "Y", **settings}
        guard = "; the guard traps again while something else wants their CPU"
    threads = [vcpu for vm in system for vcpu in vm.vcpus if vcpu.now.vcpu in waiting]
    exits = sum(_waits(system, vcpu) for vcpu in waiting)
    return Advice(
        "wfx",
        f"vCPUs {_list(waiting)} of {_count(len(system), 'VM')} are each pinned to a CPU of {_its(threads)}, "
        f"beside them at most {max(vcpu.beside or 0 for vcpu in threads):.1%} of it went to others"
        f"{f'; left out: {left_out}' if left_out else ''}",
        settings,
        gain=f"up to {exits:.0f} exits a second fewer, and as many sleeps and wake-ups of vCPU threads",
        cost=(
            f"{_count(len(threads), 'physical CPU')} that show as 100 % busy and reach no idle state "
            f"deeper than WFI{guard}"
        ),
        figures=figures,
    )


def _by_vm(load: Load, system: Sequence[VmLoad], waiting: Sequence[int]) -> str:
    """What masks of their own VMs could have beyond that for all, where the kernel has such masks."""
    told = []
    for vm in system:
        path = f"{KVM}/{vm.now.folder}/wfx_trap_config"
        mask = CpuMask(
            frozenset(
                vcpu.now.vcpu
                for vcpu in vm.vcpus
                if vcpu.now.vcpu not in _refused(load.vms, [vm])
                and _waits([vm], vcpu.now.vcpu) >= MIN_WFX_EXITS
            )
        )
        if path in load.now.files and not mask <= CpuMask(frozenset(waiting)):
            told.append(f"; VM {vm.now.name} alone could have {mask.both_forms()}, written to its {path}")
    return "".join(told)


def _refused(every: Sequence[VmLoad], those: Sequence[VmLoad]) -> dict[int, str]:
    """The ids of vCPUs that lack a CPU of their own in one of those VMs, for which one mask is, and why."""
    why = unowned([vm.now for vm in every])
    refused: dict[int, str] = {}
    for vm in those:
        for vcpu in vm.vcpus:
            if shares := why.get((vm.now.folder, vcpu.now.vcpu)) or _disturbed(vcpu):
                refused.setdefault(vcpu.now.vcpu, f"vCPU {vcpu.now.vcpu} of VM {vm.now.name} {shares}")
    return refused


def _disturbed(vcpu: VcpuLoad) -> str:
    """What shows that others run on the CPU that a vCPU is bound to; nothing if they do not."""
    if vcpu.beside is not None and vcpu.beside > MAX_BESIDE:
        return f"shares CPU {vcpu.now.pinned_to} with others, which took {vcpu.beside:.0%} of it"
    if vcpu.waited > MAX_WAITED:
        return f"waited {vcpu.waited:.1%} of the time for CPU {vcpu.now.pinned_to}"
    return ""


def _waits(vms: Sequence[VmLoad], vcpu: int) -> float:
    """Exits for WFI and WFE a second of the vCPUs with that id; a VM's where they are counted for it only."""
    return sum(
        vm.wfx_exits / len(vm.vcpus) if one.wfx_exits is None else one.wfx_exits
        for vm in vms
        for one in vm.vcpus
        if one.now.vcpu == vcpu
    )


def _most(vms: Sequence[VmLoad], vcpu: int) -> float:
    """The most that one vCPU with that id makes of them."""
    return max(_waits([vm], vcpu) for vm in vms)


def _named(load: Load) -> CpuMask:
    try:
        return CpuMask.from_hex(load.now.get(WFX) or "0")
    except ValueError:
        return CpuMask(frozenset())


# Words


def _overcommitted(load: Load) -> str:
    """Why nothing may poll here; nothing if vCPUs seem to own their CPUs."""
    steal = _steal(load)
    if steal <= MAX_STEAL:
        return ""
    return f"this guest is overcommitted: its vCPUs lost {steal:.1%} of a CPU's time to others (steal)"


def _lost(load: Load) -> str:
    if not counts_steal(load.now):
        return "and whether others take their physical CPUs is not told here (no steal clock): ask the host"
    return f"steal is {_steal(load):.1%}"


def _steal(load: Load) -> float:
    return max((one.steal for one in load.cpus.values()), default=0.0)


def _takers(cpus: Sequence[int], rates: Mapping[int, float]) -> str:
    each = ", ".join(f"{rates[cpu]:.0f}" for cpu in cpus)
    if len(cpus) == 1:
        return f"CPU {_list(cpus)} takes {each} IPIs a second"
    return f"CPUs {_list(cpus)} take {each} IPIs a second"


def _they(cpus: Sequence[int]) -> str:
    return "they" if len(cpus) > 1 else "it"


def _its(threads: Sequence[VcpuLoad]) -> str:
    return "its own, reserved" if all(vcpu.reserved for vcpu in threads) else "its own"


def _reasons(refused: Mapping[int, str]) -> str:
    return "; ".join(refused.values())


def _list(cpus: Sequence[int]) -> str:
    return CpuMask(frozenset(cpus)).to_list()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _round_up(number: float, step: int) -> int:
    return -int(-number // step) * step


def _between(ends: tuple[int, int], number: int) -> int:
    return max(ends[0], min(ends[1], number))
