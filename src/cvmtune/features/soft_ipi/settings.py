# SPDX-License-Identifier: Apache-2.0
"""The settings of soft IPI passthrough, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cvmtune.core.system import System
from cvmtune.features.soft_ipi.knob import IpiPollUs, SoftIpi
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.setting import Facts, mask, microseconds

POLL_US = microseconds(
    "ipi-poll-us", "how long they poll at most, in microseconds; 0: without end", IpiPollUs()
)
IPI = mask(
    "ipi",
    "CPUs that poll for IPIs: a hex mask (c) or a list (2-3,6; CPU 3 alone: 3-3), off, all or all-but-first",
    SoftIpi(),
    everything=lambda facts: facts.online,
)


def costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    """Say what is paid for these values, each setting's new one."""
    polling = after.get(IPI.name)
    if not polling:
        return
    every = f" - ALL of this machine's {len(polling)}" if polling >= facts.online else ""
    bound = after[POLL_US.name] if POLL_US.name in after else _present_bound(system)
    limit = f"; each idle vCPU polls {bound} us at most" if bound else ", also when nothing is done"
    yield f"up to {len(polling)} physical CPUs kept busy by polling vCPUs{every}{limit}"


def _present_bound(system: System) -> int:
    try:
        return POLL_US.knob.value(system)
    except KnobError:
        return 0
