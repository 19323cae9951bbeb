# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough in a real kernel: what goes which way, and that nothing holds on to a CPU."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.experiments.guest import SGI_ROWS, loaded_module
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.lab.errors import GuestPanicked
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import wait_until
from tests.vm.shared_machines import PLAIN
from tests.vm.soft_ipi_guest import BOUND, CONTROL, STATS, interrupts, statistics, storm

pytestmark = pytest.mark.on(PLAIN)

ONLINE = "/sys/devices/system/cpu/cpu1/online"
RUN = "/sys/kernel/debug/cvmtune_ipi/run"
BACKTRACE = "CPU backtrace interrupts"
# From one IPI to the next: time for the target to come to rest also where the computer is slow.
GAP_US = 2000


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Iterator[System]:
    with loaded_module(machine.guest, GUEST_TOOLS, "cvmtune_ipi"):
        yield machine.guest


@pytest.fixture
def guest(ready: System) -> Iterator[System]:
    """A guest whose CPUs are both named, without a bound."""
    ready.write_text(CONTROL, "3")
    yield ready
    ready.write_text(CONTROL, "0")
    ready.write_text(BOUND, "0")


def measure(system: System, kind: str, n: int) -> None:
    command = f"echo kind={kind} src=0 dst=1 n={n} gap_us={GAP_US} >{RUN}"
    system.run(["sh", "-c", command]).check()


def taken(system: System) -> tuple[int, int]:
    """IPIs that CPU 1 has taken by hardware, and softly."""
    return interrupts(system, *SGI_ROWS, cpu=1), interrupts(system, ROW, cpu=1)


def measured(system: System, kind: str, n: int) -> tuple[int, int]:
    """As taken(), of a measurement alone."""
    before = taken(system)
    measure(system, kind, n)
    return taken(system)[0] - before[0], taken(system)[1] - before[1]


def on_cpu_0(system: System, script: str) -> str:
    """Run a Python script on CPU 0, so that nothing of it is on CPU 1; return what it prints.

    It has what it needs to look at CPU 1: its row of the statistics, and of /proc/interrupts the sums of all
    interrupts and of the timer's, by CPU.
    """
    tools = f"""
        import time
        def stats():
            header, *rows = (line.split() for line in open("{STATS}"))
            return dict(zip(header, map(int, rows[1])))
        def taken(what=""):
            sums = [0, 0]
            for line in open("/proc/interrupts"):
                words = line.split()
                if what in line and words[0] != "CPU0" and len(words) > 2:
                    sums = [sums[cpu] + int(words[1 + cpu]) for cpu in (0, 1)]
            return sums
    """
    text = textwrap.dedent(tools) + textwrap.dedent(script)
    return system.run(["taskset", "-c", "0", "python3", "-I", "-S", "-c", text], timeout=300).check().stdout


def test_the_kselftest_passes(machine: Machine) -> None:
    done = machine.guest.run([f"{GUEST_TOOLS}/soft_ipi_passthrough"])
    assert done.status == 0, done.stdout
    assert "# Totals: pass:14 fail:0" in done.stdout


