# SPDX-License-Identifier: Apache-2.0
"""`cvmtune verify` and `rollback` on whole machines: after changes, hotplug, reboots, faults and crashes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.controls import CQ_IDLE_US, CQ_POLL, IPI, IPI_POLL_US, NEXT_BOOT, WFX, WFX_GUARD
from tests.fakes.kernel import CqPollKernel, Crash, When
from tests.fakes.tree import MACHINES, OUR_RELEASE, Machine, our_guest, our_host

OPTIONS = ["--ipi-poll-us", "50", "--ipi", "c", "--cq-idle-us", "200", "--cq-poll", "3"]
IN_ORDER = [IPI_POLL_US, IPI, CQ_IDLE_US, CQ_POLL]
NOTHING = "Nothing to roll back.\n"


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    """A guest with settings of its own before any are applied."""
    machine = our_guest(tmp_path / "root")
    machine.echo("1", IPI)
    machine.echo("2", CQ_POLL)
    return machine


@pytest.fixture
def first(guest: Machine) -> dict[str, str]:
    """What the guest's controls show before any apply."""
    return guest.settings()


def apply(machine: Machine, *argv: str) -> None:
    outcome = machine.run("apply", *argv)
    assert outcome.status == 0, outcome


def crash(machine: Machine, path: str, when: When, *argv: str) -> None:
    """Have a command die as it writes a control."""
    machine.system.fail("write", path, Crash(), when=when)
    with pytest.raises(Crash):
        machine.run(*argv)


def unfit(machine: Machine) -> str:
    """Check that what was applied is found to be not in force; return why."""
    before = machine.snapshot()
    outcome = machine.run("verify", "--json")
    content = outcome.json
    assert (outcome.status, content["in_force"]) == (1, False)
    text = machine.run("verify")
    assert (text.status, text.err) == (1, "")
    assert f"NOT in force: {content['why']}" in text.out
    assert machine.snapshot() == before
    return str(content["why"])


# verify


@pytest.mark.parametrize("name", MACHINES)
def test_without_any_apply_there_is_nothing_to_verify_or_roll_back(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    before = machine.snapshot()
    assert machine.run("verify").out == "Nothing has been applied, or all was rolled back.\n"
    content = machine.run("verify", "--json").json
    assert (content["in_force"], content["applied"], content["checks"]) == (True, False, [])
    for argv in (["rollback"], ["rollback", "--dry-run"]):
        outcome = machine.run(*argv)
        assert (outcome.status, outcome.out, outcome.err) == (0, NOTHING, "")
        assert machine.run(*argv, "--json").json["settings"] == []
    assert machine.snapshot() == before


def test_what_was_applied_is_in_force(guest: Machine) -> None:
    apply(guest, "database")
    outcome = guest.run("verify")
    assert (outcome.status, outcome.err) == (0, "")
    assert "applied: profile database" in outcome.out
    assert "ipi          e = 1-3  e = 1-3" in outcome.out
    assert "All in force." in outcome.out
    content = guest.run("verify", "--json").json
    assert content.keys() == {
        *("schema", "in_force", "why", "applied", "interrupted", "restarted", "source", "kernel", "running"),
        *("checks", "persisted"),
    }
    assert (content["schema"], content["in_force"], content["why"]) == (1, True, "")
    assert content["source"] == "profile database"
    assert content["kernel"] == content["running"] == OUR_RELEASE
    assert content["checks"] == [
        {"name": name, "path": path, "wanted": value, "present": value, "problem": None, "holds": True}
        for name, path, value in [
            ("ipi-poll-us", IPI_POLL_US, "200"),
            ("ipi", IPI, "e"),
            ("cq-poll", CQ_POLL, "3"),
        ]
    ]


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [(IPI, "0", "ipi"), (IPI, "f", "ipi"), (IPI_POLL_US, "1", "ipi-poll-us"), (CQ_POLL, "0", "cq-poll")],
)
def test_somebody_changed_a_value(guest: Machine, path: str, text: str, name: str) -> None:
    apply(guest, *OPTIONS)
    wanted = guest.settings()[path]
    guest.echo(text, path)
    assert unfit(guest) == f"changed since: {name}"
    checks = guest.run("verify", "--json").json["checks"]
    assert [one["name"] for one in checks if not one["holds"]] == [name]
    assert "differs" in guest.run("verify").out
    guest.echo(wanted, path)
    assert guest.run("verify").status == 0


def test_masks_are_compared_as_sets(tmp_path: Path) -> None:
    machine = our_host(tmp_path / "root")
    apply(machine, "--wfx", "3")
    machine.put(WFX, "00000000,00000003\n")
    assert machine.run("verify").status == 0


