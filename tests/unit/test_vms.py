# SPDX-License-Identifier: Apache-2.0
"""The VMs of a host: whose they are, where their vCPUs may run, and which have a CPU of their own."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown, known
from cvmtune.features.wfx.vms import by_vcpu, own_mask, rows
from cvmtune.observe.capture import KVM, Capture
from cvmtune.observe.vms import Vcpu, Vm, doubt, unowned, unread, unseen, untold, vms
from tests.fakes.capture import HOST, changed, thread, vm

FOLDER = f"{KVM}/1200-13"
TASK = "/proc/1200/task/1203"


def only(changes: Mapping[str, str | None]) -> Vm:
    """The first of the host's VMs, with some files changed."""
    first, _ = vms(changed(HOST, changes))
    assert first.folder == "1200-13"
    return first


# What is there


def test_vms_of_a_host() -> None:
    db, other = vms(Capture(HOST))
    assert (db.folder, db.name) == ("1200-13", "db")
    assert (other.folder, other.name) == ("1300-9", "of process 1300")
    assert own_mask(db) is None
    assert db.files["vtimer_mode"] == "masked\n"
    assert db.figure("exits") == 5000
    assert [db.figure(file) for file in ("wfi_exit_stat", "wfe_exit_stat")] == [1000 + 50, 500 + 25]
    assert [row["untrapped"] for row in rows(db)] == [30, 30]


def test_vcpus_of_a_vm() -> None:
    assert only({}).vcpus == [
        Vcpu(0, 1203, CpuMask(frozenset({2})), 10**9, 10**6, 40, False),
        Vcpu(1, 1204, CpuMask(frozenset({3})), 10**9, 10**6, 40, False),
    ]


def test_no_vms() -> None:
    assert vms(Capture({})) == []
    # KVM's own counters are beside the VMs' folders.
    assert vms(Capture({f"{KVM}/exits": "7\n"})) == []


def test_vm_of_a_kernel_without_the_features() -> None:
    seen = Capture({f"{FOLDER}/exits": "7\n", f"{FOLDER}/wfi_exit_stat": "5\n"})
    (found,) = vms(seen)
    assert (found.folder, found.name, found.vcpus) == ("1200-13", "of process 1200", [])
    assert found.files == {"exits": "7\n", "wfi_exit_stat": "5\n"}
    assert (found.unreadable, found.hidden) == ({}, "")
    assert untold([found]).endswith("by their names (start QEMU with debug-threads=on)")


@pytest.mark.parametrize(
    ("name", "vcpu"),
    [
        *(("CPU 7/KVM", 7), ("fc_vcpu 0", 0), ("vcpu12", 12), ("kvm-vcpu-3", 3), ("CPU 511/KVM", 511)),
        *(("crosvm_vcpu0", 0), ("crosvm_vcpu511", 511), ("fc_vcpu3", 3), ("db_vcpu5", 5), ("vcpu-6", 6)),
        *(("vcpu_8", 8), ("vcpu 9", 9), ("my-vm_vcpu1", 1), ("vmx-vcpu-2", 2), ("a.b-vcpu13", 13)),
    ],
)
def test_vcpus_of_any_vmm(name: str, vcpu: int) -> None:
    (found,) = vms(Capture({f"{FOLDER}/exits": "7\n", **thread(1200, 1201, name, "0-1")}))
    assert [one.vcpu for one in found.vcpus] == [vcpu]


def test_vcpus_are_in_order_and_those_of_their_vmm() -> None:
    found = Capture(
        {
            f"{FOLDER}/exits": "7\n",
            **thread(1200, 1209, "vcpu2", "2"),
            **thread(1200, 1210, "vcpu10", "3"),
            **thread(1200, 1211, "vcpu0", "4"),
            **thread(1200, 1200, "vmm", "0-7"),
            **thread(120, 121, "vcpu5", "5"),
        }
    )
    assert [(one.vcpu, one.thread) for one in vms(found)[0].vcpus] == [(0, 1211), (2, 1209), (10, 1210)]


# Where vCPUs run


