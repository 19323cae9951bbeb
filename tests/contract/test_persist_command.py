# SPDX-License-Identifier: Apache-2.0
"""`cvmtune persist` and `unpersist`: the files that they make, and that these do at a boot what was meant.

Where there is a systemctl it works on the tree; tests/fakes/systemd.py stands in for the rest of systemd.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cvmtune.commands import persist, site
from tests.fakes.controls import CQ_POLL, IPI, IPI_POLL_US, NEXT_BOOT
from tests.fakes.kernel import Crash
from tests.fakes.systemd import UNIT, FakeSystemd, needs_systemctl, needs_systemd_analyze
from tests.fakes.tree import MACHINES, OUR_RELEASE, Machine, our_guest, our_host

SETTINGS = "etc/cvmtune/persisted.toml"
LINK = "etc/systemd/system/multi-user.target.wants/cvmtune.service"
UNMET = 5

pytestmark = pytest.mark.usefixtures("systemd")


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return our_guest(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return our_host(tmp_path / "root")


@pytest.fixture
def commands(systemd: FakeSystemd) -> list[list[str]]:
    """The commands that have changed something."""
    return systemd.changed


def unit(machine: Machine) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(machine.root / UNIT)
    return parser


def settings(machine: Machine) -> dict[str, Any]:
    return tomllib.loads((machine.root / SETTINGS).read_text())


def persisted(machine: Machine, *argv: str) -> None:
    outcome = machine.run("persist", *argv)
    assert (outcome.status, outcome.err) == (0, ""), outcome


def boot(machine: Machine) -> int:
    """Do what the unit does at a boot; return the status that it ends with."""
    *_, path = shlex.split(unit(machine)["Service"]["ExecStart"])
    return machine.run("apply", str(machine.file(path))).status


# The files


def test_what_it_writes(guest: Machine) -> None:
    before = guest.snapshot()
    persisted(guest, "database", "--ipi", "2-3")
    after = guest.snapshot()
    made = {name for name in after.keys() - before.keys() if not (guest.root / name).is_dir()}
    assert made == {SETTINGS, UNIT} | ({LINK} if shutil.which("systemctl") else set())
    assert {name: after[name] for name in before} == before
    content = settings(guest)
    assert content["description"] == "profile database --ipi 2-3"
    assert content["require"] == {"role": "guest", "cpus": 2, "features": ["ipi"], "own_cpus": True}
    assert content["set"] == {"ipi": "2-3"}
    assert content["set-if-present"] == {"ipi-poll-us": "200", "cq-poll": "last"}


def test_nobody_else_may_write_what_it_writes(guest: Machine) -> None:
    old = os.umask(0)
    try:
        persisted(guest, "database")
    finally:
        os.umask(old)
    for name in (SETTINGS, UNIT):
        assert (guest.root / name).stat().st_mode & 0o777 == 0o644
        assert (guest.root / name).parent.stat().st_mode & 0o777 == 0o755


@needs_systemctl
def test_it_is_enabled_and_disabled(guest: Machine, commands: list[list[str]]) -> None:
    persisted(guest, "database")
    assert os.readlink(guest.root / LINK) == f"/{UNIT}"
    guest.run("unpersist")
    assert not (guest.root / LINK).is_symlink()


def test_what_it_runs(guest: Machine, commands: list[list[str]]) -> None:
    persisted(guest, "database")
    assert commands == [["systemctl", f"--root={guest.root}", "enable", "cvmtune.service"]]
    guest.run("unpersist")
    assert commands[1:] == [["systemctl", f"--root={guest.root}", "disable", "cvmtune.service"]]


def test_on_the_running_system_systemd_is_told(
    guest: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # It is a dry run, of which this system must not be the proof.
    monkeypatch.setattr(persist, "write", lambda *_: pytest.fail("this system was to be changed"))
    here = site.Site(guest.system, Path("/"))
    assert persist.persist(here, None, {"ipi": "c"}, dry_run=True, as_json=False) == 0
    text = capsys.readouterr().out
    assert f"# /{SETTINGS}\n" in text
    assert f"# /{UNIT}\n" in text
    assert text.endswith("systemctl daemon-reload\nsystemctl enable cvmtune.service\n")


def test_the_unit_says_what_systemd_needs(guest: Machine) -> None:
    persisted(guest, "database")
    content = unit(guest)
    service = content["Service"]
    assert (service["Type"], service["RemainAfterExit"]) == ("oneshot", "yes")
    assert shlex.split(service["ExecStart"]) == [
        *(sys.executable, "-I", "-m", "cvmtune", "apply"),
        f"/{SETTINGS}",
    ]
    assert shlex.split(service["ExecStop"]) == [sys.executable, "-I", "-m", "cvmtune", "rollback"]
    assert service["Restart"] == "on-failure"
    # Of all statuses (cli) only two are tried again, without end: preconditions do not hold yet, or something
    # cannot be set yet.
    assert service["RestartPreventExitStatus"].split() == ["1", "2", "3", "4", "203"]
    assert content["Unit"]["StartLimitIntervalSec"] == "0"
    assert content["Install"]["WantedBy"] == "multi-user.target"


def test_what_the_unit_runs_is_this_tool(guest: Machine) -> None:
    persisted(guest, "database")
    interpreter = shlex.split(unit(guest)["Service"]["ExecStart"])[:4]
    done = subprocess.run([*interpreter, "--version"], capture_output=True, text=True, cwd="/", timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "cvmtune")


@pytest.mark.parametrize(
    ("argv", "loads"),
    [
        (["database"], True),
        (["off"], False),
        (["--cq-poll", "off", "--cq-idle-us", "7"], False),
        (["--cq-idle-us", "7"], True),
        (["nfs-client"], True),
        (["--cq-poll", "3"], True),
        (["--ipi", "c"], False),
        (["latency-host"], False),
    ],
)
def test_the_unit_loads_the_module_if_that_is_to_poll(guest: Machine, argv: list[str], loads: bool) -> None:
    persisted(guest, *argv)
    expected = "-/usr/sbin/modprobe ib_core_cq_poll" if loads else None
    assert unit(guest)["Service"].get("ExecStartPre") == expected


@needs_systemd_analyze
@pytest.mark.parametrize("folder", ["plain", "a b%c$d"])
@pytest.mark.parametrize("profile", ["database", "latency-host"])
def test_systemd_understands_the_unit(
    guest: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    interpreter = tmp_path / folder / "python"
    interpreter.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    persisted(guest, profile)
    # It also looks whether the programs are there.
    argv = ["systemd-analyze", "verify", "--man=no", str(guest.root / UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What is applied at the next boot


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("our_guest", ["database"]),
        ("our_guest", ["nfs-client", "--cq-idle-us", "77"]),
        ("our_guest", ["off"]),
        ("our_guest", ["--ipi", "2-3", "--cq-poll", "last"]),
        ("our_guest", ["--ipi", "all-but-first", "--ipi-poll-us", "9"]),
        ("our_host", ["latency-host"]),
        ("our_host", ["--wfx", "1,00000003", "--wfx-guard", "on"]),
        ("vendor_guest", ["database"]),
        ("vendor_host", ["latency-host"]),
        ("vendor_host", ["--wfx", "off"]),
    ],
)
def test_what_is_persisted_is_what_would_be_applied(tmp_path: Path, name: str, argv: list[str]) -> None:
    direct, machine = MACHINES[name](tmp_path / "direct"), MACHINES[name](tmp_path / "root")
    before = machine.settings()
    persisted(machine, *argv)
    assert machine.settings() == before
    assert machine.system.written == set()
    assert direct.run("apply", *argv).status == 0
    assert boot(machine) == 0
    assert machine.settings() == direct.settings()
    assert machine.run("verify").status == 0


@pytest.mark.parametrize("name", ["our_guest", "our_host", "vendor_guest", "vendor_host", "bare_machine"])
def test_a_recommendation_can_be_persisted(tmp_path: Path, name: str) -> None:
    direct, machine = MACHINES[name](tmp_path / "direct"), MACHINES[name](tmp_path / "root")
    path = str(machine.user_file("/root/it.json", machine.watch("--json").out))
    persisted(machine, path)
    assert settings(machine)["description"] == f"recommendation {path}"
    assert direct.run("apply", path).status == 0
    assert boot(machine) == 0
    assert machine.settings() == direct.settings()


@pytest.mark.parametrize(
    "name", ["it", "with blanks", 'with "quotes" and \\', "\U0001f600 \xe9", "bad \udcff"]
)
def test_a_users_profile_can_be_persisted(guest: Machine, name: str) -> None:
    path = guest.profile(name, 'extends = "off"\n[set]\nipi = "1"\n[set-if-present]\nipi-poll-us = 8\n')
    persisted(guest, str(path))
    # It does not need that file, nor those that it extends.
    path.unlink()
    assert boot(guest) == 0
    assert guest.settings()[IPI] == "1"
    assert guest.settings()[IPI_POLL_US] == "8"


def test_what_is_applied_is_persisted_by_default(guest: Machine) -> None:
    guest.run("apply", "--ipi", "1", "--cq-poll", "2")
    guest.run("apply", "--ipi", "c", "--ipi-poll-us", "50")
    wanted = guest.settings()
    persisted(guest)
    assert settings(guest)["set"] == {"ipi-poll-us": "50", "ipi": "c", "cq-poll": "2"}
    guest.run("rollback")
    assert guest.settings() != wanted
    assert boot(guest) == 0
    assert guest.settings() == wanted


def nothing(machine: Machine) -> None:
    pass


def taken_back(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.run("rollback")


def restarted(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.restart(NEXT_BOOT, OUR_RELEASE)


def interrupted(machine: Machine) -> None:
    machine.system.fail("write", CQ_POLL, Crash())
    with pytest.raises(Crash):
        machine.run("apply", "--ipi", "c", "--cq-poll", "3")


@pytest.mark.parametrize(
    ("arrange", "status", "hint"),
    [
        (nothing, 2, "nothing is applied"),
        (taken_back, 2, "nothing is applied"),
        (restarted, 2, "nothing is applied"),
        (interrupted, 3, "cvmtune rollback"),
    ],
)
def test_without_settings_and_nothing_applied_it_is_refused(
    guest: Machine, arrange: Any, status: int, hint: str
) -> None:
    arrange(guest)
    before = guest.snapshot()
    outcome = guest.run("persist")
    assert outcome.status == status
    assert hint in outcome.err
    assert guest.snapshot() == before


def test_preconditions_are_kept_and_may_come_true(guest: Machine) -> None:
    before = guest.settings()
    persisted(guest, "database")
    guest.cpus[3].steal = 0.5
    guest.go_on()
    assert boot(guest) == UNMET
    assert guest.settings() == before
    assert guest.run("verify").status == 1
    guest.cpus[3].steal = 0.0
    guest.go_on()
    assert boot(guest) == 0
    assert guest.settings()[IPI] == "e"


def test_verify_tells_what_a_boot_has_not_applied(guest: Machine) -> None:
    persisted(guest, "database")
    outcome = guest.run("verify")
    assert outcome.status == 1
    assert "what is to be applied at each boot has not been" in outcome.out
    assert guest.run("verify", "--json").json["in_force"] is False
    assert boot(guest) == 0
    assert guest.run("verify").status == 0
    guest.restart(NEXT_BOOT, OUR_RELEASE)
    assert guest.run("verify").status == 1
    assert boot(guest) == 0
    assert guest.run("verify").status == 0
    guest.run("rollback")
    guest.run("unpersist")
    assert guest.run("verify").status == 0


def test_persisting_again_replaces(guest: Machine) -> None:
    persisted(guest, "database")
    persisted(guest, "--ipi", "1")
    assert settings(guest)["set"] == {"ipi": "1"}
    assert settings(guest)["require"] == {"cpus": 1, "features": [], "own_cpus": False}
    assert not settings(guest).get("set-if-present")
    assert sorted(path.name for path in (guest.root / "etc/cvmtune").iterdir()) == ["persisted.toml"]


def test_symlinks_in_place_of_its_settings_are_replaced(guest: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine\n")
    path = guest.user_file(SETTINGS, "")
    path.unlink()
    for link in (path, path.with_name(f".{path.name}.new")):
        link.symlink_to(elsewhere)
    persisted(guest, "database")
    assert elsewhere.read_text() == "mine\n"
    assert path.is_file()
    assert not path.is_symlink()


# Wrong input, and faults


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("nonsense", 2),
        ("nowhere.toml", 3),
        ("--ipi nonsense", 2),
        ("database --cq-poll nonsense", 2),
        ("--ipi c nonsense", 2),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_wrong_input_changes_nothing(guest: Machine, line: str, status: int, dry_run: list[str]) -> None:
    before = guest.snapshot()
    outcome = guest.run("persist", *line.split(), *dry_run)
    assert (outcome.status, outcome.out) == (status, "")
    assert guest.snapshot() == before


def test_a_folder_that_others_may_write_is_refused(guest: Machine, commands: list[list[str]]) -> None:
    folder = guest.root / "etc/cvmtune"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    outcome = guest.run("persist", "database")
    assert outcome.status == 3
    assert "others than the owner of its directory may put another file in its place" in outcome.err
    assert not (guest.root / UNIT).exists()
    assert commands == []


@pytest.mark.parametrize("name", ["etc/cvmtune", "usr/local/lib/systemd"])
def test_what_cannot_be_written_is_named(guest: Machine, name: str, commands: list[list[str]]) -> None:
    (guest.root / name).parent.mkdir(parents=True, exist_ok=True)
    (guest.root / name).write_text("a file\n")
    outcome = guest.run("persist", "database")
    assert outcome.status == 3
    assert name in outcome.err
    assert commands == []


# unpersist


def test_unpersist_removes_what_persist_made_and_leaves_what_is_in_force(guest: Machine) -> None:
    persisted(guest, "database")
    guest.profile("mine", '[set]\nipi = "1"\n')
    assert boot(guest) == 0
    wanted = guest.settings()
    outcome = guest.run("unpersist")
    assert (outcome.status, outcome.out) == (0, "nothing is applied at boot any more\n")
    for name in (SETTINGS, UNIT, LINK):
        assert not os.path.lexists(guest.root / name)
    assert guest.settings() == wanted
    assert guest.run("verify").status == 0
    # Once more.
    before = guest.snapshot()
    outcome = guest.run("unpersist")
    assert (outcome.status, outcome.out) == (0, "nothing was to be applied at boot\n")
    assert guest.snapshot() == before
    assert (guest.root / "etc/cvmtune/profiles/mine.toml").exists()


@pytest.mark.parametrize("name", [SETTINGS, UNIT])
def test_unpersist_removes_what_is_left(guest: Machine, name: str) -> None:
    persisted(guest, "database")
    (guest.root / name).unlink()
    assert guest.run("unpersist").status == 0
    for left in (SETTINGS, UNIT, LINK):
        assert not os.path.lexists(guest.root / left)


# Dry runs, and JSON


@pytest.mark.parametrize("argv", [["database"], ["--ipi", "c"], ["latency-host"]])
def test_dry_run_of_persist_changes_nothing_and_tells_all(
    guest: Machine, argv: list[str], commands: list[list[str]]
) -> None:
    before = guest.snapshot()
    text = guest.run("persist", *argv, "--dry-run")
    content = guest.run("persist", *argv, "--dry-run", "--json")
    assert (text.status, content.status) == (0, 0)
    assert guest.snapshot() == before
    assert commands == []
    outcome = guest.run("persist", *argv, "--json")
    assert content.json == {**outcome.json, "done": False}
    assert outcome.json["done"] is True
    assert outcome.json.keys() == {"schema", "done", "drop_ins", "files", "commands"}
    assert outcome.json["commands"] == [shlex.join(argv) for argv in commands]
    assert outcome.json["files"] == {
        str(guest.root / name): (guest.root / name).read_text() for name in (SETTINGS, UNIT)
    }
    for path, content_text in outcome.json["files"].items():
        assert f"# {path}\n{content_text}" in text.out
    assert outcome.json["commands"][0] in text.out


def test_dry_run_of_unpersist_changes_nothing_and_tells_all(
    guest: Machine, commands: list[list[str]]
) -> None:
    persisted(guest, "database")
    commands.clear()
    before = guest.snapshot()
    text = guest.run("unpersist", "--dry-run")
    content = guest.run("unpersist", "--dry-run", "--json")
    assert (text.status, content.status, content.json["done"]) == (0, 0, False)
    assert guest.snapshot() == before
    assert commands == []
    assert set(content.json["files"]) == {str(guest.root / name) for name in (SETTINGS, UNIT)}
    for path in content.json["files"]:
        assert f"rm {path}\n" in text.out
    assert "disable cvmtune.service" in text.out
    assert guest.run("unpersist", "--json").json == {**content.json, "done": True}


def test_dry_run_where_nothing_is_persisted(guest: Machine) -> None:
    content = guest.run("unpersist", "--dry-run", "--json").json
    assert (content["files"], content["commands"]) == ({}, [])


def test_what_it_says(guest: Machine) -> None:
    outcome = guest.run("persist", "database", "--ipi", "1")
    assert outcome.out == "profile database --ipi 1 is applied at each boot\n"
