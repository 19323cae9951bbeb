# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 2, the virtual timer. It rests on counts, which are exact under emulation.

Off is a monitor that does not mask an expired timer, on is one that does. What an ordinary VM gets, the list
register's HW bit, is measured in turns with them and is a baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from cvmtune.features.vtimer import metrics as known
from cvmtune.report.evidence import Evidence, Judged, figure, off_on, worst
from cvmtune.report.schema import Verdict

BASELINE = "HW bit"
"""How the state with the HW bit is called; its baseline is named "MACHINE, HW bit"."""

MIN_REDUNDANT_OFF = 1.0
"""Redundant timer exits per section with interrupts off and an expired timer, not masked. Below this the
experiment did not exercise what it is to show."""

MAX_BEYOND = 1.0
"""Timer exits that the host may count beyond the timer interrupts that the guest takes: the last one's
interrupt may be yet to come when the guest is read (Site._counted)."""

_HEADLINE = known.TIMER_EXITS["section"]
_NEEDED = (
    *known.REDUNDANT.values(),
    *known.BEYOND.values(),
    known.TICKS,
    known.TIMERS_LOST,
    known.TIMERS_WRONG,
    _HEADLINE,
)


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why.

    FAIL where with the feature on a timer fired early or twice, or was lost. UNDECIDED where something was
    not counted, or a timer that is not masked made no redundant exits. Else PASS where with the feature on no
    exit was redundant in any round, there was no timer exit without a timer interrupt of the guest, and a
    busy CPU had its ticks.
    """
    if found := worst(_failed(evidence)) or evidence.missing(one.name for one in _NEEDED):
        return found
    by_name = evidence.by_name
    if found := evidence.exercised(by_name[known.REDUNDANT["section"].name], MIN_REDUNDANT_OFF):
        return found
    redundant = (evidence.exactly(by_name[one.name], 0) for one in known.REDUNDANT.values())
    beyond = (evidence.at_most(by_name[one.name], MAX_BEYOND) for one in known.BEYOND.values())
    # A CPU that has none at all has lost its timer. One that a busy computer stops may be late with the last.
    ticks = evidence.at_least(by_name[known.TICKS.name], 1, gone=0)
    if found := worst((*redundant, *beyond, ticks)):
        return found
    exits = by_name[_HEADLINE.name]
    hardware = evidence.beside(BASELINE).get(exits.name)
    beside = f", {figure(hardware.mean)} with the {BASELINE}" if hardware else ""
    return Verdict.PASS, f"{off_on(exits)}{beside}."


def _failed(evidence: Evidence) -> Iterator[Judged | None]:
    """Timers that failed with the feature on; of a load in which one was lost nothing else is known."""
    for metric in evidence.metrics:
        if metric.name == known.TIMERS_WRONG.name:
            yield evidence.exactly(metric, 0)
        if metric.name == known.TIMERS_LOST.name:
            # It is late after two seconds, for which a computer may be too busy.
            yield evidence.at_most(metric, 0, nothing=inf)
