# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of NFS: of a client's mounts (/proc/self/mountstats, mountinfo), and of a server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from cvmtune.observe.procfs import is_count

# The kernel escapes blanks in the names of devices and mount points, but not all else that Python takes for
# a blank, or for the end of a line.
_NFS_LINE = re.compile(r"device ([^ ]+) mounted on ([^ ]+) with fstype nfs4?(?: .*)?")
_XPRT_LINE = re.compile(r"\s+xprt:\s+(\S+).*")
_OPTS_LINE = re.compile(r"\s+opts:\s+(?:.*,)?proto=([^,\s]+).*")
_AGE_LINE = re.compile(r"\s+age:\s+(\d+)")
_OPS_BEGIN = "per-op statistics"
# Eight numbers, and from Linux 5.3 on a ninth, the errors; more may come.
_OP_LINE = re.compile(r"\s+(\w+): (\d+(?: \d+){7})(?: (\d+)(?: .*)?)?")
_ANY_OP_LINE = re.compile(r"\s+\w+: .*")
_DEVICE = re.compile(r"\d+:\d+")


@dataclass(frozen=True)
class OpStatistics:
    """What an NFS client's RPC layer has counted of one operation on one mount (net/sunrpc/stats.c).

    Times are sums over all `ops`, in whole milliseconds. They are `queue_ms` until the request was handed to
    the transport, `rtt_ms` from there to the reply, `execute_ms` from the task's start to its end. `errors`
    are counted from Linux 5.3 on, else None.
    """

    ops: int
    transmissions: int
    timeouts: int
    bytes_sent: int
    bytes_received: int
    queue_ms: int
    rtt_ms: int
    execute_ms: int
    errors: int | None = None

    def __sub__(self, earlier: OpStatistics) -> OpStatistics:
        def grown(name: str) -> int | None:
            now, then = getattr(self, name), getattr(earlier, name)
            return None if now is None or then is None else now - then

        return OpStatistics(*(grown(one.name) for one in fields(self)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class NfsMount:
    """An NFS mount, its transport ("rdma", "tcp"), and what was counted of each operation ("WRITE").

    Operations are counted for the superblock, whichever of its transports took them, and a superblock may be
    mounted in several places. `transport` names several kinds with "+", and is empty where none is shown.
    `age` is the superblock's, in s; `whole` tells whether all operations are there and understood.
    """

    point: str
    transport: str
    operations: Mapping[str, OpStatistics]
    server: str = ""
    age: int | None = None
    whole: bool = True


def parse_nfs_mounts(mountstats: str) -> list[NfsMount]:
    """Return the NFS mounts of /proc/self/mountstats, in its order: of two in one place the later hides."""
    mounts: list[NfsMount] = []
    lines: list[str] = []
    match = None
    for line in [*mountstats.split("\n"), "device end"]:
        if not line.startswith("device "):
            lines.append(line)
            continue
        if match:
            mounts.append(_mount(match[1], match[2], lines))
        match, lines = _NFS_LINE.fullmatch(line), []
    return mounts


def _mount(device: str, point: str, lines: Iterable[str]) -> NfsMount:
    kinds: dict[str, None] = {}
    proto, age, broken, in_ops = "", None, False, False
    operations: dict[str, OpStatistics] = {}
    for line in lines:
        if match := _XPRT_LINE.fullmatch(line):
            kinds[match[1]] = None
        elif match := _OPTS_LINE.fullmatch(line):
            proto = match[1]
        elif match := _AGE_LINE.fullmatch(line):
            age = int(match[1])
        elif match := _OP_LINE.fullmatch(line):
            errors = None if match[3] is None else int(match[3])
            operations[match[1]] = replace(OpStatistics(*map(int, match[2].split())), errors=errors)
        elif line.strip() == _OPS_BEGIN:
            in_ops = True
        elif in_ops and _ANY_OP_LINE.fullmatch(line):
            broken = True
    # A path may have a colon, an address of IPv6 has several: the server ends before the first ":/".
    server = device.partition(":/")[0]
    transport = "+".join(kinds) or proto
    return NfsMount(point, transport, operations, server, age, whole=bool(operations) and not broken)


@dataclass(frozen=True)
class Place:
    """A mount of NFS in a list of mounts: where, its superblock's device (empty: not shown), its proto."""

    point: str
    device: str
    proto: str


def parse_mountinfo(text: str) -> list[Place]:
    """Return the NFS mounts of /proc/self/mountinfo (proc(5)), in its order."""
    places = []
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        match before.split(" "), after.split(" "):
            case [_, _, device, _, point, *_], ["nfs" | "nfs4", *rest] if _DEVICE.fullmatch(device):
                places.append(Place(point, device, _proto(rest[-1] if rest else "")))
    return places


def parse_mounts(text: str) -> list[Place]:
    """Return the NFS mounts of /proc/mounts, in its order."""
    places = []
    # Counted from the end: at a carriage return, which the kernel does not escape, a line was broken when it
    # was read.
    for line in text.split("\n"):
        match line.split(" "):
            case [*_, point, "nfs" | "nfs4", options, _, _]:
                places.append(Place(point, "", _proto(options)))
    return places


def _proto(options: str) -> str:
    words = (option.partition("=") for option in options.split(","))
    return next((value for name, _, value in words if name == "proto"), "")


def is_rdma(kind: str) -> bool:
    """Tell whether a transport is RDMA, over IPv4 or IPv6."""
    return kind in ("rdma", "rdma6")


def parse_listeners(portlist: str) -> set[str]:
    """Return the transports on which an NFS server listens, out of /proc/fs/nfsd/portlist."""
    return {line.split()[0] for line in portlist.splitlines() if line.split()}


def parse_nfsd(text: str) -> dict[str, tuple[int, ...]]:
    """Return the numbers of each line of /proc/net/rpc/nfsd by the line's name (svc_seq_show())."""
    lines = (line.split() for line in text.splitlines())
    return {
        words[0]: tuple(map(int, words[1:]))
        for words in lines
        if len(words) > 1 and all(map(is_count, words[1:]))
    }
