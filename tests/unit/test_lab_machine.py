# SPDX-License-Identifier: Apache-2.0
"""Booting against a stand-in for QEMU: each way to lose a machine has its error, and none is left running."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.lab import client, hang, machine
from cvmtune.lab import lab as lab_module
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import GuestDied, GuestHung, GuestPanicked, LabError, MissingTool
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import BootOptions, Machine, boot, guest_files
from cvmtune.lab.progress import SilentProgress
from cvmtune.lab.qemu import QEMU, STORE
from cvmtune.lab.specs import MACHINES, Images, Terminal
from tests.fakes.lab import FakeLab

FAKE = Path(__file__).parents[1] / "fakes/qemu.py"
IN_TIME = 30.0  # seconds in which the stand-in has started, on a busy computer too
SOON = 0.5

Boot = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of the run."""
    return tmp_path / "runs" / "1"


@pytest.fixture
def fake_boot(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Return a function that boots: fake_boot("cvm", "panic when asked", deadline=..., terminal=...)."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / QEMU
    interpreter = shlex.join([sys.executable, "-B", str(FAKE)])
    program.write_text(
        "#!/bin/sh\n"
        "case $1 in --version) echo 'QEMU emulator version 7.2.22 (Debian)'; exit ;; esac\n"
        f'echo process $$\nexec {interpreter} "$@"\n'
    )
    program.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_QEMU_SCRATCH", str(tmp_path / "scratch"))

    def start(
        name: str = "plain", behaviour: str = "", deadline: float = IN_TIME, terminal: Terminal | None = None
    ) -> AbstractContextManager[Machine]:
        monkeypatch.setenv("FAKE_QEMU", behaviour)
        images = Images(tmp_path / "Image", tmp_path / "guest", run / "payload.tar", tmp_path / "host")
        return boot(MACHINES[name], images, (), run, BootOptions(deadline=deadline, terminal=terminal))

    return start


def messages(run: Path, first_word: str) -> list[list[str]]:
    """What the stand-in has told in lines that begin with this word."""
    lines = [line.split() for line in (run / "qemu.log").read_text().splitlines()]
    return [line[1:] for line in lines if line[0] == first_word]


def assert_ended(run: Path) -> None:
    ((pid,),) = messages(run, "process")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", MACHINES)
def test_machine_answers_and_ends(fake_boot: Boot, run: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "mask"
    file.write_text("3\n")
    before = open_descriptors()
    with fake_boot(name) as running:
        assert running.guest.read_text(str(file)) == "3\n"
        assert running.guest.run(["cat"], input="in").stdout == "in"
        assert (running.host is not None) == MACHINES[name].nested
        if running.host:
            assert running.host.exists(str(file))
            assert running.vmm_pid == 4711
        assert 0 < running.boot_seconds < IN_TIME
    assert_ended(run)
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["vm", "cvm"])
def test_vcpus_are_pinned_one_to_one(fake_boot: Boot, run: Path, name: str) -> None:
    with fake_boot(name):
        pass
    assert messages(run, "pin") == [
        ["host", "4711", "CPU", "0/KVM", "0"],
        ["host", "4711", "CPU", "1/KVM", "1"],
    ]


@pytest.mark.parametrize(("name", "roles"), [("plain", ["guest"]), ("cvm", ["guest", "host"])])
def test_consoles_and_the_command_are_kept(fake_boot: Boot, run: Path, name: str, roles: list[str]) -> None:
    with fake_boot(name) as running:
        for role in roles:
            assert running.console(role) == run / f"{role}.console"
    assert sorted(path.name for path in run.glob("*.console")) == [f"{role}.console" for role in roles]
    for role in roles:
        assert f"this is the {role}" in (run / f"{role}.console").read_text()
    argv = shlex.split((run / "command").read_text())
    assert argv[0] == QEMU
    assert any(f"path={run / 'guest.console'}" in word for word in argv)
    assert (run / "payload.tar").exists()


def test_only_a_host_gets_a_script_to_start_its_guest() -> None:
    options = BootOptions(append=("nohlt",))
    assert guest_files(MACHINES["plain"], options) == {}
    (script,) = guest_files(MACHINES["vm"], options).values()
    assert "nohlt" in script


def test_guests_store_is_handed_on_where_there_is_one(tmp_path: Path) -> None:
    (script,) = guest_files(MACHINES["cvm"], BootOptions(store=tmp_path / "disk")).values()
    assert f"serial={STORE}" in script
    (script,) = guest_files(MACHINES["cvm"], BootOptions()).values()
    assert f"serial={STORE}" not in script


def test_power_of_a_guest_without_a_host_is_cut_at_once(fake_boot: Boot, run: Path) -> None:
    with fake_boot("plain") as booted:
        booted.cut_power()
        with pytest.raises(GuestDied):
            booted.guest.read_text("/proc/version")


def test_host_that_does_not_end_with_its_guest_is_ended(
    fake_boot: Boot, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_ENDING", 0.1)
    asked: list[list[str]] = []
    with fake_boot("cvm") as booted:
        assert booted.host
        monkeypatch.setattr(booted.host, "run", asked.append)
        with pytest.raises(CvmtuneError, match="did not end with its guest"):
            booted.cut_power()
    assert asked == [["kill", "-KILL", "4711"]]


@pytest.mark.parametrize(("name", "where"), [("plain", "guest"), ("vm", "guest"), ("vm", "host")])
def test_terminal_is_joined_and_the_console_still_kept(
    fake_boot: Boot, run: Path, name: str, where: str
) -> None:
    with fake_boot(name, terminal=Terminal(where, 24, 80, "vt100")) as running:
        assert running.terminal
        running.terminal.sendall(b"ls\n")
        running.terminal.settimeout(IN_TIME)
        assert running.terminal.recv(100) == b"typed: ls\n"
    assert f"this is the {where}" in (run / f"{where}.console").read_text()


def test_directory_of_an_earlier_run_is_left_alone(fake_boot: Boot, run: Path) -> None:
    run.mkdir(parents=True)
    with pytest.raises(FileExistsError), fake_boot():
        pass
    assert list(run.iterdir()) == []


# Machines that do not come up


def failure(fake_boot: Boot, name: str, behaviour: str, deadline: float = IN_TIME) -> CvmtuneError:
    with pytest.raises(CvmtuneError) as caught, fake_boot(name, behaviour, deadline):
        pytest.fail("it came up")
    return caught.value


@pytest.mark.parametrize(
    ("name", "behaviour", "role"),
    [
        ("plain", "panic", "guest"),
        ("vm", "panic", "guest"),
        ("cvm", "panic of the host", "host"),
    ],
)
def test_panic_while_booting(fake_boot: Boot, run: Path, name: str, behaviour: str, role: str) -> None:
    error = failure(fake_boot, name, behaviour)
    assert isinstance(error, GuestPanicked)
    assert error.console == run / f"{role}.console"
    assert f"machine {role} panicked" in str(error)
    assert "sysrq triggered crash" in error.console.read_text()
    assert_ended(run)


def test_emulator_that_refuses_to_start(fake_boot: Boot, run: Path) -> None:
    error = failure(fake_boot, "plain", "refuse")
    assert isinstance(error, GuestDied)
    assert "exit status: 1" in str(error)
    assert str(run / "qemu.log") in str(error)
    assert "no such machine" in (run / "qemu.log").read_text()
    assert_ended(run)


def test_silent_machine_hangs(fake_boot: Boot, run: Path) -> None:
    error = failure(fake_boot, "plain", "be silent", deadline=SOON)
    assert isinstance(error, GuestHung)
    assert error.deadline == pytest.approx(SOON, abs=0.01)
    assert error.console == run / "guest.console"
    # Where it is, twice: does it go round, or is it stuck?
    assert (run / hang.REGISTERS).read_text().count("CPU#0\n PC=") == 2
    assert_ended(run)


def test_channels_that_close_while_the_emulator_lives(
    fake_boot: Boot, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_ENDING", SOON)
    error = failure(fake_boot, "plain", "close the channels and stay")
    assert isinstance(error, GuestDied)
    assert "exit status: none yet" in str(error)
    assert_ended(run)


@pytest.mark.parametrize("behaviour", ["greet with rubbish", "not be ready"])
def test_agent_that_does_not_greet(fake_boot: Boot, run: Path, behaviour: str) -> None:
    assert "the agent of guest" in str(failure(fake_boot, "plain", behaviour))
    assert_ended(run)


def test_missing_emulator(fake_boot: Boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = open_descriptors()
    error = failure(fake_boot, "cvm", "")
    assert isinstance(error, MissingTool)
    assert "missing on this machine: qemu-system-aarch64" in str(error)
    assert "apt-get install qemu-system-arm" in error.next_step
    assert open_descriptors() == before


# Machines that are lost later


@pytest.mark.parametrize("name", ["plain", "cvm"])
@pytest.mark.parametrize(
    ("behaviour", "expected", "message"),
    [
        ("panic when asked", GuestPanicked, "machine guest panicked"),
        ("die when asked", GuestDied, "exit status: 42"),
    ],
)
def test_machine_that_ends_when_asked(
    fake_boot: Boot, run: Path, name: str, behaviour: str, expected: type[LabError], message: str
) -> None:
    with fake_boot(name, behaviour) as running:
        for _ in range(2):  # what cleans up after the first error must learn the same
            with pytest.raises(expected, match=message):
                running.guest.exists("/")
    assert_ended(run)
    assert "this is the guest" in (run / "guest.console").read_text()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [("hang when asked", GuestHung), ("panic when asked and stay", GuestPanicked)],
)
def test_machine_that_does_not_answer(
    fake_boot: Boot, run: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, expected: type[LabError]
) -> None:
    with fake_boot("vm", behaviour) as running:
        monkeypatch.setattr(client, "_PROMPT", SOON)
        with pytest.raises(expected) as caught:
            running.guest.exists("/")
        assert str(run / "guest.console") in str(caught.value)
    hangs = expected is GuestHung
    assert (run / hang.REGISTERS).exists() == hangs
    # The host of a guest that hangs still answers.
    assert (run / hang.HOSTS_VIEW).exists() == hangs
    assert_ended(run)


@pytest.mark.parametrize("behaviour", ["answer rubbish", "answer with a list"])
def test_answer_that_is_none(fake_boot: Boot, run: Path, behaviour: str) -> None:
    with fake_boot("plain", behaviour) as running, pytest.raises(CvmtuneError, match="agent of guest"):
        running.guest.exists("/")
    assert_ended(run)


# The way out


@pytest.mark.parametrize("error", [RuntimeError("in the test"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["plain", "cvm"])
def test_machine_ends_after_an_exception(fake_boot: Boot, run: Path, name: str, error: BaseException) -> None:
    with pytest.raises(type(error)), fake_boot(name):
        raise error
    assert_ended(run)
    assert "this is the guest" in (run / "guest.console").read_text()


def interrupt_when(condition: Callable[[], bool]) -> None:
    """Send this process SIGINT, as Ctrl-C does, once the condition holds."""

    def wait() -> None:
        for _ in range(int(IN_TIME / 0.02)):
            if condition():
                break
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Interrupts are taken, also where the tests run in a shell's background, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_boot_ends_the_machine(fake_boot: Boot, run: Path) -> None:
    log = run / "qemu.log"
    interrupt_when(lambda: log.exists() and "process" in log.read_text())
    with pytest.raises(KeyboardInterrupt), fake_boot("plain", "be silent"):
        pytest.fail("it came up")
    assert_ended(run)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_as_the_emulator_starts_leaves_none_behind(
    fake_boot: Boot, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes when QEMU runs and nobody knows of it yet."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, argv: Sequence[str], **options: Any) -> None:
            super().__init__(argv, **options)
            if argv[-1] != "--version":
                started.append(self)
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), fake_boot("plain", "be silent"):
        pytest.fail("it came up")
    (process,) = started
    assert process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("interruptible")
def test_interrupted_command_is_waited_for_by_the_next_request(
    fake_boot: Boot, run: Path, tmp_path: Path
) -> None:
    """As when Ctrl-C ends a measurement, and the experiment then puts the guest's settings back."""
    started = tmp_path / "started"
    script = f"echo 1 >{shlex.quote(str(started))}; sleep {SOON}"
    with fake_boot() as running:
        interrupt_when(started.exists)
        with pytest.raises(KeyboardInterrupt):
            running.guest.run(["sh", "-c", script])
        assert running.guest.read_text(str(started)) == "1\n"
    assert_ended(run)


def test_emulator_does_not_get_the_terminals_interrupt(fake_boot: Boot, run: Path) -> None:
    with fake_boot():
        ((pid,),) = messages(run, "process")
        assert os.getsid(int(pid)) != os.getsid(0)


def test_number_of_cpus_decides_how_many_are_pinned(
    fake_boot: Boot, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MACHINES, "vm", replace(MACHINES["vm"], guest_cpus=3))
    with fake_boot("vm"):
        pass
    assert [words[-1] for words in messages(run, "pin")] == ["0", "1", "2"]


# Tried once more


def lab_that_boots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcomes: list[Exception | str]
) -> tuple[Lab, list[Path], list[str]]:
    """A lab whose boots come to these ends, the directories of its runs, and what it says."""
    directories: list[Path] = []
    said: list[str] = []

    @contextmanager
    def fake(spec: object, images: Images, tools: object, directory: Path, options: object) -> Iterator[Any]:
        directories.append(directory)
        directory.mkdir(parents=True)
        assert images.payload.parent == directory
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome

    monkeypatch.setattr(lab_module, "boot", fake)
    monkeypatch.setattr(lab_module.Lab, "build", FakeLab(tmp_path).build)
    progress = SilentProgress()
    monkeypatch.setattr(progress, "say", said.append)
    return Lab(Cache(tmp_path / "cache"), progress), directories, said


def test_boot_that_hangs_is_told_and_tried_once_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hung = GuestHung("guest", tmp_path / "guest.console", 300)
    lab, directories, said = lab_that_boots(monkeypatch, tmp_path, [hung, "up"])
    with lab.boot("plain") as running:
        assert str(running) == "up"
    # What the first left is kept, and told.
    assert len({*directories}) == 2
    assert directories[0].exists()
    (text,) = said
    assert "has not answered for 300 s" in text
    assert "booting plain once more" in text


@pytest.mark.parametrize("error", [GuestHung, GuestPanicked])
def test_boot_that_hangs_again_or_ends_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[LabError]
) -> None:
    hung = GuestHung("guest", tmp_path / "guest.console", 300)
    panicked = GuestPanicked("guest", tmp_path / "guest.console")
    ends: list[Exception | str] = [hung, hung, "up"] if error is GuestHung else [panicked, "up"]
    lab, _, _ = lab_that_boots(monkeypatch, tmp_path, ends)
    with pytest.raises(error), lab.boot("plain"):
        pytest.fail("it came up")
    assert ends == ["up"]


def test_machine_that_hangs_later_is_not_booted_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab, directories, _ = lab_that_boots(monkeypatch, tmp_path, ["up", "up"])
    with pytest.raises(GuestHung), lab.boot("plain"):
        raise GuestHung("guest", tmp_path / "guest.console", 60)
    assert len(directories) == 1
