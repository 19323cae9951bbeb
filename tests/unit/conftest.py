# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests: the command line without a cache, a lab or an experiment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cvmtune.commands import lab as lab_commands
from cvmtune.commands import prove
from cvmtune.experiments import campaign, path_length, runner
from cvmtune.experiments.rounds import RawRun, Series
from cvmtune.features.trial import Switch
from cvmtune.lab.lab import Lab
from cvmtune.report.judge import judge
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Results
from cvmtune.workloads import database, power_cut
from cvmtune.workloads.power_cut import series as after_power_cut
from tests.fakes.experiments import ALL_FEATURES, DATABASE, Judged, Measured
from tests.fakes.lab import FakeLab


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's place; nothing is there."""
    place = tmp_path / "cache"
    monkeypatch.setenv("CVMTUNE_CACHE", str(place))
    monkeypatch.delenv("CVMTUNE_DEBIAN_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    one = FakeLab(tmp_path)
    monkeypatch.setattr(lab_commands, "open_lab", lambda silent=False: one)
    monkeypatch.setattr(prove, "Lab", lambda cache, progress: one)
    return one


@pytest.fixture
def measured(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Experiments that measure nothing, in place of all that there are."""
    one = Measured()

    def cut_power(lab: Lab, machine: str, switches: Sequence[Switch]) -> tuple[Series, ...]:
        assert tuple(switch.name for switch in switches) == ALL_FEATURES[:-1]
        one.cut.append(machine)
        return after_power_cut(frozenset(range(100)), frozenset(range(one.lost, 100)), 0)

    monkeypatch.setattr(runner, "run", one.run)
    monkeypatch.setattr(database, "build", lambda lab: DATABASE)
    monkeypatch.setattr(power_cut, "cut_power", cut_power)
    for module in (campaign, path_length):
        monkeypatch.setattr(module, "environment_of", lambda machine: {"machine": machine.spec.name})
    return one


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    one = Judged()

    def seen(raws: Sequence[RawRun], baselines: Sequence[RawRun], rules: Rules) -> Results:
        for runs, told in ((raws, one.raws), (baselines, one.baselines)):
            told += [(run.feature, run.machine, [each.state for each in run.rounds]) for run in runs]
        return judge(raws, baselines, rules)

    monkeypatch.setattr(prove, "judge", seen)
    return one
