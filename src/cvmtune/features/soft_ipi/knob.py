# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough: the guest's mask of CPUs that wait in their idle loop for IPIs handed over in memory.

A mask with CPUs that the machine cannot have does not parse, so none is ever written.
"""

from cvmtune.core.system import System
from cvmtune.tuning.file_knob import MaskKnob, read_cpus

PATH = "/sys/kernel/soft_ipi_passthrough"
POSSIBLE = "/sys/devices/system/cpu/possible"


class SoftIpi(MaskKnob):
    """The knob; values are hex masks of CPUs."""

    name = "soft_ipi"
    path = PATH
    form = "give a hex mask such as 'c' for CPUs 2 and 3"
    missing = "the running kernel has no soft IPI passthrough"

    def _permit(self, system: System, *values: str) -> None:
        possible = read_cpus(system, POSSIBLE)
        self._confine(values, possible, "CPUs that this machine cannot have", POSSIBLE)
