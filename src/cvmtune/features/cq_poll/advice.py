# SPDX-License-Identifier: Apache-2.0
"""The rule by which polled completion queues are recommended, with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.cq_poll.knob import IDLE_US, PATH
from cvmtune.features.feature import Advice
from cvmtune.features.words import between, overcommitted, round_up
from cvmtune.observe.load import Load, NfsLoad

# RPCs over RDMA a second, of NFS's client and server. Below that a poller finds nothing most of the time.
MIN_RPCS = 100.0
# Share of its time that a CPU must idle to take the poller.
MIN_POLLER_IDLE = 0.25
# The window in mean times from an RPC's sending to its reply, so that the next answer finds the poller awake;
# and its ends, us: the default, and what is no longer worth a CPU.
WINDOW_IN_RTTS = 2.0
WINDOW_US = (1000, 20000)


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Name a CPU with time to spare; those that other features are to poll on have none."""
    mounts = [mount for mount in load.mounts if mount.transport == "rdma"]
    served = load.server_rpcs if load.server_over_rdma else 0.0
    rpcs = sum(mount.rpcs for mount in mounts) + served
    figures = {
        **{f"RPCs a second on {mount.point}": mount.rpcs for mount in mounts},
        **({"RPCs a second served": served} if served else {}),
        **{f"{name} a second": rate for name, rate in load.rdma.items()},
    }
    if not mounts and not load.server_over_rdma:
        return Advice("cq-poll", "no NFS over RDMA here, neither a mount nor a server", figures=figures)
    if rpcs < MIN_RPCS:
        reason = f"NFS over RDMA makes {rpcs:.0f} RPCs a second, less than {MIN_RPCS:g}"
        return Advice("cq-poll", reason, figures=figures)
    busy = f"NFS over RDMA makes {rpcs:.0f} RPCs a second"
    if refusal := overcommitted(load):
        return Advice("cq-poll", f"{busy}, but {refusal}", figures=figures)
    if PATH not in load.now.files:
        reason = (
            f"{busy}; but ib_core_cq_poll is not loaded, or this kernel lacks it (modprobe ib_core_cq_poll)"
        )
        return Advice("cq-poll", reason, figures=figures)
    if refusal := _vendors_refusal(load, mounts):
        return Advice("cq-poll", f"{busy}, but {refusal}", figures=figures)
    if len(load.cpus) < 2:
        return Advice(
            "cq-poll", f"{busy}, but the poller would need one of its CPUs: there is 1", figures=figures
        )
    # One that polls already has its idle time taken by that, and is as good as any.
    now = load.now.get(PATH) or ""
    at_work = int(now) if now.isdecimal() and int(now) in load.cpus else None
    cpu = _poller_cpu(load, before) if at_work is None else at_work
    if cpu is None:
        reason = f"{busy}, but no CPU that is free for it idles {MIN_POLLER_IDLE:.0%} of its time"
        return Advice("cq-poll", reason, figures=figures)
    settings = {"cq-poll": cpu}
    busy_for = "always: this kernel's poller never sleeps"
    if IDLE_US in load.now.files:
        window_us = between(WINDOW_US, round_up(WINDOW_IN_RTTS * 1000 * _rtt_ms(mounts), 1000))
        settings = {"cq-idle-us": window_us, **settings}
        busy_for = f"while completions come; after {window_us} us without one it sleeps"
    return Advice(
        "cq-poll",
        f"{busy}, {_rtt_ms(mounts):.2f} ms each; CPU {cpu} "
        + ("polls already" if cpu == at_work else f"idles {load.cpus[cpu].idle:.0%} of its time"),
        settings,
        gain=(
            f"answers are found without an interrupt and a worker's wake-up, {rpcs:.0f} a second; the "
            "request puts these at 20 % of a storage write"
        ),
        cost=f"up to 1 CPU, number {cpu}, busy {busy_for}",
        figures=figures,
    )


def _vendors_refusal(load: Load, mounts: Sequence[NfsLoad]) -> str:
    """Why a vendor's kernel is left as it is; nothing on another, or where nothing would hang."""
    if load.place.flavour != "vendor":
        return ""
    if load.server_over_rdma:
        return (
            "this vendor's kernel polls only connections made afterwards, and may hang them "
            "when polling changes: stop the NFS server, turn polling on, start it again"
        )
    if mounts:
        return (
            "this vendor's kernel polls only what is mounted afterwards, and may hang a mount "
            f"when polling changes: unmount {', '.join(mount.point for mount in mounts)}, turn polling on, "
            "mount again"
        )
    return ""


def _poller_cpu(load: Load, before: Sequence[Advice]) -> int | None:
    """The CPU that idles most; of equals the last, as the first does the machine's chores."""
    polling = frozenset().union(*(one.polling.cpus for one in before))
    # To a host a pinned vCPU's CPU looks idle just when it waits for that vCPU's work.
    kept = load.place.isolated | CpuMask(
        frozenset(
            vcpu.now.pinned_to for vm in load.vms for vcpu in vm.vcpus if vcpu.now.pinned_to is not None
        )
    )
    able = {
        cpu: one.idle for cpu, one in load.cpus.items() if one.idle >= MIN_POLLER_IDLE and cpu not in kept
    }
    # A CPU that polls for IPIs has its idle time taken; still it is better than none.
    free = {cpu: idle for cpu, idle in able.items() if cpu not in polling} or able
    return max(free, key=lambda cpu: (round(free[cpu], 1), cpu), default=None)


def _rtt_ms(mounts: Sequence[NfsLoad]) -> float:
    rpcs = sum(mount.rpcs for mount in mounts)
    return sum(mount.rpcs * mount.rtt_ms for mount in mounts) / rpcs if rpcs else 0.0
