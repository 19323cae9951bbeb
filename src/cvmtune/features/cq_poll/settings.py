# SPDX-License-Identifier: Apache-2.0
"""The settings of polled completion queues, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cvmtune.core.cpumask import MAX_CPUS
from cvmtune.core.system import System
from cvmtune.features.cq_poll.knob import OFF, CqIdleUs, CqPoll
from cvmtune.tuning.setting import Facts, Setting, microseconds, number

CQ_IDLE_US = microseconds(
    "cq-idle-us", "after so many microseconds without a completion it sleeps; 0: never", CqIdleUs()
)


def _cpu(text: str, facts: Facts) -> int:
    match text:
        case "off" | "-1":
            return OFF
        case "last" if not facts.online:
            raise ValueError("which CPUs are online cannot be told")
        case "last":
            return max(facts.online)
        case _:
            return number(text, MAX_CPUS)


CQ_POLL = Setting(
    name="cq-poll",
    metavar="CPU",
    help="the CPU that polls RDMA's completion queues, off or last",
    types=(int, str),
    allowed="the number of a CPU, 'off' or 'last'",
    knob=CqPoll(),
    parse=_cpu,
    show=lambda cpu: "off" if cpu == OFF else str(cpu),
    off=OFF,
)


def costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    """Say what is paid for these values, each setting's new one."""
    cpu = after.get(CQ_POLL.name, OFF)
    if cpu != OFF:
        yield f"up to 1 CPU, number {cpu}, busy while completions come"
