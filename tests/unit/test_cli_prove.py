# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`, with rounds that were made up in place of the experiments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from cvmtune.experiments.experiment import Usual
from cvmtune.features import REGISTRY
from cvmtune.features.wfx import experiment as wfx
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions
from cvmtune.lab.progress import SilentProgress, Step
from cvmtune.report.load import load
from cvmtune.report.record import json_schema
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import MAIN_METRICS
from tests.fakes.bound import BLACKBOX, RULES, TRIALS
from tests.fakes.command_line import status
from tests.fakes.experiments import ALL_FEATURES, DATABASE, Judged, Measured
from tests.fakes.lab import FakeLab

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")


SLEEPING_AND_SOFT = ("on, sleeping after 1 ms", "soft IPIs alone", "on, with soft IPIs")
COMBINED = tuple(state for state in BLACKBOX.states if state not in ("off", "on"))
GUARDED_SOFT_SHARED = tuple(
    state
    for state in REGISTRY.trials["wfx"]().experiment.states
    if state not in ("off", "on", wfx.BOOT_POLICY)
)
# How machines are booted for each feature, and how many states of machines stand beside the verdict.
BOOTED = {
    "ipi": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT), ("cvm", BootOptions(append=("nohlt",)))], 2),
    "vtimer": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT)], 2),
    "cq-poll": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT)], 4),
    "wfx": (
        [
            *[("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT)],
            ("cvm", BootOptions(host_append=wfx.BOOT_POLICY_APPEND)),
        ],
        10,
    ),
    # And the power cut, and what all three had after all rounds.
    "blackbox": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT), ("plain", PLAIN_BOOT)], 8),
}


@pytest.mark.parametrize(("useless", "expected", "verdict"), [(False, 0, "PASS"), (True, 1, "FAIL")])
@pytest.mark.parametrize("feature", tuple(TRIALS))
def test_prove_judges_and_writes(
    measured: Measured,
    lab: FakeLab,
    tmp_path: Path,
    capsys: Capture,
    feature: str,
    useless: bool,
    expected: int,
    verdict: str,
) -> None:
    measured.useless = {feature} if useless else set()
    assert status("prove", feature, "--runs", "2", "--json", "results.json") == expected
    out = capsys.readouterr().out
    assert verdict in out
    assert "written: results.json" in out
    found = load(tmp_path / "results.json", RULES)
    assert [(one.feature, one.machine, one.verdict) for one in found.results] == [(feature, "cvm", verdict)]
    booted, baselines = BOOTED[feature]
    assert len(found.baselines) == baselines
    # Judged anew, it says the same.
    assert status("report", "results.json") == expected
    assert capsys.readouterr().out == out.replace("written: results.json\n", "")
    assert lab.booted == [(machine, "default", options) for machine, options in booted]
    assert lab.tools == [(DATABASE,) if feature == "blackbox" else ()] * len(booted)
    assert lab.running == 0


