# SPDX-License-Identifier: Apache-2.0
"""`cvmtune apply` on whole machines: what it sets, what it refuses, and that a refusal changes nothing.

A vendor's kernel is in test_vendor_commands.py, how it is taken back in test_rollback_command.py.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cvmtune.tuning import journal
from tests.fakes.controls import CQ_IDLE_US, CQ_POLL, IPI, IPI_POLL_US, WFX, WFX_GUARD
from tests.fakes.kernel import When, os_error
from tests.fakes.tree import (
    CPUS,
    MACHINES,
    Machine,
    Outcome,
    our_guest,
    our_host,
    our_host_unpinned,
    plain_guest,
    plain_host,
)

SHIPPED = ("database", "nfs-client", "latency-host", "off")
UNMET = 5

# What a machine's controls show before, and what each profile that fits changes of it.
FIRST = {
    "our_guest": {IPI: "0", IPI_POLL_US: "0", CQ_POLL: "-1", CQ_IDLE_US: "1000", WFX_GUARD: "N"},
    "our_host": {IPI: "00", IPI_POLL_US: "0", WFX: "00000000", WFX_GUARD: "N"},
    "our_host_unpinned": {IPI: "00", IPI_POLL_US: "0", WFX: "00000000", WFX_GUARD: "N"},
    "vendor_guest": {IPI: "0", CQ_POLL: "Current polling thread is down"},
    "vendor_host": {WFX: "00"},
    "plain_guest": {},
    "plain_host": {},
    "bare_machine": {IPI: "0", IPI_POLL_US: "0", CQ_POLL: "-1", CQ_IDLE_US: "1000", WFX_GUARD: "N"},
}
FITTING: dict[tuple[str, str], dict[str, str]] = {
    ("our_guest", "database"): {IPI: "e", IPI_POLL_US: "200", CQ_POLL: "3"},
    ("our_guest", "nfs-client"): {CQ_POLL: "3"},
    ("our_host", "latency-host"): {WFX: "000000ff", WFX_GUARD: "Y"},
    ("vendor_guest", "database"): {IPI: "e", CQ_POLL: "Current polling core is: 3"},
    ("vendor_guest", "nfs-client"): {CQ_POLL: "Current polling core is: 3"},
    ("vendor_host", "latency-host"): {WFX: "ff"},
    **{(name, "off"): {} for name in MACHINES},
}


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return our_guest(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return our_host(tmp_path / "root")


def refused(machine: Machine, status: int, *argv: str) -> str:
    """Check that a command ends with the status and one message, and changes nothing; return the message."""
    before = machine.snapshot()
    outcome = machine.run(*argv)
    assert (outcome.status, outcome.out) == (status, ""), outcome
    assert machine.snapshot() == before
    assert machine.system.written == set()
    return outcome.err


def refused_as_writable(machine: Machine, *argv: str) -> None:
    """Check that a command is refused for what others may write, and says how to take that from them."""
    # From the group as well, if that is not root's.
    assert re.search(r"next: check what .*, then: chmod g?o-w ", refused(machine, 3, *argv))


def applied(machine: Machine, *argv: str) -> Outcome:
    outcome = machine.run("apply", *argv)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    return outcome


# Profiles


@pytest.mark.parametrize("profile", SHIPPED)
@pytest.mark.parametrize("name", MACHINES)
def test_shipped_profiles_are_for_some_machines(tmp_path: Path, name: str, profile: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    before = machine.snapshot()
    assert machine.settings() == FIRST[name]
    dry = machine.run("apply", profile, "--dry-run")
    dry_json = machine.run("apply", profile, "--dry-run", "--json")
    assert machine.snapshot() == before
    if (name, profile) not in FITTING:
        assert f"profile {profile} does not fit this system: wants " in refused(
            machine, UNMET, "apply", profile
        )
        assert (dry.status, dry_json.status) == (UNMET, UNMET)
        return
    outcome = machine.run("apply", profile, "--json")
    assert (outcome.status, dry.status, dry_json.status) == (0, 0, 0)
    assert machine.settings() == {**FIRST[name], **FITTING[name, profile]}
    assert dry_json.json == {**outcome.json, "applied": False}
    assert outcome.json["applied"] is True
    assert machine.run("verify").status == 0


@pytest.mark.parametrize(
    ("profile", "name", "why"),
    [
        ("database", "our_host", "wants a guest, and this is a host"),
        ("database", "bare_machine", "wants a guest, and this is a machine"),
        ("latency-host", "our_guest", "wants a host, and this is a guest; wants the control wfx"),
        ("latency-host", "our_host_unpinned", "wants each vCPU's thread pinned to a CPU of its own"),
        ("latency-host", "plain_host", "wants the control wfx, and this kernel has none"),
        ("database", "plain_guest", "wants the control ipi, and this kernel has none"),
    ],
)
def test_says_why_a_profile_does_not_fit(tmp_path: Path, profile: str, name: str, why: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    message = refused(machine, UNMET, "apply", profile)
    assert why in message
    assert "next: " in message


def test_a_guest_that_loses_time_to_others_does_not_fit(guest: Machine) -> None:
    guest.cpus[2].steal = 0.2
    guest.go_on()
    assert "vCPUs that lose no time to others, and it is not so" in refused(guest, UNMET, "apply", "database")


def test_a_host_without_vms_does_not_fit(tmp_path: Path) -> None:
    machine = our_host(tmp_path / "root")
    for vm in machine.vms:
        for file in machine.file(vm.folder).iterdir():
            file.unlink()
        machine.file(vm.folder).rmdir()
    assert "whether it is so cannot be told" in refused(machine, UNMET, "apply", "latency-host")


def test_a_guest_of_one_cpu_does_not_fit(guest: Machine) -> None:
    guest.put(f"{CPUS}/online", "0\n")
    message = refused(guest, UNMET, "apply", "database")
    assert "wants 2 CPUs online, and this machine has 1" in message


def test_a_module_that_is_not_loaded_does_not_fit(guest: Machine) -> None:
    for path in (CQ_POLL, CQ_IDLE_US):
        guest.file(path).unlink()
    assert "wants the control cq-poll" in refused(guest, UNMET, "apply", "nfs-client")
    # What is only set if present is left out, and said to be.
    outcome = applied(guest, "database")
    assert "left out: cq-poll, this kernel has no such control" in outcome.out
    assert guest.settings()[IPI] == "e"


@pytest.mark.parametrize("how", ["EIO", "nonsense", "empty"])
@pytest.mark.parametrize("argv", [["--ipi", "c"], ["--cq-poll", "1", "--ipi", "c"], ["database"]])
def test_a_control_that_cannot_be_read_is_not_written_nor_are_others(
    guest: Machine, argv: list[str], how: str
) -> None:
    if how == "EIO":
        guest.system.break_("read", IPI, errno.EIO)
    else:
        guest.put(IPI, "" if how == "empty" else "nonsense\n")
    before = guest.snapshot()
    outcome = guest.run("apply", *argv)
    assert (outcome.status in (3, UNMET), outcome.out) == (True, "")
    assert "ipi" in outcome.err
    assert guest.snapshot() == before
    assert guest.system.written == set()


# What it prints


def test_tells_what_it_set_for_people(guest: Machine) -> None:
    guest.echo("1", IPI)
    dry = applied(guest, "database", "--dry-run").out
    text = applied(guest, "database").out
    for words in [
        *(f"ipi          1 = 0   e = 1-3  {IPI}", "ipi-poll-us  0       200", "cq-poll      off     3"),
        "cost: up to 3 physical CPUs kept busy by polling vCPUs; each idle vCPU polls 200 us at most",
        "cost: up to 1 CPU, number 3, busy while completions come",
    ]:
        assert words in dry
        assert words in text
    assert "profile database would set:" in dry
    assert "rollback" not in dry
    assert "profile database has set:" in text
    assert "To take it back: cvmtune rollback" in text
    assert "as it is" in applied(guest, "--ipi", "e").out


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        (["--ipi", "c"], "up to 2 physical CPUs kept busy by polling vCPUs, also when nothing is done"),
        (["--ipi", "all"], "ALL of this machine's 4, also when nothing is done"),
        (["--ipi", "off", "--cq-poll", "off"], ""),
    ],
)
def test_tells_what_it_costs(guest: Machine, options: list[str], cost: str) -> None:
    outcome = applied(guest, *options)
    assert cost in outcome.out
    assert ("cost: " in outcome.out) == bool(cost)


def test_tells_what_untrapped_vcpus_cost(host: Machine) -> None:
    assert "up to 2 physical CPUs for each VM show as busy, always" in applied(host, "--wfx", "0-1").out


def test_tells_what_it_set_for_programs(host: Machine) -> None:
    content = applied(host, "latency-host", "--json").json
    assert content.keys() == {
        *("schema", "source", "applied", "changes", "costs"),
        *("left_out", "left_alone", "try_again"),
    }
    assert (content["schema"], content["source"], content["applied"]) == (1, "profile latency-host", True)
    assert content["changes"] == [
        {"name": "wfx-guard", "path": WFX_GUARD, "before": "N", "after": "Y", "shown": "Y"},
        {"name": "wfx", "path": WFX, "before": "0", "after": "ff", "shown": "ff = 0-7"},
    ]
    assert len(content["costs"]) == 1


# Options


@pytest.mark.parametrize(
    ("options", "path", "text"),
    [
        (["--ipi", "2-3"], IPI, "c"),
        (["--ipi", "c"], IPI, "c"),
        (["--ipi", "0xC"], IPI, "c"),
        (["--ipi", "0,2"], IPI, "5"),
        (["--ipi", "3-3"], IPI, "8"),
        (["--ipi", "3"], IPI, "3"),
        (["--ipi", "00000000,00000006"], IPI, "6"),
        (["--ipi", "all"], IPI, "f"),
        (["--ipi", "all-but-first"], IPI, "e"),
        (["--ipi", "off"], IPI, "0"),
        (["--ipi-poll-us", "0100"], IPI_POLL_US, "100"),
        (["--cq-poll", "last"], CQ_POLL, "3"),
        (["--cq-poll", "0"], CQ_POLL, "0"),
        (["--cq-poll", "off"], CQ_POLL, "-1"),
        (["--cq-poll", "-1"], CQ_POLL, "-1"),
        (["--cq-idle-us", "4294967295"], CQ_IDLE_US, "4294967295"),
    ],
)
def test_options_of_a_guest(guest: Machine, options: list[str], path: str, text: str) -> None:
    guest.echo("9", IPI)
    guest.echo("2", CQ_POLL)
    before = guest.settings()
    content = applied(guest, *options, "--json").json
    assert guest.settings() == {**before, path: text}
    assert content["source"] == " ".join(options)


@pytest.mark.parametrize(
    ("options", "path", "text"),
    [
        (["--wfx", "0-1"], WFX, "00000003"),
        (["--wfx", "3"], WFX, "00000003"),
        (["--wfx", "all"], WFX, "000000ff"),
        (["--wfx", "32-33"], WFX, "00000003,00000000"),
        (["--wfx", "1,00000000"], WFX, "00000001,00000000"),
        (["--wfx", "off"], WFX, "00000000"),
        (["--wfx-guard", "on"], WFX_GUARD, "Y"),
        (["--wfx-guard", "off"], WFX_GUARD, "N"),
    ],
)
def test_options_of_a_host(host: Machine, options: list[str], path: str, text: str) -> None:
    host.echo("10", WFX)
    before = host.settings()
    applied(host, *options)
    assert host.settings() == {**before, path: text}


def test_last_is_the_last_cpu_that_is_online(guest: Machine) -> None:
    guest.put(f"{CPUS}/online", "0,2\n")
    applied(guest, "--cq-poll", "last", "--ipi", "all")
    assert (guest.settings()[CQ_POLL], guest.settings()[IPI]) == ("2", "5")


def test_options_come_on_top_of_a_profile(guest: Machine) -> None:
    content = applied(guest, "database", "--ipi", "1", "--cq-poll", "2", "--cq-idle-us", "7", "--json").json
    assert guest.settings() == {
        **FIRST["our_guest"],
        **{IPI: "1", IPI_POLL_US: "200", CQ_POLL: "2", CQ_IDLE_US: "7"},
    }
    assert content["source"] == "profile database --ipi 1 --cq-poll 2 --cq-idle-us 7"


# Wrong input


@pytest.mark.parametrize(
    ("line", "status", "hint"),
    [
        ("", 2, "database, latency-host, nfs-client, off"),
        ("nonsense", 2, "choose from database, latency-host, nfs-client, off"),
        ("../off", 3, "cannot read it"),
        ("nowhere.toml", 3, "cannot read it"),
        ("nowhere.json", 3, "cannot read it"),
        ("off nonsense", 2, "unrecognized arguments"),
        ("--ipi", 2, "expected one argument"),
        ("--ipi=", 2, "give a hex mask"),
        ("--ipi nonsense", 2, "give a hex mask"),
        ("--ipi 0x", 2, "give a hex mask"),
        ("--ipi 3-2", 2, "give a hex mask"),
        ("--ipi 1,,5", 2, "give a hex mask"),
        ("--ipi last", 2, "give a hex mask"),
        ("--ipi -1", 2, "give a hex mask"),
        ("--ipi 0-99999", 2, "give a hex mask"),
        ("--ipi 10", 3, "name only those of 0-3"),
        ("--ipi 2-4", 3, "name only those of 0-3"),
        ("--ipi 1,00000000", 3, "name only those of 0-3"),
        ("--ipi c --ipi-poll-us 4294967296", 2, "less than 2^32"),
        ("--ipi c --ipi-poll-us -1", 2, "less than 2^32"),
        ("--ipi c --cq-poll 4", 3, "plan for a CPU of 0-3"),
        ("--cq-poll 1-2", 2, "'off' or 'last'"),
        ("--cq-poll -2", 2, "'off' or 'last'"),
        ("--cq-poll 8192", 2, "'off' or 'last'"),
        ("--cq-poll nonsense", 2, "'off' or 'last'"),
        ("--wfx-guard perhaps", 2, "true or on"),
        ("database --wfx-guard perhaps", 2, "true or on"),
        ("--wfx 3", UNMET, "wants the control wfx"),
        ("--ipi c --wfx off", UNMET, "wants the control wfx"),
    ],
)
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_wrong_input_changes_nothing(
    guest: Machine, line: str, status: int, hint: str, dry_run: list[str]
) -> None:
    assert hint in refused(guest, status, "apply", *line.split(), *dry_run)


@pytest.mark.parametrize("ids", ["512-512", "0-512"])
def test_ids_that_no_vcpu_has_are_refused(host: Machine, ids: str) -> None:
    assert "name only those of 0-511" in refused(host, 3, "apply", "--wfx", ids)


def test_a_poller_is_not_put_on_a_cpu_that_is_offline(guest: Machine) -> None:
    guest.put(f"{CPUS}/online", "0-2\n")
    assert "CPU 3 is not online" in refused(guest, 3, "apply", "--ipi", "c", "--cq-poll", "3")


@pytest.mark.parametrize("boot", [plain_guest, plain_host])
def test_kernels_without_controls_refuse_options(tmp_path: Path, boot: Any) -> None:
    machine = boot(tmp_path / "root")
    for option, value in [("--ipi", "1"), ("--cq-poll", "1"), ("--wfx", "1"), ("--wfx-guard", "on")]:
        assert "and this kernel has none" in refused(machine, UNMET, "apply", option, value)


# The user's profiles


def test_a_users_profile_hides_a_shipped_one_and_may_extend_it(guest: Machine) -> None:
    path = guest.profile("database", 'extends = "database"\n[set-if-present]\nipi-poll-us = 77\n')
    applied(guest, "database")
    assert guest.settings() == {
        **FIRST["our_guest"],
        **{IPI: "e", IPI_POLL_US: "77", CQ_POLL: "3"},
    }
    # What it extends, it requires.
    guest.run("rollback")
    guest.cpus[0].steal = 0.5
    guest.go_on()
    assert guest.run("apply", "database").status == UNMET
    path.unlink()
    guest.cpus[0].steal = 0.0
    guest.go_on()
    applied(guest, "database")
    assert guest.settings()[IPI_POLL_US] == "200"


def test_a_users_profile_has_a_name_or_a_path(guest: Machine, tmp_path: Path) -> None:
    text = '[require]\nrole = "guest"\n[set]\nipi = "1-2"\ncq-poll = 0\n'
    path = guest.profile("mine", text)
    applied(guest, "mine")
    assert (guest.settings()[IPI], guest.settings()[CQ_POLL]) == ("6", "0")
    guest.run("rollback")
    assert applied(guest, str(path), "--json").json["source"] == f"profile {path}"
    assert guest.settings()[IPI] == "6"
    assert "mine" in guest.run("apply").err


def test_what_a_users_profile_requires_without_a_role(tmp_path: Path) -> None:
    text = '[require]\nown_cpus = true\n[set]\nipi = "1"\n'
    for name, status in {
        "our_guest": 0,
        "our_host": 0,
        "our_host_unpinned": UNMET,
        "bare_machine": UNMET,
    }.items():
        machine = MACHINES[name](tmp_path / name)
        machine.profile("mine", text)
        assert machine.run("apply", "mine").status == status, name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[set\n", "not TOML"),
        ("a = " + "[" * 100000, "not TOML"),
        ('[set]\nipi = "nonsense"\n', "[set] ipi"),
        ("[set]\nipi = 3\n", "give a hex mask"),
        ('[set]\nsoft-ipi = "3"\n', "choose from ipi-poll-us, ipi,"),
        ('extends = "mine"\n', "no profile 'mine'"),
        ('[require]\nrole = "monitor"\n', "role"),
    ],
)
def test_a_wrong_profile_is_refused(guest: Machine, text: str, hint: str) -> None:
    path = guest.profile("mine", text)
    message = refused(guest, 2, "apply", "mine")
    assert hint in message
    assert str(path) in message or "mine" in message
    applied(guest, "database")


# Files that others may write


@pytest.mark.parametrize(("what", "mode"), [("file", 0o666), ("file", 0o646), ("folder", 0o777)])
def test_a_profile_that_others_may_change_is_refused(guest: Machine, what: str, mode: int) -> None:
    path = guest.profile("mine", '[set]\nipi = "c"\n')
    (path if what == "file" else path.parent).chmod(mode)
    for name in ("mine", str(path)):
        refused_as_writable(guest, "apply", name)
    applied(guest, "database")


def test_a_profile_that_extends_one_that_others_may_change_is_refused(guest: Machine) -> None:
    guest.profile("base", '[set]\nipi = "c"\n').chmod(0o666)
    guest.profile("mine", 'extends = "base"\n')
    refused_as_writable(guest, "apply", "mine")


@pytest.mark.parametrize(("what", "mode"), [("file", 0o666), ("folder", 0o777)])
def test_a_recommendation_that_others_may_change_is_refused(guest: Machine, what: str, mode: int) -> None:
    path = guest.user_file("/root/it.json", guest.watch("--json").out)
    (path if what == "file" else path.parent).chmod(mode)
    refused_as_writable(guest, "apply", str(path))


@pytest.mark.parametrize("command", [["apply", "--ipi", "1"], ["rollback"]])
@pytest.mark.parametrize("what", ["folder", "entry", "link"])
def test_a_journal_that_others_may_change_is_refused(guest: Machine, command: list[str], what: str) -> None:
    applied(guest, "--ipi", "c")
    folder = guest.root / "var/lib/cvmtune"
    (entry,) = folder.glob("*.journal")
    if what == "link":
        folder.rename(guest.root / "elsewhere")
        folder.symlink_to(guest.root / "elsewhere")
    else:
        (folder if what == "folder" else entry).chmod(0o777)
    guest.system.operations.clear()
    assert "the journal is not to be trusted" in refused(guest, 3, *command)
    assert guest.settings()[IPI] == "c"


# Symlinks


@pytest.mark.parametrize("link", [IPI, "/sys/kernel", "/sys"])
@pytest.mark.parametrize("options", [["--ipi", "c"], ["--cq-poll", "2", "--ipi", "c"], ["database"]])
def test_a_control_that_a_symlink_leads_to_is_never_written(
    guest: Machine, tmp_path: Path, link: str, options: list[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    guest.file(link).rename(elsewhere)
    guest.file(link).symlink_to(elsewhere)
    before = guest.settings()
    outcome = guest.run("apply", *options)
    assert outcome.status == 3
    assert "all settings are as before" in outcome.err
    assert guest.settings() == before
    # Neither with what is there left as it was has the tool anything to take back.
    assert guest.run("rollback").out == "Nothing to roll back.\n"


# Faults on the way

OPTIONS = ["--ipi-poll-us", "50", "--ipi", "c", "--cq-idle-us", "200", "--cq-poll", "3"]
IN_ORDER = [IPI_POLL_US, IPI, CQ_IDLE_US, CQ_POLL]


@pytest.mark.parametrize(
    ("path", "when", "number"),
    [
        *((path, when, errno.EIO) for path in IN_ORDER for when in ("before", "after")),
        *((IPI, "before", errno.EPERM), (CQ_POLL, "after", errno.EPERM)),
        *((CQ_POLL, "before", errno.ENOENT), (IPI, "after", errno.ENOENT)),
    ],
)
def test_all_or_nothing(guest: Machine, path: str, when: When, number: int) -> None:
    before = guest.settings()
    guest.system.fail("write", path, os_error(number), when=when)
    outcome = guest.run("apply", *OPTIONS)
    assert (outcome.status, outcome.out) == (3, "")
    assert "all settings are as before" in outcome.err
    assert path in outcome.err
    assert guest.settings() == before
    done = IN_ORDER[: IN_ORDER.index(path) + 1]
    assert guest.system.written == set(done)
    assert guest.run("rollback").out == "Nothing to roll back.\n"
    assert guest.run("verify").status == 0
    applied(guest, *OPTIONS)


def test_a_value_that_reads_back_otherwise_is_no_success(guest: Machine) -> None:
    before = guest.settings()
    guest.controls[IPI].take_instead("4")
    outcome = guest.run("apply", *OPTIONS)
    assert outcome.status == 3
    assert "the kernel took mask c but shows 4" in outcome.err
    assert guest.settings() == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_control_that_vanishes_on_the_way(guest: Machine, when: When) -> None:
    before = guest.settings()
    guest.system.at("write", CQ_POLL, guest.file(CQ_POLL).unlink, when=when)
    outcome = guest.run("apply", *OPTIONS)
    assert outcome.status == 3
    assert guest.settings() == {path: text for path, text in before.items() if path != CQ_POLL}
    assert guest.run("rollback").out == "Nothing to roll back.\n"


def test_somebody_else_changes_a_value_between_plan_and_write(guest: Machine) -> None:
    # It is read to see what is there, to plan, and again under the lock, once it is known what is wanted.
    guest.system.at("read", IPI, lambda: guest.echo("1", IPI), nth=3)
    outcome = guest.run("apply", *OPTIONS)
    assert outcome.status == 3
    assert "no longer as planned: ipi" in outcome.err
    assert guest.settings() == {**FIRST["our_guest"], IPI: "1"}


def test_ctrl_c_takes_all_back(guest: Machine) -> None:
    before = guest.settings()
    guest.system.fail("write", CQ_POLL, KeyboardInterrupt(), when="after")
    outcome = guest.run("apply", *OPTIONS)
    assert outcome.status == 130
    assert guest.settings() == before
    assert guest.run("rollback").out == "Nothing to roll back.\n"


def test_what_cannot_be_taken_back_is_status_4_until_rollback_can(guest: Machine) -> None:
    before = guest.settings()
    guest.system.fail("write", CQ_POLL, os_error(errno.EIO))
    guest.system.fail("write", IPI, os_error(errno.EIO), nth=2)
    outcome = guest.run("apply", *OPTIONS)
    assert outcome.status == 4
    assert "ipi is c, not 0 as before" in outcome.err
    assert "cvmtune rollback" in outcome.err
    assert guest.settings() == {**before, IPI: "c"}
    assert guest.run("verify").status == 1
    assert guest.run("apply", "--ipi", "1").status == 3
    assert guest.run("rollback").status == 0
    assert guest.settings() == before


@pytest.mark.parametrize("command", [["apply", "--ipi", "c"], ["rollback"]])
def test_one_at_a_time(guest: Machine, command: list[str]) -> None:
    applied(guest, "--ipi", "1")
    before = guest.snapshot()
    with guest.journal.locked():
        outcome = guest.run(*command)
        assert outcome.status == 3
        assert "another cvmtune is changing this system" in outcome.err
        assert (guest.run("verify").status, guest.run("status").status) == (0, 0)
        assert guest.run("rollback", "--dry-run").status == 0
    assert guest.snapshot() == before


def test_the_journal_is_its_owners_alone(guest: Machine) -> None:
    applied(guest, "--ipi", "c")
    folder = guest.root / "var/lib/cvmtune"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    (entry,) = folder.glob("*.journal")
    record = json.loads(entry.read_text().splitlines()[0])
    assert record["source"] == "--ipi c"
    assert record["changes"] == [{"name": "ipi", "path": IPI, "before": "0", "after": "c"}]


def test_a_host_whose_vm_is_not_pinned_can_still_be_set_by_hand(tmp_path: Path) -> None:
    machine = our_host_unpinned(tmp_path / "root")
    applied(machine, "--wfx", "4-5")
    assert machine.settings()[WFX] == "00000030"


def test_dry_run_checks_what_apply_would(guest: Machine) -> None:
    guest.run("apply", "--ipi", "2")
    entry = guest.journal.entries()[0].path
    entry.write_text(entry.read_text().replace('{"complete": true}\n', ""))
    for argv in (["--dry-run"], []):
        refused = guest.run("apply", "--ipi", "3-3", *argv)
        assert refused.status == 3
        assert "an earlier change was interrupted" in refused.err


def test_dry_run_is_for_those_too_who_may_not_read_the_journal(
    guest: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.run("apply", "--ipi", "2")

    def forbidden(*arguments: object, **options: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(journal, "_directory", forbidden)
    assert guest.run("apply", "--ipi", "3-3", "--dry-run").status == 0
    refused = guest.run("apply", "--ipi", "3-3")
    assert refused.status == 3
    assert "cannot open the journal: Permission denied" in refused.err


# VMs that cannot be seen


def lock_down(host: Machine) -> None:
    for vm in host.vms:
        for file in host.file(vm.folder).iterdir():
            host.system.break_("read", f"{vm.folder}/{file.name}", errno.EPERM)


def hide_processes(host: Machine) -> None:
    for vm in host.vms:
        host.system.break_("list", f"/proc/{vm.pid}/task", errno.EACCES)


def forbid_debugfs(host: Machine) -> None:
    host.system.break_("list", "/sys/kernel/debug", errno.EACCES)
    host.system.break_("list", "/sys/kernel/debug/kvm", errno.EACCES)


@pytest.mark.parametrize(
    ("hide", "why"),
    [
        (lock_down, "VMs cannot be read: kernel lockdown (db, web)"),
        (hide_processes, "the vCPUs of VMs cannot be read: /proc hides processes (hidepid, or not root)"),
        (forbid_debugfs, "VMs cannot be seen without debugfs"),
    ],
)
def test_a_profile_for_pinned_vcpus_is_refused_where_vms_cannot_be_seen(
    tmp_path: Path, hide: Callable[[Machine], None], why: str
) -> None:
    host = our_host(tmp_path / "root")
    hide(host)
    before = host.snapshot()
    for options in (["--dry-run"], []):
        outcome = host.run("apply", "latency-host", *options)
        assert outcome.status == 5
        assert "whether it is so cannot be told (" in outcome.err
        assert why in outcome.err
    assert host.snapshot() == before


@pytest.mark.parametrize(
    ("boot", "argv", "path"),
    [
        (our_guest, ["--ipi", "all"], f"{CPUS}/online"),
        (our_guest, ["--cq-poll", "last"], f"{CPUS}/online"),
        (our_host, ["--wfx", "all"], f"{CPUS}/possible"),
    ],
)
def test_all_of_what_cannot_be_told_is_refused(
    tmp_path: Path, boot: Callable[[Path], Machine], argv: list[str], path: str
) -> None:
    """It would be none."""
    machine = boot(tmp_path / "root")
    machine.system.break_("read", path, errno.EACCES)
    before = machine.snapshot()
    outcome = machine.run("apply", *argv)
    assert (outcome.status in (2, 3, 5), "cannot be told" in outcome.err) == (True, True), outcome
    assert machine.snapshot() == before
