# SPDX-License-Identifier: Apache-2.0
"""`persist` where something is in its way: an administrator, systemd, the file system, others who take RDMA.

What is expected of systemd is from systemd.unit(5), systemctl(1) and its NEWS.
"""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from cvmtune.commands import site, systemd, unit_files
from cvmtune.core import command
from tests.fakes.controls import CQ_IDLE_US, CQ_POLL, IPI, IPI_POLL_US
from tests.fakes.systemd import OLD_UNIT, UNIT, FakeSystemd, needs_systemctl, needs_systemd_analyze
from tests.fakes.tree import OUR_RELEASE, VENDOR_RELEASE, Machine, Mount, Outcome, our_guest, vendor_guest

SETTINGS = "etc/cvmtune/persisted.toml"
LINK = "etc/systemd/system/multi-user.target.wants/cvmtune.service"
FILES = (SETTINGS, UNIT, OLD_UNIT, LINK)
MASKS = ("etc/systemd/system/cvmtune.service", "run/systemd/system/cvmtune.service")
BOOTS = ("22222222-1111-4333-8444-555555555555", "33333333-1111-4333-8444-555555555555")
INCOMPLETE = 6

pytestmark = pytest.mark.usefixtures("systemd")


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return our_guest(tmp_path / "root")


@pytest.fixture
def vendor(tmp_path: Path) -> Machine:
    return vendor_guest(tmp_path / "root")


def persisted(machine: Machine, *argv: str) -> Outcome:
    outcome = machine.run("persist", *argv)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return outcome


def unit_text(machine: Machine) -> str:
    return (machine.root / UNIT).read_text()


def boot(machine: Machine) -> Any:
    """Do what the unit does when it is started."""
    (line,) = (one for one in unit_text(machine).splitlines() if one.startswith("ExecStart="))
    *_, path = shlex.split(line)
    return machine.run("apply", str(machine.file(path)))


def restart(machine: Machine, number: int = 0, release: str = OUR_RELEASE) -> None:
    """Begin another boot: all controls are off, and what a module makes is missing until that is loaded."""
    machine.restart(BOOTS[number], release)
    for path, off in {IPI: "0", IPI_POLL_US: "0"}.items():
        if path in machine.controls:
            machine.echo(off, path)


def without_module(machine: Machine) -> dict[str, str]:
    """Unload ib_core_cq_poll; return what its files say when it is loaded again."""
    found = {path: machine.get(path) for path in (CQ_POLL, CQ_IDLE_US) if path in machine.controls}
    for path in found:
        machine.file(path).unlink()
    return found


