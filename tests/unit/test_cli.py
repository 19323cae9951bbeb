# SPDX-License-Identifier: Apache-2.0
"""The command line: exit statuses, messages that help, dry runs that touch nothing, JSON that parses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cvmtune
from cvmtune import cli
from cvmtune.commands import lab as lab_commands
from cvmtune.commands import prove
from cvmtune.core.errors import UsageError
from cvmtune.core.system import LocalSystem
from cvmtune.experiments import path_length, runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Experiment, Measurement
from cvmtune.experiments.path_length import EXIT_PATH
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.features.cq_poll import experiment as cq_poll
from cvmtune.features.trial import Switch
from cvmtune.features.trials import TRIALS
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.vtimer import paths as vtimer_paths
from cvmtune.features.wfx import experiment as wfx
from cvmtune.features.wfx import paths as wfx_paths
from cvmtune.features.wfx.switch import WfxSwitch
from cvmtune.lab.cache import Cache
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.kernel_checks import CheckResult
from cvmtune.lab.lab import GUEST_TOOLS, Lab, machine_spec
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions
from cvmtune.lab.machines import (
    MACHINES,
    Images,
    MachineName,
    processor_options,
    qemu_argv,
    start_guest_script,
)
from cvmtune.lab.progress import SilentProgress, Step
from cvmtune.report.judge import judge
from cvmtune.report.rule import Rule
from cvmtune.report.schema import VERDICTS, Metric, Result, Results, Stats, Verdict
from cvmtune.workloads import database, nfs_rdma, power_cut
from cvmtune.workloads.blackbox import experiment as blackbox
from cvmtune.workloads.blackbox.metrics import CLOSED, MAIN_METRICS
from cvmtune.workloads.power_cut import series as after_power_cut

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
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


def status(*argv: str) -> int:
    """The status that the command ends with, however it does."""
    try:
        return cli.main(argv)
    except SystemExit as end:
        return int(end.code or 0)


# Wrong usage


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "lab",
        "lab nonsense",
        "lab kernel",
        "prove storage --dry-run",
        "prove ipi storage --dry-run",
        "prove --machine tdx --dry-run",
        "prove ipi wfx --machine plain --dry-run",
        "prove blackbox --machine vm --dry-run",
        "prove blackbox --path-length --dry-run",
        "prove --runs 0",
        "prove --runs -1",
        "prove --runs 1.5",
        "prove --runs",
        "prove --json /nonexistent/results.json --dry-run",
        "prove --html /nonexistent/report.html --dry-run",
        "report",
        "report a.json b.json",
        "report a.json --summary",
        "lab build --flavour nonsense",
        "lab boot --machine nonsense",
        "lab boot plain",
        "lab run",
        "lab run --",
        "lab run --timeout 0 -- true",
        "lab run --timeout -1 -- true",
        "lab run --timeout nan -- true",
        "lab run --timeout inf -- true",
        "lab run --timeout 1e300 -- true",
        "lab run --timeout soon -- true",
        "lab run --in monitor -- true",
        "lab run --machine plain --in host -- true",
        "lab shell --machine plain --in host",
        "lab shell",  # a test has no terminal
        "lab clean nonsense",
    ],
)
def test_wrong_usage_is_status_2_and_says_why(
    line: str, capsys: Capture, cache: Path, no_programs: None
) -> None:
    assert status(*line.split()) == 2
    out, err = capsys.readouterr()
    assert "cvmtune" in err
    assert "Traceback" not in err
    assert out == ""
    assert not cache.exists()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("prove storage --dry-run", "features: ipi, vtimer, cq-poll, wfx, blackbox"),
        ("prove wfx --machine plain", "use --machine vm or cvm, or leave the feature out"),
        ("prove vtimer --machine plain", "use --machine cvm, or leave the feature out"),
        ("prove ipi vtimer --machine vm --dry-run", "vtimer is nothing that vm can have"),
        ("prove blackbox --machine plain", "use --machine cvm, or leave the feature out"),
        ("prove blackbox --path-length", "name ipi or vtimer or cq-poll or wfx too"),
        ("prove --runs 0", "a whole number of at least 1"),
        ("lab boot --machine tdx", "'plain', 'vm', 'cvm'"),
        ("lab run --machine plain --in host -- true", "leave out --in host"),
        ("lab shell", "use `cvmtune lab run` in scripts"),
        ("lab clean rootfs", "the cache has no part 'rootfs'"),
        ("lab run --timeout 0 -- true", "a number of seconds above 0"),
    ],
)
def test_wrong_usage_comes_with_what_would_be_right(line: str, hint: str, capsys: Capture) -> None:
    assert status(*line.split()) == 2
    assert hint in capsys.readouterr().err


def test_help_and_version(capsys: Capture) -> None:
    for words in (["--help"], ["prove", "--help"], ["lab", "--help"], ["lab", "kernel", "check", "--help"]):
        assert status(*words) == 0
        assert "usage: cvmtune" in capsys.readouterr().out
    assert status("--version") == 0
    assert capsys.readouterr().out == f"cvmtune {cvmtune.__version__}\n"


def test_choices_are_those_that_exist(capsys: Capture) -> None:
    assert status("prove", "--help") == 0
    assert f"of {', '.join(TRIALS)}; default" in " ".join(capsys.readouterr().out.split())
    assert set(cli._MACHINES) == MACHINES.keys()
    assert set(cli._FLAVOURS) == FLAVOURS.keys()


# What the lab needs is missing


@pytest.mark.parametrize(
    "line",
    [
        "prove",
        "lab build",
        "lab boot",
        "lab boot --machine plain",
        "lab run --machine vm -- true",
        "lab boot --json",
    ],
)
def test_missing_emulator_is_status_3_with_the_next_step(
    line: str, capsys: Capture, no_programs: None
) -> None:
    assert status(*line.split()) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "cvmtune: missing on this machine: qemu-system-aarch64" in err
    assert "next: sudo apt-get install" in err
    assert "qemu-system-arm" in err
    assert "Traceback" not in err


def test_verbose_shows_where_and_ends_with_the_same_status(capsys: Capture, no_programs: None) -> None:
    assert status("lab", "boot", "--verbose") == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "\ncvmtune: missing on this machine" in err


def test_error_of_the_operating_system_is_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    def no_room(*arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device", str(tmp_path / "payload.tar"))

    monkeypatch.setattr(lab_commands, "boot", no_room)
    assert status("lab", "boot") == 3
    err = capsys.readouterr().err
    assert "cvmtune: " in err
    assert "No space left on device" in err
    assert "payload.tar" in err
    assert "Traceback" not in err


def test_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab_commands, "boot", interrupted)
    assert status("lab", "boot") == 130
    assert capsys.readouterr().err == "cvmtune: interrupted\n"


# Dry runs


ALL_FEATURES = ("ipi", "vtimer", "cq-poll", "wfx", "blackbox")
BLACKBOX = TRIALS["blackbox"]().experiment
COMBINATIONS = {name: state.features for name, state in BLACKBOX.states.items()}
SINGLES = BLACKBOX.form(brief=True).combined


def plan(
    feature: str, machine: str, rounds: int | None, *, brief: bool = False
) -> tuple[Measurement, list[Measurement]]:
    """What is judged, and the baselines."""
    found = runner.plan(TRIALS[feature]().experiment, machine, rounds, brief=brief)
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
    for runs, rounds in ((), 2), (("--runs", "7"), 7):
        assert status("prove", "--dry-run", *runs) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"ipi: on cvm: {rounds} rounds each of 'off', 'on'",
            f"vtimer: on cvm: {rounds} rounds each of 'off', 'on', 'HW bit'",
            f"cq-poll: on cvm: {rounds} rounds each of 'off', 'on'",
            f"wfx: on cvm: {rounds} rounds each of 'off', 'on'",
            f"blackbox: on cvm: {rounds} rounds each of 'off', 'on', 'ipi', 'vtimer', 'cq-poll', 'wfx'",
            f"blackbox: on vm: {rounds} rounds each of 'off'",
        ]
    assert not cache.exists()


@pytest.mark.parametrize("feature", tuple(TRIALS))
def test_short_forms_measure_less_of_the_same(feature: str) -> None:
    full, full_baselines = plan(feature, "cvm", None)
    brief, baselines = plan(feature, "cvm", None, brief=True)
    assert brief.rounds == 2  # the fewest that give an interval
    assert brief.rounds <= full.rounds
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
        one.machine: {feature for state in one.states for feature in COMBINATIONS[state]}
        for one in baselines
    }
    assert features == {"vm": {"ipi", "cq-poll", "wfx"}, "plain": {"ipi", "cq-poll"}}
    brief, baselines = plan("blackbox", "cvm", None, brief=True)
    assert brief.states == ("off", "on", *SINGLES)
    assert not brief.more
    assert baselines == [Measurement("blackbox", MachineName.VM, ("off",), 2)]


@pytest.mark.parametrize(
    ("machine", "feature", "rounds", "on_vm"),
    [
        (machine, feature, rounds, on_vm)
        for machine in MACHINES
        for feature, rounds, on_vm in (
            ("ipi", 5, "5 rounds each of 'off'"),
            ("cq-poll", 3, "1 round each of 'off'"),
            ("wfx", 3, "1 round each of 'off', 'on'"),
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
    features = {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()}
    # A host is needed for one, a monitor for another, and both for all together.
    left_out = {"plain": {"wfx", "vtimer", "blackbox"}, "vm": {"vtimer", "blackbox"}, "cvm": set()}
    assert features == set(tuple(TRIALS)) - left_out[machine]


@pytest.mark.parametrize("machine", ["plain", "vm"])
def test_timer_of_a_machine_without_a_monitor_is_refused(machine: str) -> None:
    with pytest.raises(UsageError, match=f"nothing that {machine} can have"):
        plan("vtimer", machine, None)


@pytest.mark.parametrize(("rounds", "judged", "others"), [(None, 3, 1), (1, 1, 1), (5, 5, 2)])
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
    [("cq-poll", cq_poll.STATES.keys()), ("wfx", wfx.STATES.keys())],
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
    for name, load in TRIALS.items():
        trial = load()
        assert trial.experiment.name == name
        verdict, why = trial.rule.judge((), ())
        assert verdict == "UNDECIDED"
        assert why


def test_prove_says_that_it_would_count_instructions(capsys: Capture) -> None:
    assert status("prove", "--dry-run", "--path-length") == 0
    assert "path length: on plain" in capsys.readouterr().out.splitlines()[-1]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("command", [["shell"], ["run", "--", "uname", "-a"]], ids=["shell", "run"])
def test_dry_runs_of_shell_and_run_boot_as_boot_does(
    capsys: Capture, cache: Path, no_programs: None, command: list[str]
) -> None:
    action, *rest = command
    assert status("lab", "boot", "--dry-run", "--machine", "vm") == 0
    boots = capsys.readouterr().out
    assert status("lab", action, "--dry-run", "--machine", "vm", *rest) == 0
    out = capsys.readouterr().out
    assert out.startswith(boots)
    assert ("uname -a" in out) == (action == "run")
    assert not cache.exists()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_boot_prints_the_command_that_it_would_run(
    capsys: Capture, cache: Path, no_programs: None, machine: str, flavour: str
) -> None:
    argv = ["lab", "boot", "--dry-run", "--machine", machine, "--flavour", flavour, "--append", "nohlt"]
    assert status(*argv, "--append", "a='b c'") == 0
    append = ("nohlt", "a='b c'")
    spec = machine_spec(machine, flavour, PLAIN_BOOT)
    images = Images(
        Path(f"kernel-{flavour}/Image"),
        Path("rootfs-guest/root.img"),
        Path("payload.tar"),
        Path("rootfs-host/root.img"),
    )
    ports = {"guest": "socket,fd=3"}
    if spec.nested:
        ports = {"host": "socket,fd=3", "guest": "socket,fd=4", "console": "file,path=guest.console"}
    expected = qemu_argv(
        spec,
        images,
        console=f"file,path={'host' if spec.nested else 'guest'}.console",
        ports=ports,
        append=append,
        processor=processor_options(nested=spec.nested, icount=False, qemu_version=(7, 2)),
    )
    out = capsys.readouterr().out
    assert commands(out)[0] == expected
    if spec.nested:
        assert out.endswith(start_guest_script(spec, append))
    else:
        assert len(commands(out)) == 1
    assert not cache.exists()


def test_boot_tells_of_the_memory_that_debug_kernels_need(capsys: Capture) -> None:
    def memory(flavour: str) -> int:
        assert status("lab", "boot", "--dry-run", "--machine", "plain", "--flavour", flavour) == 0
        (argv,) = commands(capsys.readouterr().out)
        return int(argv[argv.index("-m") + 1])

    assert memory("default") == memory("absent") == 768
    assert memory("debug") == memory("kcsan") == 768 + 512


def test_build_prints_the_commands_that_it_would_run(capsys: Capture, cache: Path, no_programs: None) -> None:
    assert status("lab", "build", "--dry-run", "--flavour", "default", "--flavour", "debug") == 0
    found = commands(capsys.readouterr().out)
    assert [argv[0] for argv in found] == [
        "mmdebstrap",
        *["make"] * 4,
        *["mmdebstrap", "tar", "mke2fs"] * 2,
    ]
    makes = [argv for argv in found if argv[0] == "make"]
    assert [argv[-1] for argv in makes] == ["allnoconfig", "modules"] * 2
    assert ["O=out-default" in argv for argv in makes] == [True, True, False, False]
    assert any(str(cache) in word for word in found[0])
    # Nothing, not even an empty directory.
    assert not cache.exists()


def test_build_says_which_kernel_has_the_queue(capsys: Capture, cache: Path, no_programs: None) -> None:
    assert status("lab", "build", "--dry-run", "--flavour", "absent", "--flavour", "unpatched") == 0
    out = capsys.readouterr().out
    assert re.findall(r"# kernel, (\w+): .* (after|without) the patch queue", out) == [
        ("absent", "after"),
        ("unpatched", "without"),
    ]


def test_default_build_is_the_default_flavour(capsys: Capture) -> None:
    assert status("lab", "build", "--dry-run") == 0
    assert "# kernel, default: " in capsys.readouterr().out


def fill(cache: Path) -> None:
    for name, size in (("rootfs", 5_000_000), ("kernel", 10)):
        Cache(cache).directory(name).joinpath("file").write_bytes(b"x" * size)


def tree(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_clean_says_what_it_would_remove(capsys: Capture, cache: Path) -> None:
    fill(cache)
    before = tree(cache)
    assert status("lab", "clean", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"would remove {cache}/kernel: 0 MB",
        f"would remove {cache}/rootfs: 5 MB",
    ]
    assert tree(cache) == before


def test_clean_removes_one_part(capsys: Capture, cache: Path) -> None:
    fill(cache)
    assert status("lab", "clean", "rootfs") == 0
    assert capsys.readouterr().out == f"removed {cache}/rootfs: 5 MB\n"
    assert not (cache / "rootfs").exists()
    assert (cache / "kernel/file").exists()


def test_clean_removes_all(capsys: Capture, cache: Path) -> None:
    fill(cache)
    assert status("lab", "clean") == 0
    assert not (cache / "rootfs").exists()
    assert not (cache / "kernel").exists()


def test_clean_of_nothing(capsys: Capture, cache: Path) -> None:
    assert status("lab", "clean") == 0
    assert capsys.readouterr().out == ""
    assert not cache.exists()


@pytest.mark.parametrize("dry", [True, False])
def test_clean_as_json(capsys: Capture, cache: Path, dry: bool) -> None:
    fill(cache)
    assert status("lab", "clean", "--json", *(["--dry-run"] if dry else [])) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["root"] == str(cache)
    assert found["removed"] is not dry
    assert found["bytes"].keys() == {"kernel", "rootfs"}
    assert found["bytes"]["rootfs"] >= 5_000_000


def test_clean_does_not_take_what_is_not_the_caches(capsys: Capture, cache: Path) -> None:
    fill(cache)
    (cache / "letters").mkdir()
    assert status("lab", "clean", "letters") == 2
    assert "it has: kernel, rootfs" in capsys.readouterr().err
    assert status("lab", "clean") == 0
    assert (cache / "letters").exists()


# Recorded results


def stats(value: float) -> Stats:
    return Stats(2, value, value, value, (value, value))


def results(*verdicts: Verdict) -> Results:
    metric = Metric(
        "sgi_per_ipi", "SGIs per IPI", "per IPI", "count", "lower", stats(1), stats(0), None, None
    )
    return Results(
        {"kernel": "6.12"},
        tuple(Result("ipi", "cvm", (metric,), verdict, "It says so.") for verdict in verdicts),
    )


def write(path: Path, content: Results) -> str:
    path.write_text(json.dumps(content.to_json()))
    return str(path)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_report_shows_results_and_ends_by_the_verdict(
    tmp_path: Path, capsys: Capture, verdict: Verdict
) -> None:
    path = write(tmp_path / "results.json", results("PASS", verdict))
    assert status("report", path) == (0 if verdict == "PASS" else 1)
    out = capsys.readouterr().out
    assert verdict in out
    assert "sgi_per_ipi" in out
    assert "It says so." in out


@pytest.mark.parametrize(("verdict", "expected"), [("PASS", 0), ("FAIL", 1)])
def test_report_as_json(tmp_path: Path, capsys: Capture, verdict: Verdict, expected: int) -> None:
    path = write(tmp_path / "results.json", results(verdict))
    assert status("report", "--json", path) == expected
    assert Results.from_json(json.loads(capsys.readouterr().out)) == results(verdict)


def test_report_writes_a_page(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results("PASS"))
    assert status("report", path, "--html", "report.html") == 0
    assert "It says so." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the result file: No such file"),
        ("", "not a JSON file"),
        ("[]", "expected an object"),
        ('{"schema": 99}', "schema 99 is not known"),
        ('{"schema": 1, "environment": {}}', "missing"),
    ],
)
def test_file_that_is_no_result_is_status_3(
    tmp_path: Path, capsys: Capture, content: str | None, message: str
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert status("report", str(path)) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert str(path) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("verdict", "expected"), [("PASS", 0), ("FAIL", 1)])
def test_report_writes_a_summary_beside_what_it_shows(
    tmp_path: Path, capsys: Capture, verdict: Verdict, expected: int
) -> None:
    path = write(tmp_path / "results.json", results(verdict))
    assert status("report", path, "--summary", "new/summary") == expected
    assert "It says so." in capsys.readouterr().out
    assert [one.name for one in (tmp_path / "new/summary").iterdir()] == ["summary.md"]
    assert f"| ipi | cvm | {verdict} |" in (tmp_path / "new/summary/summary.md").read_text()


def test_report_writes_page_summary_and_json_at_once(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results("PASS"))
    assert status("report", path, "--html", "report.html", "--summary", ".", "--json") == 0
    assert Results.from_json(json.loads(capsys.readouterr().out)) == results("PASS")
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "summary.md").exists()


def test_report_writes_no_summary_unasked(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", results("PASS"))
    assert status("report", path) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_summary_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results("PASS"))
    assert status("report", path, "--summary", path) == 3
    err = capsys.readouterr().err
    assert f"cannot make the directory: File exists ({path})" in err
    assert "Traceback" not in err


def test_page_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results("PASS"))
    assert status("report", path, "--html", "/nonexistent/report.html") == 3
    assert "cannot write: No such file" in capsys.readouterr().err


# A lab of this machine: nothing is built or booted, commands run here


@dataclass
class FakeLab:
    """Records how machines were booted; guest and host are this computer."""

    root: Path
    booted: list[tuple[str, str, BootOptions]] = field(default_factory=list)
    tools: list[tuple[Path, ...]] = field(default_factory=list)
    running: int = 0

    def __post_init__(self) -> None:
        self.cache = Cache(self.root)
        self.progress = SilentProgress()

    def build(self, flavour: str, *, host: bool) -> tuple[Any, Path, dict[str, Path]]:
        built = SimpleNamespace(image=Path(f"/cache/{flavour}/Image"), release="6.12.1-cvmtune")
        names = ("guest", "host") if host else ("guest",)
        return built, Path("/cache/tools"), {name: Path(f"/cache/{name}.img") for name in names}

    @contextmanager
    def boot(
        self,
        machine: str,
        *,
        flavour: str = "default",
        options: BootOptions = PLAIN_BOOT,
        tools: Sequence[Path] = (),
    ) -> Iterator[Any]:
        self.booted.append((machine, flavour, options))
        self.tools.append(tuple(tools))
        self.running += 1
        (self.root / "guest.console").write_text("booting\n")
        try:
            yield SimpleNamespace(
                guest=LocalSystem(),
                host=LocalSystem() if MACHINES[machine].nested else None,
                vmm_pid=1,
                spec=MACHINES[machine],
                boot_seconds=12.34,
                console=lambda role: self.root / f"{role}.console",
            )
        finally:
            self.running -= 1


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    one = FakeLab(tmp_path)
    monkeypatch.setattr(lab_commands, "open_lab", lambda silent=False: one)
    monkeypatch.setattr(prove, "Lab", lambda cache, progress: one)
    return one


@pytest.mark.parametrize(
    ("script", "expected"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_run_ends_with_the_commands_status(lab: FakeLab, script: str, expected: int) -> None:
    assert status("lab", "run", "--", "sh", "-c", script) == expected
    assert lab.running == 0


def test_run_passes_on_output(lab: FakeLab, capsys: Capture) -> None:
    assert status("lab", "run", "--", "sh", "-c", "echo out; echo err >&2; printf 'no newline'") == 0
    assert capsys.readouterr() == ("out\nno newline", "err\n")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--", "echo", "--json", "-x"], "--json -x\n"),
        (["--machine", "vm", "--", "echo", "--", "x"], "-- x\n"),
        (["echo", "x", "y"], "x y\n"),
    ],
)
def test_run_takes_the_command_as_it_is(lab: FakeLab, capsys: Capture, words: list[str], shown: str) -> None:
    assert status("lab", "run", *words) == 0
    assert capsys.readouterr().out == shown


def test_run_boots_what_was_asked_for(lab: FakeLab) -> None:
    options = ["--machine", "vm", "--flavour", "kcsan", "--append", "nohlt", "--append=quiet", "--in", "host"]
    assert status("lab", "run", *options, "--timeout", "5", "--", "true") == 0
    assert lab.booted == [("vm", "kcsan", BootOptions(append=("nohlt", "quiet")))]


def test_run_of_a_command_that_takes_too_long_is_status_3(lab: FakeLab, capsys: Capture) -> None:
    assert status("lab", "run", "--timeout", "0.1", "--", "sleep", "60") == 3
    assert "sleep 60 did not end within 0.1 s" in capsys.readouterr().err
    assert lab.running == 0


def test_boot_tells_time_kernel_and_consoles(lab: FakeLab, capsys: Capture, tmp_path: Path) -> None:
    assert status("lab", "boot", "--machine", "plain") == 0
    out = capsys.readouterr().out
    assert "plain: agent ready after 12.3 s, Linux version" in out
    assert f"console of the guest: {tmp_path / 'guest.console'}" in out
    assert lab.running == 0


def test_boot_as_json(lab: FakeLab, capsys: Capture, tmp_path: Path) -> None:
    assert status("lab", "boot", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("kernel").startswith("Linux version")
    assert found == {
        "machine": "cvm",
        "boot_seconds": 12.34,
        "guest": str(tmp_path / "guest.console"),
    }


def test_build_tells_where_the_kernels_are(lab: FakeLab, capsys: Capture) -> None:
    assert status("lab", "build", "--flavour", "default", "--flavour", "debug") == 0
    assert capsys.readouterr().out == "default: /cache/default/Image\ndebug: /cache/debug/Image\n"


def test_build_as_json(lab: FakeLab, capsys: Capture) -> None:
    assert status("lab", "build", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "default": {
            "image": "/cache/default/Image",
            "release": "6.12.1-cvmtune",
            "guest_tools": "/cache/tools",
            "root_file_systems": {"guest": "/cache/guest.img", "host": "/cache/host.img"},
        }
    }


def test_json_output_is_not_mixed_with_progress() -> None:
    assert isinstance(lab_commands.open_lab(silent=True).progress, SilentProgress)
    assert isinstance(lab_commands.open_lab(), Lab)


# The patch queue


@pytest.mark.parametrize(("problems", "expected"), [((), 0), (("smp.c:1: warning: unused",), 1)])
def test_kernel_check_ends_by_its_results(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, problems: tuple[str, ...], expected: int
) -> None:
    asked: list[bool] = []

    def run_checks(cache: Cache, progress: object, *, quick: bool) -> list[CheckResult]:
        asked.append(quick)
        return [CheckResult("build", "0001.patch", ()), CheckResult("sparse", "0002.patch", problems)]

    monkeypatch.setattr("cvmtune.commands.queue.run_checks", run_checks)
    assert status("lab", "kernel", "check", "--quick") == expected
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "ok: build: 0001.patch"
    assert lines[1] == f"{'FAILED' if problems else 'ok'}: sparse: 0002.patch"
    assert [line.strip() for line in lines[2:]] == list(problems)
    assert asked == [True]


# Proving, with recorded rounds in place of the experiment


# What is counted of each feature with it off, and what with it on if it does its work.
COUNTED = {
    "ipi": {"sgi_per_ipi": (1.0, 0.0), "exits_per_ipi": (1.0, 0.0)},
    "vtimer": {
        **{f"redundant_per_{load}": (2.0, 0.0) for load in ("oneshot", "tick", "section")},
        **{f"timer_exits_per_{load}": (3.0, 1.0) for load in ("oneshot", "tick", "section")},
        **{f"timer_exits_per_interrupt_{load}": (3.0, 1.0) for load in ("oneshot", "tick", "section")},
        **{f"interrupts_per_{load}": (1.0, 1.0) for load in ("oneshot", "tick", "section")},
        "ticks_per_s": (250.0, 250.0),
    },
    "cq-poll": {
        **{"wakeups_per_write": (4.0, 0.0), "ipis_per_write": (5.0, 5.0)},
        **{"handled_per_posted": (1.0, 1.0), "violations": (0.0, 0.0), "verified": (1.0, 1.0)},
    },
    "wfx": {
        **{"wfx_exits_named": (400.0, 0.0), "wfx_exits_other": (400.0, 400.0), "idle_wfx_exits": (50.0, 0.0)},
        **{"wfx_exits_back": (400.0, 400.0), "wfx_per_timer": (2.0, 0.0)},
        **{"wfx_per_futex_rtt": (2.0, 0.0), "mixed_wfx_exits": (300.0, 0.0), "wfx_per_pipe_rtt": (2.0, 0.0)},
    },
    "blackbox": {
        **{load: (2.0, 1.0) for load in MAIN_METRICS},
        **{f"{load}_lost": (0.0, 0.0) for load in MAIN_METRICS},
        **{f"{load}_ipis": (10.0, 4.0) for load in MAIN_METRICS},
        **{f"{load}_wakeups": (4.0, 0.0) for load in MAIN_METRICS},
        **{f"{load}_exits": (20.0, 20.0) for load in MAIN_METRICS},
        **{f"{load}_wfx_exits": (5.0, 0.0) for load in MAIN_METRICS},
        **{f"{load}_timer_exits": (8.0, 9.0) for load in MAIN_METRICS},
        **{f"{load}_redundant_exits": (2.0, 0.0) for load in MAIN_METRICS},
        **{f"{load}_exits": (10.0, 5.0) for load in CLOSED.values()},
    },
}


@dataclass
class Measured:
    """What was asked of the experiments, by feature; `useless` features change nothing.

    `options` are the parts, and whether all was to be measured that can be; `cut` the machines whose power
    was cut, which took `lost`. `all_lost` and `damage` are what blackbox finds after all rounds.
    """

    useless: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, tuple[str, ...], int]] = field(default_factory=list)
    options: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: int = 0
    all_lost: int = 0
    damage: int = 0

    def run(
        self,
        experiment: Experiment[Any, Any],
        bench: Bench,
        wanted: Measurement,
        *,
        environment: dict[str, object],
        advance: Callable[[str], None],
    ) -> RawRun:
        feature, machine, states = experiment.name, str(bench.machine), wanted.states

        def series(state: str) -> tuple[Series, ...]:
            on = state == "on" and feature not in self.useless
            # With the HW bit is as a masked timer should be, whatever became of that.
            on = on or state == vtimer.HW
            counts = [
                Series(name, name, "per IPI", "count", "lower", (values[on],))
                for name, values in COUNTED[feature].items()
            ]
            return (*counts, Series("notify", "notification", "ns", "time", "lower", (1000.0, 1100.0)))

        assert (wanted.experiment, wanted.machine) == (feature, machine)
        self.asked.append((feature, machine, states, wanted.rounds))
        self.options.append((wanted.parts, wanted.more))
        assert (bench.host is not None) == MACHINES[machine].nested
        assert bench.tools == GUEST_TOOLS
        advance("a round")
        found = [Round(state, index, series(state)) for index in range(wanted.rounds) for state in states]
        if feature == "blackbox":
            found.append(Round(blackbox.AFTER, 0, self.outcome()))
        return RawRun(feature, machine, tuple(found), environment)

    def outcome(self) -> tuple[Series, ...]:
        """Of a whole run, in no state of the features."""
        return tuple(
            Series(name, name, "each", "count", "lower", (float(value),))
            for name, value in (("all_lost", self.all_lost), ("damage", self.damage))
        )


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
    for module in (runner, path_length):
        monkeypatch.setattr(module, "environment_of", lambda machine: {"machine": machine.spec.name})
    return one


DATABASE = Path("/cache/database")
SLEEPING_AND_SOFT = ("on, sleeping after 1 ms", "soft IPIs alone", "on, with soft IPIs")
COMBINED = tuple(state for state in COMBINATIONS if state not in ("off", "on"))
GUARDED_SOFT_SHARED = tuple(state for state in wfx.STATES if state not in ("off", "on", wfx.BOOT_POLICY))
# How machines are booted for each feature, and how many states of machines stand beside the verdict.
BOOTED = {
    "ipi": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT), ("cvm", BootOptions(append=("nohlt",)))], 2),
    "vtimer": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT)], 2),
    "cq-poll": ([("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT), ("cvm", PLAIN_BOOT)], 4),
    "wfx": (
        [
            *[("cvm", PLAIN_BOOT), ("vm", PLAIN_BOOT), ("cvm", PLAIN_BOOT)],
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
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    assert [(one.feature, one.machine, one.verdict) for one in found.results] == [(feature, "cvm", verdict)]
    booted, baselines = BOOTED[feature]
    assert len(found.baselines) == baselines
    assert status("report", "results.json") == expected
    assert lab.booted == [(machine, "default", options) for machine, options in booted]
    assert lab.tools == [(DATABASE,) if feature == "blackbox" else ()] * len(booted)
    assert lab.running == 0


def test_prove_keeps_what_was_left_of_the_database(measured: Measured, tmp_path: Path) -> None:
    status("prove", "blackbox", "--runs", "2", "--json", "results.json")
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    left = {one.name: [metric.name for metric in one.metrics] for one in found.baselines}
    for machine in ("cvm", "vm", "plain"):
        assert left[f"{machine}, {blackbox.AFTER}"] == ["all_lost", "damage"]


def test_prove_measures_in_full_what_is_named(measured: Measured) -> None:
    assert status("prove", *ALL_FEATURES, "--runs", "2") == 0
    assert measured.asked == [
        ("ipi", "cvm", ("off", "on"), 2),
        ("ipi", "vm", ("off",), 2),
        ("ipi", "cvm", ("nohlt",), 2),
        ("vtimer", "cvm", ("off", "on", "HW bit"), 2),
        ("vtimer", "vm", ("ordinary VM",), 1),
        ("cq-poll", "cvm", ("off", "on"), 2),
        ("cq-poll", "vm", ("off",), 1),
        ("cq-poll", "cvm", SLEEPING_AND_SOFT, 1),
        ("wfx", "cvm", ("off", "on"), 2),
        ("wfx", "vm", ("off", "on"), 1),
        ("wfx", "cvm", GUARDED_SOFT_SHARED, 1),
        ("wfx", "cvm", (wfx.BOOT_POLICY,), 1),
        ("blackbox", "cvm", ("off", "on", *COMBINED), 2),
        ("blackbox", "vm", ("off", "ipi+cq-poll+wfx"), 1),
        ("blackbox", "plain", ("off", "ipi+cq-poll"), 1),
    ]
    plain, polling = ((("",), False), (nfs_rdma.PROVIDERS, False))
    assert measured.options == [*[plain] * 5, *[polling] * 3, *[plain] * 4, *[(("",), True)] * 3]
    assert measured.cut == ["cvm"]


def test_prove_measures_all_features_in_short_unless_told_which(measured: Measured, lab: FakeLab) -> None:
    assert status("prove") == 0
    assert measured.asked == [
        ("ipi", "cvm", ("off", "on"), 2),
        ("vtimer", "cvm", ("off", "on", "HW bit"), 2),
        ("cq-poll", "cvm", ("off", "on"), 2),
        ("wfx", "cvm", ("off", "on"), 2),
        ("blackbox", "cvm", ("off", "on", *SINGLES), 2),
        ("blackbox", "vm", ("off",), 2),
    ]
    plain = (("",), False)
    assert measured.options == [plain, plain, (nfs_rdma.PROVIDERS[:1], False), plain, plain, plain]
    assert measured.cut == []
    assert lab.tools == [()] * 4 + [(DATABASE,)] * 2


@pytest.mark.parametrize(("lost", "expected"), [(0, 0), (3, 1)])
def test_what_a_power_cut_took_counts_in_the_verdict(
    measured: Measured, tmp_path: Path, lost: int, expected: int
) -> None:
    measured.lost = lost
    assert status("prove", "blackbox", "--runs", "2", "--json", "results.json") == expected
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
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
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    (result,) = found.results
    assert result.verdict == verdict
    assert (f"cvm, {blackbox.AFTER}" in result.why) == (verdict == "FAIL")
    # It is of the whole run, not of off or on.
    assert not {"all_lost", "damage"} & {metric.name for metric in result.metrics}
    assert "Left out" not in result.why


@pytest.mark.parametrize(("words", "cells"), [((), 6), (("blackbox",), 16)])
def test_combinations_are_judged_and_no_baselines(
    measured: Measured, tmp_path: Path, words: tuple[str, ...], cells: int
) -> None:
    assert status("prove", *words, "--json", "results.json") == 0
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    assert [(one.machine, one.metric) for one in found.factorials] == [("cvm", load) for load in MAIN_METRICS]
    for one in found.factorials:
        assert len(one.cells) == cells
        assert all((gain.overall is not None) == (cells == 16) for gain in one.gains)
    assert not [one.name for one in found.baselines if one.name.startswith("cvm, ipi")]


@pytest.mark.parametrize("useless", tuple(TRIALS))
def test_one_feature_that_fails_is_a_failure(measured: Measured, tmp_path: Path, useless: str) -> None:
    measured.useless = {useless}
    assert status("prove", "--runs", "2", "--json", "results.json") == 1
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    assert {one.feature: one.verdict == "FAIL" for one in found.results} == {
        feature: feature == useless for feature in tuple(TRIALS)
    }


# One more than there are rounds, for the boot; what is done beside measuring has none.
FULL_ROUNDS = {
    "ipi: measuring on cvm: off, on": 7,
    "ipi: measuring on vm: off": 4,
    "ipi: measuring on cvm: nohlt": 4,
    "vtimer: measuring on cvm: off, on, HW bit": 10,
    "vtimer: measuring on vm: ordinary VM": 2,
    # Polling is measured over each provider.
    "cq-poll: measuring on cvm: off, on": 13,
    "cq-poll: measuring on vm: off": 3,
    f"cq-poll: measuring on cvm: {', '.join(SLEEPING_AND_SOFT)}": 7,
    "wfx: measuring on cvm: off, on": 7,
    "wfx: measuring on vm: off, on": 3,
    # So many states would not fit into a line.
    "wfx: measuring on cvm: 7 states": 8,
    f"wfx: measuring on cvm: {wfx.BOOT_POLICY}": 2,
    "blackbox: measuring on cvm: 16 states": 49,
    "blackbox: measuring on vm: off, ipi+cq-poll+wfx": 3,
    "blackbox: measuring on plain: off, ipi+cq-poll": 3,
    "blackbox: the guest's power is cut while it commits, with all features on on cvm": None,
}
BRIEF_ROUNDS = {
    "ipi: measuring on cvm: off, on": 7,
    "vtimer: measuring on cvm: off, on, HW bit": 10,
    "cq-poll: measuring on cvm: off, on": 7,
    "wfx: measuring on cvm: off, on": 7,
    "blackbox: measuring on cvm: off, on, ipi, vtimer, cq-poll, wfx": 19,
    "blackbox: measuring on vm: off": 4,
}


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("words", "expected"), [(ALL_FEATURES, FULL_ROUNDS), ((), BRIEF_ROUNDS)])
def test_prove_knows_how_many_rounds_there_will_be(
    lab: FakeLab, words: tuple[str, ...], expected: dict[str, int | None]
) -> None:
    told: dict[str, int | None] = {}

    class Told(SilentProgress):
        @contextmanager
        def step(self, title: str, total: int | None = None) -> Iterator[Step]:
            told[title] = total
            with super().step(title, total) as step:
                yield step

    lab.progress = Told()
    assert status("prove", *words, "--runs", "3") == 0
    assert told == expected


@dataclass
class Judged:
    """What was given to the judge: of each run the feature, machine and states of its rounds."""

    raws: list[tuple[str, str, list[str]]] = field(default_factory=list)
    baselines: list[tuple[str, str, list[str]]] = field(default_factory=list)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    one = Judged()

    def seen(raws: Sequence[RawRun], baselines: Sequence[RawRun], rules: Mapping[str, Rule]) -> Results:
        for runs, told in ((raws, one.raws), (baselines, one.baselines)):
            told += [(run.feature, run.machine, [each.state for each in run.rounds]) for run in runs]
        return judge(raws, baselines, rules)

    monkeypatch.setattr(prove, "judge", seen)
    return one


def test_states_beside_off_and_on_are_a_baseline(measured: Measured, judged: Judged, tmp_path: Path) -> None:
    assert status("prove", "ipi", "vtimer", "--runs", "2", "--json", "results.json") == 0
    assert judged.raws == [
        ("ipi", "cvm", ["off", "on"] * 2),
        ("vtimer", "cvm", ["off", "on"] * 2),
    ]
    # No baseline of no rounds.
    assert judged.baselines == [
        ("ipi", "vm", ["off"] * 2),
        ("ipi", "cvm", ["nohlt"] * 2),
        ("vtimer", "cvm", ["HW bit"] * 2),
        ("vtimer", "vm", ["ordinary VM"]),
    ]
    found = Results.from_json(json.loads((tmp_path / "results.json").read_text()))
    assert "Left out" not in found.results[1].why
    assert "cvm, HW bit" in [one.name for one in found.baselines]


# Counting instructions


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

    for feature, load in TRIALS.items():
        if paths := load().paths:
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
    assert judged.baselines[-2:] == [("vtimer", "cvm", states), ("wfx", "cvm", states)]
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