@pytest.mark.parametrize(
    ("allowed", "pinned_to"), [("2", 2), ("0", 0), ("0-3", None), ("1,3", None), ("127", 127)]
)
def test_pinned_is_who_may_run_on_one_cpu(allowed: str, pinned_to: int | None) -> None:
    (vcpu, _) = only(thread(1200, 1203, "CPU 0/KVM", allowed)).vcpus
    assert vcpu.pinned_to == pinned_to
    assert vcpu.allowed.to_list() == allowed


@pytest.mark.parametrize(
    ("groups", "partitioned"),
    [
        ({"/m/vm/libvirt": "member", "/m/vm": "member"}, False),
        ({"/m/vm/libvirt": "root"}, True),
        ({"/m/vm/libvirt": "isolated"}, True),
        ({"/m/vm/libvirt": "member", "/m/vm": "member", "/m": "isolated"}, True),
        ({"/m/vm": "root"}, True),
        # admin-guide/cgroup-v2.rst: a partition that has become invalid keeps nobody away.
        ({"/m/vm": "root invalid (Cpu list in cpuset.cpus not exclusive)"}, False),
        ({"/m/vm": "isolated invalid"}, False),
        ({"/m/other": "root", "/m/vm/libvirt/x": "root", "/": "root", "": "root"}, False),
    ],
)
def test_partition_of_a_group_or_one_above_it(groups: Mapping[str, str], partitioned: bool) -> None:
    files = {f"/sys/fs/cgroup{group}/cpuset.cpus.partition": f"{kind}\n" for group, kind in groups.items()}
    (vcpu, _) = only({**thread(1200, 1203, "CPU 0/KVM", "2", group="/m/vm/libvirt"), **files}).vcpus
    assert vcpu.partitioned is partitioned


@pytest.mark.parametrize("text", ["", "\n", "0::\n", "0::/\n", "0::m\n", "3:cpuset:/m\n"])
def test_thread_without_a_group_is_not_partitioned(text: str) -> None:
    files = {
        "/sys/fs/cgroup/m/cpuset.cpus.partition": "root\n",
        "/sys/fs/cgroup/cpuset.cpus.partition": "root\n",
    }
    (vcpu, _) = only({**files, f"{TASK}/cgroup": text}).vcpus
    assert not vcpu.partitioned


def host_of(*allowed: tuple[int, int, str]) -> Sequence[Vm]:
    """The VMs of vCPUs each given as VMM, id and the CPUs that it may run on."""
    files: dict[str, str] = {}
    for vmm, vcpu, cpus in allowed:
        files |= vm(f"{vmm}-5") | thread(vmm, vmm + 1 + vcpu, f"CPU {vcpu}/KVM", cpus)
    return vms(Capture(files))


def test_vcpus_with_cpus_of_their_own() -> None:
    assert unowned(host_of((100, 0, "2"), (100, 1, "3"), (200, 0, "4"))) == {}
    assert unowned([]) == {}


def test_vcpus_that_are_not_pinned() -> None:
    assert unowned(host_of((100, 0, "2-3,5"), (100, 1, "6"))) == {("100-5", 0): "is not pinned (CPUs 2-3,5)"}


def test_vcpus_that_share_a_cpu() -> None:
    shares = "shares CPU 2 with another vCPU"
    assert unowned(host_of((100, 0, "2"), (100, 1, "2"), (100, 2, "3"))) == {
        ("100-5", 0): shares,
        ("100-5", 1): shares,
    }
    assert unowned(host_of((100, 0, "2"), (200, 0, "2"))) == {("100-5", 0): shares, ("200-5", 0): shares}


def test_threads_of_one_process_with_two_vms_do_not_share_with_themselves() -> None:
    machines = vms(
        Capture(
            {**vm("100-5"), **vm("100-6"), **thread(100, 101, "vcpu0", "2"), **thread(100, 102, "vcpu1", "3")}
        )
    )
    assert [len(machine.vcpus) for machine in machines] == [2, 2]
    assert [machine.name for machine in machines] == ["of process 100 (100-5)", "of process 100 (100-6)"]
    assert unowned(machines) == {}


