# SPDX-License-Identifier: Apache-2.0
"""The result file, schema 2: every round with its raw samples, and the environment once a boot.

It holds what was measured and not what was made of it: judge.py judges it anew each time. These types are the
file's form, and results.schema.json is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from cvmtune.experiments.rounds import Better, Heading, Kind, RawRun, Round, Series, headings
from cvmtune.report.schema import Result, Verdict

SCHEMA: Final = 2

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class HeadingRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """What a metric is; its name is the key."""

    title: Annotated[str, Meta(description="What is measured, from where to where.")]
    unit: str
    kind: Annotated[Kind, Meta(description="Counts are exact under emulation, times are not.")]
    better: Better


class RoundRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One round in one state."""

    state: Annotated[
        str, Meta(description='"off" and "on" are compared; other names are of baselines and combinations.')
    ]
    index: Annotated[
        int, Meta(description="Rounds of one index ran next to each other and are compared as a pair.")
    ]
    waited: Annotated[
        float | None,
        Meta(
            description="The share of the time, 0 to 1, in which the emulator wanted a CPU and had none; "
            "null if unknown."
        ),
    ]
    samples: Annotated[
        dict[str, Annotated[tuple[float, ...], Meta(min_length=1)]],
        Meta(
            description="Raw samples by the metric's name, in its unit. A name with a slash is a part: the "
            'means of all "write/..." add up to that of "write".'
        ),
    ]


class RunRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All rounds of one experiment in one boot that are judged, or that stand beside it."""

    experiment: str
    machine: str
    judged: Annotated[
        bool, Meta(description="Whether its states are compared; else it is a baseline and has no verdict.")
    ]
    findings: Annotated[
        dict[str, Any], Meta(description="What this run found out of the machine, beside its rounds.")
    ]
    headings: Annotated[
        dict[str, HeadingRecord], Meta(description="What is measured, by the metric's name, parts included.")
    ]
    rounds: tuple[RoundRecord, ...]
    problem: Annotated[str, Meta(description="Why there are no rounds, or too few.")] = ""

    def __post_init__(self) -> None:
        """Refuse, while its place in the file is known, what would be no run; raises ValueError."""
        self.raw({})

    def raw(self, environment: Mapping[str, object]) -> RawRun:
        """The run as it was measured; ValueError if a round or a series cannot be."""
        rounds = tuple(
            Round(one.state, one.index, tuple(self._series(one)), one.waited) for one in self.rounds
        )
        return RawRun(self.experiment, self.machine, rounds, environment, self.findings, self.problem)

    def _series(self, one: RoundRecord) -> list[Series]:
        if unknown := one.samples.keys() - self.headings.keys():
            raise ValueError(f"round '{one.state} {one.index}' has {min(unknown)!r}, which has no heading")
        heads = ((name, self.headings[name], samples) for name, samples in one.samples.items())
        return [
            Series(name, head.title, head.unit, head.kind, head.better, samples)
            for name, head, samples in heads
        ]


class BootRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One boot of a machine, and the runs between it and its shutdown."""

    environment: Annotated[
        dict[str, Any],
        Meta(description="Where and when: date, version, kernel, machine, emulator, computer."),
    ]
    runs: tuple[RunRecord, ...]


class VerdictRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """What was told when the file was written."""

    experiment: str
    machine: str
    verdict: Verdict
    why: str


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """A result file of cvmtune."""

    schema: Literal[2]
    boots: tuple[BootRecord, ...]
    verdicts: Annotated[
        tuple[VerdictRecord, ...],
        Meta(
            description="For scripts. `cvmtune report` judges the rounds by the rules of its own version "
            "and says where the verdict is another."
        ),
    ]

    @staticmethod
    def of(judged: Sequence[RawRun], beside: Sequence[RawRun], results: Sequence[Result]) -> Record:
        """The record of what was measured, and of what was told of it.

        CvmtuneError where rounds of a run disagree on what a metric is.
        """
        boots: dict[int, list[RunRecord]] = {}
        for runs, compared in ((judged, True), (beside, False)):
            for run in runs:
                boots.setdefault(id(run.environment), []).append(_run(run, judged=compared))
        environments = {id(run.environment): dict(run.environment) for run in (*judged, *beside)}
        told = (VerdictRecord(one.feature, one.machine, one.verdict, one.why) for one in results)
        order = _order(judged, beside)
        return Record(
            SCHEMA, tuple(BootRecord(environments[boot], tuple(boots[boot])) for boot in order), tuple(told)
        )

    def runs(self) -> tuple[list[RawRun], list[RawRun]]:
        """What is judged, and the baselines, as they were measured; those of a boot share its environment."""
        judged: list[RawRun] = []
        beside: list[RawRun] = []
        for boot in self.boots:
            for run in boot.runs:
                (judged if run.judged else beside).append(run.raw(boot.environment))
        return judged, beside


def _order(*lists: Sequence[RawRun]) -> list[int]:
    """The boots in an order that keeps that of each list, so that all is shown in the same order again."""
    sequences = [list(dict.fromkeys(id(run.environment) for run in runs)) for runs in lists]
    graph: TopologicalSorter[int] = TopologicalSorter()
    for sequence in sequences:
        for boot in sequence:
            graph.add(boot)
        for before, after in pairwise(sequence):
            graph.add(after, before)
    try:
        return list(graph.static_order())
    except CycleError:  # there is none
        return list(dict.fromkeys(boot for sequence in sequences for boot in sequence))


def _run(run: RawRun, *, judged: bool) -> RunRecord:
    return RunRecord(
        experiment=run.feature,
        machine=run.machine,
        judged=judged,
        findings=dict(run.findings),
        headings={name: _heading(one) for name, one in headings(run.rounds).items()},
        rounds=tuple(
            RoundRecord(
                state=one.state,
                index=one.index,
                waited=one.waited,
                samples={series.name: series.samples for series in one.series},
            )
            for one in run.rounds
        ),
        problem=run.problem,
    )


def _heading(one: Heading) -> HeadingRecord:
    return HeadingRecord(one.title, one.unit, one.kind, one.better)


def encode(record: Record) -> str:
    """The file's content."""
    return msgspec.json.encode(record).decode() + "\n"


def json_schema() -> str:
    """The JSON Schema of the file, as the package has it in results.schema.json."""
    schema = {
        "$schema": _DIALECT,
        "title": f"Results of cvmtune, schema {SCHEMA}",
        **msgspec.json.schema(Record),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
