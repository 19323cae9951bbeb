# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove --path-length`: which boots it counts instructions in, and what they are baselines of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.path_length import EXIT_PATH
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.vtimer import paths as vtimer_paths
from cvmtune.features.wfx import paths as wfx_paths
from cvmtune.features.wfx.switch import WfxSwitch
from cvmtune.report.load import load
from tests.fakes.bound import RULES, TRIALS
from tests.fakes.command_line import status
from tests.fakes.experiments import Judged, Measured
from tests.fakes.lab import FakeLab

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def counted(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """Feature, state and whether it is on, in the order in which paths are counted."""
    calls: list[tuple[str, str, bool]] = []

    def measure(feature: str) -> Callable[..., list[Round]]:
        def count(paths: object, bench: Bench, state: str, *, on: bool) -> list[Round]:
            calls.append((feature, state, on))
            return [
                Round(state, 0, (Series(f"{feature}_path", "", "instructions", "count", "lower", (1.0,)),))
            ]

        return count

    for feature, trial in TRIALS.items():
        if paths := trial().paths:
            monkeypatch.setattr(type(paths), "measure", measure(feature))
    return calls


def boots(lab: FakeLab) -> list[tuple[str, str, tuple[str, ...]]]:
    """Those in which instructions are counted: machine, kernel, options of the host."""
    return [
        (machine, flavour, options.host_append)
        for machine, flavour, options in lab.booted
        if options.icount and not options.append
    ]


VTIMER_OFF = ("kvm-arm.cvm_vtimer=off",)


def test_paths_that_want_the_same_boot_share_it(lab: FakeLab, counted: list[tuple[str, str, bool]]) -> None:
    assert status("prove", "--runs", "1", "--path-length") == 0
    assert boots(lab) == [
        ("plain", "absent", ()),
        ("cvm", "absent", VTIMER_OFF),
        ("plain", "default", ()),
        ("cvm", "default", VTIMER_OFF),
        ("plain", "default", ()),
        ("cvm", "default", ()),
        ("cvm", "default", VTIMER_OFF),
    ]
    absent, off, on = (f"instructions, feature {how}" for how in ("not compiled in", "off", "on"))
    assert counted == [
        *(
            ("ipi", absent, False),
            ("cq-poll", absent, False),
            ("vtimer", absent, False),
            ("wfx", absent, False),
        ),
        *(("ipi", off, False), ("cq-poll", off, False), ("vtimer", off, False), ("wfx", off, False)),
        *(("ipi", on, True), ("cq-poll", on, True), ("vtimer", on, True), ("wfx", on, True)),
    ]
    assert lab.running == 0


def test_paths_of_the_hosts_features_have_the_monitors_timer_where_it_is_on_alone(
    lab: FakeLab, counted: list[tuple[str, str, bool]]
) -> None:
    assert status("prove", "vtimer", "--runs", "1", "--path-length") == 0
    assert boots(lab) == [
        ("cvm", "absent", VTIMER_OFF),
        ("cvm", "default", VTIMER_OFF),
        ("cvm", "default", ()),
    ]
    lab.booted.clear()
    assert status("prove", "wfx", "--runs", "1", "--path-length") == 0
    assert boots(lab) == [("cvm", flavour, VTIMER_OFF) for flavour in ("absent", "default", "default")]


@pytest.mark.usefixtures("counted")
def test_paths_are_baselines(judged: Judged) -> None:
    assert status("prove", "vtimer", "wfx", "--runs", "1", "--path-length") == 0
    states = [f"instructions, feature {how}" for how in ("not compiled in", "off", "on")]
    assert judged.baselines[-6:] == [(name, "cvm", [state]) for name in ("vtimer", "wfx") for state in states]
    assert [feature for feature, _, _ in judged.raws] == ["vtimer", "wfx"]


def test_an_exit_counted_for_two_features_is_not_one_baseline(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their hosts are booted differently, and their vCPUs named or not."""

    named: list[bool] = []

    @contextmanager
    def switched(self: WfxSwitch, bench: Bench, *, on: bool, cpu: int) -> Iterator[None]:
        named.append(on)
        yield
        named.pop()

    def exits(bench: Bench) -> Series:
        return EXIT_PATH.value(2000.0 if any(named) else 1000.0)

    def wakes(self: wfx_paths.WfxPaths, bench: Bench, *, on: bool) -> Iterator[Series]:
        return iter(())

    def in_each_mode(self: vtimer_paths.VtimerPaths, bench: Bench, state: str) -> Iterator[Round]:
        for mode in ("unmasked", "masked", "hw"):
            yield Round(f"{state}, {mode}", 0, (Series("x", "", "instructions", "count", "lower", (1.0,)),))

    for module in (wfx_paths, vtimer_paths):
        monkeypatch.setattr(module, "exit_path", exits)
    monkeypatch.setattr(WfxSwitch, "switched", switched)
    monkeypatch.setattr(wfx_paths.WfxPaths, "wakes", wakes)
    monkeypatch.setattr(vtimer_paths.VtimerPaths, "in_each_mode", in_each_mode)
    assert status("prove", "vtimer", "wfx", "--runs", "1", "--path-length", "--json", "results.json") == 0
    found = load(tmp_path / "results.json", RULES)
    paths = {
        one.name: [(metric.name, metric.values.n, metric.values.mean) for metric in one.metrics]
        for one in found.baselines
        if "instructions" in one.name
    }
    assert paths == {
        "cvm, instructions, vtimer not compiled in": [("exit_path", 1, 1000)],
        "cvm, instructions, vtimer off": [("exit_path", 1, 1000)],
        "cvm, instructions, vtimer on": [("exit_path", 1, 1000)],
        **{f"cvm, instructions, vtimer on, {mode}": [("x", 1, 1)] for mode in ("unmasked", "masked", "hw")},
        "cvm, instructions, feature not compiled in": [("exit_path", 1, 1000)],
        "cvm, instructions, feature off": [("exit_path", 1, 1000)],
        "cvm, instructions, feature on": [("exit_path", 1, 2000)],
    }
