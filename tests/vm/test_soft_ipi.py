# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough in a real kernel: what goes which way, and that nothing holds on to a CPU."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from cvmtune.core.system import System
from cvmtune.experiments.guest import SGI_ROWS
from cvmtune.lab.errors import GuestPanicked
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import parse_interrupts
from tests.vm.soft_ipi_guest import BOUND, CONTROL, interrupts, statistics, storm, ticks


@pytest.fixture
def guest(plain: Machine) -> Iterator[System]:
    plain.guest.run(["insmod", f"{GUEST_TOOLS}/cvmtune_ipi.ko"]).check()
    plain.guest.write_text(CONTROL, "3")
    yield plain.guest
    plain.guest.write_text(CONTROL, "0")
    plain.guest.write_text(BOUND, "0")
    plain.guest.run(["rmmod", "cvmtune_ipi"]).check()


def measure(system: System, kind: str, n: int) -> None:
    command = f"echo kind={kind} src=0 dst=1 n={n} gap_us=300 >/sys/kernel/debug/cvmtune_ipi/run"
    system.run(["sh", "-c", command]).check()


def test_the_kselftest_passes(plain: Machine) -> None:
    done = plain.guest.run([f"{GUEST_TOOLS}/soft_ipi_passthrough"])
    assert done.status == 0, done.stdout
    assert "# Totals: pass:14 fail:0" in done.stdout


@pytest.mark.parametrize("kind", ["notify", "sync", "many", "irq_work", "wake"])
def test_ipis_to_a_polling_cpu_need_no_sgi(guest: System, kind: str) -> None:
    n = 500
    sgis, soft = interrupts(guest, *SGI_ROWS, cpu=1), interrupts(guest, "SIPI", cpu=1)
    measure(guest, kind, n)
    # Some arrive while the target runs its own affairs; on a busy computer a few per cent.
    assert interrupts(guest, *SGI_ROWS, cpu=1) - sgis <= n // 10
    assert interrupts(guest, "SIPI", cpu=1) - soft >= n * 9 // 10


def test_a_call_to_a_polling_cpu_completes_with_no_sgi_at_all(guest: System) -> None:
    """Strays come from a target that happens to run; if the feature itself sent SGIs, no batch were free of
    them."""
    n = 20
    # In one process that stays with the sender: each that starts or ends may wake the target's CPU.
    script = (
        "for _ in range(41):\n"
        "    print(open('/proc/interrupts').read(), end='')\n"
        "    with open('/sys/kernel/debug/cvmtune_ipi/run', 'w') as run:\n"
        f"        run.write('kind=sync src=0 dst=1 n={n} gap_us=300')\n"
    )
    argv = ["taskset", "-c", "0", "python3", "-I", "-S", "-c", script]
    output = guest.run(argv, timeout=120).check().stdout
    tables = [parse_interrupts(part) for part in re.split(r"^(?= +CPU0)", output, flags=re.M)[1:]]
    assert len(tables) == 41
    taken = [(sum(rows[row][1] for row in SGI_ROWS), rows["SIPI"][1]) for rows in tables]
    batches = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(taken)]
    assert any(sgis == 0 and soft >= n for sgis, soft in batches), batches


def test_ipis_to_a_cpu_that_is_not_named_are_sgis(guest: System) -> None:
    guest.write_text(CONTROL, "1")
    n = 200
    sgis, soft = interrupts(guest, *SGI_ROWS, cpu=1), interrupts(guest, "SIPI", cpu=1)
    measure(guest, "sync", n)
    assert interrupts(guest, *SGI_ROWS, cpu=1) - sgis >= n * 9 // 10
    assert interrupts(guest, "SIPI", cpu=1) == soft


def test_the_row_counts_what_the_statistics_count(guest: System) -> None:
    measure(guest, "sync", 100)
    guest.write_text(CONTROL, "0")
    types = ("reschedule", "call_function", "timer", "irq_work")
    for cpu in (0, 1):
        counted = statistics(guest, cpu)
        assert sum(counted[name] for name in types) == interrupts(guest, "SIPI", cpu=cpu)


def test_backtraces_go_by_hardware(guest: System) -> None:
    before = interrupts(guest, "IPI6", cpu=0) + interrupts(guest, "IPI6", cpu=1)
    guest.run(["sh", "-c", "echo l >/proc/sysrq-trigger"]).check()
    assert interrupts(guest, "IPI6", cpu=0) + interrupts(guest, "IPI6", cpu=1) > before


