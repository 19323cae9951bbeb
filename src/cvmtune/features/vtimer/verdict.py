# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 2, the virtual timer. It rests on counts, which are exact under emulation.

Off is a monitor that does not mask an expired timer, on is one that does. What an ordinary VM gets, the list
register's HW bit, is measured in turns with them and is a baseline.
"""

from __future__ import annotations

from cvmtune.features.vtimer import metrics as known
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.schema import Verdict

BASELINE = "HW bit"
"""How the state with the HW bit is called; its baseline is named "MACHINE, HW bit"."""

MIN_REDUNDANT_OFF = 1.0
"""Redundant timer exits per section with interrupts off and an expired timer, not masked. Below this the
experiment did not exercise what it is to show."""

TOLERANCE = 0.05
"""By how much timer exits may exceed the guest's timer interrupts. Each of the two counts is read a moment
before or after the other, so that an interrupt at the edge may be in one of them alone."""

SAME = 1.25
"""Within this factor the guest takes as many timer interrupts as with the HW bit: a guest that runs for a
little longer has some ticks more."""

LOADS = tuple(known.LOADS)
_PER = {**known.LOADS, "tick": "tick"}


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why.

    UNDECIDED where something was not counted, or a timer that is not masked made no redundant exits. Else
    PASS where with the feature on no exit was redundant in any round, there was at most one timer exit for
    each timer interrupt that the guest took, and it took as many as with the HW bit. Else FAIL.
    """
    by_name = evidence.by_name
    wanted = [
        of_load[load].name
        for load in LOADS
        for of_load in (known.REDUNDANT, known.TIMER_EXITS_PER_INTERRUPT, known.INTERRUPTS, known.TIMER_EXITS)
    ]
    if missing := [name for name in (*wanted, known.TICKS_PER_S.name) if name not in by_name]:
        return Verdict.UNDECIDED, f"Not measured both off and on: {', '.join(missing)}."
    with_hw = {
        metric.name: metric.values.mean
        for baseline in evidence.baselines
        if baseline.name.endswith(f", {BASELINE}")
        for metric in baseline.metrics
    }
    storm = by_name[known.REDUNDANT["section"].name].off.mean
    if storm < MIN_REDUNDANT_OFF:
        return Verdict.UNDECIDED, (
            f"Not masked, a section with interrupts off and an expired timer had only {storm:.2f} redundant "
            f"timer exits (at least {MIN_REDUNDANT_OFF:g} expected): the experiment showed nothing."
        )
    for load in LOADS:
        redundant = by_name[known.REDUNDANT[load].name].on
        if any(redundant.samples):
            return Verdict.FAIL, (
                f"With the feature on there were redundant timer exits, {redundant.mean:g} per "
                f"{_PER[load]}, where only 0 is right."
            )
        most = max(by_name[known.TIMER_EXITS_PER_INTERRUPT[load].name].on.samples)
        if most > 1 + TOLERANCE:
            return Verdict.FAIL, (
                f"With the feature on there were {most:.2f} timer exits per timer interrupt of the guest "
                f"({_PER[load]}), where one is enough."
            )
    same = (known.INTERRUPTS["oneshot"], known.INTERRUPTS["section"], known.TICKS_PER_S)
    for name in (metric.name for metric in same):
        if name not in with_hw:
            return Verdict.UNDECIDED, f"Not measured with the HW bit: {name}."
        on, hw = by_name[name].on.mean, with_hw[name]
        if not hw / SAME <= on <= hw * SAME:
            return Verdict.FAIL, (
                f"{by_name[name].title}: {on:.2f} with the feature on, {hw:.2f} with the HW bit, which is "
                f"not within a factor of {SAME:g}."
            )
    exits = {load: by_name[known.TIMER_EXITS[load].name] for load in LOADS}
    told = "; ".join(
        f"per {_PER[load]} {one.off.mean:.3g} off, {one.on.mean:.2g} on" for load, one in exits.items()
    )
    ticks = by_name[known.TICKS_PER_S.name]
    return Verdict.PASS, (
        f"Timer exits {told}. On, none was redundant, and none without a timer interrupt of the guest. Ticks "
        f"of a busy CPU per s: {ticks.on.mean:.0f} on, {with_hw[ticks.name]:.0f} with the HW bit."
    )
