# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues under stress on the kernels that look for errors: `make stress`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import Mount, unmount, verify_command
from tests.vm.cq_poll_guest import (
    CLIENT,
    CONTROL,
    IDLE_US,
    OFF,
    OWNERS,
    PATH,
    Background,
    beside,
    books,
    completions,
    cqs,
    io,
    load_line,
    poller,
    progress,
    put_load,
    reset,
    site,
    use_device,
    use_mount,
    wait_polled,
    wait_until,
    writer,
)
from tests.vm.shared_machines import DEBUG, KCSAN, MANY_CPUS
from tests.vm.soft_ipi_guest import CONTROL as SOFT_IPI
from tests.vm.soft_ipi_guest import storm
from tests.vm.test_stress_soft_ipi import RACE, SPLAT

pytestmark = [pytest.mark.stress, pytest.mark.on(DEBUG)]

# In the headlines of races functions have their module's name behind them, those in the kernel have not.
OURS = re.compile(r"\[(?:ib_core_cq_poll|cvmtune_cq)\]|ib_cq_")

# Run in the guest beside the load; says a letter for each thing that it has done.
SWITCHING = f"""
import os, random, subprocess, time
random.seed(1)
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
def reload():
    subprocess.run(["rmmod", "ib_core_cq_poll"], check=True)
    subprocess.run(["insmod", "{GUEST_TOOLS}/ib_core_cq_poll.ko"], check=True)
    write("{OWNERS}", "all")
deeds = {{
    "c": lambda: write("{CONTROL}", random.choice("0123")),
    "o": lambda: write("{CONTROL}", "{OFF}"),
    "i": lambda: write("{IDLE_US}", random.choice(["0", "1", "1000"])),
    "n": lambda: write("{OWNERS}", random.choice(["rpcrdma", "all", "cvmtune_cq,rpcrdma", "ib_core"])),
    "m": reload,
}}
write("{OWNERS}", "all")
order = list("cccccccooiiinnm")
while True:
    random.shuffle(order)
    for deed in order:
        deeds[deed]()
        print(deed, end="", flush=True)
        time.sleep(random.random() / 5)
"""

# Writes what may or may not be a value, while another one does so too. By the documentation (of kstrtoint(),
# kstrtouint() and the module) each text is one or not, whatever was there before.
FUZZ = f"""
import os, random, re, sys
random.seed(int(sys.argv[2]))
PARAMETERS = {{
    # path: pieces of text, is it a value, what it may read as
    "{CONTROL}": (
        [b"-1", b"0", b"1", b"2", b"3", b"-1\\n", b"4", b"16", b"-2", b"99999999999", b"+", b"-", b" ", b"x"],
        lambda text: re.fullmatch(rb"[+-]?[0-9]+\\n?", text) and -1 <= int(text) < {MANY_CPUS},
        lambda text: int(text) in range(-1, {MANY_CPUS}),
    ),
    "{IDLE_US}": (
        [b"0", b"1", b"1000", b"17", b"4294967295", b"4294967296", b"0x10", b"-1", b"\\n", b" ", b"x", b"+"],
        lambda text: re.fullmatch(rb"[+]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\\n?", text)
        and int(re.sub(rb"^([+]?)0(?=[0-7])", rb"\\g<1>0o", text.strip()), 0) < 1 << 32,
        lambda text: 0 <= int(text) < 1 << 32,
    ),
    "{OWNERS}": (
        [b"all", b"rpcrdma", b"rpcrdma,ib_core", b",", b",", b" ", b"\\n", b"cvmtune_cq", b"a" * 64],
        lambda text: len(text) < 128 and re.fullmatch(rb"[^, \\n]+(,[^, \\n]+)*", text.strip(b" \\n")),
        lambda text: re.fullmatch(rb"[^, \\n]+(,[^, \\n]+)*\\n", text),
    ),
}}
files = {{path: os.open(path, os.O_RDWR) for path in PARAMETERS}}
accepted = refused = 0
for number in range(int(sys.argv[1])):
    path = random.choice(list(PARAMETERS))
    pieces, is_value, is_content = PARAMETERS[path]
    if random.randrange(2):
        text = random.choice(pieces)
    elif random.randrange(2):
        text = b"".join(random.choice(pieces) for _ in range(random.randrange(1, 5)))
    else:
        text = bytes(random.choice(b"0123456789abcxyz,+- \\n") for _ in range(random.randrange(1, 200)))
    if random.randrange(20) == 0:
        text += b"\\0" + text
    good = bool(is_value(text.split(b"\\0")[0]))
    try:
        os.pwrite(files[path], text, 0)
    except OSError as error:
        refused += 1
        assert not good, f"{{path}}: {{text!r}} refused: {{error}}"
    else:
        accepted += 1
        assert good, f"{{path}}: {{text!r}} accepted"
    content = os.pread(files[path], 4096, 0)
    assert is_content(content), f"{{path}}: {{content!r}} after {{text!r}}"
print(accepted, refused)
"""


