# SPDX-License-Identifier: Apache-2.0
"""What a machine's CPUs are to its kernel: whether they are its own, and how they idle."""

from __future__ import annotations

import re

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.firmware import PV_TIME
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_cpu_times
from cvmtune.observe.vms import doubt, unowned, vms

# Share of its time that a vCPU may lose to others; above it, it does not own its CPU. Recorded in the lab: at
# most 8 % where it does, on a busy computer, and 34 % or more where four vCPUs share one CPU.
MAX_STEAL = 0.1
_STATE = re.compile(rf"({CPUS}/cpu(\d+)/cpuidle/state[1-9]\d*)/disable")
# Names of states above 0 that are no deeper: WFI, and what polls before it (cpuidle-haltpoll).
_SHALLOW = ("wfi", "poll", "haltpoll idle")


def own_cpus(capture: Capture, where: Platform) -> bool | None:
    """Tell whether vCPUs have physical CPUs of their own: of a guest its own, of a host all its VMs'.

    None if it cannot be told. In a guest it shows by what it lost since boot, where that is counted.
    """
    if where.role == "guest":
        if not counts_steal(capture):
            return None
        times = parse_cpu_times(capture.files.get("/proc/stat", "")).values()
        return all(one.steal <= MAX_STEAL * max(1, one.total) for one in times) if times else None
    machines = vms(capture)
    if where.role != "host" or not machines or doubt(capture):
        return None
    return not unowned(machines)


def counts_steal(capture: Capture) -> bool:
    """Tell whether a guest learns of the time that its vCPUs lose. Where it does not, 0 is shown."""
    return PV_TIME in (capture.get(f"{CPUS}/hotplug/states") or "")


def deep_idle(capture: Capture, cpus: CpuMask) -> CpuMask:
    """Those of the CPUs that may go to an idle state deeper than WFI, which is state 0 on arm64."""
    able = {
        int(match[2])
        for match, text in capture.matching(_STATE)
        if text.strip() == "0" and (capture.get(f"{match[1]}/name") or "").lower() not in _SHALLOW
    }
    return CpuMask(cpus.cpus & able)


def nohlt(capture: Capture) -> bool:
    """Tell whether idle CPUs poll in the generic idle loop, by the command line."""
    return "nohlt" in (capture.get("/proc/cmdline") or "").split()
