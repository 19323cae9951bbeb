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
    Mount,
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
from tests.vm.shared_machines import PLAIN

pytestmark = pytest.mark.on(PLAIN)


def traces(guest: System) -> list[str]:
    """What a mount over RDMA may leave in a guest: devices, mounts, processes."""
    processes = guest.run(["ps", "-eo", "comm="]).check().stdout.split()
    return [
        *guest.run(["ls", "/sys/class/net", "/sys/class/infiniband"]).check().stdout.split(),
        *guest.read_text("/proc/mounts").splitlines(),
        *(name for name in processes if name in ("nfsd", "nfsdcld", "rpc.mountd", "umount")),
    ]


@pytest.fixture
def guest(machine: Machine) -> Iterator[System]:
    """A guest in which no test leaves a trace."""
    before = traces(machine.guest)
    assert "nfs" not in " ".join(before)
    yield machine.guest
    assert traces(machine.guest) == before


@pytest.mark.parametrize("provider", PROVIDERS)
def test_data_come_back_as_written_also_after_the_rdma_device_was_gone(guest: System, provider: str) -> None:
    with mounted(guest, provider) as mount:
        assert {"d0", f"{provider}0", "nfsd", "nfsdcld", "rpc.mountd"} <= set(traces(guest))
        assert "proto=rdma" in guest.read_text("/proc/mounts")
        before = mount.statistics()
        assert verify(mount, mb=1) == 256
        after = mount.statistics()
        assert (after["WRITE"] - before["WRITE"]).ops >= 256
        assert (after["READ"] - before["READ"]).bytes_received >= 1 << 20
        check_latencies(mount)
        delete_link(guest, provider)
        assert not has_link(guest, provider)
        add_link(guest, provider)
        assert verify(mount, mb=1) == 256


def check_latencies(mount: Mount) -> None:
    """Each write has its latency and is counted, one after another or several at a time."""
    for load in (WriteLoad(writes=60), WriteLoad(writes=60, rate=100, depth=4, cpu=0)):
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
        # Who has unmounted it need not leave it mounted.
        unmount(guest, mount.path)


def test_with_the_rdma_device_gone_it_is_unmounted_all_the_same(guest: System) -> None:
    with mounted(guest) as mount:
        verify(mount, mb=1)
        delete_link(guest, mount.provider)
    with mounted(guest) as mount:
        assert verify(mount, mb=1) == 256


def test_a_step_that_fails_is_named_and_the_rest_undone(guest: System) -> None:
    with pytest.raises(CvmtuneError, match="rdma link add nonesuch0"), mounted(guest, "nonesuch"):
        pass
