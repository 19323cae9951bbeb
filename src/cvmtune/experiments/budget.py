# SPDX-License-Identifier: Apache-2.0
"""How many rounds fit into the time that there is, on a computer whose speed is not known before.

What each experiment takes on a computer of usual speed is known (Experiment.usual). How much longer things
take here the first boot tells, and then each experiment that is done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from cvmtune.experiments.plan import Boot, Job

Clock = Callable[[], float]


class Budget:
    """The time for measuring, boots included: `seconds` of it, or with None as long as it takes.

    It begins when it is made. Each job has as many rounds as all that are still to come can have.
    """

    def __init__(self, seconds: float | None, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._deadline = None if seconds is None else self._began + seconds
        self._usual = self._took = 0.0
        self._measured = False

    @property
    def pace(self) -> float:
        """How many times as long as usual things take here; 1 before anything was done."""
        return self._took / self._usual if self._usual else 1.0

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    @property
    def over(self) -> bool:
        return self._deadline is not None and self._clock() >= self._deadline

    def fitting(self, jobs: Sequence[Job]) -> tuple[Job, ...]:
        """Those of these jobs that there is time for, with one round each. Of too many baselines are left out
        first, and the longest; as long as nothing was measured one is kept."""
        left = list(jobs)
        fewest = 0 if self._measured else 1
        while len(left) > fewest and not self.fits(left, (), 1):
            left.remove(max(reversed(left), key=lambda job: (not job.judged, job.usual_s(1))))
        return tuple(left)

    def fits(self, jobs: Sequence[Job], later: Sequence[Boot], rounds: int) -> bool:
        """Whether there is time for these jobs with so many rounds each, and for boots that come later with
        one."""
        if self._deadline is None:
            return True
        return self.pace * _usual_s(jobs, later, rounds) <= self._deadline - self._clock()

    def expected_min(self, job: Job) -> int:
        """How many minutes a round of a job can be expected to take here, with what it takes to prepare."""
        return math.ceil(self.pace * job.usual_s(1) / 60)

    def learn(self, usual: float, took: float, *, measured: bool = True) -> None:
        """Take into account that something took `took` seconds which usually takes `usual`; a boot measures
        nothing."""
        self._usual += usual
        self._took += took
        self._measured |= measured

    def rounds(self, jobs: Sequence[Job], later: Sequence[Boot]) -> int | None:
        """The number of rounds that each of these jobs can have, if boots come later whose jobs have one; at
        least 1. None if there is time for all that is wanted. Boots that there is no time for do not
        count."""
        later = self._possible(jobs, later)
        every = [*jobs, *(job for boot in later for job in boot.jobs)]
        most = max((job.measurement.rounds for job in every), default=1)
        for rounds in range(most, 1, -1):
            if self.fits(jobs, later, rounds):
                return None if rounds == most else rounds
        return None if most == 1 else 1

    def expected_s(self, jobs: Sequence[Job], later: Sequence[Boot]) -> float:
        """How long these will take, in seconds, as far as there is time for them."""
        later = self._possible(jobs, later)
        expected = self.pace * _usual_s(jobs, later, self.rounds(jobs, later))
        return expected if self._deadline is None else min(expected, self._deadline - self._clock())

    def _possible(self, jobs: Sequence[Job], later: Sequence[Boot]) -> Sequence[Boot]:
        """What comes later, or nothing where there is no time for it after these jobs."""
        return later if self.fits(jobs, later, 1) else ()

    def turns(self, job: Job, rest: Sequence[Job], later: Sequence[Boot]) -> Turns:
        """Begin with a job, before the rest of its boot's and the boots that come later."""
        reserved = self.pace * _usual_s(rest, self._possible((job, *rest), later), 1)
        until = None if self._deadline is None else self._deadline - reserved
        return Turns(self, self._clock, until)


def _usual_s(jobs: Sequence[Job], later: Sequence[Boot], rounds: int | None) -> float:
    """How long these usually take; what comes later are baselines, and has one round if there is a limit."""
    of_jobs = sum(job.usual_s(rounds) for job in jobs)
    fewest = None if rounds is None else 1
    return of_jobs + sum(boot.usual_s + _usual_s(boot.jobs, (), fewest) for boot in later)


class Turns:
    """Tells a job before each round whether there is time for it.

    All states of an index belong together. After the first index there is another if it can be expected to
    end in time for the jobs that come later; when the budget is over nothing begins any more.
    """

    def __init__(self, budget: Budget, clock: Clock, until: float | None) -> None:
        self._budget = budget
        self._clock = clock
        self._until = until
        self._index = -1
        self._began = 0.0
        self._stopped = False

    def go_on(self, index: int) -> bool:
        """Whether a round of this index may begin; once it may not, none may."""
        if self._stopped or self._budget.over:
            self._stopped = True
        elif index != self._index:
            now = self._clock()
            if index > 0:
                each = (now - self._began) / index
                self._stopped = self._until is not None and now + each > self._until
            else:
                self._began = now
            self._index = index
        return not self._stopped
