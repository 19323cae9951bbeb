# SPDX-License-Identifier: Apache-2.0
"""The run-time choice of WFx traps in real kernels: by exits, which the guest cannot make up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import wait_until
from tests.vm.shared_machines import CVM, CVM_WITHOUT, VM
from tests.vm.test_stress_soft_ipi import SPLAT
from tests.vm.wfx_host import CONTROL, EXITS, GUARD, NONE, Site

pytestmark = pytest.mark.on(CVM)
# What is done differently under a monitor, and without: the traps themselves.
both = pytest.mark.on(VM, CVM)

ONLINE = "/sys/devices/system/cpu/cpu1/online"


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Site:
    return Site(machine)


@pytest.fixture
def site(ready: Site) -> Iterator[Site]:
    yield ready
    ready.reset()
    console = ready.machine.console("host").read_text(errors="replace")
    assert not [line for line in console.splitlines() if SPLAT.search(line) or "wfx" in line]


@pytest.fixture
def busy(site: Site) -> Iterator[Site]:
    """A guest whose vCPUs wake by timers."""
    with site.timers():
        yield site


# Exits


@both
def test_named_vcpus_make_no_wfx_exit_and_others_do(busy: Site) -> None:
    busy.check_trapped(0, 1)
    for mask, trapped in (("2", [0]), ("3", []), ("1", [1]), ("0", [0, 1])):
        busy.host.write_text(CONTROL, f"{mask}\n")
        for vcpu, grown in busy.check_trapped(*trapped).items():
            if vcpu in trapped:
                assert grown["entries"] >= EXITS, (mask, vcpu, grown)
                # It may just have been on its way in when it was named no more.
                assert grown["untrapped"] <= 1, (mask, vcpu, grown)
            else:
                assert grown["untrapped"] == pytest.approx(grown["entries"], abs=2), (mask, vcpu, grown)
                assert grown["untrapped"] >= EXITS, (mask, vcpu, grown)
            assert grown["guarded"] == 0
        assert [row["named"] for row in busy.statistics().values()] == [int(v not in trapped) for v in (0, 1)]


def all_trapped(site: Site, since: dict[int, dict[str, int]]) -> bool:
    now = site.statistics()
    return all(now[vcpu]["wfi_exits"] > since[vcpu]["wfi_exits"] for vcpu in (0, 1))


@both
def test_sleeping_vcpus_go_to_their_guest_at_once(site: Site) -> None:
    # A vCPU of an idle guest sleeps for long: what it does now is because of the write. A busy computer may
    # let it do so too late; hardly ever would both wake by themselves just then.
    seen = 0
    for _ in range(20):
        if seen == 2:
            break
        before = site.statistics()
        site.host.write_text(CONTROL, "3\n")
        after = site.statistics()
        seen += all(after[vcpu]["untrapped"] > before[vcpu]["untrapped"] for vcpu in (0, 1))
        site.host.write_text(CONTROL, "0\n")
        # The other way it leaves its guest, and sleeps when that waits next.
        wait_until(partial(all_trapped, site, after), "both vCPUs to be trapped again")
    assert seen == 2


def test_writes_that_change_nothing_disturb_nobody(site: Site) -> None:
    site.host.write_text(CONTROL, "4\n")
    before = site.statistics()
    script = f"for n in $(seq 100); do echo 8 >{CONTROL}; echo 4 >{CONTROL}; done"
    site.host.run(["sh", "-c", script]).check()
    after = site.statistics()
    # Each would be an exit more. The guest's own timers may come in between.
    assert all(after[vcpu]["entries"] - before[vcpu]["entries"] < 100 for vcpu in (0, 1))


# Of one VM


@both
def test_mask_of_the_vm_goes_before_the_systems(busy: Site) -> None:
    for path, text, trapped in (
        (busy.own, "3", []),
        (busy.own, "system", [0, 1]),
        (CONTROL, "3", []),
        (busy.own, "2", [0]),
        (busy.own, "0", [0, 1]),
        # The system's has no say.
        (CONTROL, "1", [0, 1]),
        (busy.own, "system", [1]),
    ):
        busy.host.write_text(path, f"{text}\n")
        busy.check_trapped(*trapped)


# Values


MASKS = {
    "0": NONE,
    "3\n": "00000003\n",
    "1,00000000": "00000001,00000000\n",
    "80000000" + ",00000000" * 15: "80000000" + ",00000000" * 15 + "\n",
    "00000000,00000001": "00000001\n",
    "FF": "000000ff\n",
}


def test_masks_read_as_written(site: Site) -> None:
    for path in (CONTROL, site.own):
        for text, shown in MASKS.items():
            site.host.write_text(path, text)
            assert site.host.read_text(path) == shown


BAD = [
    *("\n", ",", "1,", ",1", "1,,1", "g", "0x1", "-1", "1\n1", "1 2", " 1", "1 "),
    *("123456789", "1\0", "1\n\0", "3\0\n"),
    *("1" + ",00000000" * 16, "1" * 5000, "systems", "system\0"),
]


def test_bad_masks_change_nothing(site: Site) -> None:
    for path in (CONTROL, site.own):
        site.host.write_text(path, "2\n")
        for text in BAD:
            with pytest.raises(OSError, match=r"Invalid argument|too large for defined data type"):
                site.host.write_text(path, text)
            assert site.host.read_text(path) == "00000002\n", text[:20]


def test_no_mask_of_its_own_reads_as_such(site: Site) -> None:
    assert site.host.read_text(site.own) == "system\n"
    with pytest.raises(OSError, match="Invalid argument"):
        site.host.write_text(CONTROL, "system\n")


def test_guard_is_a_boolean(site: Site) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        site.host.write_text(GUARD, "maybe\n")
    assert site.host.read_text(GUARD) == "N\n"


# Shared physical CPUs


def neighbour_share(site: Site, cpu: int) -> float:
    """The share that a busy task of the host has of a physical CPU, until it has had it for half a second."""
    script = (
        f"import os,time; os.sched_setaffinity(0, {{{cpu}}}); s, u = time.monotonic(), time.process_time()\n"
        "while time.process_time() < u + 0.5: pass\n"
        "print((time.process_time() - u) / (time.monotonic() - s))"
    )
    return float(site.host.run(["python3", "-I", "-S", "-c", script], timeout=120).check().stdout)


@both
def test_guard_traps_while_others_want_the_cpu(site: Site) -> None:
    site.host.write_text(CONTROL, "2\n")
    without = neighbour_share(site, 1)
    assert site.statistics()[1]["guarded"] == 0
    site.host.write_text(GUARD, "Y\n")
    guarded = neighbour_share(site, 1)
    # To the scheduler an untrapped vCPU wants the CPU as much as the other task does: half of it.
    assert without < 0.7
    assert guarded > 0.8
    assert site.statistics()[1]["guarded"] > 0

    def waits_in_its_guest() -> bool:
        grown = site.watch()[1]
        return grown["untrapped"] > EXITS + grown["wfi_exits"]

    # Alone again it does; now and then something else of the host runs there, and it is trapped.
    with site.timers():
        wait_until(waits_in_its_guest, "vCPU 1 to wait in its guest")


@both
def test_vcpu_threads_may_move(busy: Site) -> None:
    busy.host.write_text(CONTROL, "3\n")
    before = busy.statistics()
    for _ in range(3):
        for cpus in (("1", "0"), ("0,1", "0,1"), ("0", "0"), ("0", "1")):
            busy.pin(*cpus)
            busy.check_trapped()
    after = busy.statistics()
    for vcpu in (0, 1):
        assert after[vcpu]["wfi_exits"] == before[vcpu]["wfi_exits"]
        assert after[vcpu]["untrapped"] > before[vcpu]["untrapped"]


def test_vcpus_may_go_and_come(site: Site) -> None:
    for mask in ("3", "0", "2", "1"):
        site.host.write_text(CONTROL, f"{mask}\n")
        site.guest.write_text(ONLINE, "0\n")
        # While it is off nobody can name it out of that.
        before = site.statistics()[1]["entries"]
        site.host.write_text(CONTROL, "3\n")
        site.guest.run(["sleep", "0.1"]).check()
        assert site.statistics()[1]["entries"] == before
        site.host.write_text(CONTROL, f"{mask}\n")
        site.guest.write_text(ONLINE, "1\n")
        site.guest.run(["taskset", "-c", "1", "true"]).check()
    site.host.write_text(CONTROL, "3\n")
    with site.timers():
        site.check_trapped()


# The policy of a host that traps holds for who is not named in every test above; `vm` is told it at boot.
@pytest.mark.on(CVM_WITHOUT)
def test_a_host_that_does_not_trap_traps_nobody(busy: Site) -> None:
    for mask in ("0", "2", "0"):
        busy.host.write_text(CONTROL, f"{mask}\n")
        busy.check_trapped()
