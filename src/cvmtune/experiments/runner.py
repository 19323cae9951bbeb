# SPDX-License-Identifier: Apache-2.0
"""Plans an experiment and runs it: boots, rounds, states in turns, baselines. It knows none by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cvmtune.core.errors import UsageError
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.environment import environment_of
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, SiteT, StateT
from cvmtune.experiments.rounds import RawRun, Round, Series, in_turns
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions
from cvmtune.lab.specs import MACHINES, MachineName

# More states than this are not named on the line of progress.
_NAMED = 6


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


def plan(experiment: Experiment[Any, Any], machine: str, rounds: int | None, *, brief: bool = False) -> Plan:
    """Return what is measured on a machine, in full or in short; UsageError where it cannot be."""
    if machine not in MACHINES:
        raise UsageError(f"no machine {machine!r}", next_step=f"machines: {', '.join(MACHINES)}")
    name = MachineName(machine)
    if name not in experiment.machines:
        raise UsageError(
            f"{experiment.name} is nothing that {machine} can have",
            next_step=f"use --machine {' or '.join(experiment.machines)}, or leave the feature out",
        )
    form = experiment.form(brief=brief)
    rounds = rounds or form.rounds
    states = (OFF, ON, *form.beside, *form.combined)
    judged = Measurement(experiment.name, name, states, rounds, parts=form.parts, more=form.more)
    return Plan(experiment, form, judged, tuple(form.baselines(name, rounds)))


def carry_out(lab: Lab, wanted: Plan) -> tuple[RawRun, list[RawRun]]:
    """Boot what is planned and measure it; return what is judged, and all that stands beside it."""
    lab.build("default", host=True)
    form = wanted.form
    judged, others = _parted(_booted(lab, wanted.experiment, wanted.judged), (OFF, ON, *form.combined))
    beside = [others] if others.rounds else []
    beside += [_booted(lab, wanted.experiment, baseline) for baseline in wanted.baselines]
    for title, step in form.also.items():
        with lab.progress.step(f"{wanted.experiment.name}: {title} on {wanted.judged.machine}"):
            beside.append(step(lab, wanted.judged.machine))
    return judged, beside


def _parted(raw: RawRun, states: tuple[str, ...]) -> tuple[RawRun, RawRun]:
    """The rounds in the states that are compared, and the others: baselines that took turns, and the end."""
    judged = tuple(one for one in raw.rounds if one.state in states)
    others = tuple(one for one in raw.rounds if one.state not in states)
    return replace(raw, rounds=judged), replace(raw, rounds=others)


def _booted(lab: Lab, experiment: Experiment[Any, Any], wanted: Measurement) -> RawRun:
    states = ", ".join(wanted.states) if len(wanted.states) <= _NAMED else f"{len(wanted.states)} states"
    title = f"{wanted.experiment}: measuring on {wanted.machine}: {states}"
    tools = experiment.tools(lab)
    # One more for the boot.
    with lab.progress.step(title, wanted.total + 1) as step:

        def advance(note: str) -> None:
            step.advance()
            step.note(note)

        step.note("booting")
        options = BootOptions(append=wanted.append, host_append=wanted.host_append)
        with lab.boot(wanted.machine, options=options, tools=tools) as machine:
            bench = Bench.of(machine, GUEST_TOOLS)
            return run(experiment, bench, wanted, environment=environment_of(machine), advance=advance)


def run(
    experiment: Experiment[SiteT, StateT],
    bench: Bench,
    wanted: Measurement,
    *,
    environment: Mapping[str, object],
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    """Run all rounds on a machine that is there; UsageError for a state or a machine that cannot be.

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `advance` is told what is about to be done. In the end the machine is as it was, whatever has failed.
    """
    states = [experiment.state(name) for name in wanted.states]
    collected: dict[tuple[str, int], tuple[Series, ...]] = {}
    after: list[Round] = []
    findings: dict[str, object] = {}
    with experiment.prepare(bench):
        for part in wanted.parts:
            place = f"{bench.machine}, {part}" if part else bench.machine
            with experiment.site(bench, wanted, part) as site:
                for index, state in in_turns(states, wanted.rounds):
                    advance(f"{place}, {state.name}, round {index + 1} of {wanted.rounds}")
                    with experiment.entered(site, state):
                        series = tuple(experiment.measure(site, state, index))
                    collected[state.name, index] = collected.get((state.name, index), ()) + series
                after += experiment.finish(site)
                findings |= experiment.findings(site)
    rounds = [Round(state, index, series) for (state, index), series in collected.items()]
    return RawRun(experiment.name, str(bench.machine), (*rounds, *after), environment, findings)
