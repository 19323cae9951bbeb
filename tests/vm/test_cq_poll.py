# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues in a real kernel: who handles what, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.features.soft_ipi.knob import ROW as SOFT_IPI_ROW
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import IPI_ROWS, parse_interrupts
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import PROVIDERS, Mount, WriteLoad, unmount, verify, write
from tests.vm.cq_poll_guest import (
    CLIENT,
    CONTROL,
    DEFAULTS,
    IDLE_US,
    OFF,
    OWNERS,
    PATH,
    Background,
    beside,
    books,
    complaints,
    completions,
    cqs,
    io,
    load,
    load_line,
    poller,
    progress,
    put_load,
    reset,
    run_ns,
    site,
    totals,
    unload,
    use_device,
    use_mount,
    wait_polled,
    wait_until,
)
from tests.vm.shared_machines import PLAIN

pytestmark = pytest.mark.on(PLAIN)

ONLINE = "/sys/devices/system/cpu/cpu1/online"
both = pytest.mark.parametrize("device", PROVIDERS, indirect=True)


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Iterator[System]:
    with site(machine.guest):
        yield machine.guest


@pytest.fixture
def guest(ready: System) -> Iterator[System]:
    """A guest in which polling is off before and after, and whose kernel does not complain."""
    reset(ready)
    complaints(ready)
    yield ready
    reset(ready)
    assert complaints(ready) == []


@pytest.fixture
def device(guest: System, request: pytest.FixtureRequest) -> str:
    """The one RDMA device's provider: rxe if the test does not say. Kept for the next test."""
    provider: str = getattr(request, "param", PROVIDERS[0])
    use_device(guest, provider)
    return provider


@pytest.fixture
def mount(guest: System, device: str) -> Mount:
    """A mount over it, kept for the next test."""
    return use_mount(guest, device)


def refused(guest: System, path: str, text: str) -> int | None:
    """Try to write; return the errno."""
    try:
        guest.write_text(path, text)
    except OSError as error:
        return error.errno
    return None


# The control file and the parameters


def test_it_is_off_at_first(guest: System) -> None:
    unload(guest)
    assert not guest.exists(CONTROL)
    load(guest)
    assert guest.read_text(CONTROL) == f"{OFF}\n"
    assert {path: guest.read_text(path).strip() for path in DEFAULTS} == DEFAULTS
    assert poller(guest) is None


def test_a_cpu_is_given_by_its_number(guest: System) -> None:
    for text in ("0", "1\n", "-1\n", "1", "-1", "-1"):
        guest.write_text(CONTROL, text)
        assert guest.read_text(CONTROL) == f"{text.strip()}\n"
        thread = poller(guest)
        assert (thread and thread[0]) == (None if text.strip() == OFF else f"ib_cq_poll/{text.strip()}")
        if thread:
            affinity = guest.run(["taskset", "-c", "-p", str(thread[1])]).check().stdout
            assert affinity.endswith(f": {text.strip()}\n")
            # The CPU that polls already may be named again.
            guest.write_text(CONTROL, text)
            assert poller(guest) == thread


def test_a_bad_number_changes_nothing(guest: System) -> None:
    bad = ["\n", "x", "1x", "x1", "-", "-2", "0x1", "1 0", "0,1", "0-1", "1.0", "\t", "true"]
    # The guest has CPUs 0 and 1, and the kernel room for 16.
    bad += ["2", "15", "16", "4096", "2147483647", "2147483648", "-2147483649", "4294967295", "4294967296"]
    bad += ["18446744073709551615", "18446744073709551617", "9" * 100, "1" * 4000]
    for state in (OFF, "1"):
        guest.write_text(CONTROL, state)
        thread = poller(guest)
        for text in bad:
            assert refused(guest, CONTROL, text) in (errno.EINVAL, errno.ERANGE), text
            assert guest.read_text(CONTROL) == f"{state}\n", text
        assert poller(guest) == thread


def test_a_cpu_that_is_offline_is_refused(guest: System) -> None:
    guest.write_text(ONLINE, "0")
    try:
        assert refused(guest, CONTROL, "1") == errno.ENODEV
        assert guest.read_text(CONTROL) == f"{OFF}\n"
        guest.write_text(CONTROL, "0")
        thread = poller(guest)
        assert refused(guest, CONTROL, "1") == errno.ENODEV
        assert guest.read_text(CONTROL) == "0\n"
        assert poller(guest) == thread
    finally:
        guest.write_text(ONLINE, "1")


