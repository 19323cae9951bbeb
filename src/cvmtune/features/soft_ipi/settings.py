# SPDX-License-Identifier: Apache-2.0
"""The settings of soft IPI passthrough, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown
from cvmtune.core.system import System
from cvmtune.features.soft_ipi.knob import IpiPollUs, SoftIpi
from cvmtune.features.words import count
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.setting import Facts, mask, microseconds

POLL_US = microseconds(
    "ipi-poll-us", "how long they poll at most, in microseconds; 0: without end", IpiPollUs()
)


def _online(facts: Facts) -> CpuMask:
    if not facts.online:
        raise ValueError("which CPUs are online cannot be told")
    return facts.online


IPI = mask(
    "ipi",
    "CPUs that poll for IPIs: a hex mask (c) or a list (2-3,6; CPU 3 alone: 3-3), off, all or all-but-first",
    SoftIpi(),
    everything=_online,
)


def costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    """Say what is paid for these values, each setting's new one."""
    polling = after.get(IPI.name)
    if not polling:
        return
    every = facts.online or facts.possible
    all_poll = f" - ALL of this machine's {len(every)}" if every and polling >= every else ""
    bound = after[POLL_US.name] if POLL_US.name in after else _present_bound(system)
    if isinstance(bound, Unknown):
        limit = f", also when nothing is done unless that is bounded, which {bound}"
    else:
        limit = f"; each idle vCPU polls {bound} us at most" if bound else ", also when nothing is done"
    cpus, vcpus = (
        count(len(polling), "physical CPU"),
        "a polling vCPU" if len(polling) == 1 else "polling vCPUs",
    )
    yield f"up to {cpus} kept busy by {vcpus}{all_poll}{limit}"


def _present_bound(system: System) -> int | Unknown:
    try:
        return POLL_US.knob.value(system)
    except KnobError as error:
        return Unknown(error.what) if system.exists(POLL_US.knob.path) else 0
