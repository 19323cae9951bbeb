# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of NFS is read right, of kernels old and new, and whatever else a file may hold."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.observe.nfs import (
    NfsMount,
    OpStatistics,
    Place,
    parse_listeners,
    parse_mountinfo,
    parse_mounts,
    parse_nfs_mounts,
    parse_nfsd,
)
from tests.fakes.capture import GUEST, MOUNTSTATS

counts = st.integers(0, 2**64 - 1)


def operation(name: str, *numbers: int) -> str:
    """A line as _print_rpc_iostats() in net/sunrpc/stats.c makes it."""
    return f"\t{name:>12}: {' '.join(map(str, numbers))}\n"


def mountstats(point: str, *operations: str, kind: str = "nfs4", xprt: str = "\txprt:\ttcp 0 1 2\n") -> str:
    return (
        f"device 10.0.0.1:/export mounted on {point} with fstype {kind} statvers=1.1\n"
        "\topts:\trw,vers=4.2,hard,proto=tcp\n\tage:\t77\n\tcaps:\tcaps=0x3,wtmult=512\n"
        "\tsec:\tflavor=1,pseudoflavor=1\n\tevents:\t1 2 3 4 5 6 7 8 9\n\tbytes:\t1 2 3 4 5 6 7 8\n"
        f"\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)\n{xprt}\tper-op statistics\n{''.join(operations)}"
    )


def test_operations_of_an_nfs_mount() -> None:
    (mount,) = parse_nfs_mounts(GUEST[MOUNTSTATS])
    assert (mount.point, mount.transport) == ("/mnt", "rdma")
    assert mount.operations.keys() == {"NULL", "WRITE"}
    # Their order is that of the kernel's line.
    assert mount.operations["WRITE"] == OpStatistics(
        ops=1000,
        transmissions=1001,
        timeouts=0,
        bytes_sent=200000,
        bytes_received=90000,
        queue_ms=4,
        rtt_ms=500,
        execute_ms=600,
        errors=0,
    )


def test_growth_of_an_operation() -> None:
    grown = OpStatistics(*range(10, 100, 10)) - OpStatistics(*range(9))
    assert astuple(grown) == (10, 19, 28, 37, 46, 55, 64, 73, 82)


@pytest.mark.parametrize("kind", ["nfs", "nfs4"])
def test_nfs_among_other_mounts(kind: str) -> None:
    line = operation("READ", *range(9))
    text = (
        "device /dev/vda mounted on / with fstype ext4\n"
        + mountstats("/a", line, kind=kind)
        + "device nfsd mounted on /proc/fs/nfsd with fstype nfsd\n"
        + operation("WRITE", *range(9))
        + "no device mounted on /b with fstype tmpfs\n"
        + mountstats("/c\\040d", line, kind=kind, xprt="\txprt:\trdma 1\n\txprt:\trdma 2\n")
    )
    read = {"READ": OpStatistics(*range(9))}
    assert parse_nfs_mounts(text) == [
        NfsMount("/a", "tcp", read, "10.0.0.1", 77),
        NfsMount("/c\\040d", "rdma", read, "10.0.0.1", 77),
    ]


def test_mounts_in_one_place_are_in_order() -> None:
    text = mountstats("/a", operation("READ", *range(9))) + mountstats("/a", operation("WRITE", *range(9)))
    assert [[*mount.operations] for mount in parse_nfs_mounts(text)] == [["READ"], ["WRITE"]]


@pytest.mark.parametrize(
    ("numbers", "statistics"),
    [
        ("1 2 3 4 5 6 7 8", OpStatistics(*range(1, 9))),
        ("1 2 3 4 5 6 7 8 9", OpStatistics(*range(1, 10))),
        ("1 2 3 4 5 6 7 8 9 10", OpStatistics(*range(1, 10))),
        ("1 2 3 4 5 6 7 8 9 x", OpStatistics(*range(1, 10))),
        ("1 2 3 4 5 6 7", None),
        ("1 2 3 4 5 6 7 8 9x", None),
        ("1 2 3 4 5 6 7 8 -9", None),
        ("", None),
    ],
)
def test_operations_of_other_kernels(numbers: str, statistics: OpStatistics | None) -> None:
    """Before Linux 5.3 there were eight numbers; more may come. A line that is not understood is no zero."""
    (mount,) = parse_nfs_mounts(
        mountstats("/a", operation("WRITE", *range(9)), f"\t        READ: {numbers}\n")
    )
    assert mount.operations.get("READ") == statistics
    assert mount.whole is (statistics is not None)


def test_growth_of_an_older_kernels_operation() -> None:
    grown = OpStatistics(*range(10, 90, 10)) - OpStatistics(*range(8))
    assert (grown.ops, grown.execute_ms, grown.errors) == (10, 73, None)


