# SPDX-License-Identifier: Apache-2.0
"""Verdicts on a computer that others use as well: right kernels never fail there, and a feature that is
broken on purpose passes nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from cvmtune.core.system import System
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.plan import plan
from cvmtune.features.cq_poll.knob import CqPoll
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.vtimer.knob import VtimerMode
from cvmtune.features.wfx.knob import Wfx
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from cvmtune.report.judge import judge
from cvmtune.report.schema import Result, Verdict
from cvmtune.workloads.blackbox.experiment import BlackboxExperiment
from cvmtune.workloads.blackbox.loads import BlackboxScale
from tests.fakes.bound import RULES, SWITCHES, TRIALS
from tests.vm.shared_machines import CVM

pytestmark = pytest.mark.on(CVM)

# Of the black box less: what is saved shows in each transaction.
EXPERIMENTS = {
    **{name: load().experiment for name, load in TRIALS.items()},
    "blackbox": BlackboxExperiment(SWITCHES, BlackboxScale(seconds=1.5, records=15, closed_transactions=10)),
}
# What puts each feature on: a mask is written, a poller started, a mode set.
KNOBS: Mapping[str, type] = {"ipi": SoftIpi, "vtimer": VtimerMode, "cq-poll": CqPoll, "wfx": Wfx}

# Ends with the tests, however these end.
_SPINNING = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000000):
        pass
"""


@contextmanager
def busy() -> Iterator[None]:
    """Have a program that computes on each of this computer's CPUs."""
    loops = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", _SPINNING, str(cpu)])
        for cpu in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield
        assert [loop.poll() for loop in loops] == [None] * len(loops)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def judged(machine: Machine, name: str) -> Result:
    """The verdict on one round each of the experiment's short form."""
    experiment = EXPERIMENTS[name]
    wanted = plan(experiment, "cvm", 1, brief=True).judged
    raw = runner.run(experiment, Bench.of(machine, GUEST_TOOLS), wanted, environment={})
    (result,) = judge([raw], [], RULES).results
    print(f"\n{name}: {result.verdict}: {result.why}")
    return result


# The black box takes some minutes.
_ALL = [pytest.param(name, marks=[pytest.mark.stress] * (name == "blackbox")) for name in EXPERIMENTS]


@pytest.mark.parametrize("name", _ALL)
def test_busy_computer_makes_no_right_kernel_fail(machine: Machine, name: str) -> None:
    with busy():
        result = judged(machine, name)
    assert result.verdict in (Verdict.PASS, Verdict.UNDECIDED), result.why


def break_on_purpose(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    """Have what switches the feature do nothing: it neither writes, nor looks at what is there."""

    def nothing(knob: object, system: System, planned: object) -> None:
        return None

    for method in ("apply", "undo"):
        monkeypatch.setattr(KNOBS[feature], method, nothing)


@pytest.mark.stress
@pytest.mark.long
@pytest.mark.parametrize("load", ["quiet", "busy"])
@pytest.mark.parametrize("where", ["own", "blackbox"])
@pytest.mark.parametrize("feature", KNOBS)
def test_broken_feature_never_passes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, feature: str, where: str, load: str
) -> None:
    """In its own experiment, and in the black box, where the others are on beside it."""
    break_on_purpose(monkeypatch, feature)
    beside: AbstractContextManager[None] = busy() if load == "busy" else nullcontext()
    with beside:
        result = judged(machine, feature if where == "own" else "blackbox")
    assert result.verdict in (Verdict.FAIL, Verdict.UNDECIDED), result.why
