# SPDX-License-Identifier: Apache-2.0
"""The virtual timer on a host: the modes of its VMs, and what was counted since their start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.core.figure import Unknown
from cvmtune.features.feature import FeatureStatus
from cvmtune.features.status import in_words, of_vms
from cvmtune.features.vtimer.knob import FILE
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Platform
from cvmtune.observe.vms import Vm, unread, unseen, vms

STATISTICS = "vtimer_stats"
_COLUMNS = ("entries", "masked_entries", "timer_exits", "redundant_exits")


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return the mode of each VM that has one, and how many exits their timers made."""
    machines = vms(capture)
    modes = modes_of(machines)
    if where.role != "host":
        return FeatureStatus("vtimer", "elsewhere", problem="it is the monitor's and the host's")
    if not modes:
        if hidden := unseen(capture) or unread(machines):
            unknown = dict.fromkeys(_COLUMNS, Unknown(hidden))
            return FeatureStatus("vtimer", "unknown", problem=hidden, statistics=unknown)
        return FeatureStatus("vtimer", "absent", problem="no VM here has it")
    statistics = of_vms((vm for vm in machines if _may_have(vm)), STATISTICS, _COLUMNS)
    told = [f"VM {name}: {mode}" for name, mode in modes.items()]
    told += [f"VM {vm.name}: cannot be read" for vm in machines if FILE in vm.unreadable]
    exits = in_words(statistics["timer_exits"], "timer exits")
    did = f"{', '.join(told)}; {exits}, {in_words(statistics['redundant_exits'], 'redundant')}"
    on = "masked" in modes.values()
    return FeatureStatus("vtimer", "on" if on else "off", did=did, statistics=statistics)


def _may_have(vm: Vm) -> bool:
    return FILE in vm.files or FILE in vm.unreadable


def modes_of(machines: Sequence[Vm]) -> Mapping[str, str]:
    """The mode of each VM that has one, by the VM's name."""
    return {vm.name: vm.files[FILE].strip() for vm in machines if FILE in vm.files}