def test_mount_without_operations_is_not_whole() -> None:
    text = mountstats("/a", operation("READ", *range(9)))
    for cut in ("\tper-op", "\t        READ", "\txprt"):
        (mount,) = parse_nfs_mounts(text.partition(cut)[0])
        assert not mount.whole


@pytest.mark.parametrize(
    ("xprts", "transport"),
    [
        (("rdma",) * 4, "rdma"),
        (("tcp", "rdma"), "tcp+rdma"),
        (("rdma6",), "rdma6"),
        ((), "rdma"),  # by the options
    ],
)
def test_transport_of_a_mount(xprts: tuple[str, ...], transport: str) -> None:
    lines = "".join(f"\txprt:\t{one} 0 0 1\n" for one in xprts)
    text = mountstats("/a", xprt=lines or "\n").replace("proto=tcp", "proto=rdma")
    assert parse_nfs_mounts(text)[0].transport == transport


@pytest.mark.parametrize(
    ("device", "server"),
    [("10.0.0.1:/export", "10.0.0.1"), ("[fe80::1]:/a:/b", "[fe80::1]"), ("host:/", "host"), ("odd", "odd")],
)
def test_server_of_a_mount(device: str, server: str) -> None:
    text = mountstats("/a").replace("10.0.0.1:/export", device)
    assert parse_nfs_mounts(text)[0].server == server


def test_places_of_mounts() -> None:
    info = (
        "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "40 21 0:45 / /a\\040b rw,relatime shared:9 - nfs4 s:/e rw,vers=4.2,proto=rdma,addr=10.0.0.1\n"
        "41 21 0:45 /sub /c rw - nfs s:/e rw,proto=tcp\n"
        "42 21 0:45 /sub /c rw - nfs4\n"
        "43 21 x /d rw - nfs4 s:/e rw\n"
    )
    assert parse_mountinfo(info) == [
        Place("/a\\040b", "0:45", "rdma"),
        Place("/c", "0:45", "tcp"),
        Place("/c", "0:45", ""),
    ]
    assert parse_mounts("s:/e /mnt nfs4 rw,proto=rdma6,port=1 0 0\nproc /proc proc rw 0 0\n") == [
        Place("/mnt", "", "rdma6")
    ]


def test_counts_of_a_server() -> None:
    assert parse_nfsd("rc 0 1 2\nnet 9 1 2 3\nrpc 9 0 0 0 0\nth 8 0 0.000\n")["net"] == (9, 1, 2, 3)
    assert parse_nfsd("net\nnet -1\n") == {}
    assert parse_listeners("rdma 20049\ntcp 2049\n\n") == {"rdma", "tcp"}


@given(st.text())
def test_any_text_of_lists(text: str) -> None:
    parse_mountinfo(text), parse_mounts(text), parse_nfsd(text), parse_listeners(text)


@pytest.mark.parametrize("end", ["\v", "\f", "\x1c", "\x85", "\u2028"])
@pytest.mark.parametrize("blank", ["\v", "\xa0", "\u2003"])
def test_name_of_a_mount_point_makes_no_mount(end: str, blank: str) -> None:
    """Whoever may mount FUSE chooses such names; of blanks the kernel escapes space, tab and newline only."""
    forged = f"device x mounted on /forged with fstype nfs4{end}\txprt:\trdma".replace(" ", blank)
    text = f"device fuse mounted on /home/u/a{end}{forged} with fstype fuse\n"
    assert parse_nfs_mounts(text) == []
    (mount,) = parse_nfs_mounts(mountstats(f"/a{end}b{blank}c"))
    assert mount.point == f"/a{end}b{blank}c"


points = st.text(st.characters(exclude_characters=" \t\n", exclude_categories=["Cs"]), min_size=1, max_size=9)
operations = st.dictionaries(
    st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), st.tuples(*[counts] * 9), max_size=3
)


@given(st.lists(st.tuples(points, st.sampled_from(["tcp", "rdma", "udp"]), operations), max_size=3))
def test_any_nfs_mounts(mounts: list[tuple[str, str, dict[str, tuple[int, ...]]]]) -> None:
    text = "".join(
        mountstats(point, *(operation(name, *one) for name, one in ops.items()), xprt=f"\txprt:\t{how} 0\n")
        for point, how, ops in mounts
    )
    assert parse_nfs_mounts(text) == [
        NfsMount(
            *(point, how, {name: OpStatistics(*one) for name, one in ops.items()}, "10.0.0.1", 77),
            whole=bool(ops),
        )
        for point, how, ops in mounts
    ]


@given(st.text())
def test_any_text_for_nfs_mounts(text: str) -> None:
    assert parse_nfs_mounts(text) == []
    assert len(parse_nfs_mounts(mountstats("/a", text))) == 1
