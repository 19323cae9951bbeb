# SPDX-License-Identifier: Apache-2.0
"""The toy feature's experiment and rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State
from cvmtune.experiments.guest import applied
from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import Series
from cvmtune.features.trial import Trial
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.rule import Rule
from cvmtune.report.schema import Verdict
from tests.fakes.fifth.feature import Toy

TOYS = Measure("toys", "Toys per child", "each")


class ToyExperiment(Experiment[Bench, State]):
    name = "toy"
    states: Mapping[str, State] = {name: State(name) for name in (OFF, ON)}

    def form(self, *, brief: bool) -> Form:
        return Form(2 if brief else 6)

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Bench]:
        yield bench

    def entered(self, site: Bench, state: State) -> AbstractContextManager[None]:
        return applied(Toy(), site.guest, "50" if state.name == ON else "0")

    def measure(self, site: Bench, state: State, index: int) -> Iterator[Series]:
        yield TOYS.value(float(site.guest.read_text(Toy.path)))


def judge(evidence: Evidence) -> Judged:
    toys = evidence.by_name[TOYS.name]
    return (Verdict.PASS if toys.on.mean > toys.off.mean else Verdict.FAIL), "as many toys as there are"


TRIAL = Trial(ToyExperiment(), Rule(judge, TOYS.name))
