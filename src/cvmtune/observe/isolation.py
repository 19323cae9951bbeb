# SPDX-License-Identifier: Apache-2.0
"""Which CPUs are kept from ordinary tasks, and which share a core or a node."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import CGROUPS, CPUS, PARTITIONS, Capture
from cvmtune.observe.vms import Vcpu, Vm

_SIBLINGS = re.compile(rf"{CPUS}/cpu(\d+)/topology/thread_siblings_list")
_NODE = re.compile(r"/sys/devices/system/node/node(\d+)/cpulist")
_PARTITION = re.compile(rf"({CGROUPS}/.+)/cpuset\.cpus\.partition")
# Lists of CPUs that are kept from tasks, and how they came to be. From Linux 6.12 on the cpusets' has those
# that were isolated at boot as well.
_KEPT = {
    f"{CPUS}/isolated": "isolated (isolcpus)",
    f"{CGROUPS}/cpuset.cpus.isolated": "isolated (a cpuset partition)",
    f"{CPUS}/nohz_full": "without a tick (nohz_full)",
}
_TOP = f"{CGROUPS}/cpuset.cpus.effective"
_OF_PARTITION = re.compile(rf"{CGROUPS}/.+/cpuset\.cpus\.(?:partition|effective)")


def siblings(capture: Capture) -> Mapping[int, CpuMask]:
    """Return the other threads of each CPU's core (SMT), as far as it is shown."""
    return {cpu: mask - CpuMask(frozenset({cpu})) for cpu, mask in _by_cpu(capture, _SIBLINGS).items()}


def nodes(capture: Capture) -> Mapping[int, int]:
    """Return each CPU's NUMA node, as far as it is shown."""
    found = _by_cpu(capture, _NODE)
    return {cpu: node for node, mask in found.items() for cpu in mask}


def _by_cpu(capture: Capture, pattern: re.Pattern[str]) -> dict[int, CpuMask]:
    found = {}
    for match, text in capture.matching(pattern):
        with suppress(ValueError):
            found[int(match[1])] = CpuMask.from_list(text)
    return found


def kept(capture: Capture) -> dict[int, str]:
    """Return the CPUs that are kept from ordinary tasks, and why, as "isolated (isolcpus)"."""
    why: dict[int, str] = {}
    for path, words in _KEPT.items():
        for cpu in _mask(capture, path):
            why.setdefault(cpu, words)
    for cpu in partitioned(capture):
        why.setdefault(cpu, "a cpuset partition's")
    return why


def kept_untold(capture: Capture) -> str:
    """Return why it cannot be told which CPUs are kept from ordinary tasks, as a clause; "" if it can."""
    for path in (*_KEPT, _TOP):
        if path in capture.unreadable or _is_odd(capture.get(path)):
            return capture.why_not(path)
    if _TOP in capture.files:
        # It tells the same as all partitions do.
        return capture.why_not(f"{CPUS}/online") if f"{CPUS}/online" in capture.unreadable else ""
    hidden = (
        path
        for path, number in capture.unreadable.items()
        # A group that went meanwhile keeps nothing.
        if _OF_PARTITION.fullmatch(path) and number != errno.ENODEV
    )
    return next((capture.why_not(path) for path in hidden), "")


def _is_odd(text: str | None) -> bool:
    """Tell whether a text is no list of CPUs, nor what some kernels show for no CPU."""
    try:
        CpuMask.from_list("" if text in (None, "(null)") else text or "")
    except ValueError:
        return True
    return False


def no_tick(capture: Capture) -> CpuMask:
    """Return the CPUs that take no tick while they run one task alone (nohz_full)."""
    return _mask(capture, f"{CPUS}/nohz_full")


def partitioned(capture: Capture) -> CpuMask:
    """Return the CPUs that a cpuset keeps from all others (admin-guide/cgroup-v2.rst, cpuset partitions)."""
    found = CpuMask(frozenset())
    for match, text in capture.matching(_PARTITION):
        if text.strip() in PARTITIONS:
            found |= _mask(capture, f"{match[1]}/cpuset.cpus.effective")
    # What is online and not the top cpuset's is some partition's, however deep.
    top = _mask(capture, _TOP)
    return found | (_mask(capture, f"{CPUS}/online") - top if top else found)


def _mask(capture: Capture, path: str) -> CpuMask:
    with suppress(ValueError):
        return CpuMask.from_list(capture.get(path) or "")
    # "(null)" is what some kernels show for no CPU.
    return CpuMask(frozenset())


def core_sharing(capture: Capture, machines: Sequence[Vm]) -> tuple[dict[tuple[str, int], str], list[str]]:
    """Tell which pinned vCPUs are on two threads of one core.

    Return those beside whose CPU another VM's may run, by VM's folder and id, and why; and pairs of one VM's,
    in words.
    """
    owners = {
        vcpu.pinned_to: (vm, vcpu) for vm in machines for vcpu in vm.vcpus if vcpu.pinned_to is not None
    }
    beside = siblings(capture)
    takers = _takers(machines, {sibling for cpu in owners for sibling in beside.get(cpu, ())})
    strangers: dict[tuple[str, int], str] = {}
    pairs = []
    for cpu, (vm, vcpu) in owners.items():
        for sibling in beside.get(cpu, ()):
            for other, its in takers.get(sibling, {}).values():
                if other.process != vm.process:
                    strangers[vm.folder, vcpu.vcpu] = (
                        f"shares CPU {cpu}'s core with CPU {sibling}, {_whose(other, its)} (SMT)"
                    )
            if cpu < sibling and sibling in owners and owners[sibling][0].process == vm.process:
                its = owners[sibling][1]
                pairs.append(f"{vcpu.vcpu} and {its.vcpu} of VM {vm.name} (CPUs {cpu} and {sibling})")
    return strangers, pairs


def _takers(machines: Sequence[Vm], cpus: Set[int]) -> dict[int, dict[str, tuple[Vm, Vcpu]]]:
    """Who may run on each of these CPUs: a vCPU of one process, and one of another if there is."""
    found: dict[int, dict[str, tuple[Vm, Vcpu]]] = {cpu: {} for cpu in cpus}
    for vm in machines:
        # Most vCPUs of a VM that is not pinned may run on the same CPUs.
        for vcpu in {vcpu.allowed: vcpu for vcpu in vm.vcpus}.values():
            for cpu in vcpu.allowed.cpus & cpus:
                if len(found[cpu]) < 2:
                    found[cpu].setdefault(vm.process, (vm, vcpu))
    return found


def _whose(vm: Vm, vcpu: Vcpu) -> str:
    if vcpu.pinned_to is None:
        return f"where vCPUs of VM {vm.name} may run"
    return f"vCPU {vcpu.vcpu} of VM {vm.name}'s"