NFSD = "/proc/fs/nfsd"


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Iterator[Machine]:
    with site(machine.guest):
        yield machine


@pytest.fixture
def guest(ready: Machine) -> Iterator[System]:
    """A guest in which polling is off before and after, and whose kernel finds no fault."""
    reset(ready.guest)
    yield ready.guest
    reset(ready.guest)
    assert faults(ready) == []


def faults(machine: Machine) -> list[str]:
    """What the kernel has found fault with, one text each."""
    console = machine.console("guest").read_text(errors="replace")
    races = set(RACE.findall(console))
    print("\n".join(sorted(races)))
    found = [line for line in console.splitlines() if SPLAT.search(line)]
    return found + [race for race in races if OURS.search(race)]


def counted(switching: Background) -> dict[str, int]:
    """How often the script has done each of its deeds."""
    deeds = switching.output.removeprefix("started\n")
    return {deed: deeds.count(deed) for deed in "coinm"}


@pytest.mark.timeout(1800)
def test_data_survive_whatever_is_switched(guest: System, pytestconfig: pytest.Config) -> None:
    short = pytestconfig.getoption("--short")
    seconds = 20 if short else 600
    mount = use_mount(guest, "rxe")
    verifying = [*verify_command(mount.path, mb=1), "--time_based", f"--runtime={seconds}"]
    with beside(guest, SWITCHING) as switching:
        # On a busy computer it may take longer until all has happened: else it was no test.
        for _ in range(5):
            fio = Background(guest, shlex.join(verifying))
            flood = Background(guest, load_line("rxe", f"kind=flood seconds={seconds} depth=8"))
            # One that hangs does not end.
            assert fio.wait(seconds + 240) == 0, fio.output
            assert flood.wait() == 0, flood.output
            deeds, result = counted(switching), books(guest)
            print(deeds, result)
            both = min(result["handled_by_worker"], result["handled_by_poller"])
            if all(deeds.values()) and both > 100 and result["switches"] >= 5:
                break
        else:
            pytest.fail("worker and poller have not met, or a deed was not done")
    reset(guest)
    assert completions(guest) > 0


@pytest.mark.timeout(3600)
def test_connections_may_end_at_any_time(guest: System, pytestconfig: pytest.Config) -> None:
    """Over rxe only: with siw the NFS server loses memory regions, of which the kernel warns, whenever a
    connection ends with writes on their way, polled or not."""
    rounds = 1 if pytestconfig.getoption("--short") else 20
    with beside(guest, SWITCHING) as switching:
        for _ in range(rounds):
            mount = use_mount(guest, "rxe")
            remount(mount)
            lose_server(mount)
            lose_device(mount)
            force_unmount(mount)
            use_device(guest, None)
        deeds = counted(switching)
    print(deeds)
    assert deeds["c"] >= rounds * 5
    # As good as before.
    reset(guest)
    mount = use_mount(guest, "rxe")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    assert len(cqs(guest, CLIENT)) == 4
    write_some(mount)


def try_to_write(mount: Mount) -> bool:
    # Not by fio: it takes seconds to start on a debug kernel.
    blocks = ["if=/dev/zero", f"of={mount.path}/some", "bs=4k", "count=20", "oflag=direct"]
    return mount.guest.run(["dd", *blocks]).status == 0


def write_some(mount: Mount) -> None:
    assert try_to_write(mount)


