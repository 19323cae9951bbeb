# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough: the guest's mask of CPUs that wait in their idle loop for IPIs handed over in memory.

The file takes and gives a hex mask. A kernel may keep its spinlock for ever after a mask that does not parse,
so what is written is always a mask printed by CpuMask, never a text that came from elsewhere, and never one
with CPUs that the machine cannot have. Kernels pad masks differently, so they are compared as sets.
"""

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.knobs.contract import KnobError
from cvmtune.knobs.files import FileKnob, read_cpus

PATH = "/sys/kernel/soft_ipi_passthrough"
POSSIBLE = "/sys/devices/system/cpu/possible"


class SoftIpi(FileKnob):
    """The knob; values are hex masks as CpuMask.to_hex() prints them, "0" is off."""

    name = "soft_ipi"
    path = PATH
    noun = "mask"
    form = "give a hex mask such as 'c' for CPUs 2 and 3"
    missing = "the running kernel has no soft IPI passthrough"

    def _canonical(self, text: str) -> str:
        return CpuMask.from_hex(text).to_hex()

    def _permit(self, system: System, *values: str) -> None:
        possible = read_cpus(system, POSSIBLE)
        for value in values:
            impossible = CpuMask.from_hex(value) - possible
            if impossible:
                raise KnobError(
                    f"mask {value} names CPUs that this machine cannot have: {impossible.to_list()}",
                    POSSIBLE,
                    f"name only CPUs of {possible.to_list()}",
                )
