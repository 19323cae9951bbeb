# SPDX-License-Identifier: Apache-2.0
"""NFS over RDMA with server and client in one guest: brought up, taken down, and written to.

    with mounted(guest, "rxe") as mount:
        written = write(mount, WriteLoad(writes=500, rate=100))

The RDMA device is software (rxe is RoCE, siw is iWARP) on a dummy network interface: no packet leaves the
guest. The export is in memory, so that no storage adds its noise, or on a disk, so that it outlives the
guest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.observe.nfs import OpStatistics, parse_nfs_mounts

PROVIDERS = ("rxe", "siw")

_NETDEV = "d0"  # "lo" would do for siw, but gives rxe no usable GID
ADDRESS = "192.0.2.1"  # TEST-NET-1: nobody's
_PORT = 20049  # IANA's for NFS over RDMA
EXPORT = "/export"
_NFSD = "/proc/fs/nfsd"
# File systems of the server, by kind, in the order in which they are mounted.
_SERVER_MOUNTS = (
    ("tmpfs", "/var/lib/nfs/nfsdcld"),  # what it knows of clients: no server knows those of one before
    ("rpc_pipefs", "/var/lib/nfs/rpc_pipefs"),  # nfsdcld's way to the kernel
    ("nfsd", _NFSD),
)
_UMOUNT_S = 15
_MOUNTSTATS = "/proc/self/mountstats"
_LOG_LINE = re.compile(r"\d+, (\d{1,18}), \d")
_WRITE = "WRITE"  # the operation's name in mountstats
_JOB = "write"  # fio's file is JOB.0.0
_BLOCK = 4096
_FILE = 1 << 20  # bytes; small, as the export is in the guest's memory


@dataclass(frozen=True)
class Mount:
    """An NFS mount over RDMA in `guest`."""

    guest: System
    provider: str
    path: str

    def statistics(self) -> Mapping[str, OpStatistics]:
        """What the client has counted since it was mounted, per operation."""
        return parse_mountstats(self.guest.read_text(_MOUNTSTATS), self.path)


@contextmanager
def mounted(
    guest: System,
    provider: str = "rxe",
    *,
    path: str = "/mnt",
    threads: int = 4,
    disk: str | None = None,
    fill: Callable[[str], None] = lambda directory: None,
) -> Iterator[Mount]:
    """Have an export of this guest mounted in it over RDMA for as long as the `with` block lasts.

    It is in memory, or on a disk with an ext4 file system. What is to be in it from the start `fill` puts
    into its directory, past NFS.

    Afterwards nothing of it is left but empty directories, whatever has failed, and even if the block has
    unmounted it, or deleted the RDMA device.
    """
    with ExitStack() as stack:
        stack.enter_context(network(guest))
        stack.enter_context(link(guest, provider))
        stack.enter_context(server(guest, threads=threads, disk=disk))
        fill(EXPORT)
        stack.callback(unmount_anyhow, guest, path)
        mount(guest, path)
        yield Mount(guest, provider, path)


@contextmanager
def network(guest: System) -> Iterator[None]:
    """The interface that RDMA devices are put on."""
    with ExitStack() as stack:
        _do(guest, stack, ["ip", "link", "add", _NETDEV, "type", "dummy"], ["ip", "link", "delete", _NETDEV])
        guest.run(["ip", "address", "add", f"{ADDRESS}/24", "dev", _NETDEV]).check()
        guest.run(["ip", "link", "set", _NETDEV, "up"]).check()
        yield


@contextmanager
def link(guest: System, provider: str) -> Iterator[None]:
    """The RDMA device; it may be deleted and added meanwhile."""
    add_link(guest, provider)
    try:
        yield
    finally:
        if has_link(guest, provider):
            delete_link(guest, provider)


def add_link(guest: System, provider: str) -> None:
    guest.run(["rdma", "link", "add", device(provider), "type", provider, "netdev", _NETDEV]).check()


def delete_link(guest: System, provider: str) -> None:
    """Delete the RDMA device, in use or not, as if its card were pulled."""
    guest.run(["rdma", "link", "delete", device(provider)]).check()


def has_link(guest: System, provider: str) -> bool:
    return guest.exists(f"/sys/class/infiniband/{device(provider)}")


@contextmanager
def server(guest: System, *, threads: int = 4, disk: str | None = None) -> Iterator[None]:
    """The NFS server, listening on the RDMA devices that there are and that come."""
    kept = ("ext4", disk, EXPORT) if disk else ("tmpfs", "tmpfs", EXPORT)
    with ExitStack() as stack:
        for kind, what, at in (*((kind, kind, at) for kind, at in _SERVER_MOUNTS), kept):
            guest.run(["mkdir", "-p", at]).check()
            _do(guest, stack, ["mount", "-t", kind, what, at], ["umount", at])
        # It keeps account of clients. Without it the kernel waits 90 s for those of earlier days, in which
        # nobody can open a file; here there are none, and it knows.
        _start(guest, stack, ["nfsdcld"])
        export = f"*:{EXPORT}"
        options = "rw,fsid=0,insecure,no_root_squash,no_subtree_check"
        _do(guest, stack, ["exportfs", "-o", options, export], ["exportfs", "-u", export])
        # NFSv4 alone needs no portmapper.
        _start(guest, stack, ["rpc.mountd", "-N", "2", "-N", "3"])
        _do(guest, stack, ["rpc.nfsd", "-N", "3", str(threads)], ["rpc.nfsd", "0"])
        guest.write_text(f"{_NFSD}/portlist", f"rdma {_PORT}\n")
        yield


def mount(guest: System, path: str) -> None:
    guest.run(["mkdir", "-p", path]).check()
    guest.run(["mount.nfs4", f"{ADDRESS}:/", path, "-o", f"rdma,port={_PORT},vers=4.2"]).check()


def unmount(guest: System, path: str, *options: str) -> None:
    """Unmount; `options` may be -f (whatever waits for the server fails) or -l (now hidden, later gone)."""
    guest.run(["umount", *options, path]).check()


def unmount_anyhow(guest: System, path: str) -> None:
    """Unmount if mounted, by force if need be.

    With the server or the RDMA device gone, umount waits for ever. Killed, an ordinary one has not unmounted;
    one with -f has, and was only saying goodbye to the server.
    """
    for options in ((), ("-f",), ("-f", "-l")):
        if not is_mounted(guest, path):
            return
        guest.run(["timeout", str(_UMOUNT_S), "umount", *options, path], timeout=2 * _UMOUNT_S)
    if is_mounted(guest, path):
        raise CvmtuneError("cannot unmount it", path)


def is_mounted(guest: System, path: str) -> bool:
    return any(line.split()[1] == path for line in guest.read_text("/proc/mounts").splitlines())


def device(provider: str) -> str:
    """The name of its RDMA device."""
    return f"{provider}0"


def _do(guest: System, stack: ExitStack, argv: list[str], undo: list[str]) -> None:
    guest.run(argv).check()
    stack.callback(lambda: guest.run(undo).check())


def _start(guest: System, stack: ExitStack, argv: list[str]) -> None:
    """Start a daemon, which returns when it is ready."""

    def stop() -> None:
        guest.run(["pkill", "-x", argv[0]]).check()
        # Until it has ended, file systems are busy. If it has already, this finds none, which is as good.
        guest.run(["pidwait", "-x", argv[0]])

    guest.run(argv).check()
    stack.callback(stop)


def parse_mountstats(text: str, path: str) -> Mapping[str, OpStatistics]:
    """Return the statistics of the NFS mount on `path` per operation ("WRITE"), out of /proc/self/mountstats.

    Of several mounts there the last counts: it hides the others.
    """
    found = [mount.operations for mount in parse_nfs_mounts(text) if mount.point == path]
    if not found or not found[-1]:
        raise CvmtuneError(f"no statistics of an NFS mount on {path}", _MOUNTSTATS)
    return found[-1]


@dataclass(frozen=True)
class WriteLoad:
    """Writes of 4 KiB to places at random, past the page cache.

    Without `rate` (writes a second) `depth` of them are always on their way. With it, they come at random, as
    a Poisson process (at equal distances they could keep step with the tick), the same in every run; one that
    would be more than `depth` waits, and that wait is not in its latency. `cpu` is where the writer runs.
    """

    writes: int = 500
    rate: int | None = None
    depth: int = 1
    cpu: int | None = None


@dataclass(frozen=True)
class Written:
    """What became of a load: how long each write took for the program, and what the client counted."""

    latencies_ns: tuple[float, ...]
    rpc: OpStatistics


def write(mount: Mount, load: WriteLoad, *, timeout: float = 300.0) -> Written:
    """Put the load on the mount."""
    guest = mount.guest
    _lay_out(mount)
    logs = guest.run(["mktemp", "-d"]).check().stdout.strip()
    try:
        before = mount.statistics()[_WRITE]
        done = guest.run(write_command(mount.path, load, logs), timeout=timeout).check()
        rpc = mount.statistics()[_WRITE] - before
        latencies = parse_latency_log(guest.read_text(f"{logs}/write_lat.1.log"))
    finally:
        guest.run(["rm", "-r", logs]).check()
    report = parse_fio(done.stdout)
    if not report.writes == len(latencies) == load.writes:
        what = f"of {load.writes} writes it did {report.writes} and logged {len(latencies)}"
        raise CvmtuneError(what, "fio")
    return Written(latencies, rpc)


def _lay_out(mount: Mount) -> None:
    """Have the whole file there: a write then finds its place allocated, and fio adds none of its own."""
    file = f"{mount.path}/{_JOB}.0.0"
    if not mount.guest.exists(file):
        blocks = _FILE // _BLOCK
        mount.guest.run(["dd", "if=/dev/zero", f"of={file}", f"bs={_BLOCK}", f"count={blocks}"]).check()


def write_command(directory: str, load: WriteLoad, logs: str) -> list[str]:
    """fio's command line for a load."""
    argv = [
        *_fio(directory, _JOB, load.depth),
        *(f"--size={_FILE}", "--norandommap", f"--io_size={load.writes * _BLOCK}"),
        f"--write_lat_log={logs}/write",
    ]
    if load.rate is not None:
        argv += [f"--rate_iops={load.rate}", "--rate_process=poisson"]
    if load.cpu is not None:
        argv.append(f"--cpus_allowed={load.cpu}")
    return argv


