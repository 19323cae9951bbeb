# SPDX-License-Identifier: Apache-2.0
"""The virtual timer on a host: the modes of its VMs, and what was counted since their start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.features.feature import FeatureStatus
from cvmtune.features.status import sums
from cvmtune.features.vtimer.knob import FILE
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_counts
from cvmtune.observe.vms import Vm, vms

STATISTICS = "vtimer_stats"


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return the mode of each VM that has one, and how many exits their timers made."""
    machines = vms(capture)
    modes = modes_of(machines)
    if where.role != "host":
        return FeatureStatus("vtimer", "elsewhere", problem="it is the monitor's and the host's")
    if not modes:
        return FeatureStatus("vtimer", "absent", problem="no VM here has it")
    rows = [row for vm in machines for row in parse_counts(vm.files.get(STATISTICS, ""))]
    statistics = sums(rows, ("entries", "masked_entries", "timer_exits", "redundant_exits"))
    did = f"{statistics['timer_exits']:.0f} timer exits, {statistics['redundant_exits']:.0f} redundant"
    told = ", ".join(f"VM {name}: {mode}" for name, mode in modes.items())
    on = "masked" in modes.values()
    return FeatureStatus("vtimer", "on" if on else "off", did=f"{told}; {did}", statistics=statistics)


def modes_of(machines: Sequence[Vm]) -> Mapping[str, str]:
    """The mode of each VM that has one, by the VM's name."""
    return {vm.name: vm.files[FILE].strip() for vm in machines if FILE in vm.files}
