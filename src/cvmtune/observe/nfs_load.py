# SPDX-License-Identifier: Apache-2.0
"""What NFS does between two captures: RPCs of a client's superblocks, and of a server over RDMA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvmtune.core.figure import Figure, Unknown, growth, rate, total
from cvmtune.observe.capture import Capture
from cvmtune.observe.nfs import (
    NfsMount,
    is_rdma,
    parse_listeners,
    parse_mountinfo,
    parse_mounts,
    parse_nfs_mounts,
    parse_nfsd,
)

MOUNTSTATS = "/proc/self/mountstats"
MOUNTINFO = "/proc/self/mountinfo"
MOUNTS = "/proc/mounts"
NFSD = "/proc/net/rpc/nfsd"
PORTLIST = "/proc/fs/nfsd/portlist"
# The server counts without locks: its sums may differ by what threads have counted at the same moment.
_LOST_COUNTS = 0.01


@dataclass(frozen=True)
class NfsLoad:
    """A superblock of NFS and where it is mounted: RPCs a second, and what one took on average, from sending
    to reply, in ms.

    `transport` is as NfsMount has it, empty where it cannot be told. Where it cannot be told which mounts
    are of one superblock, it is all of them.
    """

    points: tuple[str, ...]
    transport: str
    rpcs: Figure
    rtt_ms: Figure

    @property
    def place(self) -> str:
        return ", ".join(self.points) or "what is mounted"

    @property
    def may_be_rdma(self) -> bool:
        """Tell whether RPCs may go over RDMA."""
        return not self.transport or any(is_rdma(kind) for kind in self.transport.split("+"))

    @property
    def over_rdma(self) -> Figure:
        """RPCs over RDMA a second."""
        if not self.may_be_rdma:
            return 0.0
        if isinstance(self.rpcs, Unknown) or not self.rpcs:
            return self.rpcs
        if not all(is_rdma(kind) for kind in self.transport.split("+")):
            how = f"goes over {self.transport}" if self.transport else "shows no transport"
            return Unknown(f"{self.place} {how}, and RPCs are counted together")
        return self.rpcs


@dataclass(frozen=True)
class _Seen:
    """The NFS mounts of a capture by place, the last of each, and their superblocks' devices."""

    mounts: Mapping[str, NfsMount]
    devices: Mapping[str, str]
    told: bool

    @classmethod
    def of(cls, capture: Capture) -> _Seen:
        text = capture.files.get(MOUNTSTATS, "")
        # Of several in one place the last hides the others; both files are in the same order.
        return cls(
            {mount.point: mount for mount in parse_nfs_mounts(text)},
            {place.point: place.device for place in parse_mountinfo(capture.files.get(MOUNTINFO, ""))},
            text.startswith("device "),
        )


def nfs_mounts(before: Capture, after: Capture, seconds: float) -> list[NfsLoad]:
    """Return what was done on each superblock of NFS that is mounted."""
    then, now = _Seen.of(before), _Seen.of(after)
    if not now.told:
        return _untold(after)
    return [_load(then, now, points, same, seconds) for points, same in _superblocks(then, now, seconds)]


def _untold(after: Capture) -> list[NfsLoad]:
    """The mounts where nothing counts for them: of which it is known that they are there."""
    why = Unknown(after.why_not(MOUNTSTATS))
    if not after.get(MOUNTS) and not after.get(MOUNTINFO):
        return [NfsLoad((), "", why, why)]
    places = parse_mounts(after.files.get(MOUNTS, "")) or parse_mountinfo(after.files.get(MOUNTINFO, ""))
    return [NfsLoad((one.point,), one.proto, why, why) for one in {one.point: one for one in places}.values()]


def _superblocks(then: _Seen, now: _Seen, seconds: float) -> list[tuple[list[str], bool]]:
    """The places of each superblock; and whether it is one: what cannot be told apart is put together."""
    known: dict[str, list[str]] = {}
    others: list[tuple[list[str], bool]] = []
    for point, mount in now.mounts.items():
        if device := now.devices.get(point):
            known.setdefault(device, []).append(point)
            continue
        alike = [
            (at, same)
            for at, (points, _) in enumerate(others)
            if now.mounts[points[0]].server == mount.server
            and (same := _same(then, now, points[0], point)) is not False
        ]
        merged = [point, *(one for at, _ in alike for one in others[at][0])]
        one = all(same and others[at][1] for at, same in alike)
        others = [group for at, group in enumerate(others) if at not in {at for at, _ in alike}]
        others.append(([one for one in now.mounts if one in merged], one))
    return [*((points, True) for points in known.values()), *others]


def _same(then: _Seen, now: _Seen, one: str, other: str) -> bool | None:
    """Tell whether two places show the counters of one superblock, where no file says it; None: perhaps.

    One superblock's counters are the same unless it makes RPCs between the reading of its lines, and then
    differ by less than what it makes in all the time between the captures.
    """
    pairs = [(seen.mounts.get(one), seen.mounts.get(other)) for seen in (then, now)]
    if all(a and b and a.whole and a.operations == b.operations for a, b in pairs):
        return True
    (early, _), (a, b) = pairs
    if not (early and a and b and early.whole and a.whole and b.whole):
        return None
    for name in a.operations.keys() | b.operations.keys():
        if name not in a.operations or name not in b.operations:
            return False
        grown = a.operations[name].ops - early.operations[name].ops if name in early.operations else 0
        if abs(a.operations[name].ops - b.operations[name].ops) > max(0, grown):
            return False
    return None


