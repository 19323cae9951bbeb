# SPDX-License-Identifier: Apache-2.0
"""The virtual timer of one VM: how its host and the monitor treat it.

Each confidential VM has a file of its own in KVM's debugfs (docs/kernel-abi.md), which goes with the VM.
"""

import re

from cvmtune.tuning.parameter import Nanoseconds, Words

FILE = "vtimer_mode"
MODES = ("masked", "hw", "unmasked")


class VtimerMode(Words):
    """The knob of the VM with this folder in debugfs; values are MODES. Any mode may follow any other."""

    pattern = re.compile("|".join(MODES))

    noun = "mode"
    form = f"give one of {', '.join(MODES)}"
    missing = "this VM is not confidential, has ended, or its kernel lacks the modes"

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/{FILE}"


class VtimerTravel(Nanoseconds):
    """How long a timer's interrupt travels in the model of a monitor that does not mask (option
    KVM_CVM_VTIMER_MODEL), in nanoseconds."""

    path = "/sys/module/kvm/parameters/vtimer_travel_ns"
    noun = "travel time"
    missing = "the host's kernel lacks the model (KVM_CVM_VTIMER_MODEL)"
