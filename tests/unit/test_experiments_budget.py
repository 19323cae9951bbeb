# SPDX-License-Identifier: Apache-2.0
"""However fast the computer is, measuring ends within its budget and a round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments import budget, campaign
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.campaign import NO_TIME, Measured, carry_out
from cvmtune.experiments.experiment import OFF, ON, Experiment, Form, Measurement, State, Usual
from cvmtune.experiments.measure import Measure
from cvmtune.experiments.plan import Job, Plan, boots, plan
from cvmtune.experiments.rounds import Round, Series
from cvmtune.lab.errors import GuestDied
from tests.fakes.lab import FakeLab

COUNT = Measure("count", "Counts", "each")


class Clock:
    """Seconds that pass when something is measured."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(Experiment[Bench, State]):
    """An experiment of which all takes `pace` times as long as usual; `broken` fails at its first round."""

    name: ClassVar[str] = "timed"

    def __init__(self, name: str, usual: Usual, pace: float, clock: Clock, broken: Exception | None) -> None:
        self.name = name  # type: ignore[misc]
        self.usual = usual  # type: ignore[misc]
        self.pace, self.clock, self.broken = pace, clock, broken
        self.ended = 0

    @property
    def states(self) -> dict[str, State]:
        return {name: State(name) for name in (OFF, ON)}

    def form(self, *, brief: bool) -> Form:
        return Form(baselines=lambda machine, rounds: self.on_vm(machine, rounds))

    @contextmanager
    def site(self, bench: Bench, wanted: Measurement, part: str) -> Iterator[Bench]:
        self.clock.now += self.usual.setup_s * self.pace
        yield bench

    def entered(self, site: Bench, state: State) -> AbstractContextManager[None]:
        return nullcontext()

    def measure(self, site: Bench, state: State, index: int) -> Iterator[Series]:
        self.clock.now += self.usual.round_s * self.pace
        if self.broken:
            raise self.broken
        yield COUNT.value(1.0)

    def finish(self, site: Bench) -> tuple[Round, ...]:
        self.ended += 1
        return ()


class Booted(FakeLab):
    """A lab whose boots take their time."""

    def __init__(self, root: Path, clock: Clock, pace: float) -> None:
        super().__init__(root)
        self.clock, self.pace = clock, pace

    @contextmanager
    def boot(self, machine: str, **options: Any) -> Iterator[Any]:
        with super().boot(machine, **options) as one:
            one.boot_seconds = 20.0 * self.pace
            self.clock.now += one.boot_seconds
            yield one


@pytest.fixture(scope="module", autouse=True)
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "environment_of", lambda machine: {})
        yield


def measure(
    root: Path,
    usual: Sequence[Usual],
    pace: float,
    seconds: float | None,
    broken: Mapping[int, Exception] | None = None,
) -> tuple[Measured, Clock, FakeLab, list[Plan]]:
    clock = Clock()
    plans = [
        plan(Timed(f"t{n}", one, pace, clock, (broken or {}).get(n)), "cvm", None)
        for n, one in enumerate(usual)
    ]
    lab = Booted(root, clock, pace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "Budget", lambda seconds: budget.Budget(seconds, clock))
        return carry_out(lab, plans, seconds), clock, lab, plans  # type: ignore[arg-type]


def rounds(measured: Measured) -> list[int]:
    """How many rounds there are off, by the experiment."""
    return [sum(one.state == OFF for one in raw.rounds) for raw in measured.judged]


USUALS = st.lists(
    st.builds(Usual, st.floats(0, 30), st.floats(1, 40)),
    min_size=1,
    max_size=5,
)


