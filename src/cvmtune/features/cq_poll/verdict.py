# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 3, polled completion queues. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from math import inf

from cvmtune.features.cq_poll.metrics import (
    HANDLED_PER_POSTED,
    IPIS_PER_WRITE,
    VERIFIED,
    VIOLATIONS,
    WAKEUPS_PER_WRITE,
)
from cvmtune.report.evidence import Evidence, Judged, off_on, worst
from cvmtune.report.schema import Verdict

MIN_WAKEUPS_OFF = 2.0
"""A write takes at least a receive on the server and one on the client, each of which wakes a handler when
nobody polls. Below this the experiment did not exercise completions."""

MAX_WAKEUPS_ON = 0.25
"""The poller asks for interrupts only when something that computes for long shares its CPU. On a busy
computer the emulator may make that of anything. Without polling four events or more come with each write."""

NOTHING_SAVED = 0.9
"""With this share or more of the events left nobody has polled. A poller that shares its CPU with programs
that come and go asks for interrupts some of the time."""

MAX_ADDED_IPIS = 2.0
"""A write's completions wake two threads, one of the server and the writer. Where the poller looks from
another CPU than theirs, each may take an IPI that a handler on their own CPU would not have needed. More
would mean that the polling itself makes IPIs."""

_EXACT = {HANDLED_PER_POSTED.name: 1.0, VERIFIED.name: 1.0, VIOLATIONS.name: 0.0}
"""What is right, whatever is switched."""


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why, from the means over all rounds.

    FAIL where a completion was lost or handled wrongly, or a block was not read back as written, polling or
    not. UNDECIDED where one of these was not counted, or completions did not wake anybody with polling off.
    Else PASS where with polling on no more than MAX_WAKEUPS_ON completion events per write woke a handler,
    and no more than MAX_ADDED_IPIS hardware IPIs per write were added.
    """
    if missing := evidence.missing((*_EXACT, WAKEUPS_PER_WRITE.name, IPIS_PER_WRITE.name)):
        return missing
    # The first provider's have plain names, the others' end in the same.
    faults = (
        evidence.exactly(metric, right, off=True)
        for name, right in _EXACT.items()
        for metric in evidence.metrics
        if metric.name.endswith(name)
    )
    wakeups, ipis = (evidence.by_name[one.name] for one in (WAKEUPS_PER_WRITE, IPIS_PER_WRITE))
    if found := worst(faults) or evidence.exercised(wakeups, MIN_WAKEUPS_OFF):
        return found
    too_many = (
        evidence.at_most(wakeups, MAX_WAKEUPS_ON, nothing=NOTHING_SAVED),
        # On a busy computer a thread meets CPUs in other states: IPIs in which polling has no part.
        evidence.at_most(ipis, ipis.off.mean + MAX_ADDED_IPIS, nothing=inf),
    )
    return worst(too_many) or (Verdict.PASS, f"{off_on(wakeups)}.")