def blocks(mb: int) -> int:
    """The number of blocks in as many MiB."""
    return (mb << 20) // _BLOCK


class DataDamaged(CvmtuneError):
    """A block that was read back is not what was written."""


def verify(mount: Mount, *, mb: int = 4, depth: int = 8, timeout: float = 300.0) -> int:
    """Write a file with checksums, read it back past the cache, compare; return the number of blocks.

    DataDamaged if a block is not what was written.
    """
    done = mount.guest.run(verify_command(mount.path, mb=mb, depth=depth), timeout=timeout)
    # A damaged header, or a checksum of the data that is not theirs.
    if done.status and any(sign in done.stdout + done.stderr for sign in ("verify: bad", "verify failed")):
        raise DataDamaged("a block read back is not what was written", mount.path)
    done.check()
    report = parse_fio(done.stdout)
    if report.reads != report.writes:
        raise CvmtuneError(f"of {report.writes} blocks written it has verified {report.reads}", "fio")
    return report.reads


def verify_command(directory: str, *, mb: int = 4, depth: int = 8, loops: int = 1) -> list[str]:
    """fio's command line for verify(), for who runs it beside something else; it is done `loops` times."""
    return [
        *_fio(directory, "verify", depth),
        *("--verify=crc32c", "--verify_fatal=1", f"--size={mb}m", f"--loops={loops}"),
    ]


