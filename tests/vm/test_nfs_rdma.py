# SPDX-License-Identifier: Apache-2.0
"""NFS over RDMA in a real guest: it carries data unharmed, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.lab.machine import Machine
from cvmtune.workloads.nfs_rdma import (
    PROVIDERS,
    WriteLoad,
    add_link,
    delete_link,
    has_link,
    mounted,
    unmount,
    verify,
    verify_command,
    write,
)


def traces(guest: System) -> list[str]:
    """What a mount over RDMA may leave in a guest: devices, mounts, processes."""
    processes = guest.run(["ps", "-eo", "comm="]).check().stdout.split()
    return [
        *guest.run(["ls", "/sys/class/net", "/sys/class/infiniband"]).check().stdout.split(),
        *guest.read_text("/proc/mounts").splitlines(),
        *(name for name in processes if name in ("nfsd", "nfsdcld", "rpc.mountd", "umount")),
    ]


@pytest.fixture
def guest(plain: Machine) -> Iterator[System]:
    """A guest in which no test leaves a trace."""
    before = traces(plain.guest)
    assert "nfs" not in " ".join(before)
    yield plain.guest
    assert traces(plain.guest) == before


@pytest.mark.parametrize("provider", PROVIDERS)
def test_data_come_back_as_written(guest: System, provider: str) -> None:
    with mounted(guest, provider) as mount:
        assert {"d0", f"{provider}0", "nfsd", "nfsdcld", "rpc.mountd"} <= set(traces(guest))
        assert "proto=rdma" in guest.read_text("/proc/mounts")
        before = mount.statistics()
        assert verify(mount, mb=2) == 512
        after = mount.statistics()
        assert (after["WRITE"] - before["WRITE"]).ops >= 512
        assert (after["READ"] - before["READ"]).bytes_received >= 2 << 20


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("load", [WriteLoad(writes=60), WriteLoad(writes=60, rate=50, depth=4, cpu=0)])
def test_each_write_has_its_latency_and_is_counted(guest: System, provider: str, load: WriteLoad) -> None:
    with mounted(guest, provider) as mount:
        written = write(mount, load)
    assert len(written.latencies_ns) == 60
    assert all(1e4 < latency < 6e10 for latency in written.latencies_ns)
    assert written.rpc.ops == 60
    assert written.rpc.errors == 0
    # The program's clock is the outer one. The client's sums are cut off to ms.
    assert written.rpc.rtt_ms <= written.rpc.execute_ms <= sum(written.latencies_ns) / 1e6 + 1


def test_damaged_data_are_noticed(guest: System) -> None:
    with mounted(guest) as mount:
        verify(mount, mb=1)
        damage = ["if=/dev/zero", "of=/export/verify.0.0", "bs=512", "count=1", "seek=80", "conv=notrunc"]
        guest.run(["dd", *damage]).check()
        with pytest.raises(CvmtuneError, match="verify: bad"):
            guest.run([*verify_command(mount.path, mb=1), "--verify_only"]).check()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_mount_outlives_its_rdma_device(guest: System, provider: str) -> None:
    with mounted(guest, provider) as mount:
        verify(mount, mb=1)
        delete_link(guest, provider)
        assert not has_link(guest, provider)
        add_link(guest, provider)
        assert verify(mount, mb=1) == 256


def test_with_the_rdma_device_gone_it_is_unmounted_all_the_same(guest: System) -> None:
    with mounted(guest) as mount:
        verify(mount, mb=1)
        delete_link(guest, mount.provider)
    with mounted(guest) as mount:
        assert verify(mount, mb=1) == 256


def test_who_has_unmounted_it_need_not_leave_it_mounted(guest: System) -> None:
    with mounted(guest) as mount:
        unmount(guest, mount.path)


def test_a_step_that_fails_is_named_and_the_rest_undone(guest: System) -> None:
    with pytest.raises(CvmtuneError, match="rdma link add nonesuch0"), mounted(guest, "nonesuch"):
        pass
