# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 4, untrapped WFx. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from cvmtune.features.wfx import metrics as known
from cvmtune.report.evidence import Evidence, Judged, figure, off_on, worst
from cvmtune.report.schema import Verdict

MIN_TIMERS = 20
"""Timer interrupts that each vCPU has to take while its exits are counted, or nothing can be said of them."""

MIN_EXITS_OFF = 0.1
"""WFx exits of a vCPU per timer interrupt, trapped. It waits before each of its timers, so about one is
expected. Below this the experiment did not exercise WFI."""

KEPT = 0.5
"""This share of the exits with the feature off a vCPU has to keep that is not named, or no longer. A busy
computer may have it meet the next timer without a wait."""

GONE = 0.05
"""With this share or less a vCPU is untrapped, however busy the computer was: one that is trapped waits, if
only now and then."""

_ZERO = (
    known.WFX_EXITS_NAMED,
    known.IDLE_WFX_EXITS,
    known.MIXED_WFX_EXITS,
    known.WFX_PER_TIMER,
    known.WFX_PER_FUTEX_RTT,
    known.WFX_PER_PIPE_RTT,
)
_KEPT = (known.WFX_EXITS_OTHER, known.WFX_EXITS_BACK)


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why.

    UNDECIDED where something was not counted, or vCPUs woke too rarely, or made no WFx exits with the feature
    off. Else PASS where no named vCPU made a single WFx exit in any round, from the write of the mask on, and
    the others, and one that is named no more, make as many as without the feature.
    """
    if missing := evidence.missing(one.name for one in (known.TIMERS_TAKEN, *_ZERO, *_KEPT)):
        return missing
    by_name = evidence.by_name
    timers = by_name[known.TIMERS_TAKEN.name]
    fewest = min(*timers.off.samples, *timers.on.samples)
    if fewest < MIN_TIMERS:
        return Verdict.UNDECIDED, (
            f"{timers.title}: {figure(fewest)}, where fewer than {MIN_TIMERS} show nothing."
        )
    named, *kept = (by_name[one.name] for one in (known.WFX_EXITS_NAMED, *_KEPT))
    if idle := worst(evidence.exercised(one, MIN_EXITS_OFF) for one in (named, *kept)):
        return idle
    zero = (evidence.exactly(by_name[one.name], 0) for one in _ZERO)
    lost = (evidence.at_least(one, KEPT * one.off.mean, gone=GONE * one.off.mean) for one in kept)
    return worst((*zero, *lost)) or (Verdict.PASS, f"{off_on(named)}.")