def test_vcpu_on_whose_cpu_one_that_is_not_pinned_may_run() -> None:
    found = unowned(host_of((100, 0, "2"), (100, 1, "3"), (200, 0, "3-4")))
    assert found == {
        ("100-5", 1): "shares CPU 3 with another vCPU",
        ("200-5", 0): "is not pinned (CPUs 3-4)",
    }


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([100, 200, 300]), st.integers(0, 9)),
        st.sets(st.integers(0, 5), min_size=1, max_size=2),
        max_size=6,
    )
)
def test_who_is_unowned_of_any_vcpus(where: dict[tuple[int, int], set[int]]) -> None:
    cpus = {key: CpuMask(frozenset(one)).to_list() for key, one in where.items()}
    found = unowned(host_of(*((vmm, vcpu, text) for (vmm, vcpu), text in cpus.items())))
    alone = {
        key
        for key, one in where.items()
        if len(one) == 1 and not any(one & other for who, other in where.items() if who != key)
    }
    assert found.keys() == {(f"{vmm}-5", vcpu) for vmm, vcpu in where.keys() - alone}


# Names


@pytest.mark.parametrize("name", ["db", "a b", "1-web", "ä.pid", "<x>&"])
def test_name_that_libvirt_gives_its_vmm(name: str) -> None:
    assert only({"/run/libvirt/qemu/db.pid": None, f"/run/libvirt/qemu/{name}.pid": "1200"}).name == name


@pytest.mark.parametrize(
    "text", ["", "\n", "x\n", "12000\n", "-1200\n", "1200 1\n", "0x4b0\n", "<domstatus/>"]
)
def test_other_process_is_no_vmm(text: str) -> None:
    assert only({"/run/libvirt/qemu/db.pid": text}).name == "of process 1200"


@pytest.mark.parametrize(
    "path", ["/run/libvirt/qemu/db.xml", "/run/libvirt/qemu/swtpm/db.pid", "/run/db.pid"]
)
def test_file_of_another_kind_names_nobody(path: str) -> None:
    assert only({"/run/libvirt/qemu/db.pid": None, path: "1200\n"}).name == "of process 1200"


# Files that hold something else


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("system\n", None),
        ("0\n", CpuMask(frozenset())),
        ("00000003\n", CpuMask(frozenset({0, 1}))),
        ("00000001,00000000\n", CpuMask(frozenset({32}))),
    ],
)
def test_mask_of_its_own(text: str, mask: CpuMask | None) -> None:
    assert own_mask(only({f"{FOLDER}/wfx_trap_config": text})) == mask


@pytest.mark.parametrize("text", ["", "\n", "none\n", "0x3\n", "3 4\n", f"{'f' * 9}\n", "1," * 999])
def test_mask_that_does_not_parse_is_not_the_systems(text: str) -> None:
    assert isinstance(own_mask(only({f"{FOLDER}/wfx_trap_config": text})), Unknown)


def test_mask_that_cannot_be_read_is_not_the_systems() -> None:
    found, _ = vms(refused(HOST, {f"{FOLDER}/wfx_trap_config": errno.EPERM}))
    assert own_mask(found) == Unknown("wfx_trap_config cannot be read: kernel lockdown")


def test_kernel_without_masks_of_vms_has_the_systems() -> None:
    assert own_mask(only({f"{FOLDER}/wfx_trap_config": None})) is None


def test_statistics_with_more_columns() -> None:
    """docs/kernel-abi.md: more may follow, and their order may be any."""
    text = "new wfe_exits entries vcpu wfi_exits\n- 7 100 1 10\n8 9 200 0 20\n"
    found = only({f"{FOLDER}/wfx_trap_stats": text})
    assert by_vcpu(found) == {0: 29, 1: 17}
    assert [row["entries"] for row in rows(found)] == [100, 200]


@pytest.mark.parametrize(
    "text", ["", "\n", "vcpu named wfi_exits wfe_exits\n", "vcpu wfi_exits\n0 5\n1 6\n", "x\n"]
)
def test_statistics_that_do_not_tell_exits(text: str) -> None:
    assert by_vcpu(only({f"{FOLDER}/wfx_trap_stats": text})) == {}


