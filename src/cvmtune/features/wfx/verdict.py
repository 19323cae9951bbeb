# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 4, untrapped WFx. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from cvmtune.features.wfx import metrics as known
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.schema import Verdict

MIN_EXITS_OFF = 50.0
"""WFx exits per second of a vCPU that wakes by a timer a thousand times a second, trapped. A slow computer
loses most of the wake-ups; below this the experiment did not exercise WFI."""

UNCHANGED = 2.0
"""Within this factor an exit rate counts as unchanged: what a vCPU does in a second depends on how often the
computer lets it run. A vCPU that is wrongly untrapped has a rate of 0."""

_ZERO = tuple(
    metric.name
    for metric in (
        known.WFX_EXITS_NAMED,
        known.IDLE_WFX_EXITS,
        known.MIXED_WFX_EXITS,
        known.WFX_PER_TIMER,
        known.WFX_PER_FUTEX_RTT,
        known.WFX_PER_PIPE_RTT,
    )
)
_KEPT = {
    known.WFX_EXITS_OTHER.name: "of a vCPU that is not named",
    known.WFX_EXITS_BACK.name: "of a vCPU that is no longer named",
}


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why.

    UNDECIDED where something was not counted, or vCPUs made no WFx exits with the feature off. Else PASS
    where no named vCPU made a single WFx exit in any round, from the write of the mask on, and the rates of
    the others, and of one that is named no more, are those without the feature. Else FAIL.
    """
    by_name = evidence.by_name
    if missing := [name for name in (*_ZERO, *_KEPT) if name not in by_name]:
        return Verdict.UNDECIDED, f"Not measured both off and on: {', '.join(missing)}."
    trapped = by_name[known.WFX_EXITS_NAMED.name].off.mean
    if trapped < MIN_EXITS_OFF:
        return Verdict.UNDECIDED, (
            f"Without the feature a vCPU made only {trapped:.1f} WFx exits per s (at least {MIN_EXITS_OFF:g} "
            "expected): the experiment did not exercise WFI."
        )
    for metric in (by_name[name] for name in _ZERO):
        if any(metric.on.samples):
            return (
                Verdict.FAIL,
                f"{metric.title}, on: {metric.on.mean:g} {metric.unit}, where only 0 is right.",
            )
    for name, whose in _KEPT.items():
        off, on = by_name[name].off.mean, by_name[name].on.mean
        if not off / UNCHANGED <= on <= off * UNCHANGED:
            return Verdict.FAIL, (
                f"WFx exits per s {whose}: {off:.0f} off, {on:.0f} on, which is not within a factor of "
                f"{UNCHANGED:g}."
            )
    other, back = (by_name[name] for name in _KEPT)
    return Verdict.PASS, (
        f"WFx exits per s of a vCPU that wakes by timers: {trapped:.0f} off; 0 on, from the write of the "
        f"mask on; {back.on.mean:.0f} from its removal on. Of the vCPU beside it, not named: "
        f"{other.off.mean:.0f} off, {other.on.mean:.0f} on. Under every load: 0 of all named vCPUs."
    )
