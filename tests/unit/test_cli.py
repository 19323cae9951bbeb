# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: wrong usage, what is missing, errors and how the program ends."""

from __future__ import annotations

from pathlib import Path

import pytest

import cvmtune
from cvmtune.cli import options
from cvmtune.commands import lab as lab_commands
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.specs import MACHINES
from tests.fakes.bound import TRIALS
from tests.fakes.command_line import status

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")


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
        ("prove ipi vtimer --machine vm --dry-run", "vtimer is not supported on machine vm"),
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
    assert set(options.MACHINES) == MACHINES.keys()
    assert set(options.FLAVOURS) == FLAVOURS.keys()


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
