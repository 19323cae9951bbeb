# SPDX-License-Identifier: Apache-2.0
"""The verdict on all features together, under a database's protected writes. It rests on counts.

What each feature is to save, and by how much at least, the features say (Event in features/trial.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from cvmtune.features.trial import Event, Switch
from cvmtune.report.evidence import Evidence, Judged, figure, worst
from cvmtune.report.rule import Goal
from cvmtune.report.schema import Metric, Verdict
from cvmtune.workloads.blackbox.metrics import ALL_LOST, CLOSED, DAMAGE, EXITS, LOST, MAIN_METRICS

REQUESTED = 1.67
"""What was asked for: end-to-end write latency 40 % lower. It is told beside what was measured; as a time it
decides nothing."""

GOAL = Goal("write I/O of a database, end to end, -40 %", MAIN_METRICS, REQUESTED, "at a rate")

MAX_EXITS_SHARE = 0.8
"""Exits of any kind per transaction, one after another: what may be left of those with all off. What features
save are most of them, but a log's own timers, ticks and device accesses are exits in either state."""

NOTHING_SAVED = 1.0
"""With as many left as with all off a feature has saved nothing. Of fewer a busy computer may leave any
number: it stops vCPUs anywhere, and what would have met an idle one meets one that runs."""


@dataclass(frozen=True)
class Saved:
    """What a feature saves, and the state in which it alone is on."""

    event: Event
    alone: str


@dataclass(frozen=True)
class BlackboxJudge:
    """Makes the verdict. What is saved on the host is counted where there is one."""

    saved: tuple[Saved, ...]

    @staticmethod
    def of(switches: Sequence[Switch]) -> BlackboxJudge:
        """The judge of what these features save, that in the guest first."""
        saved = [Saved(event, switch.name) for switch in switches for event in switch.events]
        return BlackboxJudge(tuple(sorted(saved, key=lambda one: one.event.of_host)))

    def __call__(self, evidence: Evidence) -> Judged:
        """The verdict and why, from the means over all rounds.

        FAIL where the database or a log was damaged, or lacks what was committed or answered, in any state or
        after a power cut.
        UNDECIDED where something was not counted, or with all features off nothing was to be saved. Else PASS
        where with all on, and with each feature alone, there is no more of what it saves than its limits
        allow, and with all on there are fewer exits of any kind without a rate.
        """
        if fault := _fault(evidence):
            return Verdict.FAIL, fault
        by_name = evidence.by_name
        nested = any(name.endswith(f"_{EXITS}") for name in by_name)
        counted = [
            (one, f"{load}_{one.event.suffix}")
            for load in MAIN_METRICS
            for one in self.saved
            if nested or not one.event.of_host
        ]
        if missing := self._missing(evidence, counted, nested):
            return Verdict.UNDECIDED, f"Not measured, or not both off and on: {', '.join(missing)}."
        idle = (
            evidence.exercised(by_name[name], one.event.least_off)
            for one, name in counted
            if one.event.least_off is not None
        )
        limits = [_limits(evidence, one, by_name[name]) for one, name in counted]
        exits = [_exits(by_name[f"{closed}_{EXITS}"]) for closed in CLOSED.values()] if nested else []
        return (
            worst(idle)
            or worst([found for of_one in limits for found in of_one] + exits)
            or (Verdict.PASS, self._says(evidence, nested))
        )

    def _missing(
        self, evidence: Evidence, counted: Sequence[tuple[Saved, str]], nested: bool
    ) -> Sequence[str]:
        """What decides, and is not there: off and on, in some state, or with a feature alone."""
        needed = [f"{load}{suffix}" for load in MAIN_METRICS for suffix in ("", f"_{LOST}")]
        needed += [name for _, name in counted]
        if nested:
            needed += [f"{load}_{EXITS}" for load in (*MAIN_METRICS, *CLOSED.values())]
        known = {one.name for state in evidence.baselines for one in state.metrics} | {*evidence.by_name}
        missing = [name for name in dict.fromkeys(needed) if name not in evidence.by_name]
        missing += [one.name for one in (ALL_LOST, DAMAGE) if one.name not in known]
        alone = (
            f"{name} with {one.alone} alone"
            for one, name in counted
            if _has_limit(one.event) and name not in evidence.beside(one.alone)
        )
        return missing or [*alone]

    def _says(self, evidence: Evidence, nested: bool) -> str:
        """The first load's first figure, and its exits."""
        load, event = MAIN_METRICS[0], self.saved[0].event
        said = [f"{event.said} {_off_on(evidence.by_name[f'{load}_{event.suffix}'])}"]
        if nested:
            said.append(f"exits without a rate {_off_on(evidence.by_name[f'{CLOSED[load]}_{EXITS}'])}")
        return f"Per {load}, all features off → on: {', '.join(said)}."


def _has_limit(event: Event) -> bool:
    return event.most(0.0) is not None


def _limits(evidence: Evidence, saved: Saved, metric: Metric) -> Iterator[Judged | None]:
    """Whether the limits of what a feature saves are kept, with all on and with it alone.

    Alone too, as another feature may save the same: a vCPU that polls for soft IPIs executes no WFI that
    might be trapped.
    """
    most = saved.event.most(metric.off.mean)
    if most is None:
        return
    # Where others add to it, whether the feature saves anything shows alone.
    yield evidence.at_most(metric, most, nothing=inf if saved.event.others_add else NOTHING_SAVED)
    alone = evidence.beside(saved.alone)[metric.name]
    of_one = replace(metric, title=f"{metric.title} with {saved.alone} alone", on=alone)
    yield evidence.at_most(of_one, most, nothing=NOTHING_SAVED)


def _exits(metric: Metric) -> Judged | None:
    """UNDECIDED where hardly fewer exits of any kind are left.

    Never FAIL: among them are those for ticks, which a vCPU that polls takes by the time. A slow computer, or
    a busy one, has any number of them.
    """
    on, most = metric.on.mean, MAX_EXITS_SHARE * metric.off.mean
    if on <= most:
        return None
    return Verdict.UNDECIDED, (
        f"{metric.title}: {figure(on)} on, where more than {figure(most)}, which may be ticks, show nothing."
    )


def _fault(evidence: Evidence) -> str:
    """What was lost or damaged in any state; empty if nothing was."""
    exact = [
        *((one.name, f"{one.title}, features off", one.off) for one in evidence.metrics),
        *((one.name, f"{one.title}, features on", one.on) for one in evidence.metrics),
        *(
            (one.name, f"{one.title}, {at.name}", one.values)
            for at in evidence.baselines
            for one in at.metrics
        ),
    ]
    for name, what, found in exact:
        if name.endswith((f"_{LOST}", DAMAGE.name)) and any(found.samples):
            return f"{what}: {max(found.samples, key=abs):g}, where 0 is right."
    return ""


def _off_on(metric: Metric) -> str:
    return f"{figure(metric.off.mean)} → {figure(metric.on.mean)}"
