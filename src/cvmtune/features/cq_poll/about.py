# SPDX-License-Identifier: Apache-2.0
"""What the report's page says of the experiment `cq-poll`: what was measured, and why."""

from __future__ import annotations

from cvmtune.report.rule import About

ABOUT = About(
    "Polled completion queues",
    (
        "An RDMA device reports what it has done in completion queues. A kernel user such as NFS over "
        "RDMA learns of it by an interrupt, which queues a work, which empties the queue; each RPC of NFS "
        "rests on several completions. In a virtual machine the interrupt and the wake-up of an idle vCPU "
        "cost exits, in a confidential VM each of them passes a monitor as well.",
        "With the feature on, a kernel thread on a chosen CPU looks into the queues all the time, so that "
        "nobody need be woken to do it. The price is that CPU, though the thread gives way to whatever "
        "else wants it. Here client and server run in one guest, over RDMA devices made of software (rxe, "
        "siw), which have no interrupt: what can be seen is that completions no longer wake anybody and "
        "that none is lost, not the time that a card's interrupt takes.",
    ),
)