def test_statistics_with_a_line_cut_short() -> None:
    text = "vcpu wfi_exits wfe_exits\n0 5\n1 6 7\n"
    assert by_vcpu(only({f"{FOLDER}/wfx_trap_stats": text})) == {1: 13}


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "\N{ARABIC-INDIC DIGIT TWO}"])
def test_statistics_that_no_kernel_counts(number: str) -> None:
    text = f"vcpu wfi_exits wfe_exits\n0 {number} 7\n1 6 7\n"
    assert by_vcpu(only({f"{FOLDER}/wfx_trap_stats": text})) == {1: 13}


def test_status_with_odd_lines() -> None:
    text = "\nodd\nName:\tx:y: z\n:\nCpus_allowed_list:\t1,3\nvoluntary_ctxt_switches:\t8\n"
    vcpu = only({f"{TASK}/status": text}).vcpus[0]
    assert (vcpu.allowed.to_list(), vcpu.sleeps) == ("1,3", 8)


@pytest.mark.parametrize(
    "status", [None, "", "Name:\tCPU 0/KVM\nCpus_allowed:\t4\n", "Cpus_allowed_list:\t2-\n"]
)
def test_vcpu_of_which_nothing_tells_where_it_runs_is_left_out(status: str | None) -> None:
    """It has ended: that it were not pinned would be wrong."""
    found = only({f"{TASK}/status": status})
    assert [vcpu.vcpu for vcpu in found.vcpus] == [1]
    assert unowned([found]) == {}


@pytest.mark.parametrize(
    ("text", "ran", "waited"),
    [
        (None, None, None),
        ("", None, None),
        # A kernel that does not keep them.
        *(("0 0 0\n", None, None), ("0 0 4711\n", None, None), ("0 5 7\n", None, None), ("5 0 7\n", 5, 0)),
        ("5\n", 5, None),
        ("5 6", 5, 6),
        ("5 6 7 8\n", 5, 6),
        ("x 6 7\n", None, 6),
        ("-5 6 7", None, 6),
    ],
)
def test_times_of_a_thread(text: str | None, ran: int | None, waited: int | None) -> None:
    vcpu = only({f"{TASK}/schedstat": text}).vcpus[0]
    assert (known(vcpu.ran_ns), known(vcpu.waited_ns)) == (ran, waited)


@pytest.mark.parametrize("text", [None, "", "x\n", "-1\n", "9" * 400, "9" * 5000])
def test_counter_that_is_none_is_not_known(text: str | None) -> None:
    found = only({f"{FOLDER}/{name}": text for name in ("exits", "wfi_exit_stat")})
    assert [known(found.figure(name)) for name in ("exits", "wfi_exit_stat")] == [None, None]
    assert found.figure("wfe_exit_stat") == 525


# What cannot be read


def refused(files: Mapping[str, str], paths: Mapping[str, int]) -> Capture:
    """A capture of which these files, or those below these folders, could not be read."""
    below = {
        path: number
        for path in files
        for start, number in paths.items()
        if path == start or path.startswith(f"{start}/")
    }
    left = {path: text for path, text in files.items() if path not in below}
    return Capture(left, {**below, **{path: number for path, number in paths.items() if path not in files}})


def test_vms_whose_files_cannot_be_read_are_there() -> None:
    """As under kernel lockdown: folders are listed, and files give EPERM."""
    machines = vms(refused(HOST, {f"{KVM}/1200-13": errno.EPERM, f"{KVM}/1300-9": errno.EPERM}))
    assert [vm.name for vm in machines] == ["db", "of process 1300"]
    assert unread(machines) == "VMs cannot be read: kernel lockdown (db, of process 1300)"
    assert machines[0].figure("wfi_exit_stat") == Unknown("wfi_exit_stat cannot be read: kernel lockdown")
    # Where they run is known from elsewhere.
    assert [vcpu.pinned_to for vcpu in machines[0].vcpus] == [2, 3]


