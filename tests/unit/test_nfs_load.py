# SPDX-License-Identifier: Apache-2.0
"""RPCs of NFS between two captures: each counts once, for what it was, and what is not known is no zero."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import pytest

from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.feature import Advice
from cvmtune.observe.capture import Capture
from cvmtune.observe.load import Load
from cvmtune.observe.nfs_load import MOUNTINFO, NFSD, PORTLIST, NfsLoad
from tests.fakes.bound import advise, load
from tests.fakes.capture import GUEST, MOUNTSTATS, changed

Changes = Mapping[str, str | None]
UPTIME, MOUNTS = "/proc/uptime", "/proc/mounts"


def guest(after: Changes, before: Changes | None = None, unreadable: Mapping[str, int] | None = None) -> Load:
    """What the guest did over ten seconds, with files that are others before or after."""
    later = changed(GUEST, {UPTIME: "1010.00 2000.00\n", **after, **dict.fromkeys(unreadable or {})})
    return load(changed(GUEST, before or {}), Capture(later.files, unreadable or {}))


def cq_poll(seen: Load) -> Advice:
    return next(one for one in advise(seen) if one.feature == "cq-poll")


def why(figure: Figure) -> str:
    assert isinstance(figure, Unknown)
    return figure.why


def mount(
    point: str, *operations: str, transport: str = "rdma", server: str = "10.0.0.1", age: int | None = None
) -> str:
    """A mount in mountstats; of several kinds of transport they are separated by blanks."""
    lines = [f"\tage:\t{age}"] if age is not None else []
    lines += [f"\txprt:\t{kind} 0 0 1" for kind in transport.split()]
    lines += ["\tper-op statistics", *(f"\t        {line}" for line in operations)]
    return f"device {server}:/export mounted on {point} with fstype nfs4 statvers=1.1\n" + "".join(
        f"{line}\n" for line in lines
    )


def op(name: str, ops: int, rtt_ms: int = 0) -> str:
    return f"{name}: {ops} {ops} 0 7 7 {rtt_ms * 3} {rtt_ms} {rtt_ms * 5} 0"


def info(**devices: str) -> str:
    """mountinfo of NFS mounts: which device is mounted on /NAME."""
    return "".join(
        f"{number} 1 {device} / /{point} rw shared:1 - nfs4 10.0.0.1:/export rw,proto=rdma\n"
        for number, (point, device) in enumerate(devices.items())
    )


def mounts(before: str | None, after: str, more: Changes | None = None) -> list[NfsLoad]:
    return list(guest({MOUNTSTATS: after, **(more or {})}, {MOUNTSTATS: before, **(more or {})}).mounts)


# One mount


def test_rpcs_of_a_mount() -> None:
    before = mount("/mnt", op("READ", 100, 50), op("WRITE", 1000, 400), op("NULL", 1, 0))
    after = mount("/mnt", op("READ", 120, 60), op("WRITE", 1180, 490), op("NULL", 1, 0))
    assert mounts(before, after) == [NfsLoad(("/mnt",), "rdma", rpcs=20.0, rtt_ms=0.5)]


def test_idle_mount_has_no_round_trip() -> None:
    (found,) = guest({}).mounts
    assert (found.points, found.transport, found.rpcs) == (("/mnt",), "rdma", 0)
    assert why(found.rtt_ms) == "no RPC was made"


def test_older_kernels_line_is_understood() -> None:
    before, after = (mount("/mnt", op("READ", ops, 5 * ops).removesuffix(" 0")) for ops in (100, 1100))
    assert mounts(before, after) == [NfsLoad(("/mnt",), "rdma", 100.0, 5.0)]


@pytest.mark.parametrize("line", ["READ: 1 2 3", "READ: x", "READ: 1 2 3 4 5 6 7 8x"])
def test_line_that_is_not_understood_is_no_zero(line: str) -> None:
    (found,) = mounts(mount("/mnt", op("WRITE", 1), line), mount("/mnt", op("WRITE", 1), line))
    assert "of a form that is not known" in why(found.rpcs)


def test_cut_text_is_no_zero() -> None:
    whole = mount("/mnt", op("READ", 10), op("WRITE", 10))
    for end in range(len(whole.splitlines())):
        cut = "".join(whole.splitlines(keepends=True)[:end])
        for before, after in ((cut, whole), (whole, cut)):
            seen = guest(
                {MOUNTSTATS: after, MOUNTS: "s:/e /mnt nfs4 rw,proto=rdma 0 0\n"}, {MOUNTSTATS: before}
            )
            if before and after:
                assert isinstance(seen.mounts[0].rpcs, Unknown), cut
                assert "cannot be told" in cq_poll(seen).reason


def test_mount_that_came_meanwhile() -> None:
    """All that it counts is of this time, if it is young; else it has only been hidden before."""
    for age, told in ((None, True), (3, True), (10, True), (900, False)):
        (found,) = mounts(mount("/other", op("READ", 5, 5)), mount("/mnt", op("READ", 50, 100), age=age))
        if told:
            assert found == NfsLoad(("/mnt",), "rdma", 5.0, 2.0)
        else:
            assert "was not there at first" in why(found.rpcs)


@pytest.mark.parametrize("before", [None, ""])
def test_counts_since_mounting_are_no_load_where_nothing_was_seen_before(before: str | None) -> None:
    (found,) = mounts(before, mount("/mnt", op("READ", 50, 100)))
    assert "was not there at first" in why(found.rpcs)
    assert mounts(before, mount("/mnt", op("READ", 50, 100), age=4))[0].rpcs == 5


def test_mount_that_was_made_anew_meanwhile() -> None:
    before = mount("/mnt", op("READ", 1000, 10), op("WRITE", 10, 10), age=500)
    after = mount("/mnt", op("READ", 40, 80), op("WRITE", 60, 120), age=7)
    assert mounts(before, after) == [NfsLoad(("/mnt",), "rdma", 10.0, 2.0)]


@pytest.mark.parametrize("age", [None, 510])
def test_counters_that_went_backwards_are_no_rate(age: int | None) -> None:
    before = mount("/mnt", op("READ", 1000, 10), age=500)
    (found,) = mounts(before, mount("/mnt", op("READ", 40, 80), age=age))
    assert "went backwards" in why(found.rpcs)
    (found,) = mounts(before, mount("/mnt", op("READ", 2000, 8), age=age))
    assert found.rpcs == 100
    assert "the round trips went backwards" in why(found.rtt_ms)


def test_mount_that_went_meanwhile() -> None:
    assert guest({MOUNTSTATS: "device /dev/vda mounted on / with fstype ext4\n"}).mounts == []


def test_of_mounts_in_one_place_the_last_counts() -> None:
    hidden = mount("/mnt", op("READ", 90000, 90000), transport="tcp")
    before, after = (hidden + mount("/mnt", op("READ", 10 + ops, 10 + ops // 2)) for ops in (0, 100))
    assert mounts(before, after) == [NfsLoad(("/mnt",), "rdma", 10.0, 0.5)]


@pytest.mark.parametrize(
    ("transport", "rpcs"),
    [("rdma", 10.0), ("rdma rdma rdma", 10.0), ("rdma6", 10.0), ("tcp", 0.0), ("tcp6", 0.0), ("udp", 0.0)],
)
def test_share_of_rdma(transport: str, rpcs: float) -> None:
    before, after = (mount("/mnt", op("READ", ops), transport=transport) for ops in (0, 100))
    (found,) = mounts(before, after)
    assert (found.rpcs, found.over_rdma) == (10.0, rpcs)


def test_transports_of_two_kinds_are_counted_together() -> None:
    before, after = (mount("/mnt", op("READ", ops), transport="tcp rdma") for ops in (0, 100))
    (found,) = mounts(before, after)
    assert found.rpcs == 10
    assert "/mnt goes over rdma+tcp, and RPCs are counted together" in why(found.over_rdma)


# Several places


def places(ops: int, *points: str, server: str = "10.0.0.1") -> str:
    return "".join(mount(point, op("WRITE", ops, ops), server=server) for point in points)


def test_one_superblock_in_five_places_is_one() -> None:
    names = ("/p0", "/p1", "/p2", "/p3", "/p4")
    five = {MOUNTINFO: info(p0="0:45", p1="0:45", p2="0:45", p3="0:45", p4="0:45")}
    before, after = places(1000, *names), places(1400, *names)
    (found,) = mounts(before, after, five)
    assert (found.points, found.rpcs) == (names, 40.0)
    advice = cq_poll(guest({MOUNTSTATS: after, **five}, {MOUNTSTATS: before, **five}))
    assert "makes 40 RPCs a second, less than 100" in advice.reason
    assert advice.figures["RPCs a second on /p0, /p1, /p2, /p3, /p4"] == 40
    # Also by their counters alone, which are the same in all.
    assert mounts(before, after) == [found]


def test_superblocks_are_told_by_their_devices() -> None:
    """Though their counters are the same; and a superblock's lines are read a moment apart."""
    both = {MOUNTINFO: info(a="0:45", b="0:46", c="0:45")}
    before = places(1000, "/a", "/b", "/c")
    after = places(1400, "/a", "/b") + places(1401, "/c")
    assert [(one.points, one.rpcs) for one in mounts(before, after, both)] == [
        (("/a", "/c"), 40.0),
        (("/b",), 40.0),
    ]


