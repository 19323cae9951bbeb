# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove --path-length`: which boots it counts instructions in, and what they are baselines of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cvmtune.commands import prove
from cvmtune.core.system import System
from cvmtune.experiments import path_length
from cvmtune.experiments.guest import Host
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.wfx import experiment as wfx
from cvmtune.report.schema import Results
from tests.fakes.command_line import status
from tests.fakes.experiments import Judged, Measured
from tests.fakes.lab import FakeLab

pytestmark = pytest.mark.usefixtures("cache", "few_resamples")


@pytest.fixture
def counted(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """Feature, state and whether it is on, in the order in which paths are counted."""
    calls: list[tuple[str, str, bool]] = []

    def measure(feature: str) -> Callable[[Any, str, bool], list[Round]]:
        def count(machine: Any, state: str, on: bool) -> list[Round]:
            calls.append((feature, state, on))
            return [
                Round(state, 0, (Series(f"{feature}_path", "", "instructions", "count", "lower", (1.0,)),))
            ]

        return count

    for feature, path in prove._PATHS.items():
        monkeypatch.setitem(prove._PATHS, feature, replace(path, measure=measure(feature)))
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
    assert judged.baselines[-2:] == [("vtimer", "cvm", states), ("wfx", "cvm", states)]
    assert [feature for feature, _, _ in judged.raws] == ["vtimer", "wfx"]


def test_an_exit_counted_for_two_features_is_not_one_baseline(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their hosts are booted differently, and their vCPUs named or not."""

    def exits(guest: System, host: System, state: str, mask: str, tools: str) -> Round:
        value = 1000.0 if mask == "0" else 2000.0
        return Round(state, 0, (Series("exit_path", "", "instructions", "count", "lower", (value,)),))

    def wakes(guest: System, host: Host, state: str, *, untrapped: bool, tools: str) -> Round:
        return Round(state, 0, ())

    def in_each_mode(guest: System, host: Host, state: str, *, tools: str) -> Iterator[Round]:
        for mode in vtimer.MODES.values():
            yield Round(f"{state}, {mode}", 0, (Series("x", "", "instructions", "count", "lower", (1.0,)),))

    monkeypatch.setattr(path_length, "collect_exits", exits)
    monkeypatch.setattr(wfx, "collect_paths", wakes)
    monkeypatch.setattr(vtimer, "collect_paths", in_each_mode)
    assert status("prove", "vtimer", "wfx", "--runs", "1", "--path-length", "--json", "results.json") == 0
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
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