@dataclass(frozen=True)
class FioReport:
    """What fio says that its one job did."""

    reads: int
    writes: int


def parse_fio(text: str) -> FioReport:
    """Read fio's JSON output, which notes and warnings may precede."""
    _, brace, rest = text.partition("{\n")
    try:
        (job,) = json.loads(brace + rest)["jobs"]
        reads, writes = job["read"]["total_ios"], job["write"]["total_ios"]
    except (ValueError, LookupError, TypeError) as error:
        raise CvmtuneError("its JSON output is not that of one job", "fio") from error
    for number in (reads, writes):
        if not isinstance(number, int) or isinstance(number, bool):
            raise CvmtuneError(f"its JSON output has {number!r} for a number", "fio")
    return FioReport(reads, writes)


def parse_latency_log(text: str) -> tuple[float, ...]:
    """Return the latencies in a log of fio's write_lat_log, in ns and in the order of completion."""
    latencies = []
    for number, line in enumerate(text.splitlines(), 1):
        # time in ms, latency in ns, direction (1: write), block size, and more that depends on the version
        match = _LOG_LINE.match(line)
        if not match:
            raise CvmtuneError(f"cannot read {line!r}", f"fio's latency log, line {number}")
        latencies.append(float(match[1]))
    return tuple(latencies)


def _fio(directory: str, name: str, depth: int) -> list[str]:
    return [
        *("fio", "--output-format=json", f"--name={name}", f"--directory={directory}"),
        *("--ioengine=libaio", f"--iodepth={depth}", "--rw=randwrite", f"--bs={_BLOCK}", "--direct=1"),
    ]
