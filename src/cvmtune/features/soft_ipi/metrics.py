# SPDX-License-Identifier: Apache-2.0
"""The metrics of soft IPI passthrough."""

from __future__ import annotations

from cvmtune.experiments.measure import Measure
from cvmtune.features.trial import Event

NOTIFY = Measure(
    "notify", "IPI notification: from the sender's store to the handler's first instruction", "ns", "time"
)
CALL_SYNC = Measure("call_sync", "Synchronous function call to one CPU, as its caller sees it", "ns", "time")
CALL_MANY = Measure(
    "call_many", "Synchronous function call to all other CPUs, as its caller sees it", "ns", "time"
)
WAKE = Measure(
    "wake",
    "Wake-up of a sleeping thread: from the waker's call to the thread's first instruction",
    "ns",
    "time",
)
WAKEUP_RTT = Measure("wakeup_rtt", "Round trip of two threads that wake each other by futex", "ns", "time")
HACKBENCH = Measure("hackbench", "hackbench, one group: many threads that pass messages", "s", "time")

SGI_PER_CALL_SYNC = Measure("sgi_per_call_sync", "Hardware interrupts per synchronous call", "per IPI")
SGI_PER_IPI = Measure("sgi_per_ipi", "Hardware interrupts per IPI", "per IPI")
INJECTED_PER_IPI = Measure(
    "injected_per_ipi", "Soft IPIs that the target took per IPI", "per IPI", better="higher"
)
EXITS_PER_IPI = Measure("exits_per_ipi", "Exits per IPI, less those of an equal time without IPIs", "per IPI")
VCPU_CPU_USE = Measure(
    "vcpu_cpu_use",
    "Physical CPUs that the guest uses while one of its CPUs is busy and nobody sends an IPI",
    "CPUs",
)
IDLE_CPU_SHARE = Measure(
    "idle_cpu_share",
    "Share of its time that the target, waiting for IPIs, counts as idle",
    "share",
    better="higher",
)
POLL_SHARE = Measure("poll_share", "Share of its time that the target, waiting for IPIs, polls", "share")

SEND_PATH = Measure("send_path", "Instructions to send a rescheduling IPI to an idle CPU", "instructions")
IDLE_PATH = Measure(
    "idle_path", "Instructions of an idle entry and exit with an interrupt already pending", "instructions"
)

HARDWARE_IPIS = Event(
    "ipis",
    "Hardware IPIs of all CPUs",
    "hardware IPIs",
    lambda now: float(now.counters.ipis),
    everywhere=True,
    # A poller wakes threads by IPIs.
    others_add=True,
    # A transaction's messages between client, server and storage wake several threads, some of them on
    # another CPU. Below this the experiment did not exercise IPIs.
    least_off=2.0,
    # What may be left: those to a CPU that runs something. The poller is something that runs.
    share_on=0.7,
)
