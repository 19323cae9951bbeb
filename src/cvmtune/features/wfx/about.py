# SPDX-License-Identifier: Apache-2.0
"""What the report's page says of the experiment `wfx`: what was measured, and why."""

from __future__ import annotations

from cvmtune.report.rule import About

ABOUT = About(
    "WFx traps chosen at run time",
    (
        "An idle vCPU waits in WFI. KVM traps that: the vCPU leaves its guest and its thread sleeps, "
        "until an interrupt wakes it and it enters again. In a confidential VM each exit and entry passes "
        "a monitor.",
        "With the feature on, the vCPUs that the host's mask names wait in their guest. The price is that "
        "to the host's scheduler such a vCPU is always busy, so it is for vCPUs that have a physical CPU "
        "for themselves.",
    ),
)
