# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 1, soft IPI passthrough. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from math import inf

from cvmtune.features.soft_ipi.metrics import EXITS_PER_IPI, SGI_PER_IPI
from cvmtune.report.evidence import Evidence, Judged, off_on, worst
from cvmtune.report.schema import Verdict

MAX_SGI_PER_IPI = 0.05
"""An IPI that arrives while its target runs (its tick, housekeeping, the end of the IPI before) finds nobody
polling and rightly goes by hardware: about one in a hundred on an idle computer, more on a busy one, where
the emulator may stop a vCPU anywhere. An IPI type that the feature missed would show as 1."""

MAX_EXITS_PER_IPI = 0.1
"""Exits of an equally long span without IPIs are subtracted; this is what the noise of that may leave. An IPI
by hardware makes two."""

MIN_SGI_PER_IPI_OFF = 0.9
"""With the feature off every IPI is a hardware SGI, less the few that merge with one still pending. Below
this the experiment did not send the IPIs that it counted."""


def verdict(evidence: Evidence) -> Judged:
    """The verdict and why, from the means over all rounds.

    UNDECIDED where the rounds with the feature off do not show at least MIN_SGI_PER_IPI_OFF hardware SGIs
    per IPI: they did not exercise IPIs, so nothing can be said of the others. Else PASS where, with the
    feature on, no more than MAX_SGI_PER_IPI hardware SGIs and, where exits were counted, no more than
    MAX_EXITS_PER_IPI exits per IPI are left.
    """
    if missing := evidence.missing((SGI_PER_IPI.name,)):
        return missing
    sgi, exits = evidence.by_name[SGI_PER_IPI.name], evidence.by_name.get(EXITS_PER_IPI.name)
    if idle := evidence.exercised(sgi, MIN_SGI_PER_IPI_OFF):
        return idle
    too_many = [
        evidence.at_most(sgi, MAX_SGI_PER_IPI),
        # What is subtracted goes by the time, which a busy computer stretches: that alone proves nothing
        # there. IPIs by hardware show in the other count as well.
        evidence.at_most(exits, MAX_EXITS_PER_IPI, nothing=inf) if exits else None,
    ]
    return worst(too_many) or (Verdict.PASS, f"{off_on(sgi)}.")
