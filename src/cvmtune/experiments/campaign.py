# SPDX-License-Identifier: Apache-2.0
"""Carries out plans: boots what they take, as few times as can be, within a budget of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.budget import Budget
from cvmtune.experiments.environment import environment_of
from cvmtune.experiments.experiment import OFF, ON
from cvmtune.experiments.plan import Boot, Job, Plan, boots
from cvmtune.experiments.rounds import RawRun
from cvmtune.lab.errors import LabError
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.progress import Step

NO_TIME = "There was no time for it within the budget."


@dataclass
class Measured:
    """What was measured: what is judged, and all that stands beside it."""

    judged: list[RawRun] = field(default_factory=list)
    beside: list[RawRun] = field(default_factory=list)

    def add(self, job: Job, raw: RawRun) -> None:
        """Add what a job has measured."""
        if not job.judged:
            self.beside.append(raw)
            return
        compared = job.plan.compared
        judged = tuple(one for one in raw.rounds if one.state in compared)
        others = tuple(one for one in raw.rounds if one.state not in compared)
        self.judged.append(replace(raw, rounds=judged))
        if others:
            self.beside.append(replace(raw, rounds=others))

    def miss(self, job: Job, why: str) -> None:
        """Note that what a job was to measure is not known."""
        if job.judged:
            machine = str(job.measurement.machine)
            self.judged.append(RawRun(job.experiment.name, machine, (), {}, problem=why))


def carry_out(lab: Lab, plans: Sequence[Plan], budget_s: float | None = None) -> Measured:
    """Build and boot what is planned and measure it, within so many seconds from the end of building on.

    A measurement that fails, or takes its machine with it, is one that is missed: what else was measured is
    kept. The first error if nothing was measured at all.
    """
    lab.build("default", host=True)
    tools = {plan.experiment.name: plan.experiment.tools(lab) for plan in plans}
    campaign = _Campaign(lab, tools, Budget(budget_s))
    left = list(boots(plans))
    while left:
        boot = left.pop(0)
        rest = campaign.boot(boot, left)
        if rest:
            # Its machine is gone, and they want another one.
            left.insert(0, replace(boot, jobs=rest))
    measured = campaign.measured
    if campaign.failed and not any(raw.rounds for raw in measured.judged):
        raise campaign.failed
    # What was missed is told in its place.
    order = [plan.experiment.name for plan in plans]
    measured.judged.sort(key=lambda raw: order.index(raw.feature))
    for plan in plans:
        for title, step in plan.form.also.items():
            with lab.progress.step(f"{plan.experiment.name}: {title} on {plan.judged.machine}"):
                measured.beside.append(step(lab, plan.judged.machine))
    return measured


class _Campaign:
    """Works through boots and their jobs; `failed` is the first error, if there was any."""

    def __init__(self, lab: Lab, tools: Mapping[str, tuple[Path, ...]], budget: Budget) -> None:
        self.measured = Measured()
        self.failed: CvmtuneError | None = None
        self._lab = lab
        self._tools = tools
        self._budget = budget

    def boot(self, boot: Boot, later: Sequence[Boot]) -> tuple[Job, ...]:
        """Do the jobs of a boot; return those that are left because the machine is gone."""
        if self._budget.over:
            return self._miss(boot.jobs, NO_TIME)
        options = BootOptions(append=boot.append, host_append=boot.host_append)
        tools = tuple(dict.fromkeys(path for job in boot.jobs for path in self._tools[job.experiment.name]))
        with ExitStack() as stack:
            try:
                with self._lab.progress.step(f"booting {boot}"):
                    machine = stack.enter_context(self._lab.boot(boot.machine, options=options, tools=tools))
            except LabError as error:
                return self._fail(boot.jobs, error)
            self._budget.learn(boot.usual_s, machine.boot_seconds)
            boot = self._fitting(boot)
            self._tell(boot, later, machine)
            environment = environment_of(machine)
            with self._lab.progress.step(f"measuring on {boot}", self._units(boot, later)) as step:
                for number, job in enumerate(boot.jobs, 1):
                    rest = boot.jobs[number:]
                    try:
                        self._measure(job, machine, environment, step, rest, later)
                    except UsageError:
                        raise
                    except LabError as error:
                        self._fail((job,), error)
                        return rest
                    except CvmtuneError as error:
                        self._fail((job,), error)
        return ()

    def _measure(
        self,
        job: Job,
        machine: Machine,
        environment: Mapping[str, object],
        step: Step,
        rest: Sequence[Job],
        later: Sequence[Boot],
    ) -> None:
        if self._budget.over:
            self._miss((job,), NO_TIME)
            return
        name, began = job.experiment.name, self._budget.spent
        rounds = self._budget.rounds((job, *rest), later) or job.measurement.rounds
        wanted = replace(job.measurement, rounds=min(rounds, job.measurement.rounds))
        turns = self._budget.turns(job, rest, later)

        def advance(note: str) -> None:
            step.advance(round(job.experiment.usual.round_s))
            step.note(f"{name} on {note}")

        raw = runner.run(
            job.experiment,
            Bench.of(machine, GUEST_TOOLS),
            wanted,
            environment=environment,
            advance=advance,
            go_on=turns.go_on,
        )
        took = self._budget.spent - began
        done = max((one.index + 1 for one in raw.rounds), default=0)
        self._budget.learn(job.usual_s(done), took)
        # Off and on come first of all states.
        missed = job.judged and not {OFF, ON} <= {one.state for one in raw.rounds}
        findings = {**raw.findings, "seconds": round(took, 1)}
        self.measured.add(job, replace(raw, findings=findings, problem=NO_TIME if missed else ""))

    def _fitting(self, boot: Boot) -> Boot:
        """The boot with the jobs that there is time for."""
        jobs = self._budget.fitting(boot.jobs)
        for job in boot.jobs:
            if job not in jobs:
                minutes = self._budget.expected_min(job)
                self._miss((job,), f"{NO_TIME} It takes about {minutes} min here: see --budget.")
        return replace(boot, jobs=jobs)

    def _units(self, boot: Boot, later: Sequence[Boot]) -> int:
        """How long this boot's jobs usually take, in seconds."""
        rounds = self._budget.rounds(boot.jobs, later)
        return max(1, round(sum(job.usual_s(rounds) for job in boot.jobs)))

    def _tell(self, boot: Boot, later: Sequence[Boot], machine: Machine) -> None:
        """Say what will be done, before it begins."""
        names = ", ".join(dict.fromkeys(job.experiment.name for job in boot.jobs))
        rounds = self._budget.rounds(boot.jobs, later)
        each = "all rounds" if rounds is None else "1 round" if rounds == 1 else f"{rounds} rounds at most"
        minutes = self._budget.expected_s(boot.jobs, later) / 60
        self._lab.progress.say(
            f"{boot} booted in {machine.boot_seconds:.0f} s. To measure: {names}; {each} of each state; "
            f"about {max(1, round(minutes))} min to go."
        )

    def _miss(self, jobs: Sequence[Job], why: str) -> tuple[Job, ...]:
        for job in jobs:
            self.measured.miss(job, why)
        return ()

    def _fail(self, jobs: Sequence[Job], error: CvmtuneError) -> tuple[Job, ...]:
        self.failed = self.failed or error
        return self._miss(jobs, f"It could not be measured: {error.what} ({error.where}).")
