# SPDX-License-Identifier: Apache-2.0
"""The virtual timer of confidential VMs in real kernels: exits and interrupts counted, and no timer lost."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

import pytest
from cq_poll_guest import Background
from vtimer_host import HW, MASKED, MODES, ONLINE, UNMASKED, Site, books, command, torture
from wfx_host import CONTROL

from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import HaltPoll
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import BootOptions

HALT_POLL = "/sys/module/kvm/parameters/halt_poll_ns"
# The CPU that timers are measured on; commands run on the other one too.
CPU = 1
NUMBER = 100
ONESHOT = f"kind=oneshot cpu={CPU} n={NUMBER} interval_us=1000"
PERIODIC = f"kind=periodic cpu={CPU} n={NUMBER} interval_us=1000"
IRQOFF = f"kind=irqoff cpu={CPU} n={NUMBER} off_us=100 gap_us=1000"
KINDS = {"oneshot": ONESHOT, "periodic": PERIODIC, "irqoff": IRQOFF}
# Of work, in a section with interrupts off: 100 us on this computer, less than 1 ms on a slow one.
WORK = 100_000


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Iterator[Site]:
    with lab.boot("cvm") as machine:
        site = Site(machine)
        # As it comes: nobody has written to the file yet.
        assert site.is_confidential
        assert site.mode() == MASKED
        site.reset()
        yield site


@pytest.fixture
def site(booted: Site) -> Iterator[Site]:
    yield booted
    booted.reset()
    assert_no_complaints(booted)


def assert_no_complaints(site: Site) -> None:
    assert [line for system in ("host", "guest") for line in site.complaints(system)] == []


# One exit for each expiry


@pytest.mark.parametrize("kind", KINDS)
def test_masked_no_exit_is_redundant(site: Site, kind: str) -> None:
    grown = site.counted(lambda: site.timers_run(KINDS[kind]))
    assert grown.total("redundant_exits") == 0
    # The host never takes the physical interrupt.
    assert grown.host == 0
    # It could have come again: so often was the guest entered while its timer was expired and the host knew.
    assert grown.vcpus[CPU]["masked_entries"] > NUMBER / 4
    assert grown.guest[CPU] >= NUMBER
    for vcpu, row in grown.vcpus.items():
        # Of an expiry while the vCPU sleeps the host knows by its own clock: no exit.
        assert row["timer_exits"] <= grown.guest[vcpu] + 2, grown


def test_masked_a_section_costs_one_exit(site: Site) -> None:
    grown = site.counted(lambda: site.timers_run(IRQOFF))
    # Less only where the vCPU was out of its guest when the timer expired; more only by other timers, as the
    # tick. One each time that the guest is entered would be ten a section.
    assert NUMBER / 2 < grown.vcpus[CPU]["timer_exits"] < 2 * NUMBER


def test_unmasked_makes_a_storm(site: Site) -> None:
    site.set_mode(UNMASKED)
    line = f"{IRQOFF} work={WORK}"
    grown = site.counted(lambda: site.timers_run(line))
    assert grown.vcpus[CPU]["redundant_exits"] > NUMBER
    assert grown.total("masked_entries") == 0
    assert grown.host == 0
    # The same work without.
    site.set_mode(MASKED)
    assert site.counted(lambda: site.timers_run(line)).total("redundant_exits") == 0


@pytest.mark.parametrize("kind", ["oneshot", "periodic"])
def test_unmasked_the_guest_sees_each_timer_once(site: Site, kind: str) -> None:
    site.set_mode(UNMASKED)
    grown = site.counted(lambda: site.timers_run(KINDS[kind]))
    assert grown.total("redundant_exits") > 0


@pytest.mark.parametrize("kind", KINDS)
def test_hw_is_the_hosts_timer(site: Site, kind: str) -> None:
    site.set_mode(HW)
    grown = site.counted(lambda: site.timers_run(KINDS[kind]))
    assert grown.total("redundant_exits") == grown.total("masked_entries") == 0
    assert grown.host > (NUMBER / 2 if kind == "irqoff" else 0)


def ticks(site: Site) -> int:
    """Timer interrupts of a guest's CPU that is busy for a second of its own time."""
    script = "import time; s = time.monotonic()\nwhile time.monotonic() < s + 1: pass"
    argv = ["taskset", "-c", str(CPU), "python3", "-I", "-S", "-c", script]
    return site.counted(lambda: site.guest.run(argv).check()).guest[CPU]


def test_a_busy_cpu_keeps_its_tick(site: Site) -> None:
    counted = {}
    for mode in (HW, MASKED):
        site.set_mode(mode)
        counted[mode] = ticks(site)
    # CONFIG_HZ=100, and the program's start. Each interrupt delivered twice would be 200 and more; if one
    # were delivered only with the next exit of another cause, that would be a handful. A busy computer loses
    # some ticks, in either mode.
    for count in counted.values():
        assert 30 < count < 190, counted
    assert counted[HW] / 2 < counted[MASKED] < 2 * counted[HW], counted


