# SPDX-License-Identifier: Apache-2.0
"""The CPU on which the poller is to be, and the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown, known
from cvmtune.features.feature import NOBODY, Advice
from cvmtune.features.words import named_cpus
from cvmtune.observe.isolation import kept, nodes, siblings
from cvmtune.observe.load import Load

# Share of its time that a CPU must idle to take the poller.
MIN_POLLER_IDLE = 0.25
# Share of its time that a core's thread may be busy if the poller is not to be in its way: threads of a core
# share what that can do.
MAX_BUSY = 0.5

_DEVICE_NODE = re.compile(r"/sys/class/infiniband/([^/]+)/device/numa_node")


@dataclass(frozen=True)
class Placement:
    """A CPU, or None; `why` tells what spoke for it, or what kept others from it, in clauses."""

    cpu: int | None
    why: str


def place(load: Load, before: Sequence[Advice]) -> Placement:
    """Choose the CPU that idles most; of equals the last, as the first does the machine's chores.

    Never one that is kept for others. Rather one that does not poll already, that shares its core with
    nobody busy, that is on the RDMA device's node, in this order.
    """
    polling = NOBODY
    for one in before:
        polling |= one.polling
    taken = kept_for_others(load)
    idle = {cpu: share for cpu, one in load.cpus.items() if (share := known(one.idle)) is not None}
    able = {cpu: share for cpu, share in idle.items() if share >= MIN_POLLER_IDLE and cpu not in taken}
    left_out = _left_out({cpu: why for cpu, why in taken.items() if idle.get(cpu, 0) >= MIN_POLLER_IDLE})
    hidden = [one.idle.why for one in load.cpus.values() if isinstance(one.idle, Unknown)]
    if hidden and not able:
        left_out = f"{left_out}; {hidden[0]}"
    if not able:
        return Placement(None, left_out)
    cores = siblings(load.now)
    near, device = _near(load)

    def rank(cpu: int) -> tuple[bool, bool, bool, float, int]:
        # A CPU that polls for IPIs has its idle time taken; still it is better than none.
        core = cores.get(cpu, NOBODY)
        alone = able[cpu] >= 1 - MAX_BUSY and not _disturbed(load, polling, taken, core)
        return (cpu not in polling, alone, not near or cpu in near, round(able[cpu], 1), cpu)

    chosen = max(able, key=rank)
    return Placement(chosen, f"{_for_it(load, polling, taken, cores, chosen, near, device)}{left_out}")


def _for_it(
    load: Load,
    polling: CpuMask,
    taken: Mapping[int, str],
    cores: Mapping[int, CpuMask],
    cpu: int,
    near: CpuMask,
    device: str,
) -> str:
    """What the core and the node of the chosen CPU are."""
    said = ""
    if beside := cores.get(cpu, NOBODY):
        disturbed = _disturbed(load, polling, taken, beside)
        if len(beside) > 1:
            what = "are busy, poll or are another's" if disturbed else "are idle enough"
        else:
            what = "is busy, polls or is another's" if disturbed else "is idle enough"
        threads = "the other threads" if len(beside) > 1 else "the other thread"
        said = f"; {threads} of its core (SMT), {named_cpus(beside)}, {what}"
    if near:
        said += f"; it is {'' if cpu in near else 'not '}on {device}'s NUMA node"
    return said


def kept_for_others(load: Load) -> dict[int, str]:
    """The CPUs that are kept for others, and why."""
    # To a host a pinned vCPU's CPU looks idle just when it waits for that vCPU's work.
    pinned = {
        vcpu.now.pinned_to: f"vCPU {vcpu.now.vcpu} of VM {vm.now.name}'s"
        for vm in load.vms
        for vcpu in vm.vcpus
        if vcpu.now.pinned_to is not None
    }
    return {**dict.fromkeys(load.place.isolated, "isolated"), **kept(load.now), **pinned}


def _disturbed(load: Load, polling: CpuMask, taken: Mapping[int, str], beside: CpuMask) -> bool:
    """Tell whether one of these CPUs, the other threads of a core, has work of its own."""
    for cpu in beside:
        busy = load.cpus[cpu].busy if cpu in load.cpus else 0.0
        if cpu in polling or cpu in taken or isinstance(busy, Unknown) or busy > MAX_BUSY:
            return True
    return False


def _near(load: Load) -> tuple[CpuMask, str]:
    """The CPUs on the nodes of the RDMA devices, of those at work if some are; and the devices' names."""
    found = {
        match[1]: int(text)
        for match, text in load.now.matching(_DEVICE_NODE)
        if text.strip().isdecimal()  # -1: it has none
    }
    at_work = {name.partition("/")[0] for name, rate in load.rdma.items() if not isinstance(rate, Unknown)}
    devices = {name: node for name, node in found.items() if name in at_work} or found
    of = nodes(load.now)
    near = CpuMask(frozenset(cpu for cpu, node in of.items() if node in devices.values()))
    return near, ", ".join(sorted(devices))


def _left_out(taken: Mapping[int, str]) -> str:
    by_reason: dict[str, set[int]] = {}
    for cpu, why in taken.items():
        by_reason.setdefault(why, set()).add(cpu)
    # Brackets in brackets are hard to read.
    told = (
        f"{named_cpus(cpus)} ({why.replace(' (', ': ').removesuffix(')')})" for why, cpus in by_reason.items()
    )
    return f"; left out: {', '.join(told)}" if by_reason else ""
