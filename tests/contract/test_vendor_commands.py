# SPDX-License-Identifier: Apache-2.0
"""All commands on a vendor's kernel (openEuler OLK-6.6), which hangs on what others only refuse.

The fake kernel fails the test on each such thing: a mask that does not parse, a CPU that it does not have,
polling that begins, ends or moves while NFS is mounted over RDMA.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.controls import CQ_POLL, IPI, WFX
from tests.fakes.kernel import Crash, os_error
from tests.fakes.tree import CPUS, Machine, Mount, vendor_guest, vendor_host

DOWN = "Current polling thread is down"
ON_3 = "Current polling core is: 3"


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return vendor_guest(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return vendor_host(tmp_path / "root")


def refused(machine: Machine, *argv: str, status: int = 3) -> str:
    """Check that a command is refused and writes no control; return what it says."""
    before = machine.settings()
    machine.system.operations.clear()
    outcome = machine.run(*argv)
    assert (outcome.status, outcome.out) == (status, ""), outcome
    assert machine.system.written == set()
    assert machine.settings() == before
    return outcome.err


# The fake


@pytest.mark.parametrize(("path", "text"), [(IPI, "10"), (IPI, "x"), (CQ_POLL, "4"), (CQ_POLL, "x")])
def test_fake_fails_the_test_on_what_hangs(guest: Machine, path: str, text: str) -> None:
    with pytest.raises(pytest.fail.Exception):
        guest.system.write_text(path, text)


@pytest.mark.parametrize(("present", "text"), [("-1", "3"), ("3", "-1"), ("3", "2")])
def test_fake_fails_the_test_on_polling_that_changes_under_a_mount(
    guest: Machine, present: str, text: str
) -> None:
    guest.echo(present, CQ_POLL)
    guest.mount(Mount())
    with pytest.raises(pytest.fail.Exception):
        guest.system.write_text(CQ_POLL, text)
    guest.unmount()
    guest.system.write_text(CQ_POLL, text)


def test_fake_fails_the_test_on_what_is_no_control(guest: Machine) -> None:
    with pytest.raises(pytest.fail.Exception):
        guest.system.write_text("/sys/kernel/ib_core_poll_stat", "1\n")


# Masks


@pytest.mark.parametrize("mask", ["10", "0x1f", "4-4", "0-4", "1,00000000", "32-63"])
def test_masks_with_cpus_that_it_does_not_have_are_refused(guest: Machine, mask: str) -> None:
    assert "CPUs that this machine cannot have" in refused(guest, "apply", "--ipi", mask)


@pytest.mark.parametrize("mask", ["100", "8-8", "0-8", "1,00000000"])
def test_vcpus_past_its_cpus_are_refused(host: Machine, mask: str) -> None:
    assert "vCPUs that this kernel cannot take: " in refused(host, "apply", "--wfx", mask)
    assert "name only those of 0-7" in refused(host, "apply", "--wfx", mask, "--dry-run")


@pytest.mark.parametrize(("mask", "text"), [("0-1", "03"), ("3", "03"), ("all", "ff"), ("7-7", "80")])
def test_vcpus_that_it_can_have(host: Machine, mask: str, text: str) -> None:
    assert host.run("apply", "--wfx", mask).status == 0
    assert host.settings() == {WFX: text}
    assert host.run("verify").status == 0
    assert host.run("rollback").status == 0
    assert host.settings() == {WFX: "00"}


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text("0123456789abcfxX,-. \n\0", max_size=24), st.text(max_size=8)))
def test_whatever_is_asked_for_only_masks_that_parse_are_written(guest: Machine, text: str) -> None:
    outcome = guest.run("apply", f"--ipi={text}")
    assert outcome.status in (0, 2, 3), text
    guest.run("rollback")
    assert guest.settings()[IPI] == "0", text


def test_what_it_lacks_is_left_out_or_refused(guest: Machine) -> None:
    outcome = guest.run("apply", "database")
    assert "left out: ipi-poll-us, this kernel has no such control" in outcome.out
    assert guest.settings() == {IPI: "e", CQ_POLL: ON_3}
    for option, value in [("--ipi-poll-us", "100"), ("--cq-idle-us", "100")]:
        assert "this kernel has none" in refused(guest, "apply", option, value, status=5)


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_mask_that_fails_is_put_back_with_a_mask_that_parses(guest: Machine, number: int) -> None:
    guest.system.fail("write", IPI, os_error(number), when="after")
    assert guest.run("apply", "--ipi", "c").status == 3
    assert guest.settings()[IPI] == "0"


@pytest.mark.parametrize("shown", ["nonsense\n", "", "100\n"])
def test_a_mask_that_makes_no_sense_is_left_alone(guest: Machine, shown: str) -> None:
    guest.put(IPI, shown)
    outcome = guest.run("apply", "--ipi", "c")
    assert outcome.status in (3, 5)
    assert guest.system.written == set()


# Polling


@pytest.mark.parametrize(
    ("present", "wanted", "argv"),
    [
        ("-1", "on", ["--cq-poll", "3"]),
        ("-1", "on", ["--cq-poll", "last", "--ipi", "c"]),
        ("-1", "on", ["database", "--cq-poll", "last"]),
        ("-1", "on", ["nfs-client"]),
        ("3", "off", ["--cq-poll", "off"]),
        ("3", "off", ["--ipi", "c", "--cq-poll", "-1"]),
        ("3", "off", ["off", "--cq-poll", "off"]),
        ("3", "moved", ["--cq-poll", "2"]),
    ],
)
def test_polling_stays_as_it_is_while_nfs_is_mounted_over_rdma(
    guest: Machine, present: str, wanted: str, argv: list[str]
) -> None:
    guest.echo(present, CQ_POLL)
    for proto, dry_run in (("rdma", []), ("rdma6", ["--dry-run"])):
        guest.mount(Mount("/srv/data", proto=proto))
        message = refused(guest, "apply", *argv, *dry_run)
        assert "NFS is mounted over RDMA on /srv/data" in message
        assert "may hang them when it is turned off or moved" in message
        assert "unmount first, change polling, mount again" in message
        assert guest.run("rollback").out == "Nothing to roll back.\n"
        guest.unmount()
    # And then it can be done.
    assert guest.run("apply", *argv).status == 0, wanted


def test_a_mount_over_tcp_is_in_nobodys_way(guest: Machine) -> None:
    guest.mount(Mount(proto="tcp"))
    assert guest.run("apply", "--cq-poll", "3").status == 0
    assert guest.settings()[CQ_POLL] == ON_3


@pytest.mark.parametrize(("present", "wanted"), [("-1", "off"), ("3", "3"), ("3", "last")])
def test_what_is_so_already_may_be_applied_under_a_mount(guest: Machine, present: str, wanted: str) -> None:
    guest.echo(present, CQ_POLL)
    guest.mount(Mount())
    outcome = guest.run("apply", "--ipi", "c", "--cq-poll", wanted)
    assert outcome.status == 0
    assert guest.settings()[IPI] == "c"
    assert guest.run("rollback").status == 0
    assert guest.settings()[IPI] == "0"


def test_a_mount_that_comes_on_the_way_is_seen(guest: Machine) -> None:
    guest.system.at("write", IPI, lambda: guest.mount(Mount()), when="after")
    outcome = guest.run("apply", "--ipi", "c", "--cq-poll", "3")
    assert outcome.status == 3
    assert "all settings are as before" in outcome.err
    assert guest.settings() == {IPI: "0", CQ_POLL: DOWN}


def test_a_mount_keeps_rollback_from_polling_alone(guest: Machine) -> None:
    guest.run("apply", "--ipi", "c", "--cq-poll", "3")
    guest.mount(Mount("/srv/data"))
    before = guest.snapshot()
    assert guest.run("rollback", "--dry-run").status == 0
    assert guest.snapshot() == before
    for _ in range(2):
        outcome = guest.run("rollback")
        assert outcome.status == 4
        assert "cq-poll is 3, not -1 as before" in outcome.err
        assert "NFS is mounted over RDMA on /srv/data" in outcome.err
        assert guest.settings() == {IPI: "0", CQ_POLL: ON_3}
    assert guest.run("verify").status == 1
    guest.unmount()
    assert guest.run("rollback").status == 0
    assert guest.settings() == {IPI: "0", CQ_POLL: DOWN}
    assert guest.run("rollback").out == "Nothing to roll back.\n"


def test_a_mount_after_a_crash_keeps_rollback_from_polling_alone(guest: Machine) -> None:
    guest.system.fail("write", CQ_POLL, Crash(), when="after")
    with pytest.raises(Crash):
        guest.run("apply", "--ipi", "c", "--cq-poll", "3")
    guest.mount(Mount())
    assert guest.run("rollback").status == 4
    assert guest.settings() == {IPI: "0", CQ_POLL: ON_3}
    guest.unmount()
    assert guest.run("rollback").status == 0
    assert guest.settings() == {IPI: "0", CQ_POLL: DOWN}


def test_what_cannot_be_known_about_mounts_is_no_permission(guest: Machine) -> None:
    guest.system.break_("read", "/proc/mounts", errno.EIO)
    assert "cannot tell whether NFS is mounted over RDMA" in refused(guest, "apply", "--cq-poll", "3")


def test_a_cpu_that_is_offline_is_refused_though_the_kernel_would_take_it(guest: Machine) -> None:
    guest.put(f"{CPUS}/online", "0-2\n")
    assert "CPU 3 is not online" in refused(guest, "apply", "--cq-poll", "3")


@pytest.mark.parametrize("mounted", [False, True])
def test_recommends_no_polling_that_would_hang_a_mount(guest: Machine, mounted: bool) -> None:
    if mounted:
        guest.mount(Mount("/srv/data"))
        guest.go_on()
    content = guest.watch("--json").json
    assert content["settings"] == {"ipi": "c"}
    (advice,) = (one for one in content["advice"] if one["feature"] == "cq-poll")
    assert ("unmount /srv/data, turn polling on, mount again" in advice["reason"]) == mounted
    path = guest.user_file("/root/it.json", guest.watch("--json").out)
    assert guest.run("apply", str(path)).status == 0
    assert guest.settings() == {IPI: "c", CQ_POLL: DOWN}


def test_recommends_for_a_host_what_it_can_take(host: Machine) -> None:
    content = host.watch("--json").json
    assert content["settings"] == {"wfx": "3"}
    path = host.user_file("/root/it.json", host.watch("--json").out)
    assert host.run("apply", str(path)).status == 0
    assert host.settings() == {WFX: "03"}
