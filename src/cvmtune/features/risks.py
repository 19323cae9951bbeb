# SPDX-License-Identifier: Apache-2.0
"""What is wrong or risky on a machine as it is set up now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.cq_poll.knob import MOUNTS, OFF, rdma_mounts
from cvmtune.features.status import Feature
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.platform import Place
from cvmtune.observe.procfs import parse_cpu_times
from cvmtune.observe.vms import Vm, unowned, vms

# Share of its time that a vCPU may lose to others; above it, it does not own its CPU. Recorded in the lab: at
# most 8 % where it does, on a busy computer, and 34 % or more where four vCPUs share one CPU.
MAX_STEAL = 0.1
# A guest's kernel that has found stolen time (arch/arm64/kernel/paravirt.c) prepares it on each CPU.
_PV_TIME = "hypervisor/arm/pvtime"
_STATE = re.compile(rf"({CPUS}/cpu(\d+)/cpuidle/state[1-9]\d*)/disable")
# Names of states above 0 that are no deeper: WFI, and what polls before it (cpuidle-haltpoll).
_SHALLOW = ("wfi", "poll", "haltpoll idle")


@dataclass(frozen=True)
class Risk:
    """Something wrong or risky, and what to do about it."""

    what: str
    next_step: str


def risks(capture: Capture, where: Place, known: Sequence[Feature]) -> list[Risk]:
    """Return what is wrong or risky, the features' own problems included."""
    settings = {name: value for feature in known for name, value in feature.settings.items()}
    mask = CpuMask.from_hex(settings.get("ipi", "0"))
    return [
        *_unknown(capture, known),
        *_vendor(capture, where, known),
        *_soft_ipi(capture, where, mask, settings.get("ipi-poll-us")),
        *_poller(capture, settings),
        *_untrapped(vms(capture), settings),
    ]


def own_cpus(capture: Capture, where: Place) -> bool | None:
    """Tell whether vCPUs have physical CPUs of their own: of a guest its own, of a host all its VMs'.

    None if it cannot be told. In a guest it shows by what it lost since boot, where that is counted.
    """
    if where.role == "guest":
        if not counts_steal(capture):
            return None
        times = parse_cpu_times(capture.files.get("/proc/stat", "")).values()
        return all(one.steal <= MAX_STEAL * max(1, one.total) for one in times) if times else None
    machines = vms(capture)
    if where.role != "host" or not machines or not all(vm.vcpus for vm in machines):
        return None
    return not unowned(machines)


def counts_steal(capture: Capture) -> bool:
    """Tell whether a guest learns of the time that its vCPUs lose. Where it does not, 0 is shown."""
    return _PV_TIME in (capture.get(f"{CPUS}/hotplug/states") or "")


def deep_idle(capture: Capture, cpus: CpuMask) -> CpuMask:
    """Those of the CPUs that may go to an idle state deeper than WFI, which is state 0 on arm64."""
    able = {
        int(match[2])
        for match, text in capture.matching(_STATE)
        if text.strip() == "0" and (capture.get(f"{match[1]}/name") or "").lower() not in _SHALLOW
    }
    return CpuMask(cpus.cpus & able)


def nohlt(capture: Capture) -> bool:
    """Tell whether idle CPUs poll in the generic idle loop, by the command line, and not for soft IPIs."""
    return "nohlt" in (capture.get("/proc/cmdline") or "").split()


def _unknown(capture: Capture, known: Sequence[Feature]) -> Iterator[Risk]:
    for feature in known:
        if feature.status == "unknown":
            yield Risk(f"{feature.name}: {feature.problem.splitlines()[0]}", "look at the kernel's log")
    if "/sys/kernel/debug" in capture.unreadable:
        yield Risk(
            "statistics and VMs are not seen: debugfs cannot be read", "run as root, with debugfs mounted"
        )


def _vendor(capture: Capture, where: Place, known: Sequence[Feature]) -> Iterator[Risk]:
    if where.flavour != "vendor":
        return
    there = {feature.name for feature in known if feature.status in ("on", "off", "unknown")}
    masks = [name for name in ("ipi", "wfx") if name in there]
    if masks:
        yield Risk(
            f"after a mask that does not parse this vendor's kernel hangs ({' and '.join(masks)})",
            "set masks by cvmtune alone: it writes none but those it has printed itself",
        )
    if "cq-poll" in there:
        mounts = rdma_mounts(capture.files.get(MOUNTS, ""))
        what = (
            f"NFS is mounted over RDMA on {', '.join(mounts)}: its I/O hangs if polling is changed now"
            if mounts
            else "this vendor's kernel polls only what is mounted after polling was turned on"
        )
        yield Risk(what, "turn polling on before mounting, and off only after unmounting")


def _soft_ipi(capture: Capture, where: Place, mask: CpuMask, bound: str | None) -> Iterator[Risk]:
    if not mask:
        return
    named = f"CPUs {mask.to_list()} poll for IPIs"
    if where.role == "host":
        yield Risk(f"{named} on a host, where an IPI costs no exit", "turn it off: cvmtune apply --ipi off")
    if own_cpus(capture, where) is False and where.role == "guest":
        yield Risk(
            f"{named}, and this guest's vCPUs lose time to others (steal): they poll while others wait",
            "turn it off, or give the vCPUs physical CPUs of their own",
        )
    if mask >= where.online and where.online and bound in (None, "0"):
        yield Risk(
            f"all {len(where.online)} CPUs poll without a bound: as many physical CPUs are busy, always",
            "bound it where the kernel can (setting ipi-poll-us), or name only those that take many IPIs",
        )
    if offline := mask - where.online:
        yield Risk(
            f"CPUs {offline.to_list()} are to poll, and are offline", "bring them online, or name others"
        )
    if deep := deep_idle(capture, mask):
        yield Risk(
            f"CPUs {deep.to_list()} are to poll, and cpuidle may take them deeper than WFI, where none does",
            f"disable those states: {CPUS}/cpu*/cpuidle/state*/disable",
        )
    if nohlt(capture):
        yield Risk(
            f"{named}, but with nohlt all CPUs poll elsewhere, and take IPIs by hardware",
            "boot without nohlt",
        )


def _poller(capture: Capture, settings: dict[str, str]) -> Iterator[Risk]:
    if settings.get("cq-poll", OFF) != OFF and settings.get("cq-idle-us") == "0":
        yield Risk(
            f"the poller on CPU {settings['cq-poll']} never sleeps while there is a queue",
            "set a window: /sys/module/ib_core_cq_poll/parameters/idle_us, or profile nfs-client",
        )


def _untrapped(machines: Sequence[Vm], settings: dict[str, str]) -> Iterator[Risk]:
    system = CpuMask.from_hex(settings.get("wfx", "0"))
    guarded = settings.get("wfx-guard") == "Y"
    why = unowned(machines)
    for vm in machines:
        named = system if vm.own_mask is None else vm.own_mask
        shared = [vcpu.vcpu for vcpu in vm.vcpus if vcpu.vcpu in named and (vm.folder, vcpu.vcpu) in why]
        if shared and not guarded:
            first = shared[0]
            yield Risk(
                f"WFx of vCPUs {CpuMask(frozenset(shared)).to_list()} of VM {vm.name} is not trapped, "
                f"and vCPU {first} {why[vm.folder, first]}: idle, it takes its CPU from others",
                "pin each to a CPU of its own, take it off the mask, or turn the guard on (wfx-guard)",
            )
