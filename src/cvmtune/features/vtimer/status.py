# SPDX-License-Identifier: Apache-2.0
"""The virtual timer on a host: the modes of its VMs, what was counted since their start, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.features.feature import Advice, FeatureStatus
from cvmtune.features.status import sums
from cvmtune.features.vtimer.knob import FILE
from cvmtune.observe.capture import Capture
from cvmtune.observe.load import Load
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import parse_counts
from cvmtune.observe.vms import Vm, vms

STATISTICS = "vtimer_stats"


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return the mode of each VM that has one, and how many exits their timers made."""
    machines = vms(capture)
    modes = _modes(machines)
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


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Tell how it stands: there is nothing to choose, the feature is on for confidential VMs."""
    if load.place.role != "host":
        return Advice("vtimer", "it is the monitor's and the host's feature; a guest has nothing to set")
    modes = _modes([vm.now for vm in load.vms])
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


def _modes(machines: Sequence[Vm]) -> Mapping[str, str]:
    return {vm.name: vm.files[FILE].strip() for vm in machines if FILE in vm.files}