def files(machine: Machine) -> set[str]:
    """The files below /etc, /run and /usr, links included."""
    return {
        str(path.relative_to(machine.root))
        for top in ("etc", "run", "usr")
        for path in (machine.root / top).rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


# Masked, and others' units


def mask(machine: Machine, name: str, how: str = "link") -> Path:
    path = machine.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "link":
        path.symlink_to("/dev/null")
    else:
        path.write_text("")
    return path


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("how", ["link", "empty file"])
def test_a_mask_is_respected(guest: Machine, name: str, how: str, systemd: FakeSystemd) -> None:
    mask(guest, name, how)
    before = guest.snapshot()
    for line in ("persist database", "persist --ipi c --dry-run", "persist off --json"):
        outcome = guest.run(*line.split())
        assert (outcome.status, outcome.out) == (3, "")
        assert "is masked" in outcome.err
        assert "systemctl unmask cvmtune.service" in outcome.err
    outcome = guest.run("unpersist")
    assert (outcome.status, outcome.out.splitlines()[0]) == (0, "nothing was to be applied at boot")
    outcome = guest.run("verify")
    assert outcome.status == 0
    assert "not persisted: cvmtune.service is masked" in outcome.out
    content = guest.run("verify", "--json").json
    assert (content["in_force"], content["persisted"]["at_boot"]) == (True, False)
    assert guest.snapshot() == before
    assert systemd.changed == []


@needs_systemctl
def test_what_is_persisted_can_be_masked_and_taken_back(guest: Machine) -> None:
    persisted(guest, "database")
    at = f"--root={guest.root}"
    subprocess.run(["systemctl", at, "mask", "cvmtune.service"], check=True, capture_output=True, timeout=60)
    assert os.readlink(guest.root / MASKS[0]) == "/dev/null"
    # It has not been applied, and is not to be.
    assert guest.run("verify").status == 0
    outcome = guest.run("unpersist")
    assert (outcome.status, outcome.out.splitlines()[0]) == (0, "nothing is applied at boot any more")
    assert files(guest) == {MASKS[0]}
    assert os.readlink(guest.root / MASKS[0]) == "/dev/null"


@pytest.mark.parametrize(
    "name", [OLD_UNIT, "run/systemd/system/cvmtune.service", UNIT, "usr/lib/systemd/system/cvmtune.service"]
)
@pytest.mark.parametrize("kind", ["file", "link"])
def test_anothers_unit_is_left_alone(guest: Machine, name: str, kind: str, systemd: FakeSystemd) -> None:
    path = guest.root / name
    path.parent.mkdir(parents=True)
    if kind == "link":
        target = guest.root / "opt/theirs.service"
        target.parent.mkdir()
        path.symlink_to(target)
        path = target
    path.write_text("[Service]\nExecStart=/bin/true\n")
    before = guest.snapshot()
    outcome = guest.run("persist", "database")
    assert (outcome.status, outcome.out) == (3, "")
    assert "that cvmtune persist has not made" in outcome.err
    assert name in outcome.err
    assert guest.run("unpersist").status == 0
    outcome = guest.run("verify")
    assert outcome.status == 0
    assert f"not persisted: cvmtune persist has not made {guest.root / name}" in outcome.out
    assert guest.snapshot() == before
    assert systemd.changed == []


# Where the unit lies


def earlier(machine: Machine) -> None:
    """What earlier versions have made."""
    persisted(machine, "--ipi", "1")
    text = unit_text(machine)
    (machine.root / UNIT).unlink()
    machine.put(f"/{OLD_UNIT}", text)
    (machine.root / LINK).unlink()
    (machine.root / LINK).symlink_to(f"/{OLD_UNIT}")


def test_a_unit_in_the_earlier_place_is_moved(guest: Machine) -> None:
    earlier(guest)
    assert guest.run("verify").status == 1
    persisted(guest, "database")
    assert files(guest) == {SETTINGS, UNIT, LINK}
    assert os.readlink(guest.root / LINK) == f"/{UNIT}"


def test_a_unit_in_the_earlier_place_is_removed(guest: Machine) -> None:
    earlier(guest)
    assert guest.run("unpersist").status == 0
    assert files(guest) == set()


def test_where_systemd_would_not_see_it_at_a_boot_it_goes_to_the_earlier_place(
    guest: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /usr/local is a mount of its own on some distributions, and systemd reads units before it mounts."""
    monkeypatch.setattr(unit_files, "_device", lambda path: -1)
    persisted(guest, "database")
    assert files(guest) >= {SETTINGS, OLD_UNIT}
    assert not (guest.root / UNIT).exists()
    assert guest.run("unpersist").status == 0
    assert files(guest) == set()


def test_where_usr_cannot_be_written_it_goes_to_the_earlier_place(
    guest: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: read_only)
    persisted(guest, "database")
    assert files(guest) >= {SETTINGS, OLD_UNIT}


@pytest.mark.parametrize(
    ("fstab", "mounts", "late"),
    [
        ("", "", ""),
        ("192.0.2.10:/export /data nfs defaults 0 0\n", "", ""),
        ("192.0.2.10:/root / nfs defaults 0 0\nsrv:/usr /usr nfs4 ro 0 0\n", "", ""),
        ("# srv:/x /var/lib nfs defaults 0 0\n\nnonsense\n", "", ""),
        ("srv:/x /var/lib nfs4 defaults 0 0\n", "", "/var/lib"),
        ("/dev/sdb1 /var ext4 defaults,_netdev 0 0\n", "", "/var"),
        ("", "srv:/etc /etc/cvmtune cifs rw 0 0\n", "/etc/cvmtune"),
        ("", "a@b: /var/lib/cvmtune fuse.sshfs rw 0 0\n", "/var/lib/cvmtune"),
    ],
)
def test_what_is_mounted_after_the_unit_must_not_be_needed(
    guest: Machine, fstab: str, mounts: str, late: str
) -> None:
    guest.put("/etc/fstab", fstab)
    guest.put("/proc/mounts", guest.get("/proc/mounts") + mounts)
    outcome = guest.run("persist", "database")
    assert outcome.status == (3 if late else 0)
    if late:
        assert f"is on {late}, which is mounted over the network" in outcome.err
        assert files(guest) == {"etc/fstab"}


# systemd that fails, is missing, or too old


def failing(machine: Machine, systemd: FakeSystemd, what: str) -> str:
    """Arrange for a failure; return what is told of it."""
    match what:
        case "no systemctl":
            systemd.version = None
            return "systemctl does not work"
        case "not PID 1":
            systemd.status = {"--version": 1}
            return "systemctl does not work"
        case "too old":
            systemd.version = "systemd 243 (v243)\n+PAM\n"
            return "systemd 243 is too old"
        case "systemd refuses":
            systemd.faults = (
                "other.service: Unknown key name 'X' in section 'Service', ignoring.\n"
                "cvmtune.service: Service has Restart= setting other than no, which isn't allowed for "
                "Type=oneshot services. Refusing.\n"
            )
            return "Restart= setting other than no"
        case "enable fails":
            systemd.status = {"enable": 1}
            return "Failed to enable unit"
    raise ValueError(what)


FAILURES = ["no systemctl", "not PID 1", "too old", "systemd refuses", "enable fails"]


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("before", ["nothing", "persisted", "earlier"])
def test_a_systemd_that_fails_leaves_all_as_it_was(
    guest: Machine, systemd: FakeSystemd, what: str, before: str
) -> None:
    if before == "persisted":
        persisted(guest, "--ipi", "1")
    elif before == "earlier":
        earlier(guest)
    tree, status = guest.snapshot(), guest.run("verify").status
    told = failing(guest, systemd, what)
    for _ in range(2):
        outcome = guest.run("persist", "database")
        assert (outcome.status, outcome.out) == (3, "")
        assert told in outcome.err
        assert "nothing is changed" in outcome.err
        assert guest.snapshot() == tree
        assert guest.run("verify").status == status
    systemd.version, systemd.faults, systemd.status = "systemd 252\n", "", {}
    persisted(guest, "database")


@pytest.mark.parametrize("what", ["no systemctl", "not PID 1", "enable fails"])
def test_unpersist_needs_no_systemctl(guest: Machine, systemd: FakeSystemd, what: str) -> None:
    persisted(guest, "database")
    failing(guest, systemd, what)
    systemd.status["disable"] = 1
    assert guest.run("unpersist").status == 0
    assert files(guest) == set()


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        *[("systemd 219\n+PAM", False), ("systemd 239 (239-82.el8)\n+PAM", False), ("systemd 243\n", False)],
        *[("systemd 244\n", True), ("systemd 255 (255-43.oe2403sp2)\n", True), ("systemd 261~rc1\n", True)],
        # That it cannot be told is no reason to refuse.
        *[("", True), ("nonsense\n", True)],
    ],
)
def test_systemd_must_take_what_the_unit_says(
    guest: Machine, systemd: FakeSystemd, version: str, fits: bool
) -> None:
    systemd.version = version
    outcome = guest.run("persist", "database")
    assert outcome.status == (0 if fits else 3)
    assert ("refuses a oneshot unit that is tried again" in outcome.err) != fits


@pytest.mark.parametrize(
    ("faults", "fits"),
    [
        # systemd 239, 243
        ("cvmtune.service: Service has Restart= set to either always or on-success. Refusing.\n", False),
        ("Unit cvmtune.service has a bad unit file setting.\n", False),
        ("cvmtune.service: Command /opt/python3 is not executable: No such file or directory\n", False),
        ("cvmtune.service: Found ordering cycle on remote-fs-pre.target/start\n", False),
        ("a.target: Found dependency on cvmtune.service/start\n", False),
        # What it says of others, or only warns of.
        ("dbus.service: Failed to create dbus.service/start: no such unit\n", True),
        ("/usr/local/x/cvmtune.service:9: Unknown key name 'Y' in section 'Unit', ignoring.\n", True),
        ("/usr/local/x/cvmtune.service:9: Failed to parse Y, ignoring: 3\n", True),
        ("Failed to load system bus\n", True),
        (None, True),
    ],
)
def test_systemds_own_opinion_of_the_unit_counts(
    guest: Machine, systemd: FakeSystemd, faults: str | None, fits: bool
) -> None:
    systemd.faults = faults
    outcome = guest.run("persist", "database")
    assert outcome.status == (0 if fits else 3)
    assert bool(files(guest)) == fits


def test_on_this_system_systemd_must_be_pid_1(guest: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_RUNS", Path("/nonexistent"))
    with pytest.raises(Exception, match="systemd is not PID 1 here") as caught:
        systemd.check_runs(site.Site(guest.system, Path("/")))
    assert "nothing is changed" in str(caught.value)


@contextmanager
def refusing(top: str, number: int) -> Iterator[None]:
    """Have changes below a directory fail."""

    def refuse(call: Callable[..., Any], is_change: Callable[..., bool]) -> Callable[..., Any]:
        def tried(path: Any, *args: Any, **kwargs: Any) -> Any:
            if top in os.fspath(path if not isinstance(path, int) else "") and is_change(*args):
                raise OSError(number, os.strerror(number), path)
            return call(path, *args, **kwargs)

        return tried

    def writes(flags: int = 0, *_: Any) -> bool:
        return bool(flags & os.O_CREAT)

    with (
        patch.object(os, "mkdir", refuse(os.mkdir, lambda *_: True)),
        patch.object(os, "open", refuse(os.open, writes)),
        patch.object(os, "replace", refuse(os.replace, lambda *_: True)),
    ):
        yield


@pytest.mark.parametrize("is_made", [False, True])
@pytest.mark.parametrize(
    ("top", "number", "told"),
    [
        ("/root/etc/cvmtune", errno.EROFS, "/etc is read-only: "),
        ("/root/usr/local", errno.EROFS, "/usr is read-only: "),
        ("/root/etc/cvmtune", errno.ENOSPC, "No space left on device"),
        ("/root/usr/local", errno.EACCES, "Permission denied"),
    ],
)
def test_what_cannot_be_written_is_told(
    guest: Machine, is_made: bool, top: str, number: int, told: str
) -> None:
    if is_made:
        persisted(guest, "--ipi", "1")
    before = guest.snapshot()
    with refusing(top, number):
        outcome = guest.run("persist", "database")
    assert (outcome.status, outcome.out) == (3, "")
    assert told in outcome.err
    assert guest.snapshot() == before


def test_ctrl_c_leaves_all_as_it_was(guest: Machine, systemd: FakeSystemd) -> None:
    persisted(guest, "--ipi", "1")
    before = guest.snapshot()

    def interrupt() -> None:
        raise KeyboardInterrupt

    systemd.events["enable"] = interrupt
    assert guest.run("persist", "database").status == 130
    assert guest.snapshot() == before


# Killed


def killed_at(machine: Machine, count: int, *argv: str) -> bool:
    """Have a process run a command and die before its change of number `count`; tell whether it did."""
    child = os.fork()
    if child == 0:
        done = 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def tried(*args: Any, **kwargs: Any) -> Any:
                nonlocal done
                if done == count:
                    os._exit(9)
                done += 1
                return call(*args, **kwargs)

            return tried

        try:
            with (
                open(os.devnull, "w") as null,
                redirect_stderr(null),
                patch.object(os, "mkdir", dying(os.mkdir)),
                patch.object(os, "replace", dying(os.replace)),
                patch.object(os, "unlink", dying(os.unlink)),
                patch.object(command, "run", dying(command.run)),
            ):
                machine.run(*argv)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("begin", ["nothing", "persisted", "earlier"])
@pytest.mark.parametrize("argv", [("persist", "database"), ("unpersist",)])
def test_killed_at_any_step(tmp_path: Path, begin: str, argv: tuple[str, ...]) -> None:
    """What comes then, verify, another persist or unpersist, finds its way."""
    wanted = our_guest(tmp_path / "wanted")
    persisted(wanted, "database")
    for count in range(100):
        found = [our_guest(tmp_path / f"{count}-{number}") for number in range(2)]
        for machine in found:
            if begin != "nothing":
                earlier(machine) if begin == "earlier" else persisted(machine, "--ipi", "1")
            is_killed = killed_at(machine, count, *argv)
            outcome = machine.run("verify")
            assert outcome.status in (0, 1), outcome
        persisted(found[0], "database")
        assert files(found[0]) == files(wanted)
        assert (found[0].root / SETTINGS).read_text() == (wanted.root / SETTINGS).read_text()
        assert found[1].run("unpersist").status == 0
        assert files(found[1]) == set()
        if not is_killed:
            break
    assert count >= (0 if begin == "nothing" and argv == ("unpersist",) else 3)


@pytest.mark.parametrize(
    ("gone", "status", "told"),
    [
        (UNIT, 0, "not persisted: a persist was interrupted"),
        (SETTINGS, 1, "at each boot nothing can be applied"),
        (LINK, 0, "not persisted: cvmtune.service is not enabled"),
    ],
)
def test_verify_tells_what_is_half_there(guest: Machine, gone: str, status: int, told: str) -> None:
    persisted(guest, "database")
    assert boot(guest).status == 0
    (guest.root / gone).unlink(missing_ok=True)
    outcome = guest.run("verify")
    assert (outcome.status, told in outcome.out) == (status, True), outcome


def test_unit_that_was_disabled_applies_nothing(guest: Machine) -> None:
    persisted(guest, "database")
    (guest.root / LINK).unlink()
    restart(guest)
    outcome = guest.run("verify", "--json")
    assert (outcome.status, outcome.json["persisted"]["at_boot"]) == (0, False)


@pytest.mark.parametrize("folder", ["etc/systemd/system", "run/systemd/system"])
def test_drop_in_of_an_administrators_is_told_and_left(guest: Machine, folder: str) -> None:
    drop_in = guest.user_file(f"/{folder}/cvmtune.service.d/override.conf", "[Service]\nExecStart=\n")
    told = f"what cvmtune.service does is changed by {drop_in}"
    assert told in persisted(guest, "database").out
    assert told in guest.run("verify").out
    removed = guest.run("unpersist")
    assert f"left: {drop_in}, a drop-in" in removed.out
    assert drop_in.exists()


@pytest.mark.parametrize("text", ["", "nonsense", "[set]\nipi = 'x'\n", "\0\xff", "[set]\nfuture = 1\n"])
def test_verify_tells_what_cannot_be_read(guest: Machine, text: str) -> None:
    persisted(guest, "database")
    guest.user_file(SETTINGS, text)
    outcome = guest.run("verify")
    if text:
        assert outcome.status == 1
        assert "at each boot nothing can be applied" in outcome.out
        assert guest.run("verify", "--json").json["persisted"]["problem"]
    else:
        assert outcome.status == 0


# What can be had is set, and the rest later


def notes(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("left out: ")]


def in_use(module: str) -> Callable[[Machine], None]:
    return lambda machine: machine.put(f"/sys/module/{module}/refcnt", "1\n")


def free(machine: Machine) -> None:
    machine.unmount()
    for refcount in (machine.root / "sys/module").glob("*/refcnt"):
        refcount.write_text("0\n")
    machine.put("/proc/fs/nfsd/portlist", "")


TAKES_RDMA: dict[str, Callable[[Machine], None]] = {
    **{name: in_use(name) for name in ("nvme_rdma", "nvmet_rdma", "ib_iser", "ib_isert", "ib_srp")},
    "nfs": lambda machine: machine.mount(Mount()),
    "nfsd": lambda machine: machine.put("/proc/fs/nfsd/portlist", "rdma 20049\n"),
}


@pytest.mark.parametrize("who", TAKES_RDMA)
@pytest.mark.parametrize("argv", [["database"], ["--ipi", "e", "--cq-poll", "last"]])
def test_who_takes_rdma_first_hinders_polling_alone(vendor: Machine, who: str, argv: list[str]) -> None:
    persisted(vendor, *argv)
    restart(vendor, release=VENDOR_RELEASE)
    TAKES_RDMA[who](vendor)
    for _ in range(2):
        outcome = boot(vendor)
        assert outcome.status == INCOMPLETE
        assert any("left out: cq-poll, " in line for line in notes(outcome.out)), outcome
        assert vendor.settings()[IPI] == "e"
        assert vendor.settings()[CQ_POLL] == "Current polling thread is down"
        outcome = vendor.run("verify")
        assert outcome.status == 1
        assert "NOT in force: not as persisted: cq-poll" in outcome.out
        assert "All in force" not in outcome.out
        # Each attempt has found the same.
        assert len(vendor.journal.entries()) == 1
    free(vendor)
    assert boot(vendor).status == 0
    assert vendor.settings() == {IPI: "e", CQ_POLL: "Current polling core is: 3"}
    assert vendor.run("verify").status == 0
    assert vendor.run("rollback").status == 0
    assert vendor.settings() == {IPI: "0", CQ_POLL: "Current polling thread is down"}


@pytest.mark.parametrize("who", TAKES_RDMA)
def test_what_a_boot_can_have_may_be_persisted_while_it_cannot_be_had(vendor: Machine, who: str) -> None:
    TAKES_RDMA[who](vendor)
    for argv in (["nfs-client"], ["database"], ["--cq-poll", "3"]):
        persisted(vendor, *argv)
    free(vendor)
    assert boot(vendor).status == 0


def test_what_no_boot_can_have_is_refused(vendor: Machine) -> None:
    before = vendor.snapshot()
    assert vendor.run("persist", "--ipi", "10").status == 3
    assert vendor.run("persist", "--cq-poll", "77").status == 3
    assert vendor.snapshot() == before


@pytest.mark.parametrize(
    "argv", [["database"], ["nfs-client", "--ipi", "e"], ["--ipi", "e", "--cq-poll", "3"]]
)
def test_the_module_is_loaded_at_a_boot_and_what_is_left_out_is_told(guest: Machine, argv: list[str]) -> None:
    profile = guest.profile("mine", 'extends = "nfs-client"\n[require]\nfeatures = []\n')
    persisted(guest, *[str(profile) if one == "nfs-client" else one for one in argv])
    assert "ExecStartPre=-/usr/sbin/modprobe ib_core_cq_poll\n" in unit_text(guest)
    restart(guest)
    loaded = without_module(guest)
    outcome = boot(guest)
    assert outcome.status == INCOMPLETE
    assert "left out: cq-poll, this kernel has no such control" in outcome.out
    assert "not complete: apply it again for " in outcome.out
    assert guest.settings()[IPI] == "e"
    outcome = guest.run("verify")
    assert (outcome.status, "cq-poll" in outcome.out) == (1, True)
    content = guest.run("verify", "--json").json
    assert (content["in_force"], "cq-poll" in content["why"]) == (False, True)
    (one,) = (one for one in content["persisted"]["checks"] if one["name"] == "cq-poll")
    assert (one["present"], one["holds"]) == (None, False)
    assert "ib_core_cq_poll is not loaded" in one["problem"]
    for path, text in loaded.items():
        guest.put(path, text)
    assert boot(guest).status == 0
    assert guest.settings()[CQ_POLL] == "3"
    assert guest.run("verify").status == 0


def test_what_was_not_there_when_persisted_is_not_waited_for(guest: Machine) -> None:
    loaded = without_module(guest)
    persisted(guest, "database")
    assert "modprobe" not in unit_text(guest)
    restart(guest)
    assert boot(guest).status == 0
    outcome = guest.run("verify")
    assert outcome.status == 0
    assert "left out: cq-poll, this kernel has no such control" in outcome.out
    # If it is there all the same, it is used.
    restart(guest, 1)
    for path, text in loaded.items():
        guest.put(path, text)
    assert boot(guest).status == 0
    assert guest.settings()[CQ_POLL] == "3"


@pytest.mark.parametrize("argv", [["off"], ["--cq-poll", "off"], ["--cq-poll", "-1", "--cq-idle-us", "5"]])
def test_what_is_off_without_its_module_is_not_waited_for(guest: Machine, argv: list[str]) -> None:
    persisted(guest, *argv)
    assert "modprobe" not in unit_text(guest)
    restart(guest)
    without_module(guest)
    assert boot(guest).status == 0
    assert guest.run("verify").status == 0


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EIO, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("broken", [IPI, CQ_POLL])
def test_a_write_that_fails_hinders_that_alone(guest: Machine, number: int, broken: str) -> None:
    persisted(guest, "database")
    guest.system.break_("write", broken, number)
    outcome = boot(guest)
    assert outcome.status == INCOMPLETE
    assert len(notes(outcome.out)) == 1
    assert os.strerror(number) in outcome.out
    assert (guest.settings()[IPI] == "e") == (broken != IPI)
    assert (guest.settings()[CQ_POLL] == "3") == (broken != CQ_POLL)
    assert guest.run("verify").status == 1
    guest.system.broken.clear()
    assert boot(guest).status == 0
    assert guest.run("verify").status == 0


def test_nothing_is_switched_on_without_the_bound_that_it_is_set_with(guest: Machine) -> None:
    persisted(guest, "--ipi", "c", "--ipi-poll-us", "9", "--cq-poll", "3")
    guest.system.break_("write", IPI_POLL_US, errno.EIO)
    outcome = boot(guest)
    assert outcome.status == INCOMPLETE
    assert "left out: ipi, it is not switched on without ipi-poll-us" in outcome.out
    assert guest.settings()[IPI] == "0"
    assert guest.settings()[CQ_POLL] == "3"
    guest.system.broken.clear()
    assert boot(guest).status == 0
    assert guest.settings()[IPI] == "c"


def test_where_nothing_can_be_had_the_journal_stays_empty(guest: Machine) -> None:
    persisted(guest, "--cq-poll", "3")
    without_module(guest)
    for _ in range(3):
        assert boot(guest).status == INCOMPLETE
    assert guest.journal.entries() == []
    assert guest.run("verify").status == 1


def test_attempts_do_not_overwrite_what_is_applied_meanwhile(guest: Machine) -> None:
    persisted(guest, "database")
    restart(guest)
    loaded = without_module(guest)
    assert boot(guest).status == INCOMPLETE
    assert guest.run("apply", "--ipi", "2").status == 0
    outcome = boot(guest)
    assert outcome.status == INCOMPLETE
    assert "left alone: ipi, since then applied: --ipi 2" in outcome.out
    assert guest.settings()[IPI] == "2"
    for path, text in loaded.items():
        guest.put(path, text)
    assert boot(guest).status == 0
    assert (guest.settings()[IPI], guest.settings()[CQ_POLL]) == ("2", "3")
    outcome = guest.run("verify")
    assert outcome.status == 1
    # Which of both differs: what was applied is in force.
    assert outcome.out.endswith("NOT in force: not as persisted: ipi\n")
    # Nor for longer than that is in force.
    assert guest.run("rollback").status == 0
    assert boot(guest).status == 0
    assert guest.settings()[IPI] == "e"


def test_verify_tells_which_of_both_differs(guest: Machine) -> None:
    persisted(guest, "database")
    assert boot(guest).status == 0
    guest.echo("1", IPI)
    content = guest.run("verify", "--json").json
    assert content["why"] == "changed since: ipi; not as persisted: ipi"
    guest.echo("e", IPI)
    persisted(guest, "--ipi", "e", "--cq-poll", "off")
    content = guest.run("verify", "--json").json
    assert content["why"] == "not as persisted: cq-poll"
    persisted(guest, "--ipi", "e")
    assert guest.run("verify").status == 0


def test_what_the_kernel_has_lost_is_told(guest: Machine) -> None:
    persisted(guest, "database")
    restart(guest, release="6.12.99-other")
    for path in (IPI_POLL_US, CQ_POLL, CQ_IDLE_US):
        guest.file(path).unlink()
    assert boot(guest).status == INCOMPLETE
    outcome = guest.run("verify")
    assert outcome.status == 1
    assert "NOT in force: not as persisted: ipi-poll-us, cq-poll" in outcome.out


# The same for apply by hand


@pytest.mark.parametrize("who", TAKES_RDMA)
def test_what_may_be_left_out_is_left_out_by_hand_too(vendor: Machine, who: str) -> None:
    TAKES_RDMA[who](vendor)
    dry = vendor.run("apply", "database", "--dry-run")
    assert vendor.settings()[IPI] == "0"
    outcome = vendor.run("apply", "database")
    assert (dry.status, outcome.status) == (0, 0)
    assert notes(dry.out) == notes(outcome.out)
    assert [line.split(",")[0] for line in notes(outcome.out)] == [
        "left out: ipi-poll-us",
        "left out: cq-poll",
    ]
    assert vendor.settings()[IPI] == "e"
    assert vendor.run("verify").status == 0
    assert "cq-poll" in vendor.run("apply", "database", "--json").json["left_out"]


@pytest.mark.parametrize(
    "argv", [["nfs-client"], ["--ipi", "c", "--cq-poll", "3"], ["database", "--cq-poll", "3"]]
)
def test_what_must_be_set_is_all_or_nothing_by_hand(vendor: Machine, argv: list[str]) -> None:
    vendor.mount(Mount())
    before = vendor.settings()
    assert vendor.run("apply", *argv).status == 3
    assert vendor.settings() == before


def test_users_profiles_may_say_what_may_wait(guest: Machine) -> None:
    path = guest.profile("mine", 'retry = ["cq-poll"]\n[set]\nipi = "c"\ncq-poll = 3\n')
    child = guest.profile("child", 'extends = "mine"\n')
    guest.system.break_("write", CQ_POLL, errno.EBUSY)
    for name in (path, child):
        outcome = guest.run("apply", str(name), "--json")
        assert (outcome.status, outcome.json["try_again"]) == (INCOMPLETE, ["cq-poll"])
        assert guest.settings()[IPI] == "c"
    # What is not named there is to be had.
    guest.system.break_("write", IPI, errno.EBUSY)
    guest.run("rollback")
    guest.system.broken.clear()
    guest.run("rollback")
    guest.system.break_("write", IPI, errno.EBUSY)
    assert guest.run("apply", str(path)).status == 3
    # Nor what an option asks for.
    guest.system.broken.clear()
    guest.system.break_("write", CQ_POLL, errno.EBUSY)
    assert guest.run("apply", str(path), "--cq-poll", "2").status == 3
    assert guest.settings()[IPI] == "0"


# systemd itself

SAMPLES = {
    "data.mount": "[Unit]\nSourcePath=/etc/fstab\nBefore=remote-fs.target\n"
    "[Mount]\nWhat=192.0.2.10:/export\nWhere=/data\nType=nfs\n",
    "opt-x.mount": "[Unit]\nSourcePath=/etc/fstab\nBefore=local-fs.target\nRequiresMountsFor=/data/x\n"
    "[Mount]\nWhat=/data/x\nWhere=/opt/x\nType=none\nOptions=bind\n",
}
# Of systemd.special(7) and bootup(7) what counts here; the units of the host that runs this are its own.
TARGETS = {
    "multi-user.target": "[Unit]\nRequires=basic.target\nWants=remote-fs.target cvmtune.service\n"
    "After=basic.target\n",
    "basic.target": "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n",
    "sysinit.target": "[Unit]\nDefaultDependencies=no\nWants=local-fs.target\nAfter=local-fs.target\n",
    "local-fs.target": "[Unit]\nDefaultDependencies=no\nRequires=opt-x.mount\n",
    "remote-fs.target": "[Unit]\nDefaultDependencies=no\nRequires=data.mount\nAfter=remote-fs-pre.target\n",
    "remote-fs-pre.target": "[Unit]\nRefuseManualStart=no\n",
    **{name: "[Unit]\n" for name in ("shutdown.target", "umount.target", "network.target")},
    **{name: "[Unit]\n" for name in ("network-online.target", "local-fs-pre.target", "swap.target")},
}


def analyze(machine: Machine) -> str:
    """What systemd says of a boot of the root, with a local mount upon one of NFS."""
    folder = machine.root / "usr/lib/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**TARGETS, **SAMPLES}.items():
        (folder / name).write_text(text)
    argv = [
        *("systemd-analyze", f"--root={machine.root}", "--man=no", "verify"),
        "multi-user.target",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@needs_systemd_analyze
def test_the_unit_makes_no_ordering_cycle(guest: Machine) -> None:
    persisted(guest, "database")
    assert "cycle" not in analyze(guest)
    # What would: it waits for basic.target, as services do by default.
    path = guest.root / UNIT
    path.write_text(path.read_text().replace("DefaultDependencies=no\n", ""))
    text = analyze(guest)
    assert "Found ordering cycle" in text
    assert "cvmtune.service" in text


def test_the_unit_is_before_all_that_takes_rdma_at_boot(guest: Machine) -> None:
    persisted(guest, "database")
    lines = dict(
        line.split("=", 1) for line in unit_text(guest).splitlines() if "=" in line and line[0] != "#"
    )
    assert lines["DefaultDependencies"] == "no"
    assert (lines["Conflicts"], lines["Wants"]) == ("shutdown.target", "remote-fs-pre.target")
    assert set(lines["Before"].split()) >= {
        *("shutdown.target", "remote-fs-pre.target", "nvmf-autoconnect.service", "nvmf-connect-nbft.service"),
        *("iscsi.service", "nfs-server.service", "target.service", "nvmet.service"),
    }
    assert set(lines["After"].split()) >= {"systemd-modules-load.service", "systemd-remount-fs.service"}
    needs = lines["RequiresMountsFor"].split()
    assert {"/var/lib/cvmtune", "/etc/cvmtune", sys.executable} <= set(needs)
