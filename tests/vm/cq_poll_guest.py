# SPDX-License-Identifier: Apache-2.0
"""What the tests of polled completion queues ask of a guest."""

from __future__ import annotations

import re
import shlex
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cvmtune.core.system import System
from cvmtune.features.cq_poll.books import MUST_BE_0 as VIOLATIONS
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.observe.procfs import parse_named, parse_table
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import ADDRESS, PROVIDERS, Mount

MODULE = "ib_core_cq_poll"
CONTROL = "/sys/kernel/ib_core_poll_cpu"
OFF = "-1"
IDLE_US = f"/sys/module/{MODULE}/parameters/idle_us"
OWNERS = f"/sys/module/{MODULE}/parameters/owners"
DEFAULTS = {IDLE_US: "1000", OWNERS: "rpcrdma"}
CQS = f"/sys/kernel/debug/{MODULE}/cqs"
TOTALS = f"/sys/kernel/debug/{MODULE}/totals"
CLIENT = "rpcrdma"  # who owns the CQs of NFS over RDMA, the server's too
PATH = "/mnt"

# fio could do it, but takes seconds to start on a debug kernel, and a signal keeps it from verifying.
_WRITER = """
import mmap, os, sys
BLOCK, BLOCKS = 4096, 64
def work(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    buffer = mmap.mmap(-1, BLOCK)
    content = {}
    while not os.path.exists(sys.argv[2]):
        number = os.urandom(1)[0] % BLOCKS
        content[number] = os.urandom(16) * (BLOCK // 16)
        buffer[:] = content[number]
        assert os.pwritev(file, [buffer], number * BLOCK) == BLOCK
        number = list(content)[os.urandom(1)[0] % len(content)]
        assert os.preadv(file, [buffer], number * BLOCK) == BLOCK
        wanted, found = content[number], buffer[:]
        assert found == wanted, f"block {number} of {path}: {found[:32]}, not {wanted[:32]}"
pids = []
for number in range(4):
    pids.append(os.fork())
    if not pids[-1]:
        work(f"{sys.argv[1]}/io{number}")
        os._exit(0)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
"""
_LOAD = "/sys/kernel/debug/cvmtune_cq"
# No message of the kernel is in order when it comes from the feature or names its functions.
_COMPLAINT = re.compile(
    r"ib_core_cq_poll|ib_cq_|cq_poller|WARNING|BUG|Oops|blocked for more|refusing to freeze"
)


def load(system: System) -> None:
    system.run(["insmod", f"{GUEST_TOOLS}/{MODULE}.ko"]).check()


def unload(system: System) -> None:
    system.run(["rmmod", MODULE]).check()


@contextmanager
def site(system: System) -> Iterator[None]:
    """Have an NFS server, without an RDMA device yet, and the module that accounts for work requests."""
    with nfs_rdma.network(system), nfs_rdma.server(system):
        system.run(["insmod", f"{GUEST_TOOLS}/cvmtune_cq.ko"], timeout=120).check()
        try:
            yield
        finally:
            use_device(system, None)
            system.run(["rmmod", "cvmtune_cq"], timeout=120).check()
        unload(system)


def use_device(system: System, provider: str | None) -> None:
    """Have this RDMA device and no other; what is mounted over another is unmounted."""
    for other in PROVIDERS:
        if other != provider and nfs_rdma.has_link(system, other):
            nfs_rdma.unmount_anyhow(system, PATH)
            nfs_rdma.delete_link(system, other)
    if provider and not nfs_rdma.has_link(system, provider):
        nfs_rdma.add_link(system, provider)


def use_mount(system: System, provider: str) -> Mount:
    """Have a mount over this device."""
    use_device(system, provider)
    if not nfs_rdma.is_mounted(system, PATH):
        nfs_rdma.mount(system, PATH)
    return Mount(system, provider, PATH)


def reset(system: System) -> None:
    """Have the module loaded, off, and its parameters as they are at first."""
    if not system.exists(CONTROL):
        load(system)
    system.write_text(CONTROL, OFF)
    for parameter, value in DEFAULTS.items():
        system.write_text(parameter, value)


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 120.0, *, pause: float = 0.05
) -> None:
    """Wait for a state; how long it takes says nothing. Each look is work for a guest: `pause` is between."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for: {what}"
        time.sleep(pause)


@dataclass(frozen=True)
class Cq:
    """A line of the table: what has become of one CQ."""

    device: str
    cq: int
    owner: str
    polled: int
    polls: int
    completions: int
    empty: int
    max_batch: int
    ns: int


def cqs(system: System, owner: str | None = None) -> list[Cq]:
    """All workqueue CQs, or those of one owner."""
    found = []
    for row in parse_table(system.read_text(CQS)):
        device, name = row.pop("device"), row.pop("owner")
        found.append(Cq(device=device, owner=name, **{key: int(value) for key, value in row.items()}))
    return [cq for cq in found if owner in (None, cq.owner)]


def completions(system: System, owner: str = CLIENT) -> int:
    return sum(cq.completions for cq in cqs(system, owner))


def totals(system: System) -> dict[str, int]:
    return parse_named(system.read_text(TOTALS))


def wait_polled(system: System, owner: str = CLIENT, *, number: int = 4, polled: bool = True) -> None:
    """Wait until the owner has that many CQs, all of them polled, or none: two each for client and server."""

    def settled() -> bool:
        found = cqs(system, owner)
        return len(found) == number and all(cq.polled == polled for cq in found)

    wait_until(settled, f"{number} CQs of {owner}, polled: {polled}")


def poller(system: System) -> tuple[str, int] | None:
    """The polling thread's name and number, if there is one."""
    lines = system.run(["ps", "-eo", "comm=,pid="]).check().stdout.splitlines()
    found = [line.split() for line in lines if line.startswith("ib_cq_poll/")]
    assert len(found) <= 1, found
    return (found[0][0], int(found[0][1])) if found else None