def test_a_bad_parameter_changes_nothing(guest: System) -> None:
    guest.write_text(CONTROL, "1")
    thread = poller(guest)
    bad = {
        IDLE_US: ("\n", "x", "-1", "1x", "4294967296", "1 2"),
        OWNERS: ("\n", ",", "a,", ",a", "a,,b", "a b", "a\tb", "a" * 128, "a," * 2000 + "a"),
    }
    for path, texts in bad.items():
        before = guest.read_text(path)
        for text in texts:
            assert refused(guest, path, text), text[:20]
            assert guest.read_text(path) == before, text[:20]
    assert poller(guest) == thread


def test_parameters_read_back(guest: System) -> None:
    for path, texts in {
        IDLE_US: ("0", "1", "4294967295"),
        OWNERS: ("all", "a", "rpcrdma,ib_core", "a" * 126),
    }.items():
        for text in texts:
            guest.write_text(path, f"{text}\n")
            assert guest.read_text(path) == f"{text}\n"


# Which CQs are polled


@both
def test_queues_that_exist_are_taken_over(mount: Mount) -> None:
    guest = mount.guest
    wait_polled(guest, polled=False)
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    before = completions(guest)
    write(mount, WriteLoad(writes=50))
    # A write's RPC is a send and a receive at least, at each end.
    assert completions(guest) - before >= 100
    assert {cq.owner for cq in cqs(guest) if cq.polled} == {CLIENT}