def test_the_pollers_cpu_goes_offline(guest: Machine, first: dict[str, str]) -> None:
    apply(guest, *OPTIONS)
    polling = guest.controls[CQ_POLL]
    assert isinstance(polling, CqPollKernel)
    polling.take_offline(3)
    assert guest.settings()[CQ_POLL] == "-1"
    assert unfit(guest) == "changed since: cq-poll"
    assert "cq-poll      3        off" in guest.run("verify").out
    # What was before can still be had: its CPU is online.
    assert guest.run("rollback").status == 0
    assert guest.settings() == first


def test_a_module_that_was_unloaded(guest: Machine, first: dict[str, str]) -> None:
    apply(guest, *OPTIONS)
    for path in (CQ_POLL, CQ_IDLE_US):
        guest.file(path).unlink()
    assert unfit(guest) == "changed since: cq-idle-us, cq-poll"
    assert "ib_core_cq_poll is not loaded" in guest.run("verify").out
    # It has taken its settings with it.
    outcome = guest.run("rollback")
    assert outcome.status == 0
    assert f"left: {CQ_POLL} has gone, and the setting with it" in outcome.out
    assert guest.settings() == {IPI: first[IPI], IPI_POLL_US: first[IPI_POLL_US], WFX_GUARD: "N"}
    assert guest.run("rollback").out == NOTHING


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (OUR_RELEASE, "the machine was restarted since, which ended it"),
        ("6.12.58", f"which ended it; its kernel was {OUR_RELEASE}, this is 6.12.58"),
    ],
)
def test_a_restart_ends_what_was_applied(guest: Machine, release: str, words: str) -> None:
    apply(guest, *OPTIONS)
    guest.restart(NEXT_BOOT, release)
    guest.echo("0", IPI)
    before = guest.settings()
    assert unfit(guest).endswith(words)
    # Nothing of the earlier boot is put back.
    dry = guest.run("rollback", "--dry-run")
    outcome = guest.run("rollback")
    assert (dry.status, outcome.status) == (0, 0)
    assert "left: a restart has ended what was applied" in dry.out
    assert "left: a restart has ended what was applied" in outcome.out
    assert guest.settings() == before
    assert guest.run("rollback").out == NOTHING
    assert guest.run("verify").status == 0


def test_apply_after_a_restart_begins_anew(guest: Machine) -> None:
    apply(guest, *OPTIONS)
    guest.restart(NEXT_BOOT, OUR_RELEASE)
    for text, path in [("0", IPI), ("0", IPI_POLL_US), ("1000", CQ_IDLE_US), ("-1", CQ_POLL)]:
        guest.echo(text, path)
    before = guest.settings()
    apply(guest, *OPTIONS)
    assert guest.run("verify").status == 0
    assert guest.run("rollback").status == 0
    assert guest.settings() == before


# rollback


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("our_guest", ["database"]),
        ("our_guest", OPTIONS),
        ("our_host", ["latency-host"]),
        ("vendor_guest", ["database"]),
        ("vendor_host", ["latency-host"]),
    ],
)
def test_all_is_as_before(tmp_path: Path, name: str, argv: list[str]) -> None:
    machine = MACHINES[name](tmp_path / "root")
    before = machine.settings()
    apply(machine, *argv)
    wanted = machine.settings()
    assert wanted != before
    applied = machine.snapshot()
    dry = machine.run("rollback", "--dry-run")
    dry_json = machine.run("rollback", "--dry-run", "--json").json
    assert machine.snapshot() == applied
    outcome = machine.run("rollback", "--json")
    assert (dry.status, outcome.status, outcome.err) == (0, 0, "")
    assert "would put back:" in dry.out
    assert machine.settings() == before
    assert dry_json == {**outcome.json, "rolled_back": False}
    assert outcome.json["rolled_back"] is True
    assert outcome.json.keys() == {"schema", "rolled_back", "settings"}
    for one in outcome.json["settings"]:
        assert one.keys() == {"name", "path", "found", "value", "foreign", "gone", "restarted"}
        assert not one["foreign"]
    restored = {one["path"] for one in outcome.json["settings"]}
    assert restored == {path for path in before if before[path] != wanted[path]}
    # Nothing is left to be done.
    machine.system.operations.clear()
    assert machine.run("rollback").out == NOTHING
    assert machine.system.written == set()
    assert machine.run("verify").status == 0


def test_tells_what_it_put_back(guest: Machine) -> None:
    apply(guest, *OPTIONS)
    guest.echo("f", IPI)
    outcome = guest.run("rollback")
    assert "has put back:" in outcome.out
    assert "ipi          f = 0-3  1 = 0  somebody else had changed it since" in outcome.out
    assert "cq-poll      3        2" in outcome.out
    assert outcome.out.count("somebody else") == 1