def test_superblock_under_a_device_of_another_is_another() -> None:
    before = {MOUNTSTATS: places(1000, "/a"), MOUNTINFO: info(a="0:45")}
    after = {MOUNTSTATS: places(1400, "/a"), MOUNTINFO: info(a="0:47")}
    (found,) = guest(after, before).mounts
    # All that it counts is of this time: it was mounted in the other's place.
    assert found.rpcs == 140


def test_places_of_which_it_is_not_shown_whose_they_are() -> None:
    before, after = places(1000, "/a", "/b"), places(3000, "/a") + places(3001, "/b")
    (found,) = mounts(before, after)
    assert found.points == ("/a", "/b")
    assert "whether /a, /b are one file system" in why(found.rpcs)
    assert "cannot be told" in cq_poll(guest({MOUNTSTATS: after}, {MOUNTSTATS: before})).reason
    # Counters that are far apart are two's; and so are servers.
    two = mounts(places(1000, "/a") + places(50000, "/b"), places(3000, "/a") + places(52000, "/b"))
    assert [(one.points, one.rpcs) for one in two] == [(("/a",), 200.0), (("/b",), 200.0)]
    two = mounts(
        places(1000, "/a") + places(1000, "/b", server="other"),
        places(1400, "/a") + places(1400, "/b", server="other"),
    )
    assert [one.points for one in two] == [("/a",), ("/b",)]