def test_ipis_to_a_polling_cpu_need_no_sgi(guest: System) -> None:
    n = 100
    for kind in ("notify", "sync", "many", "irq_work", "wake"):
        # Some arrive while the target runs its own affairs, of which a guest that has just booted has many.
        # Of a kind that did not go softly all would, in each batch.
        batches: list[tuple[int, int]] = []
        while len(batches) < 10 and not (batches and batches[-1][0] <= n // 4):
            batches.append(measured(guest, kind, n))
        sgis, soft = batches[-1]
        assert sgis <= n // 4, (kind, batches)
        assert soft >= n * 3 // 4, (kind, batches)


def test_a_call_to_a_polling_cpu_completes_with_no_sgi_at_all(guest: System) -> None:
    """Strays come from a target that happens to run; if the feature itself sent SGIs, no batch were free of
    them."""
    n = 20
    # In one process that stays with the sender: each that starts or ends may wake the target's CPU.
    script = f"""
        import json
        def counts():
            return sum(taken(row)[1] for row in {SGI_ROWS}), taken("{ROW}:")[1]
        batches = []
        while len(batches) < 200 and not (batches and batches[-1][0] == 0 and batches[-1][1] >= {n}):
            before = counts()
            with open("{RUN}", "w") as run:
                run.write("kind=sync src=0 dst=1 n={n} gap_us={GAP_US}")
            after = counts()
            batches.append([after[0] - before[0], after[1] - before[1]])
        print(json.dumps(batches))
    """
    batches = json.loads(on_cpu_0(guest, script))
    sgis, soft = batches[-1]
    assert sgis == 0, batches
    assert soft >= n, batches


def test_ipis_to_a_cpu_that_is_not_named_are_sgis(guest: System) -> None:
    guest.write_text(CONTROL, "1")
    n = 100
    sgis, soft = measured(guest, "sync", n)
    assert sgis >= n
    assert soft == 0


def test_the_row_counts_what_the_statistics_count(guest: System) -> None:
    measure(guest, "sync", 100)
    guest.write_text(CONTROL, "0")
    types = ("reschedule", "call_function", "timer", "irq_work")
    for cpu in (0, 1):
        counted = statistics(guest, cpu)
        assert sum(counted[name] for name in types) == interrupts(guest, ROW, cpu=cpu)


def test_backtraces_go_by_hardware(guest: System) -> None:
    before = interrupts(guest, BACKTRACE, cpu=0) + interrupts(guest, BACKTRACE, cpu=1)
    guest.run(["sh", "-c", "echo l >/proc/sysrq-trigger"]).check()
    assert interrupts(guest, BACKTRACE, cpu=0) + interrupts(guest, BACKTRACE, cpu=1) > before


# The machine's last test, of this module or another: no other one is to panic.
@pytest.mark.ends
def test_a_panic_stops_polling_cpus(machine: Machine) -> None:
    machine.guest.write_text(CONTROL, "3")
    with pytest.raises(GuestPanicked) as caught:
        machine.guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    console = caught.value.console.read_text()
    assert "sysrq" in console.lower()
    assert "failed to stop" not in console


def test_a_polling_cpu_stops_its_tick(guest: System) -> None:
    # A poll is counted when it ends: an IPI ends it.
    measure(guest, "sync", 1)
    before = statistics(guest, 1)
    # CPU 0 is busy, and so has its tick, until it has had so many.
    script = """
        before = taken("arch_timer")
        while (now := taken("arch_timer"))[0] < before[0] + 200:
            pass
        print(now[1] - before[1])
    """
    ticks = int(on_cpu_0(guest, script))
    measure(guest, "sync", 1)
    after = statistics(guest, 1)
    # 200 if the tick went on.
    assert ticks < 50
    # CPU 1 was to poll meanwhile: HZ is 100, so that is half of the time.
    assert after["poll_ns"] - before["poll_ns"] > 200 / 100 * 1e9 / 2


def test_clearing_the_mask_releases_a_cpu_by_itself(guest: System) -> None:
    # Nobody else may have released it, so nothing may have interrupted it between: tried again if so.
    script = f"""
        import json
        def poke():
            with open("{RUN}", "w") as run:
                run.write("kind=sync src=0 dst=1 n=1 gap_us={GAP_US}")
        def name(mask):
            with open("{CONTROL}", "w") as control:
                control.write(mask)
        tries = []
        while len(tries) < 100:
            name("3")
            polls = stats()["polls"]
            while stats()["polls"] == polls:
                poke()
            # Busy: were this CPU idle too, the other would look after its timers.
            end = time.monotonic() + 0.01
            while time.monotonic() < end:
                pass
            before = stats(), taken()[1]
            # Not 0: that turns the feature off, of which all CPUs are told by an IPI.
            name("1")
            end = time.monotonic() + 10
            while stats()["poll_ns"] == before[0]["poll_ns"] and time.monotonic() < end:
                pass
            after = stats(), taken()[1]
            tries.append((after[0]["poll_ns"] - before[0]["poll_ns"], after[1] - before[1]))
            if tries[-1][0] > 0 and tries[-1][1] == 0:
                break
        released = stats()["polls"]
        for _ in range(20):
            poke()
        print(json.dumps([tries, released, stats()["polls"]]))
    """
    tries, released, after = json.loads(on_cpu_0(guest, script))
    polled_ns, interrupted = tries[-1]
    assert polled_ns > 0, tries
    assert interrupted == 0, tries
    # Interrupts wake it, and it does not poll again.
    assert after == released


def test_the_bound_sends_an_idle_cpu_to_wfi(guest: System) -> None:
    # It polls without one: the bound reaches it all the same.
    measure(guest, "sync", 1)
    before = statistics(guest, 1)
    guest.write_text(BOUND, "200")
    wait_until(lambda: statistics(guest, 1)["fallbacks"] > before["fallbacks"], "CPU 1 to give up polling")
    script = """
        before, began = stats()["poll_ns"], time.monotonic_ns()
        time.sleep(1)
        print((stats()["poll_ns"] - before) / (time.monotonic_ns() - began))
    """
    # All of its idle time, that is nearly all, if the bound had no say.
    assert float(on_cpu_0(guest, script)) < 0.5
    assert statistics(guest, 1)["limit_ns"] <= 200_000


def test_a_bad_bound_changes_nothing(guest: System) -> None:
    guest.write_text(BOUND, "123")
    for bad in ("x", "-1", "99999999999"):
        with pytest.raises(OSError, match=r"Invalid argument|out of range"):
            guest.write_text(BOUND, bad)
    assert guest.read_text(BOUND) == "123\n"


def softly_called(guest: System) -> int:
    """Of 40 calls to CPU 1, those that it took softly."""
    before = statistics(guest, 1)
    measure(guest, "sync", 40)
    return statistics(guest, 1)["call_function"] - before["call_function"]


def test_a_cpu_polls_again_after_hotplug(guest: System) -> None:
    for _ in range(3):
        guest.write_text(ONLINE, "0")
        assert guest.read_text(CONTROL).strip("0\n") == "3"
        guest.write_text(ONLINE, "1")
    assert softly_called(guest) >= 20


def test_a_mask_may_name_a_cpu_that_is_offline(guest: System) -> None:
    guest.write_text(CONTROL, "0")
    guest.write_text(ONLINE, "0")
    guest.write_text(CONTROL, "2")
    guest.write_text(ONLINE, "1")
    assert softly_called(guest) >= 20


def test_polling_cpus_survive_suspend_and_do_not_poll_in_it(guest: System) -> None:
    measure(guest, "sync", 1)
    before = statistics(guest, 1)
    # Its clock goes on in this kind of suspend, which has no deeper idle state.
    slept = (
        guest.run(["taskset", "-c", "0", "rtcwake", "-m", "freeze", "-s", "4"], timeout=60).check().seconds
    )
    asleep = statistics(guest, 1)["poll_ns"] - before["poll_ns"]
    # CPU 1 has nothing to do but to poll, before the suspend and after it; some of 4 s are left for that.
    assert asleep / 1e9 < slept - 1.5, "CPU 1 polled while the machine was suspended"
    assert softly_called(guest) > 0


def test_the_storm_loses_nothing(guest: System) -> None:
    before = [statistics(guest, cpu) for cpu in (0, 1)]
    with loaded_module(guest, GUEST_TOOLS, "cvmtune_storm"):
        storm(guest, seconds=3)
    after = [statistics(guest, cpu) for cpu in (0, 1)]
    for kind in ("reschedule", "call_function", "timer"):
        grown = sum(new[kind] - old[kind] for old, new in zip(before, after, strict=True))
        assert grown > 0, f"no {kind} went softly"