@pytest.mark.parametrize(
    ("number", "lockdown", "why"),
    [
        (errno.EPERM, None, "kernel lockdown"),
        (errno.EPERM, "none [integrity] confidentiality\n", "kernel lockdown"),
        (errno.EPERM, "[none] integrity confidentiality\n", "Operation not permitted"),
        (errno.EACCES, None, "Permission denied"),
        (errno.EIO, None, "Input/output error"),
    ],
)
def test_why_a_vm_cannot_be_read(number: int, lockdown: str | None, why: str) -> None:
    files = {**HOST, **({"/sys/kernel/security/lockdown": lockdown} if lockdown else {})}
    machines = vms(refused(files, {f"{FOLDER}/wfi_exit_stat": number}))
    assert unread(machines) == f"VMs cannot be read: {why} (db)"


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ({"/proc/1200/task": errno.EACCES}, "/proc hides processes"),
        ({"/proc/1200/task": errno.EPERM}, "/proc hides processes"),
        ({"/proc/1200/task": errno.ENOENT}, "this /proc lacks their processes (hidepid, or a container's)"),
        ({f"{TASK}/status": errno.EACCES}, "/proc hides processes"),
        ({f"{TASK}/comm": errno.EIO}, "Input/output error"),
    ],
)
def test_vcpus_that_are_hidden(paths: Mapping[str, int], why: str) -> None:
    seen = refused(HOST, paths)
    machines = vms(seen)
    assert unread(machines).startswith(f"the vCPUs of VMs cannot be read: {why}")
    assert unread(machines).endswith("(db)")
    assert doubt(seen)
    assert not machines[1].untold


def test_names_of_many_vms_are_not_all_told() -> None:
    files = {path: text for vmm in range(100, 110) for path, text in vm(f"{vmm}-5").items()}
    found = unread(vms(refused(files, dict.fromkeys(files, errno.EPERM))))
    assert found.endswith("of process 100, of process 101, of process 102, of process 103 and 6 more)")


def test_where_all_is_known_there_is_no_doubt() -> None:
    assert doubt(Capture(HOST)) == ""
    assert doubt(Capture(HOST, {f"{KVM}/7-1/exits": errno.EPERM})) != ""


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_without_debugfs_vms_are_not_seen(number: int) -> None:
    assert "run as root" in unseen(Capture({}, {"/sys/kernel/debug": number}))
    part = unseen(Capture({}, {KVM: number}))
    assert ("run as root" if number == errno.EACCES else "debugfs shows nothing of it here") in part
    assert unseen(Capture({})) == ""


# Which threads are vCPUs'


def test_process_with_one_name_for_all_threads_tells_no_vcpu() -> None:
    """QEMU without debug-threads=on."""
    files = {f"{FOLDER}/exits": "7\n", **thread(1200, 1201, "qemu-system-aar", "0-1")}
    seen = Capture({path: text for path, text in files.items() if "/task/" not in path})
    wanted = "cannot be told by their names (start QEMU with debug-threads=on)"
    assert untold(vms(seen)) == f"the threads of the vCPUs of VM of process 1200 {wanted}"


def test_name_that_is_cut_off_may_be_of_another_vcpu() -> None:
    files = {
        f"{FOLDER}/exits": "7\n",
        **thread(1200, 1201, "database_vcpu1", "1"),
        **thread(1200, 1202, "database1_vcpu1", "2"),
    }
    (found,) = vms(Capture(files))
    assert [vcpu.thread for vcpu in found.vcpus] == [1201]
    assert found.untold == "by their names, which are cut off"


@given(
    st.dictionaries(
        st.sampled_from([path for path in HOST if path.startswith((KVM, "/proc/1", "/run"))]), st.text()
    )
)
def test_any_texts(files: dict[str, str]) -> None:
    machines = vms(changed(HOST, files))
    assert [machine.folder for machine in machines] == ["1200-13", "1300-9"]
    everyone = {(machine.folder, vcpu.vcpu) for machine in machines for vcpu in machine.vcpus}
    assert unowned(machines).keys() <= everyone
