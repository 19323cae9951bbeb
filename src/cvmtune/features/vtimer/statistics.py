# SPDX-License-Identifier: Apache-2.0
"""What the host and the monitor count of a VM's virtual timer.

A timer exit is an exit that the timer's physical interrupt caused. Where the monitor has the timer, or could
have it, it counts them; an ordinary VM's are the interrupts of that name that the host took.
"""

from __future__ import annotations

from cvmtune.experiments.guest import named_interrupts
from cvmtune.experiments.host import VmFile, VmStatistics
from cvmtune.features.vtimer.status import STATISTICS

# There for a confidential VM alone.
FILE = VmFile(STATISTICS, optional=True)
# What the host's /proc/interrupts calls its guests' timers.
HOST_ROW = "kvm guest vtimer"
# Where our kernel counts every vCPU's entries into its guest, each of which follows an exit.
ENTRIES_FILE = VmFile("wfx_trap_stats")


def timer_exits(vm: VmStatistics, vcpu: int) -> int:
    """Exits that the vCPU's timer has caused; an ordinary VM's are pinned, one vCPU a CPU."""
    if counted := vm.files.get(FILE.name):
        return counted[vcpu]["timer_exits"]
    return named_interrupts(vm.interrupts, HOST_ROW)[vcpu]


def all_timer_exits(vm: VmStatistics) -> int:
    """The same of all vCPUs."""
    if counted := vm.files.get(FILE.name):
        return sum(timer_exits(vm, vcpu) for vcpu in counted)
    return sum(named_interrupts(vm.interrupts, HOST_ROW))


def redundant_exits(vm: VmStatistics) -> int | None:
    """Exits of all vCPUs for a timer whose expiry the host knew of; None where nobody counts them."""
    counted = vm.files.get(FILE.name)
    return sum(row["redundant_exits"] for row in counted.values()) if counted else None
