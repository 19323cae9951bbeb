# SPDX-License-Identifier: Apache-2.0
"""A machine is read whole, nothing beside it, whatever fails; and nothing of it is written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.system import LocalSystem
from cvmtune.observe.capture import CPUS, KVM, Capture
from tests.fakes.bound import capture
from tests.fakes.capture import BOOT_ID, GUEST, HOST, MOUNTSTATS, RDMA_PORT, thread, vm

DEBUG = "/sys/kernel/debug"
ANYTHING = {f"{DEBUG}/sched/debug": "x\n"}  # debugfs is mounted


class Tree:
    """Files by path, and the errors that reading a file or listing a directory gives. All reads are kept."""

    def __init__(self, files: Mapping[str, str], errors: Mapping[str, OSError] | None = None) -> None:
        self.files = files
        self.errors = errors or {}
        self.read: list[str] = []
        self.listed: list[str] = []

    def read_text(self, path: str) -> str:
        self.read.append(path)
        self._fail(path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.files[path]

    def list(self, path: str) -> list[str]:
        self.listed.append(path)
        self._fail(path)
        start = f"{path}/"
        names = {file[len(start) :].split("/")[0] for file in self.files if file.startswith(start)}
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sorted(names)

    def _fail(self, path: str) -> None:
        for start, error in self.errors.items():
            if path == start or path.startswith(f"{start}/"):
                raise error


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# What is read


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/proc/uptime",
            "/proc/stat",
            "/proc/interrupts",
            "/proc/softirqs",
            "/proc/cmdline",
            "/proc/mounts",
        ),
        *("/proc/sys/kernel/osrelease", BOOT_ID, "/proc/device-tree/compatible"),
        *("/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name"),
        *("/sys/class/dmi/id/product_family", "/sys/class/dmi/id/product_version"),
        *(
            "/sys/class/misc/tsi/dev",
            "/sys/hypervisor/type",
            "/proc/xen/capabilities",
            "/sys/kernel/security/lockdown",
        ),
        "/sys/devices/platform/arm-cca-dev/uevent",
        "/sys/devices/faux/arm-rsi-dev/uevent",
        "/sys/devices/platform/arm-smccc/arm_cca_guest.arm-rsi-dev.0/uevent",
        "/sys/bus/auxiliary/devices/arm_cca_guest.arm-rsi-dev.0/uevent",
        "/sys/bus/platform/drivers/arm-cca-guest/arm-cca-dev/uevent",
        *(
            f"/proc/device-tree/{node}/compatible"
            for node in ("hypervisor", "hypervisor@0", "fw-cfg@9020000")
        ),
        *("/sys/bus/acpi/devices/QEMU0002:00/hid", "/sys/class/ptp/ptp0/clock_name"),
        *(f"{CPUS}/{name}" for name in ("online", "possible", "isolated", "nohz_full")),
        *(f"{CPUS}/cpu{cpu}/cpuidle/state{state}/name" for cpu in (0, 31, 100) for state in (0, 3)),
        f"{CPUS}/cpu0/cpuidle/state1/disable",
        *("/sys/kernel/soft_ipi_passthrough", "/sys/module/soft_ipi/parameters/poll_us"),
        f"{DEBUG}/soft_ipi_passthrough/stats",
        *("/sys/kernel/ib_core_poll_cpu", "/sys/kernel/ib_core_poll_stat"),
        *(f"/sys/module/ib_core_cq_poll/parameters/{name}" for name in ("idle_us", "owners")),
        *(f"{DEBUG}/ib_core_cq_poll/{name}" for name in ("cqs", "totals")),
        *("/sys/kernel/cvm_wfx_trap_config", "/sys/module/kvm/parameters/wfx_guard"),
        *(f"{KVM}/1200-13/wfx_trap_{name}" for name in ("config", "stats")),
        *(f"{KVM}/1200-13/vtimer_{name}" for name in ("mode", "stats")),
        *(f"{KVM}/1200-13/{name}" for name in ("exits", "wfi_exit_stat", "wfe_exit_stat")),
        "/run/libvirt/qemu/a b.pid",
    ],
)
def test_file_is_read(path: str) -> None:
    # A VM's process is there, or it would be told that it is not.
    process = thread(1200, 1200, "qemu-system-aar", "0-3")
    for load in (False, True):
        found = capture(Tree({**ANYTHING, **process, path: " text\n"}), load=load)
        assert found == Capture({path: " text\n"}, {})
        assert found.get(path) == "text"


@pytest.mark.parametrize(
    "path",
    [
        *(MOUNTSTATS, "/proc/net/rpc/nfsd"),
        f"{RDMA_PORT}/hw_counters/rcvd_pkts",
        "/sys/class/infiniband/mlx5_0/ports/12/hw_counters/out_of_buffer",
        f"{RDMA_PORT}/counters/port_xmit_packets",
        f"{RDMA_PORT}/counters/port_rcv_packets",
    ],
)
def test_file_that_tells_of_a_load_is_read_for_one(path: str) -> None:
    tree = Tree({**ANYTHING, path: "7\n"})
    assert capture(tree).files == {path: "7\n"}
    tree.read.clear()
    assert capture(tree, load=False).files == {}
    assert path not in tree.read


@pytest.mark.parametrize(
    "path",
    [
        # Passwords, command lines, environments.
        *(
            "/run/libvirt/qemu/db.xml",
            "/proc/1200/cmdline",
            "/proc/1200/environ",
            "/proc/1200/task/1203/cmdline",
        ),
        f"{CPUS}/power/cpuidle/state0/name",
        f"{CPUS}/cpu0/cpuidle/state0/residency",
        f"{RDMA_PORT}/counters/VL15_dropped",
        f"{KVM}/exits",
        f"{KVM}/1200-13/vcpu0/wfi_exit_stat",
    ],
)
def test_other_files_are_left_alone(path: str) -> None:
    files = {**HOST, **ANYTHING, path: "7\n"}
    tree = Tree(files)
    assert path not in capture(tree).files
    assert path not in tree.read


@pytest.mark.parametrize("machine", [GUEST, HOST])
def test_whole_machine(machine: Mapping[str, str]) -> None:
    tree = Tree(machine)
    assert capture(tree) == Capture(machine, {})
    # No file twice, as counters go on between.
    assert len(tree.read) == len(set(tree.read))
    assert len(tree.listed) == len(set(tree.listed))


def test_this_machine() -> None:
    """Whoever runs this, and whatever it is."""
    found = capture(LocalSystem())
    assert found.get("/proc/sys/kernel/osrelease") == os.uname().release
    assert found.files.keys().isdisjoint(found.unreadable)
    assert all(number > 0 for number in found.unreadable.values())


def test_nothing_is_written(tmp_path: Path) -> None:
    class ReadOnly(LocalSystem):
        def write_text(self, path: str, text: str) -> NoReturn:
            pytest.fail(f"wrote {path}")

        def run(self, *arguments: object, **options: object) -> NoReturn:
            pytest.fail(f"ran {arguments}")

    def state() -> dict[str, tuple[int, int, int, bytes]]:
        files = (path for path in sorted(tmp_path.rglob("*")))
        return {
            str(path): (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, content)
            for path in files
            for info in [path.lstat()]
            for content in [path.read_bytes() if path.is_file() else b""]
        }

    for path, text in HOST.items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    before = state()
    assert capture(ReadOnly(tmp_path)).files == HOST
    assert state() == before


# What cannot be read


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL, errno.EOPNOTSUPP])
def test_file_that_cannot_be_read_is_told_with_its_error(number: int) -> None:
    path = "/sys/kernel/cvm_wfx_trap_config"
    found = capture(Tree(HOST, {path: failure(number)}))
    assert found.unreadable == {path: number}
    assert found.files == {name: text for name, text in HOST.items() if name != path}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ESRCH])
def test_file_that_is_not_there_is_no_error(number: int) -> None:
    path = "/sys/kernel/cvm_wfx_trap_config"
    found = capture(Tree(HOST, {path: failure(number)}))
    assert found.unreadable == {}
    assert path not in found.files
    assert found.get(path) is None


def test_error_without_a_number_is_an_error() -> None:
    found = capture(Tree(HOST, {"/proc/stat": OSError("odd")}))
    assert found.unreadable == {"/proc/stat": errno.EIO}


def test_directory_that_may_not_be_listed_is_told() -> None:
    directory = "/sys/class/infiniband"
    found = capture(Tree(GUEST, {directory: failure(errno.EACCES)}))
    assert found.unreadable == {directory: errno.EACCES}


def test_debugfs_that_is_forbidden() -> None:
    """As for an ordinary user; what cannot even be looked for is not said to be missing."""
    found = capture(Tree(HOST, {DEBUG: failure(errno.EACCES)}))
    assert found.unreadable[DEBUG] == errno.EACCES
    assert found.unreadable[KVM] == errno.EACCES
    assert found.unreadable[f"{DEBUG}/soft_ipi_passthrough/stats"] == errno.EACCES
    assert not any(path.startswith((DEBUG, "/proc/1200")) for path in found.files)
    assert "/sys/kernel/cvm_wfx_trap_config" in found.files


def test_debugfs_that_is_not_mounted() -> None:
    assert capture(Tree({"/proc/uptime": "1\n"})) == Capture({"/proc/uptime": "1\n"}, {DEBUG: errno.ENOENT})


@pytest.mark.parametrize("left", [{}, {f"{KVM}/exits": "7\n"}, {f"{KVM}/1200-13/exits": "7\n"}])
def test_debugfs_without_kvms_part_is_told_where_kvm_is(left: dict[str, str]) -> None:
    process = thread(1200, 1200, "qemu-system-aar", "0-3")
    other = {f"{DEBUG}/clk/x": "0\n", **process, **left}
    device = {"/sys/class/misc/kvm/dev": "10:232\n"}
    missing = {} if left else {KVM: errno.ENOENT}
    assert capture(Tree({**device, **other})).unreadable == missing
    closed = capture(Tree({**device, **other}, {path: failure(errno.EACCES) for path in device}))
    assert closed.unreadable == {**dict.fromkeys(device, errno.EACCES), **missing}
    assert capture(Tree(other)).unreadable == {}


numbers = st.sampled_from([errno.EACCES, errno.ENOENT, errno.EIO, errno.ESRCH])


@given(st.dictionaries(st.sampled_from(sorted({*HOST, KVM, "/proc/1200/task", CPUS, DEBUG})), numbers))
def test_whatever_fails_the_rest_is_read(broken: dict[str, int]) -> None:
    found = capture(Tree(HOST, {path: failure(number) for path, number in broken.items()}))
    assert found.files.items() <= HOST.items()
    for path, number in found.unreadable.items():
        above = [start for start in broken if path == start or path.startswith(f"{start}/")]
        assert number in {broken[start] for start in above} or path in (DEBUG, KVM)
    untouched = [path for path in HOST if not path.startswith(("/proc/1", DEBUG)) and path not in broken]
    if CPUS not in broken:
        assert found.files.keys() >= set(untouched)


# The threads of VMMs


VCPUS = [
    *("CPU 0/KVM", "CPU 511/KVM"),  # QEMU
    *("fc_vcpu 0", "fc_vcpu 12"),  # Firecracker
    *("vcpu0", "vcpu31"),  # Cloud Hypervisor
    *("crosvm_vcpu0", "crosvm_vcpu511"),  # crosvm
    *("kvm-vcpu-0", "kvm-vcpu-7"),  # kvmtool
    *("db_vcpu0", "vcpu-3", "vcpu_3", "my.vm-vcpu7"),
]
OTHERS = [
    *("qemu-system-aar", "worker", "CPU 2/TCG", "xCPU 3/KVM", "CPU 4/KVMx", "CPU /KVM", "CPU 4096/KVM", ""),
    *("fc_vcpu", "fc_vmm", "vcpu", "vcpu1x", "kvm-vcpu-", "kvm-nx-lpage-re", "CPU 0/KVM vcpu1"),
]


def files_of(number: int) -> set[str]:
    return {f"/proc/77/task/{number}/{name}" for name in ("comm", "schedstat", "status", "cgroup")}


@pytest.mark.parametrize("name", VCPUS)
def test_thread_of_a_vcpu_is_read(name: str) -> None:
    threads = thread(77, 80, name, "0-3")
    assert capture(Tree({**vm("77-5"), **threads})).files == {**vm("77-5"), **threads}


@pytest.mark.parametrize("name", OTHERS)
def test_other_threads_are_not_read(name: str) -> None:
    tree = Tree({**vm("77-5"), **thread(77, 77, name, "0-3"), **thread(77, 80, "vcpu0", "0-3")})
    found = capture(tree)
    assert found.files == {**vm("77-5"), **thread(77, 80, "vcpu0", "0-3")}
    # What it is called must be looked at.
    assert files_of(77) & set(tree.read) == {"/proc/77/task/77/comm"}


def test_process_without_a_vm_is_not_read() -> None:
    tree = Tree({**ANYTHING, **thread(77, 80, "CPU 0/KVM", "0")})
    assert capture(tree).files == {}
    assert not any(path.startswith("/proc/77") for path in (*tree.read, *tree.listed))


@pytest.mark.parametrize("folder", ["77", "77-", "-5", "x77-5", "77-5x", "a-b"])
def test_folder_of_another_form_is_no_vm(folder: str) -> None:
    tree = Tree({f"{KVM}/{folder}/exits": "1\n", **thread(77, 80, "CPU 0/KVM", "0")})
    capture(tree)
    assert not any(path.startswith("/proc/77") for path in (*tree.read, *tree.listed))


@pytest.mark.parametrize("gone", ["comm", "schedstat", "status", "cgroup"])
@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH])
def test_thread_that_ends_meanwhile(gone: str, number: int) -> None:
    files = {**vm("77-5"), **thread(77, 80, "vcpu0", "0"), **thread(77, 81, "vcpu1", "1")}
    found = capture(Tree(files, {f"/proc/77/task/80/{gone}": failure(number)}))
    assert found.unreadable == {}
    assert files_of(81) <= found.files.keys()
    left = set() if gone == "comm" else files_of(80) - {f"/proc/77/task/80/{gone}"}
    assert files_of(80) & found.files.keys() == left


def test_vmm_that_ends_meanwhile() -> None:
    found = capture(Tree(vm("77-5"), {"/proc/77": failure(errno.ESRCH)}))
    assert found == Capture(vm("77-5"), {})


@pytest.mark.parametrize("broken", [{}, {"/proc/77/task": failure(errno.ENOENT)}])
def test_vmm_that_is_not_in_this_proc(broken: dict[str, OSError]) -> None:
    """As with hidepid, or in a container: the VM is there, and its process is not."""
    files = {**vm("77-5"), **(thread(77, 80, "vcpu0", "0") if broken else {})}
    assert capture(Tree(files, broken)).unreadable == {"/proc/77/task": errno.ENOENT}


def test_two_vms_of_one_vmm() -> None:
    tree = Tree({**vm("77-5"), **vm("77-6"), **thread(77, 80, "vcpu0", "0")})
    assert capture(tree).files == tree.files
    assert len(tree.read) == len(set(tree.read))


def test_how_a_thread_got_on_is_read_for_a_load_only() -> None:
    tree = Tree({**vm("77-5"), **thread(77, 80, "vcpu0", "0")})
    assert files_of(80) & capture(tree, load=False).files.keys() == {
        f"/proc/77/task/80/{name}" for name in ("comm", "status")
    }


def test_what_is_made_of_a_capture_is_made_once() -> None:
    asked: list[Capture] = []

    def understand(seen: Capture) -> int:
        asked.append(seen)
        return len(seen.files)

    seen = Capture({"/a": "1"})
    assert [seen.once(understand), seen.once(understand)] == [1, 1]
    assert len(asked) == 1
    assert seen == Capture({"/a": "1"})


# Cpusets


def partitions(*groups: str) -> dict[str, str]:
    return {f"/sys/fs/cgroup{group}/cpuset.cpus.partition": f"of {group}\n" for group in groups}


def read_with(cgroup: str, more: Mapping[str, str]) -> Iterable[str]:
    """The files of cgroups that are read for a thread."""
    files = {**vm("77-5"), **thread(77, 80, "vcpu0", "0"), **more, "/proc/77/task/80/cgroup": cgroup}
    return {path for path in capture(Tree(files)).files if path.startswith("/sys/fs")}


def test_cpusets_are_read_up_the_tree() -> None:
    groups = ("/a.slice", "/a.slice/b", "/a.slice/b/c")
    others = ("", "/x", "/a.slice/x", "/a.slice/b/c/d")
    assert read_with("0::/a.slice/b/c\n", partitions(*groups, *others)) == partitions(*groups).keys()


def test_cpusets_between_which_some_have_no_partition() -> None:
    there = partitions("/a")
    assert read_with("0::/a/b/c\n", there) == there.keys()


@pytest.mark.parametrize(
    ("cgroup", "group"),
    [
        ("12:cpuset:/old\n1:name=systemd:/old\n0::/a\n", "/a"),
        ("0::/a (deleted)\n", "/a (deleted)"),
        ("0::/a:b\n", "/a:b"),
    ],
)
def test_group_of_the_unified_hierarchy(cgroup: str, group: str) -> None:
    assert read_with(cgroup, partitions("/old", group)) == partitions(group).keys()


@pytest.mark.parametrize(
    "cgroup", ["", "\n", "0::\n", "0::/\n", "3:cpuset:/a\n", "10::/a\n", "0:x:/a\n", "0::a\n"]
)
def test_thread_without_a_group(cgroup: str) -> None:
    assert read_with(cgroup, partitions("", "/a", "a")) == set()


@given(st.text())
def test_any_text_of_a_group(text: str) -> None:
    assert read_with(f"0::/{text}", {}) == set()


# What was read


def test_text_without_what_surrounds_it() -> None:
    seen = Capture({"/a": " x y\n", "/b": "\n"})
    assert (seen.get("/a"), seen.get("/b"), seen.get("/c")) == ("x y", "", None)


def test_files_whose_whole_path_matches() -> None:
    seen = Capture({"/a/1/b": "one", "/a/2/b": "two", "/a/3/bc": "three", "/x/a/4/b": "four"})
    found = [(match[1], text) for match, text in seen.matching(re.compile(r"/a/(\d)/b"))]
    assert found == [("1", "one"), ("2", "two")]