# Whatever else happens


def test_modes_switched_under_way_lose_nothing(site: Site) -> None:
    running = torture(site.guest, 5, 1)
    switches = 0
    while not running.ended:
        # Without waiting for the vCPUs to follow.
        site.host.write_text(site.mode_file, MODES[switches % len(MODES)])
        switches += 1
        time.sleep(0.05)
    assert running.wait() == 0, running.output
    books(site.guest, "kind=torture")
    assert switches > 20
    assert site.stats()[CPU]["masked_entries"] > 0


# In the other modes too, and for longer, in the stress tests.
def test_vcpu_threads_may_move(site: Site) -> None:
    line = f"kind=oneshot cpu={CPU} n=400 interval_us=1000"

    def move() -> None:
        running = Background(site.guest, command(line))
        moves = 0
        while not running.ended:
            for cpus in (("1", "0"), ("0,1", "0,1"), ("0", "0"), ("0", "1")):
                site.pin(*cpus)
                moves += 1
        assert running.wait() == 0, running.output
        assert moves >= 8

    grown = site.counted(move)
    books(site.guest, line)
    assert grown.total("redundant_exits") == grown.host == 0
    assert grown.vcpus[CPU]["masked_entries"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_guests_that_wait_untrapped(site: Site, kind: str) -> None:
    site.host.write_text(CONTROL, "3\n")
    before = site.statistics()
    grown = site.counted(lambda: site.timers_run(KINDS[kind]))
    assert grown.total("redundant_exits") == grown.host == 0
    after = site.statistics()
    assert all(after[vcpu]["wfi_exits"] == before[vcpu]["wfi_exits"] for vcpu in (0, 1))
    # It never sleeps, so that it is the timer's own interrupt that wakes it.
    assert grown.vcpus[CPU]["timer_exits"] > NUMBER / 2


@pytest.mark.parametrize("poll_ns", ["0", "10000000"])
def test_halt_polling(site: Site, poll_ns: str) -> None:
    # Without, the vCPU sleeps and an hrtimer of the host wakes it; with that much it only polls.
    with applied(HaltPoll(), site.host, poll_ns):
        grown = site.counted(lambda: site.timers_run(ONESHOT))
    assert grown.total("redundant_exits") == grown.host == 0


def test_vcpus_may_go_and_come(site: Site) -> None:
    for mode in (MASKED, HW, MASKED, UNMASKED, MASKED):
        site.guest.write_text(ONLINE, "0\n")
        # Whose timer it is changes while it is off.
        site.host.write_text(site.mode_file, mode)
        site.guest.write_text(ONLINE, "1\n")
        site.timers_run(f"kind=oneshot cpu={CPU} n=20 interval_us=1000")
    grown = site.counted(lambda: site.timers_run(IRQOFF))
    assert grown.total("redundant_exits") == grown.host == 0


# Values


@pytest.mark.parametrize("mode", MODES)
def test_modes_read_as_written(site: Site, mode: str) -> None:
    for text in (mode, f"{mode}\n"):
        site.host.write_text(site.mode_file, text)
        assert site.mode() == mode


BAD = [
    *("", "\n", "off", "1", "Masked", "mask", "maskedx", "masked x", "masked hw", "masked,hw", " masked"),
    *("masked ", "masked\n\n", "masked\0", "masked\n\0", "\0masked", "hw\0masked", "hw\nmasked"),
    *("m" * 15, "m" * 16, "hw" + "\n" * 14, "masked" * 1000),
]


def refusal(site: Site, text: str) -> int | None:
    """The error number of such a write, or None if there is no error."""
    try:
        site.host.write_text(site.mode_file, text)
    except OSError as error:
        return error.errno
    return None


def test_bad_modes_are_refused_and_change_nothing(site: Site) -> None:
    for mode in (HW, MASKED):
        site.host.write_text(site.mode_file, mode)
        for text in BAD:
            assert refusal(site, text) == errno.EINVAL, text
            assert site.mode() == mode, text


# VMs that are not confidential


def test_other_vms_keep_their_timer(lab: Lab) -> None:
    # The later one of two options counts. Machine vm, which other tests boot, never has one.
    with lab.boot("cvm", options=BootOptions(host_append=("kvm-arm.cvm_vtimer=off",))) as booted:
        site = Site(booted)
        assert not site.is_confidential
        assert not site.host.exists(site.stats_file)
        for kind in ("oneshot", "irqoff"):
            site.timers_run(KINDS[kind])
        running = torture(site.guest, 2, 2)
        assert running.wait() == 0, running.output
        books(site.guest, "kind=torture")
        assert_no_complaints(site)