def run_ns(system: System, pid: int) -> int:
    """For how long a task has had a CPU, ns."""
    return int(system.read_text(f"/proc/{pid}/schedstat").split()[0])


def complaints(system: System) -> list[str]:
    """What the kernel has said against the feature since this was last asked."""
    log = system.run(["dmesg", "--read-clear"]).check().stdout
    return [line for line in log.splitlines() if _COMPLAINT.search(line)]


class Background:
    """A shell command that runs in the guest beside what the test does."""

    def __init__(self, system: System, command: str) -> None:
        self._system = system
        self._at = system.run(["mktemp", "-d"]).check().stdout.strip()
        # The status appears at once and whole. The first child is the group's leader, for kill().
        script = (
            f"({command}) >{self._at}/out 2>&1; echo $? >{self._at}/new; mv {self._at}/new {self._at}/status"
        )
        started = f"setsid sh -c {shlex.quote(script)} </dev/null >/dev/null 2>&1 & echo $!"
        self.pid = int(system.run(["sh", "-c", started]).check().stdout)

    @property
    def output(self) -> str:
        """What it has said, so far."""
        return self._system.run(["cat", f"{self._at}/out"]).stdout

    @property
    def ended(self) -> bool:
        return self._system.exists(f"{self._at}/status")

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for its end; return its status."""
        wait_until(lambda: self.ended, f"the end of what runs beside; it says: {self.output}", seconds)
        return int(self._system.read_text(f"{self._at}/status"))

    def kill(self) -> None:
        """End the command and all that it has started in its session; on return they are gone."""
        self._system.run(["pkill", "-KILL", "-g", str(self.pid)])
        self._system.run(["pidwait", "-g", str(self.pid)])


def writer(mount: Mount, until: str) -> Background:
    """Have four processes write to the mount, past the page cache, until there is a file `until`.

    Each compares what it reads with what it has written; if that or an operation fails the status is not 0.
    """
    return Background(
        mount.guest, shlex.join(["exec", "python3", "-S", "-E", "-c", _WRITER, mount.path, until])
    )


@contextmanager
def io(mount: Mount, *, may_fail: str = "") -> Iterator[None]:
    """Have the mount written to and read from all the time, without an error but `may_fail`."""
    guest = mount.guest
    stop = guest.run(["mktemp", "-u"]).check().stdout.strip()
    running = writer(mount, stop)
    try:
        progress(mount)
        yield
        guest.run(["touch", stop]).check()
        status, output = running.wait(), running.output
        if may_fail and may_fail in output:
            print(output)
            assert "AssertionError" not in output  # of data that are not what was written
        else:
            assert status == 0, output
    finally:
        running.kill()


def progress(mount: Mount, operations: int = 20) -> None:
    """Wait until that many more reads and writes have been answered."""

    def answered() -> int:
        statistics = mount.statistics()
        return statistics["READ"].ops + statistics["WRITE"].ops

    before = answered()
    wait_until(lambda: answered() >= before + operations, f"{operations} more operations of {mount.path}")


@contextmanager
def beside(system: System, script: str) -> Iterator[Background]:
    """Run a Python script, which must not end by itself."""
    program = f"print('started', flush=True)\n{textwrap.dedent(script)}"
    running = Background(system, shlex.join(["exec", "python3", "-c", program]))
    try:
        # Python's start can take longer than what the script is to disturb.
        wait_until(lambda: bool(running.output), "a script's start")
        yield running
        assert not running.ended, f"it has ended by itself: {running.output}"
    finally:
        running.kill()


def load_line(provider: str, line: str) -> str:
    """The shell command that has the module cvmtune_cq put a load on the device."""
    return f"echo {line} dev={provider}0 addr={ADDRESS} >{_LOAD}/run"


def books(system: System) -> dict[str, int]:
    """Check the books of the last load; return them."""
    result = parse_named(system.read_text(f"{_LOAD}/result"))
    for name in VIOLATIONS:
        assert result[name] == 0, (name, result)
    for kind in ("send", "recv"):
        assert result[f"handled_{kind}"] == result[f"posted_{kind}"] > 0, result
    by = sum(result[f"handled_by_{who}"] for who in ("worker", "poller", "other"))
    assert by == result["handled_send"] + result["handled_recv"], result
    return result


def put_load(system: System, provider: str, line: str, timeout: float = 120.0) -> dict[str, int]:
    """Put a load on the device, wait for its end, check its books; return them."""
    system.run(["sh", "-c", load_line(provider, line)], timeout=timeout).check()
    return books(system)