def test_queues_made_later_are_too_and_freed_ones_forgotten(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    for _ in range(2):
        unmount(guest, PATH)
        wait_polled(guest, number=0)
        nfs_rdma.mount(guest, PATH)
        wait_polled(guest)
        before = completions(guest)
        assert verify(mount, mb=1) == 256
        # Of a write and of a read, a send and a receive at least, at each end; some may share a reply.
        assert completions(guest) - before > 500


def test_whose_queues_are_polled_can_be_chosen(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(CONTROL, "1")
    with io(mount):
        for owners in ("all", "nonesuch", "ib_core", "rpcrdm,pcrdma,rpcrdma2", "nonesuch,rpcrdma", "rpcrdma"):
            thread = poller(guest)
            guest.write_text(OWNERS, f"{owners}\n")
            assert poller(guest) != thread or not thread
            for owner in {cq.owner for cq in cqs(guest)}:
                polled = owners == "all" or owner in owners.split(",")
                number = len(cqs(guest, owner))
                wait_polled(guest, owner, number=number, polled=polled)
            progress(mount)
    # rxe has one of its own, for connections: the test was about more than one owner.
    assert {cq.owner for cq in cqs(guest)} == {CLIENT, "ib_core"}


def test_other_modules_queues_are_polled_if_named(guest: System, device: str) -> None:
    n = 100
    for kind, owner in (("own", "cvmtune_cq"), ("pool", "ib_core")):
        line = f"kind=pingpong n={n} cq={kind}"
        guest.write_text(OWNERS, f"{CLIENT}\n")
        guest.write_text(CONTROL, "1")
        assert put_load(guest, device, line)["handled_by_poller"] == 0
        guest.write_text(OWNERS, f"{owner}\n")
        result = put_load(guest, device, line)
        assert result["handled_by_poller"] + result["handled_by_worker"] == 2 * n
        if kind == "pool":
            # They are those of the first load, hence polled before the second.
            assert result["handled_by_worker"] == 0
        # The worker may be first at a queue just made, until the poller has come by.
        assert result["handled_by_worker"] <= n // 10


# Changes while work is on its way


def test_turning_it_off_hands_all_back(mount: Mount) -> None:
    guest = mount.guest
    with io(mount):
        for _ in range(2):
            guest.write_text(CONTROL, "1")
            wait_polled(guest)
            progress(mount)
            before = totals(guest)
            guest.write_text(CONTROL, OFF)
            assert poller(guest) is None
            wait_polled(guest, polled=False)
            after = totals(guest)
            assert after["given_back"] - before["given_back"] == 4
            polls = [cq.polls for cq in cqs(guest)]
            progress(mount)
            assert [cq.polls for cq in cqs(guest)] == polls
            assert totals(guest) == after


def test_it_moves_from_cpu_to_cpu(mount: Mount) -> None:
    guest = mount.guest
    with io(mount):
        for cpu in ("0", "1", "0"):
            guest.write_text(CONTROL, cpu)
            assert guest.read_text(CONTROL) == f"{cpu}\n"
            thread = poller(guest)
            assert thread
            assert thread[0] == f"ib_cq_poll/{cpu}"
            wait_polled(guest)
            before = completions(guest)
            progress(mount)
            assert completions(guest) > before


def test_it_ends_when_its_cpu_goes_offline(mount: Mount) -> None:
    guest = mount.guest
    with io(mount):
        guest.write_text(CONTROL, "1")
        wait_polled(guest)
        try:
            guest.write_text(ONLINE, "0")
            assert guest.read_text(CONTROL) == f"{OFF}\n"
            assert poller(guest) is None
            wait_polled(guest, polled=False)
            progress(mount)
        finally:
            guest.write_text(ONLINE, "1")
        assert guest.read_text(CONTROL) == f"{OFF}\n"
        # Another CPU's end is none of its business.
        guest.write_text(CONTROL, "0")
        thread = poller(guest)
        try:
            guest.write_text(ONLINE, "0")
            assert poller(guest) == thread
            progress(mount)
        finally:
            guest.write_text(ONLINE, "1")


def test_the_module_can_be_removed_while_it_polls(mount: Mount) -> None:
    guest = mount.guest
    with io(mount):
        for _ in range(2):
            guest.write_text(CONTROL, "1")
            wait_polled(guest)
            progress(mount)
            unload(guest)
            assert not guest.exists(CONTROL)
            assert poller(guest) is None
            progress(mount)
            load(guest)


def test_it_polls_again_after_suspend(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(IDLE_US, "0")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    before = totals(guest)
    guest.run(["rtcwake", "-m", "freeze", "-s", "4"], timeout=120).check()
    assert guest.read_text(CONTROL) == "1\n"
    wait_polled(guest)
    after = totals(guest)
    # Who still does I/O while the thread is frozen has interrupts.
    assert after["given_back"] - before["given_back"] == after["taken"] - before["taken"] == 4
    polled = completions(guest)
    assert verify(mount, mb=1) == 256
    assert completions(guest) - polled >= 512


# What it costs


def visits(guest: System) -> int:
    return sum(cq.polls for cq in cqs(guest))


def test_with_a_window_an_idle_mount_costs_nothing(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    verify(mount, mb=1)
    thread = poller(guest)
    assert thread

    def stands_still() -> bool:
        before = visits(guest), totals(guest)["awake_ns"], run_ns(guest, thread[1])
        time.sleep(0.5)
        return before == (visits(guest), totals(guest)["awake_ns"], run_ns(guest, thread[1]))

    # Now and then the client tells the server that it lives. Were the thread awake, each count would grow.
    wait_until(stands_still, "the poller to do nothing")


def test_without_a_window_it_polls_all_the_time(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    guest.write_text(IDLE_US, "0")
    before, sleeps = visits(guest), totals(guest)["sleeps"]
    # With a window an idle mount has some hundreds of visits at most.
    wait_until(lambda: visits(guest) > before + 20_000, "20000 visits to idle queues")
    # Others want the CPU at times, for whom it sleeps.
    assert totals(guest)["sleeps"] - sleeps < 2_000


def test_a_sleeping_poller_is_woken_by_completions(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(IDLE_US, "1")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    before, polled = totals(guest), completions(guest)
    write(mount, WriteLoad(writes=60))
    after = totals(guest)
    assert after["sleeps"] - before["sleeps"] >= 30
    assert after["wakeups"] - before["wakeups"] >= 30
    assert after["given_back"] == before["given_back"]
    assert completions(guest) - polled >= 120


def test_a_window_reaches_a_poller_that_has_none(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(IDLE_US, "0")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    before = totals(guest)["sleeps"]
    guest.write_text(IDLE_US, "1000")
    wait_until(lambda: totals(guest)["sleeps"] > before, "the poller to sleep")


def test_soft_ipis_reach_its_cpu_while_it_polls(mount: Mount) -> None:
    guest, ipis = mount.guest, 300

    def taken() -> tuple[int, int]:
        rows = parse_interrupts(guest.read_text("/proc/interrupts"))
        return sum(rows[row][1] for row in IPI_ROWS), rows[SOFT_IPI_ROW][1]

    guest.write_text(IDLE_US, "0")
    with loaded_module(guest, GUEST_TOOLS, "cvmtune_ipi"):
        for named in ("0", "2"):
            # Before the poller runs: docs/lab.md, "What the emulator gets wrong".
            with applied(SoftIpi(), guest, named):
                guest.write_text(CONTROL, "1")
                wait_polled(guest)
                before = taken()
                run = f"kind=notify src=0 dst=1 n={ipis} gap_us=300"
                guest.write_text("/sys/kernel/debug/cvmtune_ipi/run", run)
                hardware, softly = (new - old for new, old in zip(taken(), before, strict=True))
                guest.write_text(CONTROL, OFF)
            assert hardware + softly >= ipis
            if named == "0":
                assert softly == 0
            else:
                # While it visits a CQ they come by hardware, and that takes longer on a busy computer. If the
                # poller did not look for them, all would: it keeps its CPU from idling.
                assert softly > ipis // 10, (hardware, softly)


@pytest.fixture
def hog(guest: System) -> Iterator[Background]:
    """A program that never gives up CPU 1 by itself."""
    with beside(guest, "import os\nos.sched_setaffinity(0, {1})\nwhile True: pass") as running:
        wait_until(lambda: task_of(guest, running) is not None, "the hog")
        yield running


def task_of(guest: System, running: Background) -> int | None:
    found = guest.run(["pgrep", "-g", str(running.pid), "-x", "python3"]).stdout.split()
    return int(found[0]) if found else None


def test_a_poller_that_finds_nothing_leaves_its_cpu_to_others(mount: Mount, hog: Background) -> None:
    guest = mount.guest
    guest.write_text(IDLE_US, "0")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    program, thread = task_of(guest, hog), poller(guest)
    assert program
    assert thread

    def ran_ns() -> tuple[int, int]:
        return run_ns(guest, program), run_ns(guest, thread[1])

    def has_run() -> bool:
        return ran_ns()[0] > before[0] + 1e9

    before = ran_ns()
    wait_until(has_run, "the program to have had its CPU for a second")
    of_program, of_poller = (new - old for new, old in zip(ran_ns(), before, strict=True))
    # As much as the program if the two took turns.
    assert of_poller < of_program / 2


def test_a_program_on_its_cpu_does_not_stop_io(mount: Mount, hog: Background) -> None:
    guest = mount.guest
    for idle_us in ("0", "1000"):
        guest.write_text(IDLE_US, idle_us)
        guest.write_text(CONTROL, "1")
        wait_polled(guest)
        before = completions(guest)
        write(mount, WriteLoad(writes=30, cpu=0), timeout=240)
        assert completions(guest) - before >= 60


# Exact books

LOADS = (
    "kind=pingpong n=100",
    # Callbacks that sleep.
    "kind=pingpong n=30 sleep_us=2000 ctx=unbound",
    "kind=flood n=1000 queues=2 depth=64",
    "kind=churn seconds=1 queues=2",
)
SWITCHING = f"""
    import random, time
    random.seed(1)
    while True:
        with open("{CONTROL}", "w") as file:
            file.write(random.choice(["-1", "0", "1"]))
        time.sleep(random.random() / 50)
"""


@both
def test_each_work_request_is_handled_once_off_on_and_while_switching(guest: System, device: str) -> None:
    guest.write_text(OWNERS, "cvmtune_cq\n")
    for line in LOADS:
        assert put_load(guest, device, line)["handled_by_poller"] == 0, line
    guest.write_text(CONTROL, "1")
    for line in LOADS:
        result = put_load(guest, device, line)
        assert result["handled_by_poller"] > 0, line
        # The worker may be first at a queue just made, and a churn makes queues all the time.
        if "churn" not in line:
            assert result["handled_by_worker"] <= result["handled_by_poller"] // 10, line
    guest.write_text(OWNERS, "all\n")
    with beside(guest, SWITCHING):
        for line in LOADS:
            put_load(guest, device, line)
        # Had no switch happened while messages were on their way, the books would have shown nothing.
        wait_until(lambda: switches_meet_the_load(guest, device), "switches amid a load", 240)


def switches_meet_the_load(guest: System, device: str) -> bool:
    result = put_load(guest, device, "kind=flood seconds=1 depth=64")
    both = min(result["handled_by_worker"], result["handled_by_poller"]) > 0
    return both and result["switches"] >= 5


def test_nfs_and_other_work_are_polled_together(mount: Mount) -> None:
    guest = mount.guest
    guest.write_text(OWNERS, "all\n")
    guest.write_text(CONTROL, "1")
    with io(mount):
        before = completions(guest)
        running = Background(guest, load_line(mount.provider, "kind=flood n=2000 queues=2 depth=64"))
        progress(mount)
        assert running.wait() == 0, running.output
        assert books(guest)["handled_by_poller"] > 0
        assert completions(guest) > before