def test_it_goes_back_to_before_the_first_of_several(guest: Machine, first: dict[str, str]) -> None:
    apply(guest, "--ipi", "c", "--cq-poll", "3")
    apply(guest, "database")
    apply(guest, "--ipi", "off", "--cq-idle-us", "5")
    content = guest.run("verify", "--json").json
    wanted = {one["name"]: one["wanted"] for one in content["checks"]}
    assert wanted == {"ipi-poll-us": "200", "ipi": "0", "cq-idle-us": "5", "cq-poll": "3"}
    assert content["in_force"]
    guest.system.operations.clear()
    assert guest.run("rollback").status == 0
    assert guest.settings() == first
    # Straight, without a stop at what was between.
    assert max(guest.system.operations["write", path] for path in IN_ORDER) == 1
    assert guest.run("rollback").out == NOTHING


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM, errno.ENOENT])
@pytest.mark.parametrize("path", IN_ORDER)
def test_a_setting_that_cannot_be_put_back_does_not_keep_the_others(
    guest: Machine, first: dict[str, str], path: str, number: int
) -> None:
    apply(guest, *OPTIONS)
    wanted = guest.settings()
    guest.system.break_("write", path, number)
    for _ in range(2):
        outcome = guest.run("rollback")
        assert (outcome.status, outcome.out) == (4, "")
        assert "cvmtune rollback" in outcome.err
        assert guest.settings() == {**first, path: wanted[path]}
    assert guest.run("apply", "--ipi", "1").status == 3
    assert "interrupted" in unfit(guest)
    guest.system.broken.clear()
    assert guest.run("rollback").status == 0
    assert guest.settings() == first
    assert guest.run("rollback").out == NOTHING


def test_a_value_put_back_that_reads_otherwise_is_no_success(guest: Machine, first: dict[str, str]) -> None:
    apply(guest, *OPTIONS)
    guest.controls[IPI].take_instead("6")
    outcome = guest.run("rollback")
    assert outcome.status == 4
    assert "ipi is 6, not 1 as before" in outcome.err
    assert guest.run("rollback").status == 0
    assert guest.settings() == first


# Crashes


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", IN_ORDER)
def test_an_interrupted_apply_is_found_and_taken_back(
    guest: Machine, first: dict[str, str], path: str, when: When
) -> None:
    crash(guest, path, when, "apply", *OPTIONS)
    assert "a change was interrupted" in unfit(guest)
    before = guest.snapshot()
    again = guest.run("apply", "--ipi", "f")
    assert again.status == 3
    assert "cvmtune rollback" in again.err
    assert guest.run("rollback", "--dry-run").status == 0
    assert guest.snapshot() == before
    outcome = guest.run("rollback")
    assert outcome.status == 0
    assert guest.settings() == first
    assert guest.run("rollback").out == NOTHING
    apply(guest, *OPTIONS)


@pytest.mark.parametrize("path", IN_ORDER)
def test_an_interrupted_rollback_is_gone_on_with(guest: Machine, first: dict[str, str], path: str) -> None:
    apply(guest, *OPTIONS)
    crash(guest, path, "after", "rollback")
    assert "interrupted" in unfit(guest)
    assert guest.run("rollback").status == 0
    assert guest.settings() == first


def test_an_apply_interrupted_by_the_end_of_the_machine(guest: Machine) -> None:
    crash(guest, CQ_POLL, "after", "apply", *OPTIONS)
    guest.restart(NEXT_BOOT, OUR_RELEASE)
    guest.echo("0", IPI)
    before = guest.settings()
    assert "restarted" in unfit(guest)
    assert guest.run("rollback").status == 0
    assert guest.settings() == before
    apply(guest, *OPTIONS)


# Journals that cannot be used


def cut(entry: Path) -> None:
    entry.write_text(entry.read_text()[:20])


def nonsense(entry: Path) -> None:
    entry.write_text("nonsense\n")


def other_schema(entry: Path) -> None:
    entry.write_text(entry.read_text().replace('"schema": 1', '"schema": 2'))


def other_file(entry: Path) -> None:
    entry.write_text(entry.read_text().replace(IPI, "/etc/passwd"))


@pytest.mark.parametrize("damage", [cut, nonsense, other_schema])
def test_a_damaged_journal_is_refused_and_named(guest: Machine, damage: Callable[[Path], Any]) -> None:
    apply(guest, *OPTIONS)
    (entry,) = (guest.root / "var/lib/cvmtune").glob("*.journal")
    damage(entry)
    before = guest.snapshot()
    for argv in (["rollback"], ["rollback", "--dry-run"], ["verify"], ["apply", "--ipi", "1"]):
        outcome = guest.run(*argv)
        assert outcome.status == 3, argv
        assert str(entry) in outcome.err
        assert "next: " in outcome.err
    assert guest.snapshot() == before
    assert guest.run("status").status == 0


def test_a_journal_leads_to_no_other_file(guest: Machine) -> None:
    apply(guest, "--ipi", "c")
    (entry,) = (guest.root / "var/lib/cvmtune").glob("*.journal")
    other_file(entry)
    guest.put("/etc/passwd", "root:x:0:0\n")
    guest.system.operations.clear()
    assert guest.run("rollback").status == 4
    assert guest.system.written == set()
    assert guest.get("/etc/passwd") == "root:x:0:0\n"
