# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`: what it would measure, on which machine and how often."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import pytest

from cvmtune.core.errors import UsageError
from cvmtune.experiments import plan as plans
from cvmtune.experiments.experiment import Measurement
from cvmtune.features import REGISTRY
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.wfx import experiment as wfx
from cvmtune.lab.specs import MACHINES, MachineName
from cvmtune.workloads import nfs_rdma
from tests.fakes.bound import RULES, TRIALS
from tests.fakes.command_line import status
from tests.fakes.experiments import ALL_FEATURES

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")

BLACKBOX = TRIALS["blackbox"]().experiment
COMBINATIONS = {name: state.features for name, state in BLACKBOX.states.items()}
SINGLES = BLACKBOX.form(brief=True).combined


def plan(
    feature: str, machine: str, rounds: int | None, *, brief: bool = False
) -> tuple[Measurement, list[Measurement]]:
    """What is judged, and the baselines."""
    found = plans.plan(TRIALS[feature]().experiment, machine, rounds, brief=brief)
    return found.judged, list(found.baselines)


def test_prove_says_what_it_would_measure(capsys: Capture, cache: Path, no_programs: None) -> None:
    assert status("prove", *ALL_FEATURES, "--dry-run", "--runs", "7") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ipi: on cvm: 7 rounds each of 'off', 'on'",
        "ipi: on vm: 7 rounds each of 'off'",
        "ipi: on cvm booted with nohlt: 7 rounds each of 'nohlt'",
        "vtimer: on cvm: 7 rounds each of 'off', 'on', 'HW bit'",
        "vtimer: on vm: 3 rounds each of 'ordinary VM'",
        "cq-poll: on cvm: 7 rounds each of 'off', 'on'",
        "cq-poll: on vm: 3 rounds each of 'off'",
        "cq-poll: on cvm: 3 rounds each of "
        "'on, sleeping after 1 ms', 'soft IPIs alone', 'on, with soft IPIs'",
        "wfx: on cvm: 7 rounds each of 'off', 'on'",
        "wfx: on vm: 3 rounds each of 'off', 'on'",
        "wfx: on cvm: 3 rounds each of "
        "'off, no halt polling', 'on, guarded', 'soft IPIs and no WFx untrapped', 'on, with soft IPIs', "
        "'two vCPUs on one CPU, off', "
        "'two vCPUs on one CPU, on', 'two vCPUs on one CPU, on, guarded'",
        "wfx: on cvm on a host booted with kvm-arm.wfi_trap_policy=notrap kvm-arm.wfe_trap_policy=notrap: "
        "3 rounds each of 'untrapped by boot parameter'",
        "blackbox: on cvm: 7 rounds each of 'off', 'on', 'ipi', 'vtimer', 'cq-poll', 'wfx', "
        "'ipi+vtimer', 'ipi+cq-poll', 'ipi+wfx', 'vtimer+cq-poll', 'vtimer+wfx', 'cq-poll+wfx', "
        "'ipi+vtimer+cq-poll', 'ipi+vtimer+wfx', 'ipi+cq-poll+wfx', 'vtimer+cq-poll+wfx'",
        "blackbox: on vm: 3 rounds each of 'off', 'ipi+cq-poll+wfx'",
        "blackbox: on plain: 3 rounds each of 'off', 'ipi+cq-poll'",
        "blackbox: on cvm: the guest's power is cut while it commits, with all features on",
    ]
    assert not cache.exists()


def test_prove_measures_in_short_if_no_feature_is_named(
    capsys: Capture, cache: Path, no_programs: None
) -> None:
    """Off and on, and what the verdicts and the gains need beside: no more baselines than that."""
    within = "within {} min from the end of building on: fewer rounds, if there is no time"
    for words, rounds, budget in (
        ((), 5, [within.format(10)]),
        (("--budget", "2.5"), 5, [within.format(2.5)]),
        (("--runs", "7"), 7, []),
        (("--runs", "7", "--budget", "60"), 7, [within.format(60)]),
    ):
        assert status("prove", "--dry-run", *words) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"ipi: on cvm: {rounds} rounds each of 'off', 'on'",
            f"vtimer: on cvm: {rounds} rounds each of 'off', 'on', 'HW bit'",
            f"cq-poll: on cvm: {rounds} rounds each of 'off', 'on'",
            f"wfx: on cvm: {rounds} rounds each of 'off', 'on'",
            f"blackbox: on cvm: {rounds} rounds each of 'off', 'on', 'ipi', 'vtimer', 'cq-poll', 'wfx'",
            f"blackbox: on vm: {rounds} rounds each of 'off'",
            *budget,
        ]
    assert not cache.exists()


@pytest.mark.parametrize("feature", tuple(TRIALS))
def test_short_forms_measure_less_of_the_same(feature: str) -> None:
    full, full_baselines = plan(feature, "cvm", None)
    brief, baselines = plan(feature, "cvm", None, brief=True)
    assert brief.rounds == full.rounds == 5  # the fewest that give an interval
    assert brief.states[:2] == full.states[:2] == ("off", "on")
    assert set(brief.states) <= set(full.states)
    there = {(one.machine, state) for one in full_baselines for state in one.states}
    assert {(one.machine, state) for one in baselines for state in one.states} <= there
    assert len(baselines) < len(full_baselines)


