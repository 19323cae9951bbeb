# SPDX-License-Identifier: Apache-2.0
"""What the report's page says of the experiment `vtimer`: what was measured, and why."""

from __future__ import annotations

from cvmtune.report.rule import About

ABOUT = About(
    "The monitor's virtual timer",
    (
        "When a guest's timer expires, its interrupt takes the CPU out of the guest, and the host injects "
        "a virtual one. An ordinary VM's host ties the two together (the list register's HW bit): the "
        "timer stays quiet until the guest has handled it. The host of a confidential VM may not. If "
        "nothing else keeps the timer quiet, it takes the CPU out of the guest again and again until the "
        "guest gets to its handler; a guest that has its interrupts off goes on only for as long as the "
        "interrupt takes to arrive.",
        "With the feature on, the monitor masks the timer's interrupt once the host knows that the timer "
        "has expired, and unmasks it when there is something new to tell. The price beside an ordinary VM "
        "is one more exit per interrupt, when the guest deactivates it. Off is the model of a monitor "
        "that does not mask, in which an interrupt takes as long from the timer to the CPU as an exit and "
        "an entry take: a longer travel would make fewer exits, a shorter one more.",
    ),
)