def remount(mount: Mount) -> None:
    for _ in range(3):
        unmount(mount.guest, PATH)
        nfs_rdma.mount(mount.guest, PATH)
        write_some(mount)


def stop_server(guest: System) -> None:
    guest.run(["rpc.nfsd", "0"]).check()


def start_server(guest: System) -> None:
    # For how long clients of before may come back; new ones wait. 10 s is the least.
    guest.write_text(f"{NFSD}/nfsv4gracetime", "10\n")
    guest.run(["rpc.nfsd", "-N", "3", "4"]).check()
    guest.write_text(f"{NFSD}/portlist", "rdma 20049\n")


def lose_server(mount: Mount) -> None:
    """Stop the server and start it again with I/O on its way: that waits, and goes on."""
    with io(mount):
        stop_server(mount.guest)
        start_server(mount.guest)
        progress(mount)


def lose_device(mount: Mount) -> None:
    """Pull the card with I/O on its way, and put it back.

    A write may fail where the client finds the device half gone when it connects anew. It did in 5 of
    55 times with polling never switched on.
    """
    with io(mount, may_fail="[Errno 22] Invalid argument"):
        nfs_rdma.delete_link(mount.guest, mount.provider)
        nfs_rdma.add_link(mount.guest, mount.provider)
        wait_until(lambda: try_to_write(mount), "a write after the device has come back")


def force_unmount(mount: Mount) -> None:
    """Unmount by force with I/O on its way that nobody will answer: it fails, so that the program ends."""
    guest = mount.guest
    writing = writer(mount, "/nonesuch")
    progress(mount)
    stop_server(guest)

    def failed() -> bool:
        guest.run(["timeout", "5", "umount", "-f", mount.path])
        return writing.ended

    wait_until(failed, "an error for who writes to a mount whose server has gone")
    assert "OSError" in writing.output
    start_server(guest)
    guest.write_text(f"{NFSD}/v4_end_grace", "Y\n")
    nfs_rdma.unmount_anyhow(guest, mount.path)


def test_together_with_soft_ipis(guest: System, pytestconfig: pytest.Config) -> None:
    seconds = 10 if pytestconfig.getoption("--short") else 120
    mount = use_mount(guest, "rxe")
    guest.run(["insmod", f"{GUEST_TOOLS}/cvmtune_storm.ko"], timeout=120).check()
    guest.write_text(SOFT_IPI, f"{(1 << MANY_CPUS) - 1:x}")
    guest.write_text(IDLE_US, "0")
    guest.write_text(CONTROL, "1")
    wait_polled(guest)
    before = completions(guest)
    try:
        with io(mount):
            storm(guest, seconds)
            progress(mount)
    finally:
        guest.write_text(SOFT_IPI, "0")
        guest.run(["rmmod", "cvmtune_storm"], timeout=120).check()
    assert completions(guest) > before


def test_fuzzed_writes_are_refused_or_what_they_say(guest: System, pytestconfig: pytest.Config) -> None:
    writes = 500 if pytestconfig.getoption("--short") else 5000
    mount = use_mount(guest, "rxe")
    with io(mount):
        writers = [
            Background(guest, f"exec python3 -c {shlex.quote(FUZZ)} {writes} {seed}") for seed in (1, 2)
        ]
        for writer in writers:
            assert writer.wait(600) == 0, writer.output
            accepted, refused = map(int, writer.output.split())
            assert accepted > writes // 10
            assert refused > writes // 10
        progress(mount)
        # The file says what is so.
        cpu = guest.read_text(CONTROL).strip()
        thread = poller(guest)
        assert (thread and thread[0]) == (None if cpu == OFF else f"ib_cq_poll/{cpu}")


@pytest.mark.long
@pytest.mark.on(KCSAN)
def test_no_race_in_connecting_and_switching(guest: System) -> None:
    seconds = 300
    use_device(guest, "rxe")
    with beside(guest, SWITCHING) as switching:
        result = put_load(guest, "rxe", f"kind=churn seconds={seconds} queues=2", timeout=seconds + 300)
        deeds = counted(switching)
    print(deeds, result)
    assert min(result["handled_by_worker"], result["handled_by_poller"]) > 0
    assert all(deeds.values()), deeds
