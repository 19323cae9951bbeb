# SPDX-License-Identifier: Apache-2.0
"""What a machine's CPUs are to its kernel: whether they are its own, and how they idle."""

from __future__ import annotations

import re

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.container import view
from cvmtune.observe.firmware import PV_TIME
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_cpu_times, uptime
from cvmtune.observe.steal import Lost, most, shares, since_boot
from cvmtune.observe.vms import doubt, unowned, vms

_HOTPLUG = f"{CPUS}/hotplug/states"
_STATE = re.compile(rf"({CPUS}/cpu(\d+)/cpuidle/state[1-9]\d*)/disable")
# Names of states above 0 that are no deeper: WFI, and what polls before it (cpuidle-haltpoll).
_SHALLOW = ("wfi", "poll", "haltpoll idle")


def own_cpus(capture: Capture, where: Platform) -> bool | None:
    """Tell whether vCPUs have physical CPUs of their own: of a guest its own, of a host all its VMs'.

    None if it cannot be told. In a guest it shows by what it loses, where that is counted.
    """
    if where.role == "guest":
        too_much = stolen(capture, where).too_much
        return None if too_much is None else not too_much
    machines = vms(capture)
    if where.role != "host" or not machines or doubt(capture):
        return None
    return not unowned(machines)


def stolen(capture: Capture, where: Platform) -> Lost:
    """Return what a guest's CPUs lose to others: since the machine was looked at earlier, else since boot."""
    if why := view(capture):
        return Lost(Unknown(why), -1, "since boot")
    if not counts_steal(capture):
        hidden = _HOTPLUG not in capture.files
        why = capture.why_not(_HOTPLUG) if hidden else "its hypervisor does not tell it"
        return Lost(Unknown(why), -1, "since boot")
    times = parse_cpu_times(capture.files.get("/proc/stat", ""))
    missing = {
        cpu: Unknown(f"CPU {cpu}: {capture.why_not('/proc/stat')}")
        for cpu in where.online
        if cpu not in times
    }
    earlier = capture.earlier
    seconds = uptime(capture.files) - uptime(earlier.files) if earlier else 0.0
    # Where no time has passed, or it is not known, what was lost since boot is all there is to go by.
    if earlier is None or not seconds > 0:
        found = since_boot(times)
        return most({found.cpu: found.share, **missing}, found.over) if missing else found
    gone = Unknown("a CPU has come meanwhile")
    then = parse_cpu_times(earlier.files.get("/proc/stat", ""))
    lost = {cpu: shares(then.get(cpu, gone), one, cpu).steal for cpu, one in times.items()}
    return most({**lost, **missing}, f"in the last {seconds:.1f} s")


def counts_steal(capture: Capture) -> bool:
    """Tell whether a guest learns of the time that its vCPUs lose. Where it does not, 0 is shown."""
    return PV_TIME in (capture.get(_HOTPLUG) or "")


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
