# SPDX-License-Identifier: Apache-2.0
"""Module parameters that bound what a feature takes from others. Only kernels with our patches have them.

Any value is safe at any time, so unlike the features' own controls these need no look at the machine.
"""

import re

from cvmtune.core.system import System
from cvmtune.features.wfx.knob import GUARD
from cvmtune.tuning.file_knob import FileKnob

IPI_POLL_US = "/sys/module/soft_ipi/parameters/poll_us"
CQ_IDLE_US = "/sys/module/ib_core_cq_poll/parameters/idle_us"

# The kernel keeps them as unsigned int, and takes a leading zero for octal.
_MAX_US = (1 << 32) - 1
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")

# What users write, in any case, for the kernel's own Y and N.
_SWITCH = {"y": "Y", "1": "Y", "on": "Y", "n": "N", "0": "N", "off": "N"}


class _Parameter(FileKnob):
    def _permit(self, system: System, *values: str) -> None:
        """Any value that has a canonical form may be set."""


class _Microseconds(_Parameter):
    form = f"give a whole number of microseconds, 0 to {_MAX_US}, without leading zeros"

    def _canonical(self, text: str) -> str:
        value = text.strip()
        if not _NUMBER.fullmatch(value) or int(value) > _MAX_US:
            raise ValueError(f"{text!r} is no number of microseconds from 0 to {_MAX_US}")
        return value


class IpiPollUs(_Microseconds):
    """How long a CPU that soft IPI passthrough names polls at most, in microseconds; "0" is without bound."""

    name = "ipi-poll-us"
    path = IPI_POLL_US
    noun = "polling bound"
    missing = "only a kernel with cvmtune's patches has soft IPI passthrough's bound, and this one has not"


class CqIdleUs(_Microseconds):
    """How long the thread polls on after the last completion, in microseconds; "0" is for ever."""

    name = "cq-idle-us"
    path = CQ_IDLE_US
    noun = "idle window"
    missing = "ib_core_cq_poll is not loaded, or is not that of a kernel with cvmtune's patches"
    remedy = "modprobe ib_core_cq_poll"


class WfxGuard(_Parameter):
    """Whether named vCPUs are trapped while others want their CPU, "Y" or "N"."""

    name = "wfx-guard"
    path = GUARD
    noun = "guard"
    form = "give Y or N"
    missing = "only the host's kernel, with cvmtune's patches, has the guard of WFx traps"

    def _canonical(self, text: str) -> str:
        try:
            return _SWITCH[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{text!r} is neither Y nor N") from None
