# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab`: dry runs that touch nothing, building, booting, running, cleaning, checking patches."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from cvmtune.commands import lab as lab_commands
from cvmtune.lab.cache import Cache
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.kernel_checks import CheckResult
from cvmtune.lab.lab import Lab, machine_spec
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions
from cvmtune.lab.progress import SilentProgress
from cvmtune.lab.qemu import processor_options, qemu_argv, start_guest_script
from cvmtune.lab.specs import MACHINES, Images
from tests.fakes.command_line import status
from tests.fakes.lab import FakeLab

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")


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


# Building, booting and running


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