# No counters


@pytest.mark.parametrize("number", [errno.EACCES, None])
def test_mounts_without_counters_are_not_idle(number: int | None) -> None:
    shown = "s:/e /data nfs4 rw,proto=rdma,port=20049 0 0\ns:/e /home nfs4 rw,proto=tcp 0 0\n"
    hidden = {MOUNTSTATS: number} if number else {}
    seen = guest({MOUNTSTATS: None, MOUNTS: shown}, unreadable=hidden)
    assert [(one.points, one.transport) for one in seen.mounts] == [(("/data",), "rdma"), (("/home",), "tcp")]
    advice = cq_poll(seen)
    assert not advice.settings
    assert "how many RPCs NFS makes over RDMA cannot be told: /proc/self/mountstats" in advice.reason
    assert "RPCs a second on /data" in advice.figures
    # A machine that has none needs no counters.
    seen = guest({MOUNTSTATS: None, MOUNTS: "/dev/vda / ext4 rw 0 0\n"}, unreadable=hidden)
    assert "no NFS over RDMA here" in cq_poll(seen).reason


# A server


def served(before: str | None, after: str | None, ports: str | None = "rdma 20049\ntcp 2049\n") -> Load:
    return guest({NFSD: after, PORTLIST: ports}, {NFSD: before, PORTLIST: ports})


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ("net 1000 0 1000 4\nrpc 1000 0\n", "net 41000 0 41000 4\nrpc 41000 0\n", 0.0),
        ("net 1000 0 1000 4\nrpc 1000 0\n", "net 41000 10000 11000 4\nrpc 41000 0\n", 2000.0),
        # Each number is of 32 bits.
        (f"net {2**32 - 100} 0 {2**32 - 1100} 4\nrpc 1 0\n", f"net 2900 0 {2**32 - 100} 4\nrpc 1 0\n", 200.0),
        (f"net 5000 0 {2**32 - 100} 4\nrpc 1 0\n", "net 8000 0 900 4\nrpc 1 0\n", 200.0),
        # They are counted without a lock.
        ("net 1000 0 1000 4\nrpc 1000 0\n", "net 40999 0 41000 4\nrpc 41000 0\n", 0.0),
        ("net 7 0 0 4\nrpc 7 0\n", "net 7 0 0 4\nrpc 7 0\n", 0.0),
        ("rpc 7 0\n", "rpc 7 0\n", 0.0),
    ],
)
def test_share_of_rdma_of_a_server(before: str, after: str, rate: float) -> None:
    seen = served(before, after)
    assert (seen.server_over_rdma, seen.server_rpcs) == (True, rate)


