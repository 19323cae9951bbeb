# SPDX-License-Identifier: Apache-2.0
"""What the report's page says of the experiment `ipi`: what was measured, and why."""

from __future__ import annotations

from cvmtune.report.rule import About

ABOUT = About(
    "Soft IPI passthrough",
    (
        "The CPUs of a machine nudge each other with inter-processor interrupts (IPIs): to wake a task "
        "elsewhere, or to have a function run there. In a virtual machine such a nudge leaves the guest. "
        "The sender exits to the hypervisor, which injects an interrupt into the target; an idle target "
        "must be scheduled in again first. In a confidential VM each of these steps passes a monitor as "
        "well.",
        "With the feature on, the idle task of a chosen vCPU watches a word in memory instead of waiting "
        "for an interrupt. A sender sees that it does, and leaves its IPI in that word: no interrupt, no "
        "exit. The price is that the chosen vCPU keeps its physical CPU busy while it is idle.",
    ),
)