def _load(then: _Seen, now: _Seen, points: Sequence[str], same: bool, seconds: float) -> NfsLoad:
    kinds = {now.mounts[point].transport for point in points}
    transport = "" if "" in kinds else "+".join(sorted({one for kind in kinds for one in kind.split("+")}))
    if not same:
        why = Unknown(
            f"whether {', '.join(points)} are one file system, whose RPCs are counted once, is not shown "
            f"in {MOUNTINFO}"
        )
        return NfsLoad(tuple(points), transport, why, why)
    # Each place shows the same counters, a moment apart: one has to be compared with itself.
    point = next((one for one in points if one in then.mounts), points[0])
    earlier = then.mounts.get(point)
    if earlier and then.devices.get(point, "") != now.devices.get(point, "") and then.devices:
        earlier = None
    ops, rtt_ms = _grown(earlier, now.mounts[point], seconds, told=then.told)
    rpcs: Figure = ops if isinstance(ops, Unknown) else ops / seconds
    return NfsLoad(tuple(points), transport, rpcs, _mean(ops, rtt_ms))


def _mean(ops: Figure, rtt_ms: Figure) -> Figure:
    if isinstance(ops, Unknown):
        return ops
    if isinstance(rtt_ms, Unknown):
        return rtt_ms
    return rtt_ms / ops if ops else Unknown("no RPC was made")


def _grown(then: NfsMount | None, now: NfsMount, seconds: float, *, told: bool) -> tuple[Figure, Figure]:
    """RPCs of a mount and the sum of their round trips; `told`: the earlier capture shows its mounts."""
    what = f"{MOUNTSTATS} of {now.point}"
    if not now.whole or (then and not then.whole):
        why = Unknown(f"{what} is cut short, or of a form that is not known")
        return why, why
    # Its age is in whole seconds.
    young = now.age is not None and now.age <= seconds + 1
    anew = then is not None and young and (then.age is None or (now.age or 0) < then.age)
    if then is None and not young and (now.age is not None or not told):
        why = Unknown(f"{what} was not there at first")
        return why, why
    # Mounted meanwhile: all that it counts is of this time.
    earlier = {} if then is None or anew else then.operations
    if earlier and earlier.keys() != now.operations.keys():
        why = Unknown(f"{what} has other operations than at first")
        return why, why

    def summed(name: str, label: str) -> Figure:
        pairs = ((earlier.get(key), one) for key, one in now.operations.items())
        return total(
            growth(getattr(old, name) if old else 0, getattr(one, name), seconds, what=f"{what}: {label}")
            for old, one in pairs
        )

    return summed("ops", "the RPCs"), summed("rtt_ms", "the round trips")


def served_over_rdma(before: Capture, after: Capture, seconds: float) -> tuple[bool | Unknown, Figure]:
    """Return whether an NFS server listens on RDMA, and the RPCs that it took over RDMA a second.

    "net" counts all requests, and those over UDP and TCP; only RDMA's are counted in the first number alone
    (svc_recv(), svc_udp_recvfrom() and svc_tcp_recvfrom() in net/sunrpc). "rpc" counts them all.
    """
    if NFSD not in after.files and NFSD not in after.unreadable and PORTLIST not in after.files:
        return False, 0.0
    listeners = set().union(*(parse_listeners(one.files.get(PORTLIST, "")) for one in (before, after)))
    listens: bool | Unknown = any(is_rdma(kind) for kind in listeners)
    if PORTLIST not in after.files and not listens:
        listens = Unknown(f"whether the NFS server listens on RDMA is not shown: {after.why_not(PORTLIST)}")
    if listens is False:
        return False, 0.0
    then, now = (parse_nfsd(one.files.get(NFSD, "")) for one in (before, after))

    def grown(line: str, column: int) -> Figure:
        def value(capture: Capture, lines: Mapping[str, tuple[int, ...]]) -> Figure:
            numbers = lines.get(line, ())
            return numbers[column] if column < len(numbers) else Unknown(f"{line}: {capture.why_not(NFSD)}")

        return growth(value(before, then), value(after, now), seconds, what=f"{line} in {NFSD}", bits=32)

    everything = grown("net", 0)
    if isinstance(everything, Unknown):
        everything = grown("rpc", 0)
    if everything == 0:
        return listens, 0.0
    if isinstance(listens, Unknown):
        return listens, listens
    if all(is_rdma(kind) for kind in listeners):
        return listens, everything if isinstance(everything, Unknown) else everything / seconds
    return listens, _share(grown("net", 0), total([grown("net", 1), grown("net", 2)]), seconds)


def _share(everything: Figure, others: Figure, seconds: float) -> Figure:
    """RPCs a second that came neither over UDP nor TCP."""
    if isinstance(everything, Unknown) or isinstance(others, Unknown):
        return everything if isinstance(everything, Unknown) else others
    if others > everything * (1 + _LOST_COUNTS):
        return Unknown(f"the parts of net in {NFSD} are more than the whole")
    return rate(0, max(0.0, everything - others), seconds, what="net")
