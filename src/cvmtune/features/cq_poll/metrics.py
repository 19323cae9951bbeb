# SPDX-License-Identifier: Apache-2.0
"""The metrics of polled completion queues. The experiment adds over which RDMA provider they were taken."""

from __future__ import annotations

from cvmtune.core.system import System
from cvmtune.experiments.measure import Measure
from cvmtune.features.trial import Event, Use

_NS_PER_S = 1e9

WAKEUP_EVENT = "rdma_core/cq_schedule"
"""The trace event of queueing the work of a CQ: a completion's interrupt, or what a software provider has in
its place."""

HANDLED_PER_POSTED = Measure(
    "handled_per_posted", "Completions handled per work request posted", "share", better="higher"
)
VIOLATIONS = Measure(
    "violations",
    "Completions lost, wrong, handled twice, out of order, at once with another, or where they may not be",
    "completions",
)
VERIFIED = Measure(
    "verified",
    "Blocks read back as they were written, of those written (none, if one was damaged)",
    "share",
    better="higher",
)
COMPLETION = Measure(
    "completion", "From posting a message to the callback of its completion on the other side", "ns", "time"
)


def _per_write(name: str, what: str) -> Measure:
    return Measure(f"{name}_per_write", f"{what} per write", "per write")


WAKEUPS_PER_WRITE = _per_write("wakeups", "Completion events that woke a handler")
WORKS_PER_WRITE = _per_write("works", "Works that workqueues ran")
IPIS_PER_WRITE = _per_write("ipis", "Hardware IPIs of all CPUs")
INTERRUPTS_PER_WRITE = _per_write("interrupts", "Interrupts of all kinds and CPUs")
SWITCHES_PER_WRITE = _per_write("switches", "Context switches")
EXITS_PER_WRITE = _per_write("exits", "Exits of all vCPUs")

WRITE_RTT = Measure("write_rtt", "Write at a rate, from its RPC's sending to the reply", "ns", "time")
WRITE_EXE = Measure("write_exe", "Write at a rate, from its RPC's start to its end", "ns", "time")
POLLER_USE = Measure("poller_use", "CPUs that the poller takes under writes at a rate", "CPUs")
WRITE_CPU_USE = Measure("write_cpu_use", "Physical CPUs that the guest takes under writes at a rate", "CPUs")
POLLER_IDLE_USE = Measure("poller_idle_use", "CPUs that the poller takes while nobody uses the mount", "CPUs")
EVENT_PATH = Measure(
    "event_path",
    "Instructions of a completion event, from the driver's call to its return",
    "instructions",
)


WRITE = "write"
"""The name of the latency of writes at a rate."""


def write_at(rate: int) -> Measure:
    """The latency of writes at a rate, in writes a second."""
    return Measure(WRITE, f"4 KiB write, {rate} a second, as the program sees it", "ns", "time")


def write_by(depth: int) -> Measure:
    """The latency of writes of which so many are always on their way."""
    title = f"4 KiB write, {depth} at a time, as the program sees it"
    return Measure(f"write_depth_{depth}", title, "ns", "time")


def poller_seconds(guest: System) -> float:
    """Processor time of the polling thread so far, 0 if there is none."""
    # Its beginning, as a worker's name ends in its last workqueue's, and the module has one.
    pids = guest.run(["pgrep", "^ib_cq_poll/"]).stdout.split()
    # Its first field is nanoseconds on a CPU (Documentation/scheduler/sched-stats.rst); `stat` has ticks.
    return sum(int(guest.read_text(f"/proc/{pid}/schedstat").split()[0]) for pid in pids) / _NS_PER_S


WAKEUPS = Event(
    "wakeups",
    "Completion events that woke a handler",
    "completion events",
    lambda now: float(now.traced[WAKEUP_EVENT]),
    trace=WAKEUP_EVENT,
    # Each write to the storage has at least one completion on either side. Below this nothing was written.
    least_off=2.0,
    # The poller asks for them only while something that computes for long shares its CPU, and a TPC-B
    # transaction computes for longer than a write does.
    most_on=0.5,
)
POLLER = Use("poller_use", "CPUs that the poller takes", poller_seconds)
