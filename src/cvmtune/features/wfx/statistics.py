# SPDX-License-Identifier: Apache-2.0
"""What our kernel on the host counts of a VM's vCPUs: WFI and WFE, and entries."""

from __future__ import annotations

from cvmtune.experiments.host import VmFile, VmStatistics
from cvmtune.features.wfx.vms import STATISTICS

FILE = VmFile(STATISTICS)
WFX_COLUMNS = ("wfi_exits", "wfe_exits")


def wfx_exits(vm: VmStatistics) -> int:
    """Exits for WFI and WFE of all vCPUs so far."""
    return sum(row[column] for row in vm.files[FILE.name].values() for column in WFX_COLUMNS)
