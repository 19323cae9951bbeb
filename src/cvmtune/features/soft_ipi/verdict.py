# SPDX-License-Identifier: Apache-2.0
"""The verdict on feature 1, soft IPI passthrough. It rests on counts, which are exact under emulation."""

from __future__ import annotations

from cvmtune.features.soft_ipi.metrics import EXITS_PER_IPI, SGI_PER_IPI
from cvmtune.report.evidence import Evidence, Judged
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
    MAX_EXITS_PER_IPI exits per IPI are left. Else FAIL.
    """
    by_name = evidence.by_name
    sgi, exits = by_name.get(SGI_PER_IPI.name), by_name.get(EXITS_PER_IPI.name)
    if sgi is None:
        return Verdict.UNDECIDED, "Hardware SGIs per IPI were not measured both off and on."
    if sgi.off.mean < MIN_SGI_PER_IPI_OFF:
        return Verdict.UNDECIDED, (
            f"With the feature off only {sgi.off.mean:.3f} hardware SGIs per IPI were counted (at least "
            f"{MIN_SGI_PER_IPI_OFF:g} expected): the experiment did not exercise IPIs."
        )

    passed = sgi.on.mean <= MAX_SGI_PER_IPI and (exits is None or exits.on.mean <= MAX_EXITS_PER_IPI)
    why = [
        f"Hardware SGIs per IPI: {sgi.off.mean:.3f} off, {sgi.on.mean:.4f} on "
        f"(at most {MAX_SGI_PER_IPI:g} allowed, for hardware-only IPI types and IPIs to a running target)."
    ]
    if exits is None:
        why.append("Exits were not counted on this machine.")
    else:
        why.append(
            f"Exits per IPI: {exits.off.mean:.3f} off, {exits.on.mean:.3f} on "
            f"(at most {MAX_EXITS_PER_IPI:g} allowed, the noise of subtracting the background)."
        )
    return Verdict.PASS if passed else Verdict.FAIL, " ".join(why)
