# SPDX-License-Identifier: Apache-2.0
"""The verdict on all features together, under a database's protected writes. It rests on counts.

What each feature is to save, and by how much at least, the features say (Event in features/trial.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cvmtune.features.trial import Event, Switch
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.rule import Goal
from cvmtune.report.schema import Baseline, Metric, Verdict
from cvmtune.report.text import format_effect
from cvmtune.workloads.blackbox.counting import events_of
from cvmtune.workloads.blackbox.metrics import ALL_LOST, CLOSED, DAMAGE, EXITS, LOST, MAIN_METRICS

REQUESTED = 1.67
"""What was asked for: end-to-end write latency 40 % lower. It is told beside what was measured; as a time it
decides nothing."""

GOAL = Goal("write I/O of a database, end to end, -40 %", MAIN_METRICS, REQUESTED, "at a rate")

MAX_EXITS_SHARE = 0.8
"""Exits of any kind per transaction, one after another: what may be left of those with all off. What features
save are most of them, but a log's own timers, ticks and device accesses are exits in either state."""

_Metrics = Mapping[str, Metric]


@dataclass(frozen=True)
class BlackboxJudge:
    """Makes the verdict. Of `events` those of the host are counted where there is one."""

    events: tuple[Event, ...]

    @staticmethod
    def of(switches: Sequence[Switch]) -> BlackboxJudge:
        """The judge of what these features save. What it says of the host has the last feature first."""
        guest = (event for event in events_of(switches) if not event.of_host)
        host = (event for event in events_of(switches[::-1]) if event.of_host)
        return BlackboxJudge((*guest, *host))

    @property
    def of_guest(self) -> tuple[Event, ...]:
        return tuple(event for event in self.events if not event.of_host)

    @property
    def of_host(self) -> tuple[Event, ...]:
        return tuple(event for event in self.events if event.of_host)

    def __call__(self, evidence: Evidence) -> Judged:
        """The verdict and why, from the means over all rounds.

        FAIL where the database or a log was damaged, or lacks what was committed or answered, in any state or
        after a power cut.
        UNDECIDED where something was not counted, or with all features off nothing was to be saved. Else PASS
        where, with all on, each of the loads at a rate has no more of what features save than their limits
        allow, and without a rate fewer exits of any kind. Else FAIL.
        """
        metrics, baselines = evidence.metrics, evidence.baselines
        if fault := _fault(metrics, baselines):
            return Verdict.FAIL, fault
        by_name = evidence.by_name
        nested = any(metric.name.endswith(f"_{EXITS}") for metric in metrics)
        known = {*by_name, *(one.name for state in baselines for one in state.metrics)}
        missing = [name for name in self._needed(nested) if name not in by_name]
        missing += [metric.name for metric in (ALL_LOST, DAMAGE) if metric.name not in known]
        if missing:
            return Verdict.UNDECIDED, f"Not measured, or not both off and on: {', '.join(missing)}."
        for load in MAIN_METRICS:
            if idle := self._not_exercised(load, by_name):
                return Verdict.UNDECIDED, idle
        passed = all(self._passes(load, by_name, nested) for load in MAIN_METRICS)
        said = " ".join(self._says(load, by_name, nested) for load in MAIN_METRICS)
        return Verdict.PASS if passed else Verdict.FAIL, (
            "Nothing committed or answered was lost, nothing damaged. Per transaction or record, all "
            f"features off → on: {said} Times decide nothing; asked for was {REQUESTED:g}. Allowed: "
            f"{', '.join(self._limits(nested))}."
        )

    def _needed(self, nested: bool) -> Iterator[str]:
        """The metrics that decide, each of which must be there both off and on."""
        suffixes = ["", f"_{LOST}", *(f"_{event.suffix}" for event in self.of_guest)]
        if nested:
            suffixes += [f"_{EXITS}", *(f"_{event.suffix}" for event in self.of_host)]
        yield from (f"{load}{suffix}" for load in MAIN_METRICS for suffix in suffixes)
        if nested:
            yield from (f"{closed}_{EXITS}" for closed in CLOSED.values())

    def _counted(self, nested: bool) -> tuple[Event, ...]:
        return self.events if nested else self.of_guest

    def _not_exercised(self, load: str, by_name: _Metrics) -> str:
        """Why nothing can be said: with all off there was too little to save. Empty if there was enough."""
        for event in self.of_guest:
            metric = by_name[f"{load}_{event.suffix}"]
            if event.least_off is not None and metric.off.mean < event.least_off:
                return (
                    f"{metric.title}: only {metric.off.mean:.2f} with all features off (at least "
                    f"{event.least_off:g} expected): the experiment did not exercise what they save."
                )
        return ""

    def _passes(self, load: str, by_name: _Metrics, nested: bool) -> bool:
        events = {event: by_name[f"{load}_{event.suffix}"] for event in self._counted(nested)}
        if not all(event.within(metric.off.mean, metric.on.mean) for event, metric in events.items()):
            return False
        if not nested:
            return True
        closed = by_name[f"{CLOSED[load]}_{EXITS}"]
        return closed.on.mean <= MAX_EXITS_SHARE * closed.off.mean

    def _says(self, load: str, by_name: _Metrics, nested: bool) -> str:
        counts = [f"{event.said} {_off_on(by_name[f'{load}_{event.suffix}'])}" for event in self.of_guest]
        if nested:
            counts.append(f"exits {_off_on(by_name[f'{load}_{EXITS}'])}")
            counts += [f"{event.said} {_off_on(by_name[f'{load}_{event.suffix}'])}" for event in self.of_host]
            counts.append(f"exits without a rate {_off_on(by_name[f'{CLOSED[load]}_{EXITS}'])}")
        return f"{load}: {', '.join(counts)}; mean latency off/on {_gain(by_name[load])}."

    def _limits(self, nested: bool) -> Iterator[str]:
        yield from filter(None, (event.limit() for event in self._counted(nested)))
        if nested:
            yield f"{MAX_EXITS_SHARE:.0%} of all exits without a rate"


def _fault(metrics: Sequence[Metric], baselines: Sequence[Baseline]) -> str:
    """What was lost or damaged in any state; empty if nothing was."""
    exact = [
        *((one.name, f"{one.title}, features off", one.off) for one in metrics),
        *((one.name, f"{one.title}, features on", one.on) for one in metrics),
        *((one.name, f"{one.title}, {at.name}", one.values) for at in baselines for one in at.metrics),
    ]
    for name, what, found in exact:
        if name.endswith((f"_{LOST}", DAMAGE.name)) and any(found.samples):
            return f"{what}: {max(found.samples, key=abs):g}, where 0 is right."
    return ""


def _off_on(metric: Metric) -> str:
    return f"{metric.off.mean:.2f} → {metric.on.mean:.2f}"


def _gain(metric: Metric) -> str:
    """The ratio, and what of the bar."""
    if metric.effect is None:
        return "unknown"
    return f"{format_effect(metric.effect)}, {GOAL.bar(metric)}"