def test_clients_over_tcp_need_no_poller() -> None:
    advice = cq_poll(served("net 0 0 0 1\nrpc 0 0\n", "net 90000 0 90000 1\nrpc 90000 0\n"))
    assert "makes 0 RPCs a second, less than 100" in advice.reason
    assert advice.figures["RPCs a second served"] == 0


def test_no_round_trip_is_told_of_a_server() -> None:
    advice = cq_poll(served("net 0 0 0 1\nrpc 0 0\n", "net 90000 0 40000 1\nrpc 90000 0\n"))
    assert advice.settings == {}
    assert "makes 5000 RPCs a second" in advice.reason
    assert "ms each" not in advice.reason


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("rpc 7 0\n", "rpc 90000 0\n"),
        ("net 7\nrpc 7 0\n", "net 90000\nrpc 90000 0\n"),
        ("net 90000 0 0 1\nrpc 90000 0\n", "net 7 0 0 1\nrpc 7 0\n"),
        ("net 0 0 90000 1\nrpc 0 0\n", "net 90000 0 7 1\nrpc 90000 0\n"),
        ("net 0 0 0 1\nrpc 0 0\n", "net 90000 0 99000 1\nrpc 90000 0\n"),
        ("", "net 90000 0 0 1\nrpc 90000 0\n"),
        (None, "net 90000 0 0 1\nrpc 90000 0\n"),
        ("net 0 0 0 1\nrpc 0 0\n", ""),
        ("net 0 0 0 1\nrpc 0 0\n", "x\0y"),
    ],
)
def test_share_that_cannot_be_told(before: str | None, after: str) -> None:
    seen = served(before, after)
    assert isinstance(seen.server_rpcs, Unknown)
    advice = cq_poll(seen)
    assert not advice.settings
    assert "cannot be told" in advice.reason


def test_server_with_rdma_alone_takes_all_over_it() -> None:
    assert served("rpc 0 0\n", "rpc 2000 0\n", "rdma 20049\n").server_rpcs == 200


@pytest.mark.parametrize("number", [errno.EACCES, None])
def test_listeners_that_are_not_shown(number: int | None) -> None:
    files: Changes = {NFSD: "net 9000 0 9 1\nrpc 9000 0\n", PORTLIST: None}
    before: Changes = {NFSD: "net 0 0 0 1\nrpc 0 0\n", PORTLIST: None}
    seen = guest(files, before, {PORTLIST: number} if number else {})
    assert isinstance(seen.server_over_rdma, Unknown)
    assert "whether the NFS server listens on RDMA is not shown" in why(seen.server_rpcs)
    assert not cq_poll(seen).settings
    # Who takes no requests takes none over RDMA.
    assert guest({**files, NFSD: before[NFSD]}, before).server_rpcs == 0


@pytest.mark.parametrize(
    ("text", "over_rdma"), [("rdma 20049\ntcp 2049\n", True), ("tcp 2049\n", False), ("", False)]
)
def test_transport_of_the_server(text: str, over_rdma: bool) -> None:
    assert guest({PORTLIST: text}).server_over_rdma is over_rdma


def test_no_server() -> None:
    seen = guest({PORTLIST: None, NFSD: None}, {PORTLIST: None, NFSD: None})
    assert (seen.server_over_rdma, seen.server_rpcs) == (False, 0)
