# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 3, polled completion queues. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from cvmtune.features.cq_poll.metrics import (
    HANDLED_PER_POSTED,
    IPIS_PER_WRITE,
    VERIFIED,
    VIOLATIONS,
    WAKEUPS_PER_WRITE,
)
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.schema import Verdict

MIN_WAKEUPS_OFF = 2.0
"""A write takes at least a receive on the server and one on the client, each of which wakes a handler when
nobody polls. Below this the experiment did not exercise completions."""

MAX_WAKEUPS_ON = 0.25
"""The poller asks for interrupts only when something that computes for long shares its CPU. On a busy
computer the emulator may make that of anything. Without polling four events or more come with each write."""

MAX_ADDED_IPIS = 2.0
"""A write's completions wake two threads, one of the server and the writer. Where the poller looks from
another CPU than theirs, each may take an IPI that a handler on their own CPU would not have needed. More
would mean that the polling itself makes IPIs."""

_NEEDED = (
    WAKEUPS_PER_WRITE.name,
    IPIS_PER_WRITE.name,
    HANDLED_PER_POSTED.name,
    VIOLATIONS.name,
    VERIFIED.name,
)
_ALL = (HANDLED_PER_POSTED.name, VERIFIED.name)


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why, from the means over all rounds.

    FAIL where a completion was lost or handled wrongly, or a block was not read back as written, polling or
    not. UNDECIDED where one of these was not counted, or completions did not wake anybody with polling off.
    Else PASS where with polling on no more than MAX_WAKEUPS_ON completion events per write woke a handler,
    and no more than MAX_ADDED_IPIS hardware IPIs per write were added. Else FAIL.
    """
    by_name = evidence.by_name
    # The first provider's have plain names, the others' end in the same.
    exact = [
        *((metric, 1.0) for metric in evidence.metrics if metric.name.endswith(_ALL)),
        *((metric, 0.0) for metric in evidence.metrics if metric.name.endswith(VIOLATIONS.name)),
    ]
    if missing := [name for name in _NEEDED if name not in by_name]:
        return Verdict.UNDECIDED, f"Not measured both off and on: {', '.join(missing)}."
    for metric, right in exact:
        for state, found in (("off", metric.off), ("on", metric.on)):
            if any(sample != right for sample in found.samples):
                return (
                    Verdict.FAIL,
                    f"{metric.title}, {state}: {found.mean:g}, where only {right:g} is right.",
                )
    wakeups, ipis = by_name[WAKEUPS_PER_WRITE.name], by_name[IPIS_PER_WRITE.name]
    if wakeups.off.mean < MIN_WAKEUPS_OFF:
        return Verdict.UNDECIDED, (
            f"Without polling only {wakeups.off.mean:.2f} completion events per write woke a handler (at "
            f"least {MIN_WAKEUPS_OFF:g} expected): the experiment did not exercise completions."
        )
    passed = wakeups.on.mean <= MAX_WAKEUPS_ON and ipis.on.mean <= ipis.off.mean + MAX_ADDED_IPIS
    return Verdict.PASS if passed else Verdict.FAIL, (
        "Completions handled = work requests posted, none twice or in a wrong place; all data as written. "
        f"Completion events that woke a handler, per write: {wakeups.off.mean:.2f} off, "
        f"{wakeups.on.mean:.3f} on (at most {MAX_WAKEUPS_ON:g} allowed, for when others keep the poller from "
        f"its CPU). Hardware IPIs per write: {ipis.off.mean:.2f} off, {ipis.on.mean:.2f} on (at most "
        f"{MAX_ADDED_IPIS:g} more allowed, for waking the threads that wait)."
    )
