# SPDX-License-Identifier: Apache-2.0
"""The run-time choice of WFx traps in real kernels: by exits, which the guest cannot make up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import BootOptions
from tests.vm.cq_poll_guest import wait_until
from tests.vm.wfx_host import CONTROL, GUARD, NONE, Site

# In that time of timers there are 600 wake-ups; slow computers have far fewer.
MANY = 20
WATCH_S = 0.6


@pytest.fixture(scope="module", params=["vm", "cvm"])
def booted(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site]:
    with lab.boot(request.param) as machine:
        yield Site(machine)


@pytest.fixture
def site(booted: Site) -> Iterator[Site]:
    booted.reset()
    yield booted
    booted.reset()
    log = booted.host.run(["dmesg"]).check().stdout
    assert not [line for line in log.splitlines() if "WARNING" in line or "BUG" in line or "wfx" in line]


@pytest.fixture
def busy(site: Site) -> Iterator[Site]:
    """A guest whose vCPUs wake by timers."""
    with site.timers():
        yield site


# Exits


def test_named_vcpus_make_no_wfx_exit_and_others_do(busy: Site) -> None:
    assert min(busy.grown(WATCH_S, "wfi_exits")) > MANY
    for mask, named in (("2", [1]), ("3", [0, 1]), ("1", [0]), ("0", [])):
        busy.host.write_text(CONTROL, f"{mask}\n")
        exits = busy.grown(WATCH_S, "wfi_exits")
        for vcpu, grown in enumerate(exits):
            assert grown == 0 if vcpu in named else grown > MANY, (mask, exits)
        assert [row["named"] for row in busy.statistics().values()] == [int(v in named) for v in (0, 1)]


def test_entries_are_counted(busy: Site) -> None:
    busy.host.write_text(CONTROL, "2\n")
    before = busy.statistics()
    time.sleep(WATCH_S)
    after = busy.statistics()
    grown = {
        vcpu: {name: value - before[vcpu][name] for name, value in row.items()} for vcpu, row in after.items()
    }
    assert grown[0]["untrapped"] == 0
    assert grown[0]["entries"] > MANY
    assert grown[1]["untrapped"] == pytest.approx(grown[1]["entries"], abs=2)
    assert grown[1]["untrapped"] > MANY
    assert grown[0]["guarded"] == grown[1]["guarded"] == 0


def all_trapped(site: Site, since: dict[int, dict[str, int]]) -> bool:
    now = site.statistics()
    return all(now[vcpu]["wfi_exits"] > since[vcpu]["wfi_exits"] for vcpu in (0, 1))


def test_sleeping_vcpus_go_to_their_guest_at_once(site: Site) -> None:
    # A vCPU of an idle guest sleeps for long: what it does now is because of the write. A busy computer may
    # let it do so too late, now and then.
    seen = 0
    for _ in range(5):
        before = site.statistics()
        site.host.write_text(CONTROL, "3\n")
        after = site.statistics()
        seen += all(after[vcpu]["untrapped"] > before[vcpu]["untrapped"] for vcpu in (0, 1))
        site.host.write_text(CONTROL, "0\n")
        # The other way it leaves its guest, and sleeps when that waits next.
        wait_until(partial(all_trapped, site, after), "both vCPUs to be trapped again")
    assert seen >= 2


def test_writes_that_change_nothing_disturb_nobody(site: Site) -> None:
    site.host.write_text(CONTROL, "4\n")
    before = site.statistics()
    script = f"for n in $(seq 100); do echo 8 >{CONTROL}; echo 4 >{CONTROL}; done"
    site.host.run(["sh", "-c", script]).check()
    after = site.statistics()
    # Each would be an exit more. The guest's own timers may come in between.
    assert all(after[vcpu]["entries"] - before[vcpu]["entries"] < 100 for vcpu in (0, 1))


# Of one VM


def test_mask_of_the_vm_goes_before_the_systems(busy: Site) -> None:
    busy.host.write_text(CONTROL, "3\n")
    assert busy.grown(WATCH_S, "wfi_exits") == [0, 0]
    busy.host.write_text(busy.own, "2\n")
    exits = busy.grown(WATCH_S, "wfi_exits")
    assert exits[0] > MANY
    assert exits[1] == 0
    busy.host.write_text(busy.own, "0\n")
    assert min(busy.grown(WATCH_S, "wfi_exits")) > MANY
    # The system's has no say.
    busy.host.write_text(CONTROL, "1\n")
    assert min(busy.grown(WATCH_S, "wfi_exits")) > MANY
    busy.host.write_text(busy.own, "system\n")
    exits = busy.grown(WATCH_S, "wfi_exits")
    assert exits[0] == 0
    assert exits[1] > MANY


def test_own_mask_while_the_system_names_nobody(busy: Site) -> None:
    busy.host.write_text(busy.own, "3\n")
    assert busy.grown(WATCH_S, "wfi_exits") == [0, 0]
    busy.host.write_text(busy.own, "system\n")
    assert min(busy.grown(WATCH_S, "wfi_exits")) > MANY


# Values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", NONE),
        ("3\n", "00000003\n"),
        ("1,00000000", "00000001,00000000\n"),
        ("80000000" + ",00000000" * 15, "80000000" + ",00000000" * 15 + "\n"),
        ("00000000,00000001", "00000001\n"),
        ("FF", "000000ff\n"),
    ],
)
def test_masks_read_as_written(site: Site, text: str, shown: str) -> None:
    for path in (CONTROL, site.own):
        site.host.write_text(path, text)
        assert site.host.read_text(path) == shown


BAD = [
    *(
        "\n",
        ",",
        "1,",
        ",1",
        "1,,1",
        "g",
        "0x1",
        "-1",
        "1\n1",
        "1 2",
        " 1",
        "1 ",
        "123456789",
        "1\0",
        "1\n\0",
        "3\0\n",
    ),
    *("1" + ",00000000" * 16, "1" * 5000, "systems", "system\0"),
]


@pytest.mark.parametrize("text", BAD)
def test_bad_masks_change_nothing(site: Site, text: str) -> None:
    for path in (CONTROL, site.own):
        site.host.write_text(path, "2\n")
        with pytest.raises(OSError, match=r"Invalid argument|too large for defined data type"):
            site.host.write_text(path, text)
        assert site.host.read_text(path) == "00000002\n"


def test_no_mask_of_its_own_reads_as_such(site: Site) -> None:
    assert site.host.read_text(site.own) == "system\n"
    with pytest.raises(OSError, match="Invalid argument"):
        site.host.write_text(CONTROL, "system\n")


# Shared physical CPUs


def neighbour_share(site: Site, cpu: int) -> float:
    """What a busy task of the host gets of a physical CPU."""
    script = (
        f"import os,time; os.sched_setaffinity(0, {{{cpu}}}); s, u = time.monotonic(), time.process_time()\n"
        "while time.monotonic() < s + 1.5: pass\n"
        "print((time.process_time() - u) / (time.monotonic() - s))"
    )
    return float(site.host.run(["python3", "-I", "-S", "-c", script], timeout=60).check().stdout)


def test_guard_traps_while_others_want_the_cpu(site: Site) -> None:
    site.host.write_text(CONTROL, "2\n")
    without = neighbour_share(site, 1)
    assert site.statistics()[1]["guarded"] == 0
    site.host.write_text(GUARD, "Y\n")
    guarded = neighbour_share(site, 1)
    # To the scheduler an untrapped vCPU wants the CPU as much as the other task does.
    assert without < 0.75
    assert guarded > 0.9
    assert site.statistics()[1]["guarded"] > 0
    # Alone again it waits in its guest.
    time.sleep(0.5)
    with site.timers():
        before = site.statistics()[1]
        time.sleep(WATCH_S)
        after = site.statistics()[1]
        # Now and then something else of the host runs there, and it is trapped.
        assert after["untrapped"] - before["untrapped"] > MANY + after["wfi_exits"] - before["wfi_exits"]


def test_guard_is_a_boolean(site: Site) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        site.host.write_text(GUARD, "maybe\n")
    assert site.host.read_text(GUARD) == "N\n"


def test_vcpu_threads_may_move(busy: Site) -> None:
    busy.host.write_text(CONTROL, "3\n")
    before = busy.statistics()
    for _ in range(10):
        busy.pin("1", "0")
        busy.pin("0,1", "0,1")
        busy.pin("0", "0")
        busy.pin("0", "1")
    after = busy.statistics()
    for vcpu in (0, 1):
        assert after[vcpu]["wfi_exits"] == before[vcpu]["wfi_exits"]
        assert after[vcpu]["untrapped"] > before[vcpu]["untrapped"]


def test_vcpus_may_go_and_come(site: Site) -> None:
    online = "/sys/devices/system/cpu/cpu1/online"
    for mask in ("3", "0", "2", "1"):
        site.host.write_text(CONTROL, f"{mask}\n")
        site.guest.write_text(online, "0\n")
        # While it is off nobody can name it out of that.
        site.host.write_text(CONTROL, "3\n")
        assert site.grown(0.2, "entries")[1] == 0
        site.host.write_text(CONTROL, f"{mask}\n")
        site.guest.write_text(online, "1\n")
        site.guest.run(["taskset", "-c", "1", "true"]).check()
    site.host.write_text(CONTROL, "3\n")
    with site.timers():
        assert site.grown(WATCH_S, "wfi_exits") == [0, 0]


# Boot policies


@pytest.mark.parametrize("machine", ["cvm"])
@pytest.mark.parametrize(("policy", "trapped"), [("trap", True), ("notrap", False)])
def test_boot_policy_holds_for_who_is_not_named(lab: Lab, machine: str, policy: str, trapped: bool) -> None:
    options = BootOptions(host_append=(f"kvm-arm.wfi_trap_policy={policy}",))
    with lab.boot(machine, options=options) as running:
        site = Site(running)
        site.pin("0", "1")
        with site.timers():
            for mask in ("0", "2", "0"):
                site.host.write_text(CONTROL, f"{mask}\n")
                exits = site.grown(WATCH_S, "wfi_exits")
                assert (exits[0] > MANY) == trapped, (mask, exits)
                assert (exits[1] > MANY) == (trapped and mask == "0"), (mask, exits)
                assert trapped or exits == [0, 0]
