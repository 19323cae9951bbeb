# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough: the guest's mask of CPUs that wait in their idle loop for IPIs handed over in memory.

A mask with CPUs that the machine cannot have does not parse, so none is ever written.
"""

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.tuning.file_knob import MaskKnob, read_cpus
from cvmtune.tuning.parameter import Microseconds

PATH = "/sys/kernel/soft_ipi_passthrough"
# Its row of /proc/interrupts: the IPIs that were taken softly.
ROW = "SIPI"
POSSIBLE = "/sys/devices/system/cpu/possible"
# There only with our patches.
POLL_US = "/sys/module/soft_ipi/parameters/poll_us"


class SoftIpi(MaskKnob):
    """The knob; values are hex masks of CPUs."""

    path = PATH
    form = "give a hex mask such as 'c' for CPUs 2 and 3"
    missing = "the running kernel has no soft IPI passthrough"

    def _permit(self, system: System, *values: CpuMask) -> None:
        # "Off" must not fail for want of what it does not need.
        if not any(values):
            return
        possible = read_cpus(system, POSSIBLE)
        self._confine(values, possible, "CPUs that this machine cannot have", POSSIBLE)


class IpiPollUs(Microseconds):
    """How long a CPU that the mask names polls at most, in microseconds; "0" is without bound."""

    path = POLL_US
    noun = "polling bound"
    missing = "only a kernel with cvmtune's patches has soft IPI passthrough's bound, and this one has not"
