# SPDX-License-Identifier: Apache-2.0
"""The virtual timer of confidential VMs in real kernels: exits and interrupts counted, and no timer lost."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import HaltPoll
from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import Background
from tests.vm.shared_machines import CVM, CVM_WITHOUT
from tests.vm.vtimer_host import HW, MASKED, MODES, ONLINE, UNMASKED, Site, books, command, torture
from tests.vm.wfx_host import CONTROL

pytestmark = pytest.mark.on(CVM)

HALT_POLL = "/sys/module/kvm/parameters/halt_poll_ns"
# The CPU that timers are measured on; commands run on the other one too.
CPU = 1
NUMBER = 100
ONESHOT = f"kind=oneshot cpu={CPU} n={NUMBER} interval_us=1000"
PERIODIC = f"kind=periodic cpu={CPU} n={NUMBER} interval_us=1000"
IRQOFF = f"kind=irqoff cpu={CPU} n={NUMBER} off_us=100 gap_us=1000"
KINDS = (ONESHOT, PERIODIC, IRQOFF)
# Of work, in a section with interrupts off: 100 us on this computer, less than 1 ms on a slow one.
WORK = 100_000
TICKS = 100


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Iterator[Site]:
    with Site(machine).with_timers() as site:
        yield site


@pytest.fixture
def site(ready: Site) -> Iterator[Site]:
    yield ready
    ready.reset()
    assert_no_complaints(ready)


def assert_no_complaints(site: Site) -> None:
    assert [line for system in ("host", "guest") for line in site.complaints(system)] == []


# One exit for each expiry


def test_it_is_on_at_first(site: Site) -> None:
    assert site.is_confidential
    assert site.mode() == MASKED


def test_masked_no_exit_is_redundant(site: Site) -> None:
    for line in KINDS:
        grown = site.timers_counted(line)
        assert grown.total("redundant_exits") == 0
        # The host never takes the physical interrupt.
        assert grown.host == 0
        # It could have come again: so often was the guest entered while its timer was expired and the host
        # knew.
        assert grown.vcpus[CPU]["masked_entries"] > NUMBER / 4
        assert grown.guest[CPU] >= NUMBER
        for vcpu, row in grown.vcpus.items():
            # Of an expiry while the vCPU sleeps the host knows by its own clock: no exit. One each time that
            # the guest is entered would be ten a section.
            assert row["timer_exits"] <= grown.guest[vcpu] + 2, grown
        if line == IRQOFF:
            # Less only where the vCPU was out of its guest when the timer expired.
            assert grown.vcpus[CPU]["timer_exits"] > NUMBER / 2


def test_unmasked_makes_a_storm_of_which_the_guest_sees_nothing(site: Site) -> None:
    site.set_mode(UNMASKED)
    for line in (ONESHOT, PERIODIC):
        assert site.timers_counted(line).total("redundant_exits") > 0
    line = f"{IRQOFF} work={WORK}"
    grown = site.timers_counted(line)
    assert grown.vcpus[CPU]["redundant_exits"] > NUMBER
    assert grown.total("masked_entries") == 0
    assert grown.host == 0
    # The same work without.
    site.set_mode(MASKED)
    assert site.timers_counted(line).total("redundant_exits") == 0


def test_hw_is_the_hosts_timer(site: Site) -> None:
    site.set_mode(HW)
    for line in KINDS:
        grown = site.timers_counted(line)
        assert grown.total("redundant_exits") == grown.total("masked_entries") == 0
        assert grown.host > (NUMBER / 2 if line == IRQOFF else 0)


def test_a_busy_cpu_keeps_its_tick(site: Site) -> None:
    # Until the kernel has found it at work at so many ticks; says what it has found in all (proc(5), stat),
    # and how many timer interrupts there were. Its own start, which may take longer, is not in that.
    script = f"""
def ticks():
    for line in open("/proc/stat"):
        if line.startswith("cpu{CPU} "):
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return user + nice + system, irq + softirq + steal
def interrupts():
    for line in open("/proc/interrupts"):
        if line.rstrip().endswith("arch_timer"):
            return int(line.split()[1 + {CPU}])
