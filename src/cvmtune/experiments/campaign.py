# SPDX-License-Identifier: Apache-2.0
"""Carries out plans: boots what they take, as few times as can be, within a budget of time."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.budget import Budget
from cvmtune.experiments.environment import environment_of
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

    def miss(self, job: Job, why: str, environment: Mapping[str, object]) -> None:
        """Note that what a job was to measure is not known."""
        machine = str(job.measurement.machine)
        raw = RawRun(job.experiment.name, machine, (), environment, problem=why)
        (self.judged if job.judged else self.beside).append(raw)


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
        campaign.also(plan)
    return measured


class _Campaign:
    """Works through boots and their jobs; `failed` is the first error, if there was any."""

    def __init__(self, lab: Lab, tools: Mapping[str, tuple[Path, ...]], budget: Budget) -> None:
        self.measured = Measured()
        self.failed: Exception | None = None
        self._lab = lab
        self._tools = tools
        self._budget = budget

    def also(self, plan: Plan) -> None:
        """Do what a plan has beside measuring states. Without it its experiment is undecided."""
        name, machine = plan.experiment.name, plan.judged.machine
        for title, step in plan.form.also.items():
            problem = NO_TIME if self._budget.over else ""
            try:
                if not problem:
                    with self._lab.progress.step(f"{name}: {title} on {machine}"):
                        self.measured.beside.append(step(self._lab, machine))
            except Exception as error:
                problem = self._say(f"{name}: {title}", error)
            if problem:
                self.measured.judged = [
                    replace(raw, problem=f"{title}: {problem}") if raw.feature == name else raw
                    for raw in self.measured.judged
                ]

    def boot(self, boot: Boot, later: Sequence[Boot]) -> tuple[Job, ...]:
        """Do the jobs of a boot; return those that are left because the machine is gone."""
        jobs = self._worthwhile(boot.jobs)
        # Baselines alone begin only if they can end in time.
        alone = () if any(job.judged for job in jobs) else (replace(boot, jobs=jobs),)
        if not jobs or self._budget.over or not self._budget.fits((), alone, 1):
            return self._miss(boot.jobs, NO_TIME, {})
        options = BootOptions(append=boot.append, host_append=boot.host_append)
        tools = tuple(dict.fromkeys(path for job in jobs for path in self._tools[job.experiment.name]))
        with ExitStack() as stack:
            try:
                with self._lab.progress.step(f"booting {boot}"):
                    machine = stack.enter_context(self._lab.boot(boot.machine, options=options, tools=tools))
                environment = environment_of(machine)
            except (LabError, OSError) as error:
                return self._fail(jobs, error, {})
            self._budget.learn(boot.usual_s, machine.boot_seconds, measured=False)
            fitting = self._budget.fitting(jobs)
            beside = self._beside(later, fitting)
            rounds = self._budget.rounds(fitting, beside)
            self._tell(boot, jobs, fitting, beside, machine)
            units = max(1, round(sum(job.usual_s(rounds) for job in fitting)))
            with self._lab.progress.step(f"measuring on {boot}", units) as step:
                return self._jobs(jobs, later, machine, environment, step)

    def _jobs(
        self,
        jobs: Sequence[Job],
        later: Sequence[Boot],
        machine: Machine,
        environment: Mapping[str, object],
        step: Step,
    ) -> tuple[Job, ...]:
        """Do these jobs; what there is no time for as it looks waits until the others have had their turn."""
        left, waiting = list(jobs), list[Job]()
        while left or waiting:
            turn = left or waiting
            job = turn.pop(0)
            if not job.judged and not self._is_measured(job):
                self._miss((job,), "What it was to stand beside was not measured.", environment)
                continue
            fitting = self._budget.fitting((job, *left))
            if self._budget.over or job not in fitting:
                if turn is left and not self._budget.over:
                    waiting.append(job)
                else:
                    self._miss((job,), self._too_long(job), environment)
                continue
            rest = [one for one in left if one in fitting]
            try:
                self._measure(job, machine, environment, step, rest, self._beside(later, (job, *rest)))
            except UsageError:
                raise
            except LabError as error:
                self._fail((job,), error, environment)
                return (*left, *waiting)
            except Exception as error:
                # A fault of one experiment must not take what others have measured.
                self._fail((job,), error, environment)
        return ()

    def _too_long(self, job: Job) -> str:
        return f"{NO_TIME} It takes about {self._budget.expected_min(job)} min here: see --budget."

    def _beside(self, later: Sequence[Boot], jobs: Sequence[Job]) -> tuple[Boot, ...]:
        """What comes later, without baselines that will have nothing to stand beside."""
        kept = (replace(boot, jobs=self._worthwhile(boot.jobs, jobs)) for boot in later)
        return tuple(boot for boot in kept if boot.jobs)

    def _worthwhile(self, jobs: Sequence[Job], before: Sequence[Job] = ()) -> tuple[Job, ...]:
        """These jobs, without baselines of what is neither judged among them or before, nor measured."""
        names = {job.experiment.name for job in (*before, *jobs) if job.judged}
        return tuple(job for job in jobs if job.experiment.name in names or self._is_measured(job))

    def _is_measured(self, job: Job) -> bool:
        """Whether there is something that a baseline can stand beside."""
        return any(raw.feature == job.experiment.name and raw.rounds for raw in self.measured.judged)

    def _measure(
        self,
        job: Job,
        machine: Machine,
        environment: Mapping[str, object],
        step: Step,
        rest: Sequence[Job],
        later: Sequence[Boot],
    ) -> None:
        name, began = job.experiment.name, self._budget.spent
        rounds = self._budget.rounds((job, *rest), later) or job.measurement.rounds
        wanted = replace(job.measurement, rounds=min(rounds, job.measurement.rounds))
        turns = self._budget.turns(job, rest, later)

        units = 0

        def advance(note: str) -> None:
            # What was begun before is done.
            nonlocal units
            step.advance(units)
            units = round(job.experiment.usual.round_s)
            step.note(f"{name} on {note}")

        raw = runner.run(
            job.experiment,
            Bench.of(machine, GUEST_TOOLS),
            wanted,
            environment=environment,
            advance=advance,
            go_on=turns.go_on,
        )
        step.advance(units + round(job.usual_s(0)))
        took = self._budget.spent - began
        done = max((one.index + 1 for one in raw.rounds), default=0)
        self._budget.learn(job.usual_s(done), took)
        missed = job.judged and not {*job.plan.compared} <= {one.state for one in raw.rounds}
        findings = {**raw.findings, "seconds": round(took, 1)}
        self.measured.add(job, replace(raw, findings=findings, problem=NO_TIME if missed else ""))

    def _tell(
        self,
        boot: Boot,
        jobs: Sequence[Job],
        fitting: Sequence[Job],
        later: Sequence[Boot],
        machine: Machine,
    ) -> None:
        """Say what will be done, before it begins."""
        if self._budget.over:
            return
        names, left_out = (
            ", ".join(dict.fromkeys(job.experiment.name for job in jobs if (job in fitting) is wanted))
            for wanted in (True, False)
        )
        rounds = self._budget.rounds(fitting, later)
        each = "all rounds" if rounds is None else "1 round" if rounds == 1 else f"about {rounds} rounds"
        minutes = self._budget.expected_s(fitting, later) / 60
        self._lab.progress.say(
            f"{boot} booted in {machine.boot_seconds:.0f} s. To measure: {names}; {each} of each state; "
            f"about {max(1, round(minutes))} min to go."
            + (f" Too little time, as it looks, for {left_out}: see --budget." if left_out else "")
        )

    def _miss(self, jobs: Sequence[Job], why: str, environment: Mapping[str, object]) -> tuple[Job, ...]:
        for job in jobs:
            self.measured.miss(job, why, environment)
            if not job.judged:
                self._lab.progress.say(f"not measured: {job.experiment.name}: {job.measurement}: {why}")
        return ()

    def _fail(
        self, jobs: Sequence[Job], error: Exception, environment: Mapping[str, object]
    ) -> tuple[Job, ...]:
        self.failed = self.failed or error
        names = ", ".join(dict.fromkeys(job.experiment.name for job in jobs))
        return self._miss(jobs, self._say(names, error), environment)

    def _say(self, what: str, error: Exception) -> str:
        """Tell of an error at once, with its place in the program if it is none that we know; return it."""
        if not isinstance(error, CvmtuneError):
            self._lab.progress.say("".join(traceback.format_exception(error)))
        said = f"{error.what} ({error.where})" if isinstance(error, CvmtuneError) else repr(error)
        self._lab.progress.say(f"{what} failed: {said}")
        return f"It could not be measured: {said}."
