# SPDX-License-Identifier: Apache-2.0
"""What the report's page says of the experiment `blackbox`: what was measured, and why."""

from __future__ import annotations

from cvmtune.report.rule import About

ABOUT = About(
    "A database's protected writes, end to end",
    (
        "PostgreSQL runs in the guest; its data and its log are on NFS over RDMA, and each client waits "
        "until its transaction is on that storage. On the way several threads hand over to each other: "
        "client, server process, RPC, completion handlers, the storage's threads. Beside the database an "
        "audit log is written: several producers hand records to one writer, which makes each durable "
        "before it answers.",
        "All four features are switched off and on together, and in all their combinations. At a rate the "
        "guest is idle in between, and a hand-over wakes who sleeps; that is what the features are for. "
        "One transaction after another shows the system at work. Server and storage are in the same "
        "guest, over an RDMA device made of software.",
    ),
)