before = after = ticks()
taken = interrupts()
while after[0] < before[0] + {TICKS}:
    after = ticks()
print(sum(after) - sum(before), interrupts() - taken)
"""
    argv = ["taskset", "-c", str(CPU), "python3", "-I", "-S", "-c", script]
    for mode in (HW, MASKED):
        site.set_mode(mode)
        said = site.guest.run(argv, timeout=300).check().stdout
        ticks, taken = map(int, said.split())
        # Each interrupt delivered twice would be twice as many.
        assert TICKS * 0.9 < taken < ticks * 1.7, (mode, said)


# Whatever else happens


def test_modes_switched_under_way_lose_nothing(site: Site) -> None:
    switches = 0
    while switches < 30:
        running = torture(site.guest, 3, 1)
        while not running.ended:
            # Without waiting for the vCPUs to follow.
            site.host.write_text(site.mode_file, MODES[switches % len(MODES)])
            switches += 1
        assert running.wait() == 0, running.output
        books(site.guest, "kind=torture")
    assert site.stats()[CPU]["masked_entries"] > 0


# In the other modes too, and for longer, in the stress tests.
def test_vcpu_threads_may_move(site: Site) -> None:
    line = f"kind=oneshot cpu={CPU} n=400 interval_us=1000"

    def move() -> None:
        moves = 0
        while moves < 12:
            running = Background(site.guest, command(line))
            while not running.ended:
                site.pin(*(("1", "0"), ("0,1", "0,1"), ("0", "0"), ("0", "1"))[moves % 4])
                moves += 1
            assert running.wait() == 0, running.output
            books(site.guest, line)

    grown = site.counted(move)
    assert grown.total("redundant_exits") == grown.host == 0
    assert grown.vcpus[CPU]["masked_entries"] > 0


def test_guests_that_wait_untrapped(site: Site) -> None:
    site.host.write_text(CONTROL, "3\n")
    for line in KINDS:
        before = site.statistics()
        grown = site.timers_counted(line)
        assert grown.total("redundant_exits") == grown.host == 0
        after = site.statistics()
        assert all(after[vcpu]["wfi_exits"] == before[vcpu]["wfi_exits"] for vcpu in (0, 1))
        # It never sleeps, so that it is the timer's own interrupt that wakes it.
        assert grown.vcpus[CPU]["timer_exits"] > NUMBER / 2


def test_halt_polling(site: Site) -> None:
    # Without, the vCPU sleeps and an hrtimer of the host wakes it; with that much it only polls.
    for poll_ns in ("0", "10000000"):
        with applied(HaltPoll(), site.host, poll_ns):
            grown = site.timers_counted(ONESHOT)
        assert grown.total("redundant_exits") == grown.host == 0, poll_ns


def test_vcpus_may_go_and_come(site: Site) -> None:
    for mode in (MASKED, HW, MASKED, UNMASKED, MASKED):
        site.guest.write_text(ONLINE, "0\n")
        # Whose timer it is changes while it is off.
        site.host.write_text(site.mode_file, mode)
        site.guest.write_text(ONLINE, "1\n")
        site.timers_run(f"kind=oneshot cpu={CPU} n=20 interval_us=1000")
    grown = site.timers_counted(IRQOFF)
    assert grown.total("redundant_exits") == grown.host == 0


# Values


def test_modes_read_as_written(site: Site) -> None:
    for mode in MODES:
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


# Machine vm never has one.
@pytest.mark.on(CVM_WITHOUT)
def test_other_vms_keep_their_timer(site: Site) -> None:
    assert not site.is_confidential
    assert not site.host.exists(site.stats_file)
    for line in (ONESHOT, IRQOFF):
        site.timers_run(line)
    running = torture(site.guest, 2, 2)
    assert running.wait() == 0, running.output
    books(site.guest, "kind=torture")
