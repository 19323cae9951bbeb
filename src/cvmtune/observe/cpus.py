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

_CMDLINE = "/proc/cmdline"
_HOTPLUG = f"{CPUS}/hotplug/states"
_STATE = re.compile(rf"({CPUS}/cpu(\d+)/cpuidle/state[1-9]\d*)/disable")
# What hides whether a state is disabled: its file, or a directory above that.
_IDLE = re.compile(rf"{CPUS}(?:/cpu(\d+)(?:/cpuidle(?:/state[1-9]\d*(?:/disable)?)?)?)?")
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
    if why := steal_untold(capture):
        return Lost(Unknown(why), -1, "since boot")
    times = parse_cpu_times(capture.files.get("/proc/stat", ""))
    missing = {
        cpu: Unknown(f"CPU {cpu}: {capture.why_not('/proc/stat')}")
        for cpu in where.online
        if cpu not in times
    }
    if not times:
        missing[-1] = Unknown(capture.why_not("/proc/stat"))
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


def steal_untold(capture: Capture) -> str:
    """Return why a guest does not learn of the time that its vCPUs lose, as a clause; "" if it does.

    Where it does not, 0 is shown.
    """
    if why := view(capture):
        return why
    if _HOTPLUG not in capture.files:
        return capture.why_not(_HOTPLUG)
    return "" if PV_TIME in capture.files[_HOTPLUG] else "its hypervisor does not tell it (no steal clock)"


def deep_idle(capture: Capture, cpus: CpuMask) -> CpuMask:
    """Those of the CPUs that may go to an idle state deeper than WFI, which is state 0 on arm64."""
    able = {
        int(match[2])
        for match, text in capture.matching(_STATE)
        if text.strip() == "0" and (capture.get(f"{match[1]}/name") or "").lower() not in _SHALLOW
    }
    return CpuMask(cpus.cpus & able)


def deep_idle_untold(capture: Capture, cpus: CpuMask) -> str:
    """Return why it cannot be told whether the CPUs go to a state deeper than WFI, as a clause; "" if it
    can."""
    for path in capture.unreadable:
        if (match := _IDLE.fullmatch(path)) and (match[1] is None or int(match[1]) in cpus):
            return capture.why_not(path)
    for match, text in capture.matching(_STATE):
        if int(match[2]) in cpus and not text.strip().isdecimal():
            return capture.why_not(match[0])
    return ""


def nohlt_untold(capture: Capture) -> str:
    """Return why it cannot be told whether idle CPUs poll (nohlt), as a clause; "" if it can."""
    return capture.why_not(_CMDLINE) if _CMDLINE in capture.unreadable else ""