def test_prove_writes_the_environment_of_each_boot_once(measured: Measured, tmp_path: Path) -> None:
    status("prove", "ipi", "vtimer", "--runs", "2", "--json", "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(content, json.loads(json_schema()))
    assert [
        (boot["environment"], [(run["experiment"], run["judged"]) for run in boot["runs"]])
        for boot in content["boots"]
    ] == [
        ({"machine": "cvm"}, [("ipi", True), ("vtimer", True), ("vtimer", False)]),
        ({"machine": "vm"}, [("ipi", False), ("vtimer", False)]),
        ({"machine": "cvm"}, [("ipi", False)]),
    ]
    assert [(one["experiment"], one["verdict"]) for one in content["verdicts"]] == [
        ("ipi", "PASS"),
        ("vtimer", "PASS"),
    ]


def test_prove_keeps_what_was_left_of_the_database(measured: Measured, tmp_path: Path) -> None:
    status("prove", "blackbox", "--runs", "2", "--json", "results.json")
    found = load(tmp_path / "results.json", RULES)
    left = {one.name: [metric.name for metric in one.metrics] for one in found.baselines}
    for machine in ("cvm", "vm", "plain"):
        assert left[f"{machine}, {AFTER}"] == ["all_lost", "damage"]


def test_prove_measures_in_full_what_is_named(measured: Measured) -> None:
    assert status("prove", *ALL_FEATURES, "--runs", "2") == 0
    assert measured.asked == [
        # In the first boot, what is judged before the baselines that want the same boot.
        ("ipi", "cvm", ("off", "on"), 2),
        ("vtimer", "cvm", ("off", "on", "HW bit"), 2),
        ("cq-poll", "cvm", ("off", "on"), 2),
        ("wfx", "cvm", ("off", "on"), 2),
        ("blackbox", "cvm", ("off", "on", *COMBINED), 2),
        ("cq-poll", "cvm", SLEEPING_AND_SOFT, 1),
        ("wfx", "cvm", GUARDED_SOFT_SHARED, 1),
        ("ipi", "vm", ("off",), 2),
        ("vtimer", "vm", ("ordinary VM",), 1),
        ("cq-poll", "vm", ("off",), 1),
        ("wfx", "vm", ("off", "on"), 1),
        ("blackbox", "vm", ("off", "ipi+cq-poll+wfx"), 1),
        ("ipi", "cvm", ("nohlt",), 2),
        ("wfx", "cvm", (wfx.BOOT_POLICY,), 1),
        ("blackbox", "plain", ("off", "ipi+cq-poll"), 1),
    ]
    for (feature, *_), options in zip(measured.asked, measured.options, strict=True):
        parts = nfs_rdma.PROVIDERS if feature == "cq-poll" else ("",)
        assert options == (parts, feature == "blackbox")
    assert measured.cut == ["cvm"]


def test_prove_measures_all_features_in_short_unless_told_which(measured: Measured, lab: FakeLab) -> None:
    assert status("prove", "--budget", "600") == 0
    assert measured.asked == [
        ("ipi", "cvm", ("off", "on"), 5),
        ("vtimer", "cvm", ("off", "on", "HW bit"), 5),
        ("cq-poll", "cvm", ("off", "on"), 5),
        ("wfx", "cvm", ("off", "on"), 5),
        ("blackbox", "cvm", ("off", "on", *BLACKBOX.names), 5),
        ("blackbox", "vm", ("off",), 5),
    ]
    plain = (("",), False)
    assert measured.options == [plain, plain, (nfs_rdma.PROVIDERS[:1], False), plain, plain, plain]
    assert measured.cut == []
    assert lab.tools == [(DATABASE,)] * 2


@pytest.mark.parametrize(("lost", "expected"), [(0, 0), (3, 1)])
def test_what_a_power_cut_took_counts_in_the_verdict(
    measured: Measured, tmp_path: Path, lost: int, expected: int
) -> None:
    measured.lost = lost
    assert status("prove", "blackbox", "--runs", "2", "--json", "results.json") == expected
    found = load(tmp_path / "results.json", RULES)
    (after,) = (one for one in found.baselines if one.name == "cvm, power cut")
    assert {metric.name: metric.values.mean for metric in after.metrics} == {
        "cut_committed": 100,
        "cut_lost": lost,
        "cut_damage": 0,
    }
    # What is told of it is not said to lack a counterpart.
    assert "Left out" not in found.results[0].why


@pytest.mark.parametrize(
    ("all_lost", "damage", "verdict"), [(0, 0, "PASS"), (2, 0, "FAIL"), (0, 1, "FAIL"), (2, 1, "FAIL")]
)
def test_what_is_found_after_all_rounds_counts_in_the_verdict(
    measured: Measured, tmp_path: Path, all_lost: int, damage: int, verdict: str
) -> None:
    measured.all_lost, measured.damage = all_lost, damage
    expected = 0 if verdict == "PASS" else 1
    assert status("prove", "blackbox", "--runs", "2", "--json", "results.json") == expected
    found = load(tmp_path / "results.json", RULES)
    (result,) = found.results
    assert result.verdict == verdict
    assert (f"cvm, {AFTER}" in result.why) == (verdict == "FAIL")
    # It is of the whole run, not of off or on.
    assert not {"all_lost", "damage"} & {metric.name for metric in result.metrics}
    assert "Left out" not in result.why


@pytest.mark.parametrize(("words", "cells"), [((), 6), (("blackbox",), 16)])
def test_combinations_are_judged_and_no_baselines(
    measured: Measured, tmp_path: Path, words: tuple[str, ...], cells: int
) -> None:
    assert status("prove", *words, "--json", "results.json") == 0
    found = load(tmp_path / "results.json", RULES)
    assert [(one.machine, one.metric) for one in found.factorials] == [("cvm", load) for load in MAIN_METRICS]
    for one in found.factorials:
        assert len(one.cells) == cells
        assert all((gain.overall is not None) == (cells == 16) for gain in one.gains)
    assert not [one.name for one in found.baselines if one.name.startswith("cvm, ipi")]


@pytest.mark.parametrize("useless", tuple(TRIALS))
def test_one_feature_that_fails_is_a_failure(measured: Measured, tmp_path: Path, useless: str) -> None:
    measured.useless = {useless}
    assert status("prove", "--runs", "2", "--json", "results.json") == 1
    found = load(tmp_path / "results.json", RULES)
    assert {one.feature: one.verdict == "FAIL" for one in found.results} == {
        feature: feature == useless for feature in tuple(TRIALS)
    }


# What is done in which order, and how many rounds there are in it: in full over both providers, in short over
# one.
FULL_ROUNDS = {
    "booting cvm": None,
    "measuring on cvm": 6 + 9 + 12 + 6 + 48 + 6 + 7,
    "booting vm": None,
    "measuring on vm": 3 + 1 + 2 + 2 + 2,
    "booting cvm nohlt": None,
    "measuring on cvm nohlt": 3,
    f"booting cvm {' '.join(wfx.BOOT_POLICY_APPEND)}": None,
    f"measuring on cvm {' '.join(wfx.BOOT_POLICY_APPEND)}": 1,
    "booting plain": None,
    "measuring on plain": 2,
    "blackbox: the guest's power is cut while it commits, with all features on on cvm": None,
}
BRIEF_ROUNDS = {
    "booting cvm": None,
    "measuring on cvm": 6 + 9 + 6 + 6 + 18,
    "booting vm": None,
    "measuring on vm": 3,
}


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("words", "expected"), [(ALL_FEATURES, FULL_ROUNDS), ((), BRIEF_ROUNDS)])
def test_prove_knows_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, lab: FakeLab, words: tuple[str, ...], expected: dict[str, int | None]
) -> None:
    told: dict[str, int | None] = {}

    class Told(SilentProgress):
        @contextmanager
        def step(self, title: str, total: int | None = None) -> Iterator[Step]:
            told[title] = total
            with super().step(title, total) as step:
                yield step

    lab.progress = Told()
    # As if each round took a second, and nothing else any time.
    for trial in TRIALS.values():
        monkeypatch.setattr(type(trial().experiment), "usual", Usual(0.0, 1.0))
    assert status("prove", *words, "--runs", "3") == 0
    assert told == expected


def test_states_beside_off_and_on_are_a_baseline(measured: Measured, judged: Judged, tmp_path: Path) -> None:
    assert status("prove", "ipi", "vtimer", "--runs", "2", "--json", "results.json") == 0
    assert judged.raws == [
        ("ipi", "cvm", ["off", "on"] * 2),
        ("vtimer", "cvm", ["off", "on"] * 2),
    ]
    # No baseline of no rounds.
    assert judged.baselines == [
        ("vtimer", "cvm", ["HW bit"] * 2),
        ("ipi", "vm", ["off"] * 2),
        ("vtimer", "vm", ["ordinary VM"]),
        ("ipi", "cvm", ["nohlt"] * 2),
    ]
    found = load(tmp_path / "results.json", RULES)
    assert "Left out" not in found.results[1].why
    assert "cvm, HW bit" in [one.name for one in found.baselines]