def test_a_panic_stops_polling_cpus(lab: Lab) -> None:
    with lab.boot("plain") as machine:
        machine.guest.write_text(CONTROL, "3")
        with pytest.raises(GuestPanicked) as caught:
            machine.guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    assert "failed to stop" not in caught.value.console.read_text()


def test_a_polling_cpu_stops_its_tick(guest: System) -> None:
    # A poll is counted when it ends: an IPI ends it.
    measure(guest, "sync", 1)
    before, polls = ticks(guest, 1), statistics(guest, 1)
    guest.run(["taskset", "-c", "0", "sleep", "3"]).check()
    slept = ticks(guest, 1) - before
    measure(guest, "sync", 1)
    assert statistics(guest, 1)["poll_ns"] - polls["poll_ns"] > 1e9, "CPU 1 was to poll"
    # HZ is 100: 300 if the tick went on.
    assert slept < 60


def test_clearing_the_mask_releases_at_once(guest: System) -> None:
    measure(guest, "sync", 1)
    polling = statistics(guest, 1)
    time.sleep(0.3)
    guest.write_text(CONTROL, "0")
    # What the emulator may keep a vCPU from running for, on a busy computer.
    time.sleep(0.5)
    released = statistics(guest, 1)
    # Nobody sent it anything: the poll ended because the mask was cleared, and none began since.
    assert released["poll_ns"] > polling["poll_ns"]
    time.sleep(1)
    assert statistics(guest, 1) == released


def test_the_bound_sends_an_idle_cpu_to_wfi(guest: System) -> None:
    guest.write_text(BOUND, "200")
    before = statistics(guest, 1)
    guest.run(["taskset", "-c", "0", "sleep", "2"]).check()
    after = statistics(guest, 1)
    assert after["fallbacks"] > before["fallbacks"]
    assert after["poll_ns"] - before["poll_ns"] < 1e9
    assert after["limit_ns"] <= 200_000


def test_a_bound_reaches_a_cpu_that_polls_without_one(guest: System) -> None:
    time.sleep(0.5)
    before = statistics(guest, 1)
    guest.write_text(BOUND, "100")
    time.sleep(0.5)
    assert statistics(guest, 1)["fallbacks"] > before["fallbacks"]


def test_a_bad_bound_changes_nothing(guest: System) -> None:
    guest.write_text(BOUND, "123")
    for bad in ("x", "-1", "99999999999"):
        with pytest.raises(OSError, match=r"Invalid argument|out of range"):
            guest.write_text(BOUND, bad)
    assert guest.read_text(BOUND) == "123\n"


def test_a_cpu_polls_again_after_hotplug(guest: System) -> None:
    online = "/sys/devices/system/cpu/cpu1/online"
    for _ in range(5):
        guest.write_text(online, "0")
        assert guest.read_text(CONTROL).strip("0\n") == "3"
        guest.write_text(online, "1")
    before = statistics(guest, 1)
    measure(guest, "sync", 100)
    assert statistics(guest, 1)["call_function"] - before["call_function"] >= 90


def test_a_mask_may_name_a_cpu_that_is_offline(guest: System) -> None:
    online = "/sys/devices/system/cpu/cpu1/online"
    guest.write_text(CONTROL, "0")
    guest.write_text(online, "0")
    guest.write_text(CONTROL, "2")
    before = statistics(guest, 1)
    guest.write_text(online, "1")
    measure(guest, "sync", 100)
    assert statistics(guest, 1)["call_function"] - before["call_function"] >= 90


def test_polling_cpus_survive_suspend_and_do_not_poll_in_it(guest: System) -> None:
    before = statistics(guest, 1)
    guest.run(["rtcwake", "-m", "freeze", "-s", "4"], timeout=60).check()
    asleep = statistics(guest, 1)["poll_ns"] - before["poll_ns"]
    assert asleep < 3e9, "CPU 1 polled while the machine was suspended"
    measure(guest, "sync", 100)
    assert statistics(guest, 1)["call_function"] > before["call_function"]


def test_the_storm_loses_nothing(guest: System) -> None:
    guest.run(["insmod", f"{GUEST_TOOLS}/cvmtune_storm.ko"]).check()
    try:
        storm(guest, seconds=5)
    finally:
        guest.run(["rmmod", "cvmtune_storm"]).check()
    counted = [statistics(guest, cpu) for cpu in (0, 1)]
    for kind in ("reschedule", "call_function", "timer"):
        assert sum(one[kind] for one in counted) > 0, f"no {kind} went softly"
