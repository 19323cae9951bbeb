# SPDX-License-Identifier: Apache-2.0
"""The verdict on all four features together, under a database's protected writes. It rests on counts."""

from __future__ import annotations

from collections.abc import Sequence

from cvmtune.report.rule import Goal
from cvmtune.report.schema import Baseline, Metric, Verdict

MAIN_METRICS = ("insert", "tpcb", "audit")
"""The latencies by which combinations are compared: those of an insert, of a TPC-B transaction and of a
record of the audit log, all at a rate."""

REQUESTED = 1.67
"""What was asked for: end-to-end write latency 40 % lower. It is told beside what was measured; as a time it
decides nothing."""

GOAL = Goal(MAIN_METRICS, REQUESTED, "at a rate")

MIN_IPIS_OFF = 2.0
"""A transaction's messages between client, server and storage wake several threads, some of them on another
CPU. Below this the experiment did not exercise IPIs."""

MIN_WAKEUPS_OFF = 2.0
"""Each write to the storage has at least one completion on either side. Below this nothing was written."""

MAX_IPIS_SHARE = 0.7
"""Of the hardware IPIs with all off, what may be left: those to a CPU that runs something. The poller is
something that runs."""

MAX_WAKEUPS_ON = 0.5
"""Completion events that wake a handler, per transaction: the poller asks for them only while something that
computes for long shares its CPU, and a TPC-B transaction computes for longer than a write does."""

MAX_WFX_ON = 0.5
"""Exits for WFI and WFE per transaction with none trapped: those of the moment in which the mask is set."""

CLOSED = {"insert": "insert_1_closed", "tpcb": "tpcb_1_closed", "audit": "audit_closed"}
"""Of each of these the same load without a rate, by which exits are judged. At a rate, the time between two
transactions is part of each: a vCPU that polls takes its own and its host's ticks in it as exits, by the
time, and a sleeping one takes none."""

MAX_EXITS_SHARE = 0.8
"""Exits of any kind per transaction, one after another: what may be left of those with all off. IPIs and
WFx are most of them, but a log's own timers, ticks and device accesses are exits in either state."""

MAX_REDUNDANT_ON = 0.05
"""Of the exits for the timer per transaction, with the monitor masking it, those that told nothing new."""


def verdict(metrics: Sequence[Metric], baselines: Sequence[Baseline]) -> tuple[Verdict, str]:
    """The verdict and why, from the means over all rounds; `baselines` have all that was measured here.

    FAIL where the database or a log was damaged, or lacks what was committed or answered, in any state or
    after a power cut.
    UNDECIDED where something was not counted, or with all features off nothing was to be saved. Else PASS
    where, with all on, each of the loads at a rate has fewer hardware IPIs, no completion events or WFx exits
    or redundant timer exits worth mentioning, and without a rate fewer exits of any kind. Else FAIL.
    """
    by_name = {metric.name: metric for metric in metrics}
    exact = [
        *((one.name, f"{one.title}, features off", one.off) for one in metrics),
        *((one.name, f"{one.title}, features on", one.on) for one in metrics),
        *((one.name, f"{one.title}, {at.name}", one.values) for at in baselines for one in at.metrics),
    ]
    for name, what, found in exact:
        if name.endswith(("_lost", "damage")) and any(found.samples):
            return Verdict.FAIL, f"{what}: {max(found.samples, key=abs):g}, where 0 is right."
    nested = any(metric.name.endswith("_exits") for metric in metrics)
    of_host = ("_exits", "_wfx_exits", "_timer_exits", "_redundant_exits")
    suffixes = ("", "_lost", "_ipis", "_wakeups", *(of_host if nested else ()))
    wanted = [f"{load}{suffix}" for load in MAIN_METRICS for suffix in suffixes]
    if nested:
        wanted += [f"{closed}_exits" for closed in CLOSED.values()]
    known = {*by_name, *(one.name for state in baselines for one in state.metrics)}
    missing = [name for name in wanted if name not in by_name]
    missing += [name for name in ("all_lost", "damage") if name not in known]
    if missing:
        return Verdict.UNDECIDED, f"Not measured, or not both off and on: {', '.join(missing)}."
    said, passed = [], True
    for load in MAIN_METRICS:
        ipis, wakeups = by_name[f"{load}_ipis"], by_name[f"{load}_wakeups"]
        for metric, least in ((ipis, MIN_IPIS_OFF), (wakeups, MIN_WAKEUPS_OFF)):
            if metric.off.mean < least:
                return Verdict.UNDECIDED, (
                    f"{metric.title}: only {metric.off.mean:.2f} with all features off (at least {least:g} "
                    "expected): the experiment did not exercise what they save."
                )
        passed &= ipis.on.mean <= MAX_IPIS_SHARE * ipis.off.mean and wakeups.on.mean <= MAX_WAKEUPS_ON
        counts = [f"hardware IPIs {_off_on(ipis)}", f"completion events {_off_on(wakeups)}"]
        if nested:
            exits, wfx, timer, redundant = (by_name[f"{load}{suffix}"] for suffix in of_host)
            closed = by_name[f"{CLOSED[load]}_exits"]
            passed &= closed.on.mean <= MAX_EXITS_SHARE * closed.off.mean and wfx.on.mean <= MAX_WFX_ON
            passed &= redundant.on.mean <= MAX_REDUNDANT_ON
            counts += [f"exits {_off_on(exits)}", f"of these for WFx {_off_on(wfx)}"]
            counts += [f"for the timer {_off_on(timer)}", f"redundantly {_off_on(redundant)}"]
            counts += [f"exits without a rate {_off_on(closed)}"]
        said.append(f"{load}: {', '.join(counts)}; mean latency off/on {_gain(by_name[load])}.")
    return Verdict.PASS if passed else Verdict.FAIL, (
        "Nothing committed or answered was lost, nothing damaged. Per transaction or record, all features "
        f"off → on: {' '.join(said)} Times decide nothing; asked for was {REQUESTED:g}. Allowed: "
        f"{MAX_IPIS_SHARE:.0%} of the IPIs, {MAX_WAKEUPS_ON:g} completion events"
        + (
            f", {MAX_WFX_ON:g} WFx exits, {MAX_REDUNDANT_ON:g} redundant ones, {MAX_EXITS_SHARE:.0%} of all "
            "exits without a rate."
            if nested
            else "."
        )
    )


def _off_on(metric: Metric) -> str:
    return f"{metric.off.mean:.2f} → {metric.on.mean:.2f}"


def _gain(metric: Metric) -> str:
    """The ratio, and what of the bar."""
    if metric.ratio is None:
        return "unknown"
    if metric.ci95 is None:
        return f"{metric.ratio:.2f}"
    return f"{metric.ratio:.2f} [{metric.ci95[0]:.2f}, {metric.ci95[1]:.2f}], {GOAL.bar(metric)}"
