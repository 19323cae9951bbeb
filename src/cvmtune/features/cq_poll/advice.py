# SPDX-License-Identifier: Apache-2.0
"""The rule by which polled completion queues are recommended, with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.core.figure import Figure, Unknown, known, total
from cvmtune.features.cq_poll.knob import PATH
from cvmtune.features.cq_poll.placement import MIN_POLLER_IDLE, kept_for_others, place
from cvmtune.features.cq_poll.settings import CQ_IDLE_US, CQ_POLL
from cvmtune.features.feature import Advice
from cvmtune.features.status import of_parameter
from cvmtune.features.words import between, overcommitted, round_up, time_lost
from cvmtune.observe.captured import CapturedSystem
from cvmtune.observe.isolation import kept_untold
from cvmtune.observe.load import Load
from cvmtune.observe.nfs_load import NfsLoad
from cvmtune.tuning.contract import KnobError

# RPCs over RDMA a second, of NFS's client and server. Below that a poller finds nothing most of the time.
MIN_RPCS = 100.0
# The window in mean times from an RPC's sending to its reply, so that the next answer finds the poller awake;
# and its ends, us: the default, and what is no longer worth a CPU.
WINDOW_IN_RTTS = 2.0
WINDOW_US = (1000, 20000)


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Name a CPU with time to spare; those that other features are to poll on have none."""
    mounts = [mount for mount in load.mounts if mount.may_be_rdma]
    figures = _figures(load, mounts)
    if not mounts and load.server_over_rdma is False:
        return Advice("cq-poll", "no NFS over RDMA here, neither a mount nor a server", figures=figures)
    rpcs = total([*(mount.over_rdma for mount in mounts), load.server_rpcs])
    if isinstance(rpcs, Unknown):
        return Advice("cq-poll", f"how many RPCs NFS makes over RDMA {rpcs}", figures=figures)
    if rpcs < MIN_RPCS:
        reason = f"NFS over RDMA makes {rpcs:.0f} RPCs a second, less than {MIN_RPCS:g}"
        return Advice("cq-poll", reason, figures=figures)
    busy = f"NFS over RDMA makes {rpcs:.0f} RPCs a second"
    if refusal := _refusal(load, mounts):
        return Advice("cq-poll", f"{busy}{refusal}", figures=figures)
    # One that polls already has its idle time taken by that, and is as good as any, if it is nobody's.
    at_work, misplaced = _at_work(load)
    placed = place(load, before)
    cpu = placed.cpu if at_work is None or misplaced else at_work
    if cpu is None:
        reason = (
            f"{busy}, but no CPU that is free for it idles {MIN_POLLER_IDLE:.0%} of its time{placed.why}"
            f"{misplaced}"
        )
        return Advice("cq-poll", reason, figures=figures)
    rtt_ms = _rtt_ms(mounts)
    window_us, busy_for = _window(load, rtt_ms)
    settings = {**({} if window_us is None else {"cq-idle-us": window_us}), "cq-poll": cpu}
    steal = time_lost(load)
    return Advice(
        "cq-poll",
        f"{busy}{'' if rtt_ms is None else f', {rtt_ms:.2f} ms each'}; CPU {cpu} "
        + (
            "polls already"
            if cpu == at_work
            else f"idles {known(load.cpus[cpu].idle) or 0:.0%} of its time{placed.why}{misplaced}"
        )
        + (f"; {steal}" if steal else ""),
        settings,
        gain=(
            f"answers are found without an interrupt and a worker's wake-up, {rpcs:.0f} a second; the "
            "request puts these at 20 % of a storage write"
        ),
        cost=f"up to 1 CPU, number {cpu}, busy {busy_for}",
        figures=figures,
    )


def _at_work(load: Load) -> tuple[int | None, str]:
    """The CPU that polls now, None if none does; and if it is kept for others, why, as the end of a
    sentence."""
    try:
        cpu = CQ_POLL.knob.value(CapturedSystem(load.now))
    except KnobError:
        return None, ""
    if cpu not in load.cpus:
        return None, ""
    why = kept_for_others(load).get(cpu)
    return cpu, f"; CPU {cpu}, which polls now, is {why}" if why else ""


def _window(load: Load, rtt_ms: float | None) -> tuple[int | None, str]:
    """How long the poller is to go on without a completion, in us, None where that cannot be set; and for how
    long its CPU is busy, in words."""
    present = of_parameter(load.now, CQ_IDLE_US)
    if isinstance(present, Unknown):
        return None, f"always, unless a window is set: {present.why}"
    if present is None:
        return None, "always: this kernel's poller never sleeps"
    # Where no round trip is known the window is the default.
    window_us = between(WINDOW_US, round_up(WINDOW_IN_RTTS * 1000 * (rtt_ms or 0.0), 1000))
    return window_us, f"while completions come; after {window_us} us without one it sleeps"


def _figures(load: Load, mounts: Sequence[NfsLoad]) -> Mapping[str, Figure]:
    served = {} if load.server_over_rdma is False else {"RPCs a second served": load.server_rpcs}
    return {
        **{f"RPCs a second on {mount.place}": mount.over_rdma for mount in mounts},
        **served,
        **{f"{name} a second": rate for name, rate in load.rdma.items()},
    }


def _refusal(load: Load, mounts: Sequence[NfsLoad]) -> str:
    """Why nothing is set although there is work for a poller, as the end of a sentence; nothing if it may."""
    if refusal := overcommitted(load):
        return f", but {refusal}"
    if PATH not in load.now.files:
        if PATH in load.now.unreadable:
            return f"; but {load.now.why_not(PATH)}"
        return "; but ib_core_cq_poll is not loaded, or this kernel lacks it (modprobe ib_core_cq_poll)"
    if refusal := _vendors_refusal(load, mounts):
        return f", but {refusal}{_at_work(load)[1]}"
    # It may be that all CPUs that look free for it are not.
    if hidden := kept_untold(load.now):
        return f", but which CPUs are kept from ordinary tasks cannot be told: {hidden}"
    if len(load.cpus) < 2:
        return f", but the poller would need one of its CPUs: there is {len(load.cpus)}"
    return ""


def _vendors_refusal(load: Load, mounts: Sequence[NfsLoad]) -> str:
    """Why a vendor's kernel is left as it is; nothing on another, or where nothing would hang."""
    if load.place.flavour != "vendor":
        return ""
    if load.server_over_rdma is not False:
        return (
            "this vendor's kernel polls only connections made afterwards, and may hang them "
            "when polling changes: stop the NFS server, turn polling on, start it again"
        )
    if mounts:
        return (
            "this vendor's kernel polls only what is mounted afterwards, and may hang a mount "
            f"when polling changes: unmount {', '.join(mount.place for mount in mounts)}, turn polling on, "
            "mount again"
        )
    return ""


def _rtt_ms(mounts: Sequence[NfsLoad]) -> float | None:
    """What an RPC takes on average, in ms; None where no mount made one whose time is known."""
    pairs = [
        (rpcs, rtt_ms)
        for mount in mounts
        if (rpcs := known(mount.rpcs)) and (rtt_ms := known(mount.rtt_ms)) is not None
    ]
    rpcs = sum(rpcs for rpcs, _ in pairs)
    return sum(rpcs * rtt_ms for rpcs, rtt_ms in pairs) / rpcs if rpcs else None
