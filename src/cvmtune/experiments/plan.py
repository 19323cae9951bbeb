# SPDX-License-Identifier: Apache-2.0
"""What is measured of an experiment, in which machines, and which measurements can share a boot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cvmtune.core.errors import UsageError
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement
from cvmtune.lab.specs import MACHINES, MachineName


@dataclass(frozen=True)
class Plan:
    """What is measured of an experiment on a machine: what it is judged by, and its baselines."""

    experiment: Experiment[Any, Any]
    form: Form
    judged: Measurement
    baselines: tuple[Measurement, ...]

    def lines(self) -> Iterator[str]:
        """What a dry run says of it."""
        for measurement in (self.judged, *self.baselines):
            yield f"{self.experiment.name}: {measurement}"
        for title in self.form.also:
            yield f"{self.experiment.name}: on {self.judged.machine}: {title}"

    @property
    def compared(self) -> tuple[str, ...]:
        """The states of what is judged that are compared; it may have others, which are baselines."""
        return (OFF, ON, *self.form.combined)


@dataclass(frozen=True)
class Job:
    """One measurement of a plan, what is judged or a baseline."""

    plan: Plan
    measurement: Measurement

    @property
    def experiment(self) -> Experiment[Any, Any]:
        return self.plan.experiment

    @property
    def judged(self) -> bool:
        return self.measurement is self.plan.judged

    @property
    def usual_index_s(self) -> float:
        """How long all states of one index take on a computer of usual speed, in seconds."""
        return self.experiment.usual.round_s * len(self.measurement.states)

    def usual_s(self, rounds: int | None = None) -> float:
        """How long it takes there with so many rounds at most, in seconds."""
        wanted = self.measurement.rounds
        rounds = wanted if rounds is None else min(rounds, wanted)
        each_part = self.experiment.usual.setup_s + rounds * self.usual_index_s
        return each_part * len(self.measurement.parts)


@dataclass(frozen=True)
class Boot:
    """A boot of a machine, and the jobs that are done in it, one after the other."""

    machine: MachineName
    append: tuple[str, ...]
    host_append: tuple[str, ...]
    jobs: tuple[Job, ...]

    @property
    def usual_s(self) -> float:
        """How long the boot takes on a computer of usual speed, in seconds."""
        return MACHINES[self.machine].usual_boot_s

    def __str__(self) -> str:
        return f"{self.machine} {' '.join((*self.append, *self.host_append))}".rstrip()


def plan(experiment: Experiment[Any, Any], machine: str, rounds: int | None, *, brief: bool = False) -> Plan:
    """Return what is measured on a machine, in full or in short; UsageError where it cannot be."""
    if machine not in MACHINES:
        raise UsageError(f"no machine {machine!r}", next_step=f"machines: {', '.join(MACHINES)}")
    name = MachineName(machine)
    if name not in experiment.machines:
        raise UsageError(
            f"{experiment.name} is not supported on machine {machine}",
            next_step=f"use --machine {' or '.join(experiment.machines)}, or leave the feature out",
        )
    form = experiment.form(brief=brief)
    rounds = rounds or form.rounds
    states = (OFF, ON, *form.beside, *form.combined)
    judged = Measurement(experiment.name, name, states, rounds, parts=form.parts, more=form.more)
    return Plan(experiment, form, judged, tuple(form.baselines(name, rounds)))


def boots(plans: Sequence[Plan]) -> tuple[Boot, ...]:
    """The boots that these plans take: what wants the same machine booted alike shares one.

    In each what is judged comes before baselines, so that these suffer first where time is short.
    """
    jobs = [Job(one, one.judged) for one in plans]
    jobs += [Job(one, baseline) for one in plans for baseline in one.baselines]
    shared: dict[tuple[MachineName, tuple[str, ...], tuple[str, ...]], list[Job]] = {}
    for job in jobs:
        wanted = job.measurement
        shared.setdefault((wanted.machine, wanted.append, wanted.host_append), []).append(job)
    return tuple(Boot(*key, tuple(found)) for key, found in shared.items())