@given(usual=USUALS, pace=st.floats(0.1, 20), minutes=st.floats(0.1, 60))
def test_it_ends_within_the_budget_and_a_round(
    usual: list[Usual], pace: float, minutes: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp()
    _, clock, _, _ = measure(root, usual, pace, 60 * minutes)
    # What had begun when it was over ended: a round, or a boot or a preparation and its first round.
    last = max(max(one.setup_s for one in usual) + max(one.round_s for one in usual), 20) * pace
    assert clock.now <= 60 * minutes + last + 1e-6


@given(usual=USUALS, pace=st.floats(0.1, 20))
def test_without_a_budget_all_is_measured(
    usual: list[Usual], pace: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    measured, _, _, plans = measure(tmp_path_factory.getbasetemp(), usual, pace, None)
    assert rounds(measured) == [5] * len(plans)


@pytest.mark.parametrize(("pace", "wanted"), [(0.5, [5, 5]), (1.0, [5, 5]), (2.0, [1, 2])])
def test_a_slower_computer_has_fewer_rounds_of_each(tmp_path: Path, pace: float, wanted: list[int]) -> None:
    """Two experiments, off and on: 20 s a round of both, twice 5 s before; and on vm half as much, of which
    one round is kept free."""
    measured, _, _, _ = measure(tmp_path, [Usual(5, 10)] * 2, pace, 300)
    assert rounds(measured) == wanted


def test_what_there_is_no_time_for_is_said_to_be_missed(tmp_path: Path) -> None:
    measured, _, _, _ = measure(tmp_path, [Usual(5, 60), Usual(5, 100), Usual(5, 10)], 1.0, 300)
    assert rounds(measured) == [1, 0, 2]
    assert measured.judged[1].problem == f"{NO_TIME} It takes about 4 min here: see --budget."


def test_a_lost_machine_costs_one_experiment(tmp_path: Path) -> None:
    lost = GuestDied("guest", Path("/runs/1/guest.console"))
    measured, _, lab, _ = measure(tmp_path, [Usual(1, 1)] * 3, 1.0, None, {1: lost})
    assert rounds(measured) == [5, 0, 5]
    assert "machine guest is gone" in measured.judged[1].problem
    assert "/runs/1/guest.console" in measured.judged[1].problem
    # The third has a machine of its own. What was not measured needs no baseline.
    assert [machine for machine, _, _ in lab.booted] == ["cvm", "cvm", "vm"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CvmtuneError("no such file", "/x"), "no such file (/x)"),
        (FileNotFoundError(2, "gone"), "FileNotFoundError(2, 'gone')"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError('division by zero')"),
    ],
)
def test_a_failed_measurement_costs_one_experiment_and_no_boot(
    tmp_path: Path, error: Exception, said: str
) -> None:
    measured, _, lab, _ = measure(tmp_path, [Usual(1, 1)] * 2, 1.0, None, {0: error})
    assert rounds(measured) == [0, 5]
    assert measured.judged[0].problem == f"It could not be measured: {said}."
    assert [machine for machine, _, _ in lab.booted] == ["cvm", "vm"]


def test_if_nothing_was_measured_the_first_error_is_told(tmp_path: Path) -> None:
    errors = {n: CvmtuneError(f"error {n}") for n in range(2)}
    with pytest.raises(CvmtuneError, match="error 0"):
        measure(tmp_path, [Usual(1, 1)] * 2, 1.0, None, errors)


def test_it_says_before_it_starts_what_it_will_do_and_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    clock = Clock()
    plans = [plan(Timed("t0", Usual(5, 10), 2.0, clock, None), "cvm", None)]
    lab = Booted(tmp_path, clock, 2.0)
    monkeypatch.setattr(lab.progress, "say", said.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "Budget", lambda seconds: budget.Budget(seconds, clock))
        carry_out(lab, plans, 300)  # type: ignore[arg-type]
    assert said[0] == "cvm booted in 40 s. To measure: t0; about 4 rounds of each state; about 4 min to go."


def test_what_was_not_measured_with_has_no_end(tmp_path: Path) -> None:
    """Preparing may take so long that no round begins."""
    measured, _, _, (only,) = measure(tmp_path, [Usual(500, 1)], 1.0, 100)
    assert isinstance(only.experiment, Timed)
    assert (rounds(measured), only.experiment.ended) == ([0], 0)
    assert measured.judged[0].problem == NO_TIME
    measured, _, _, (only,) = measure(tmp_path, [Usual(5, 1)], 1.0, 100)
    assert isinstance(only.experiment, Timed)
    assert (rounds(measured), only.experiment.ended) == ([5], 2)  # on vm as well


def test_baselines_suffer_before_what_is_judged() -> None:
    """And the longest before others."""
    clock = Clock()
    plans = [plan(Timed(f"t{n}", Usual(0, 10 + n), 1.0, clock, None), "cvm", None) for n in range(3)]
    jobs = [Job(one, one.judged) for one in plans] + [Job(plans[0], plans[0].baselines[0])]
    times = [one.usual_s(1) for one in jobs]
    assert times == [20, 22, 24, 10]

    def fitting(seconds: float, *, measured: bool = True) -> list[float]:
        one = budget.Budget(seconds, clock)
        one.learn(1, 1, measured=measured)
        return [job.usual_s(1) for job in one.fitting(jobs)]

    assert fitting(76) == [20, 22, 24, 10]
    assert fitting(75) == [20, 22, 24]
    assert fitting(65) == [20, 22]
    assert fitting(1) == []
    assert fitting(1, measured=False) == [20]


def test_it_announces_no_more_time_than_there_is() -> None:
    clock = Clock()
    plans = [plan(Timed("t0", Usual(5, 30), 1.0, clock, None), "cvm", None)]
    first, later = boots(plans)
    one = budget.Budget(100, clock)
    for pace in (0.5, 1.0, 2.0, 10.0):
        one.learn(1000, 1000 * pace)
        assert one.expected_s(first.jobs, (later,)) <= 100


def test_a_baseline_with_nothing_to_stand_beside_takes_no_time_from_others(tmp_path: Path) -> None:
    """Of 600 s: t1 takes 650 s with one round, and its baseline 550 s."""
    measured, clock, lab, _ = measure(tmp_path, [Usual(0, 20), Usual(450, 100)], 1.0, 600)
    assert rounds(measured) == [5, 0]
    assert clock.now <= 600
    assert [machine for machine, _, _ in lab.booted] == ["cvm", "vm"]  # the baseline of t0
