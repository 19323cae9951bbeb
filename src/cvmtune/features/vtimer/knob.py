# SPDX-License-Identifier: Apache-2.0
"""The virtual timer of one VM: how its host and the monitor treat it.

Each confidential VM has a file of its own in KVM's debugfs (docs/kernel-abi.md), which goes with the VM.
"""

from cvmtune.core.system import System
from cvmtune.tuning.file_knob import FileKnob
from cvmtune.tuning.parameter import Nanoseconds

FILE = "vtimer_mode"
MODES = ("masked", "hw", "unmasked")


class VtimerMode(FileKnob):
    """The knob of the VM with this folder in debugfs; values are MODES."""

    noun = "mode"
    form = f"give one of {', '.join(MODES)}"
    missing = "this VM is not confidential, has ended, or its kernel lacks the modes"

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/{FILE}"

    def _canonical(self, text: str) -> str:
        value = text.strip()
        if value not in MODES:
            raise ValueError(f"{text!r} is none of {', '.join(MODES)}")
        return value

    def _permit(self, system: System, *values: str) -> None:
        """Any mode may follow any other; which of them a kernel has it says itself."""


class VtimerTravel(Nanoseconds):
    """How long a timer's interrupt travels in the model of a monitor that does not mask (option
    KVM_CVM_VTIMER_MODEL), in nanoseconds."""

    path = "/sys/module/kvm/parameters/vtimer_travel_ns"
    noun = "travel time"
    missing = "the host's kernel lacks the model (KVM_CVM_VTIMER_MODEL)"