def test_short_form_of_polling_is_over_one_provider() -> None:
    full, _ = plan("cq-poll", "cvm", None)
    brief, _ = plan("cq-poll", "cvm", None, brief=True)
    assert full.parts == nfs_rdma.PROVIDERS
    assert brief.parts == nfs_rdma.PROVIDERS[:1]
    assert len(full.parts) > len(brief.parts) == 1


def test_database_is_measured_under_all_combinations_or_each_feature_alone() -> None:
    full, baselines = plan("blackbox", "cvm", None)
    assert sorted(full.states) == sorted(COMBINATIONS)
    assert len(full.states) == 16
    assert {one.machine for one in baselines} == {"vm", "plain"}
    for one in (full, *baselines):
        assert one.more
        assert set(one.states) <= COMBINATIONS.keys()
    # No machine is asked for what it cannot have.
    features = {
        one.machine: {feature for state in one.states for feature in COMBINATIONS[state]} for one in baselines
    }
    assert features == {"vm": {"ipi", "cq-poll", "wfx"}, "plain": {"ipi", "cq-poll"}}
    brief, baselines = plan("blackbox", "cvm", None, brief=True)
    assert brief.states == ("off", "on", *SINGLES)
    assert not brief.more
    assert baselines == [Measurement("blackbox", MachineName.VM, ("off",), 5)]


@pytest.mark.parametrize(
    ("machine", "feature", "rounds", "on_vm"),
    [
        (machine, feature, rounds, on_vm)
        for machine in MACHINES
        for feature, rounds, on_vm in (
            ("ipi", 5, "5 rounds each of 'off'"),
            ("cq-poll", 5, "2 rounds each of 'off'"),
            ("wfx", 5, "2 rounds each of 'off', 'on'"),
        )
        if MACHINES[machine].nested or feature != "wfx"
    ],
)
def test_prove_on_each_machine(capsys: Capture, machine: str, feature: str, rounds: int, on_vm: str) -> None:
    assert status("prove", feature, "--dry-run", "--machine", machine) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{feature}: on {machine}: {rounds} rounds each of 'off', 'on'"
    assert (f"{feature}: on vm: {on_vm}" in lines) == (machine != "vm")
    assert all(line.startswith(f"{feature}: on ") for line in lines)


@pytest.mark.parametrize("machine", MACHINES)
def test_prove_leaves_out_what_a_machine_without_a_host_cannot_have(capsys: Capture, machine: str) -> None:
    assert status("prove", "--dry-run", "--machine", machine) == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    features = {line.partition(":")[0] for line in lines}
    # A host is needed for one, a monitor for another, and both for all together.
    left_out = {"plain": {"wfx", "vtimer", "blackbox"}, "vm": {"vtimer", "blackbox"}, "cvm": set()}
    assert features == set(tuple(TRIALS)) - left_out[machine]


@pytest.mark.parametrize("machine", ["plain", "vm"])
def test_timer_of_a_machine_without_a_monitor_is_refused(machine: str) -> None:
    with pytest.raises(UsageError, match=f"not supported on machine {machine}"):
        plan("vtimer", machine, None)


@pytest.mark.parametrize(("rounds", "judged", "others"), [(None, 5, 2), (1, 1, 1), (3, 3, 1)])
def test_hw_bit_takes_turns_with_off_and_on(rounds: int | None, judged: int, others: int) -> None:
    """In one boot, so that it is compared with on as off is; an ordinary VM is another machine's."""
    measured, baselines = plan("vtimer", "cvm", rounds)
    assert measured == Measurement("vtimer", MachineName.CVM, ("off", "on", vtimer.HW), judged)
    assert baselines == [Measurement("vtimer", MachineName.VM, (vtimer.ORDINARY,), others)]
    # The experiment knows all of them.
    assert {*measured.states, vtimer.ORDINARY} == vtimer.STATES.keys()


def test_prove_takes_features_in_any_order(capsys: Capture) -> None:
    assert status("prove", "cq-poll", "ipi", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["cq-poll"] * 3 + ["ipi"] * 3


@pytest.mark.parametrize(("rounds", "others"), [(1, 1), (2, 1), (5, 2), (8, 4)])
@pytest.mark.parametrize(
    ("feature", "states"),
    [(name, REGISTRY.trials[name]().experiment.states.keys()) for name in ("cq-poll", "wfx")],
)
def test_rounds_that_take_long_are_half_as_many_in_baselines(
    feature: str, states: Set[str], rounds: int, others: int
) -> None:
    judged, baselines = plan(feature, "cvm", rounds)
    assert judged.rounds == rounds
    assert {one.rounds for one in baselines} == {others}
    assert {state for one in (judged, *baselines) for state in one.states} == states
    # A boot option is that of the state which is named after it, and of no other.
    assert [one.states for one in baselines if one.host_append] == [(wfx.BOOT_POLICY,)] * (feature == "wfx")
    assert {one.append for one in (judged, *baselines)} == {()}


def test_every_feature_can_be_judged() -> None:
    assert set(tuple(TRIALS)) == RULES.keys()


def test_prove_says_that_it_would_count_instructions(capsys: Capture) -> None:
    assert status("prove", "--dry-run", "--path-length") == 0
    assert "\npath length: on plain" in capsys.readouterr().out
