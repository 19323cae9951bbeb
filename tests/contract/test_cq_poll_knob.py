# SPDX-License-Identifier: Apache-2.0
"""The knob of polled completion queues against fake kernels, mainline's and a vendor's, with CPUs 0-3."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.core.system import LocalSystem
from cvmtune.features.cq_poll.knob import MOUNTS, OFF, ONLINE, PATH, CqPoll
from cvmtune.tuning.contract import Knob, KnobError, Plan
from tests.fakes.kernel import SWEEPS, CqPollKernel, Crash, When, os_error

MAINLINE, VENDOR = False, True
BOTH = [pytest.param(MAINLINE, id="mainline"), pytest.param(VENDOR, id="vendor")]
# On, off, and from CPU to CPU.
CHANGES = [(-1, 2), (2, -1), (2, 3)]
BAD_VALUES = [
    *["", " ", "\n", "-", "--1", "-2", "-0", "+2", "02", "0x2", "2,3", "1-2", "2 3", "2\n3", "2\x00", "2.0"],
    *["off", "99999", "9" * 5000, "\N{FULLWIDTH DIGIT TWO}", "Current polling core is: 2"],
]
BAD_TEXTS = [
    *["", "\n", "nonsense\n", "-2\n", "02\n", "2\n3\n", "Current polling core is: \n"],
    *["Current polling core is: -1\n", "Current polling core is: 2, 3\n", "Current polling thread is up\n"],
    *["current polling core is: 2\n", "Polling is off\n", "Current polling core is: 2\nCurrent\n"],
]

# Each input makes files, which takes what a busy computer leaves; and the inputs are the same on every run.
steady = settings(deadline=None, derandomize=True)


def boot(under: Path, vendor: bool, cpu: int = -1) -> CqPollKernel:
    kernel = CqPollKernel(Path(mkdtemp(dir=under)), PATH, vendor)
    kernel.cpu = cpu
    return kernel


@pytest.fixture
def knob() -> Knob:
    return CqPoll()


@pytest.fixture(params=BOTH)
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> CqPollKernel:
    """Either kernel, its CPU 2 polling."""
    return boot(tmp_path, request.param, 2)


@pytest.fixture
def mainline(tmp_path: Path) -> CqPollKernel:
    return boot(tmp_path, MAINLINE, 2)


@pytest.fixture
def vendor(tmp_path: Path) -> CqPollKernel:
    return boot(tmp_path, VENDOR, 2)


# the fake


@pytest.mark.parametrize("text", ["", "on\n", "2 3\n", "4\n", "-2\n", "3\n", "-1\n"])
def test_fake_vendor_kernel_fails_the_test_on_what_it_must_not_be_given(
    vendor: CqPollKernel, text: str
) -> None:
    vendor.take_offline(3)
    vendor.mount()
    with pytest.raises(pytest.fail.Exception):
        vendor.write_text(PATH, text)
    assert vendor.cpu == 2


# read


@pytest.mark.parametrize("cpu", [-1, 0, 3])
def test_reads_the_cpu(knob: Knob, kernel: CqPollKernel, cpu: int) -> None:
    kernel.cpu = cpu
    state = knob.read(kernel)
    assert (state.available, state.value, state.problem) == (True, str(cpu), None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", "10"),
        ("10\n", "10"),
        ("-1", "-1"),
        ("Current polling core is: 10", "10"),
        ("Current polling core is: 10\n\n", "10"),
        ("Current polling thread is down", "-1"),
        ("Current polling thread is down\n", "-1"),
    ],
)
def test_reads_with_a_newline_and_without(knob: Knob, mainline: CqPollKernel, text: str, value: str) -> None:
    mainline.show(text)
    assert knob.read(mainline).value == value


def test_file_that_shows_no_cpu_is_a_state_and_is_not_written(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    for text in BAD_TEXTS:
        kernel.show(text)
        state = knob.read(kernel)
        assert (state.available, state.value) == (False, None), repr(text)
        assert state.problem is not None
        assert "something else than a polling CPU" in state.problem
        for step in (knob.apply, knob.verify, knob.undo):
            with pytest.raises(KnobError, match="something else"):
                step(kernel, plan)
        with pytest.raises(KnobError, match="something else"):
            knob.plan(kernel, "3")
    assert kernel.written == []


@steady
@given(
    st.text()
    | st.integers(-3, 20).map(str)
    | st.text(max_size=3).map("Current polling core is: {}".format)
    | st.text(max_size=3).map("Current polling thread is down{}".format)
)
def test_any_text_gives_a_state(memory: Path, text: str) -> None:
    kernel = boot(memory, MAINLINE)
    kernel.show(text)
    state = CqPoll().read(kernel)
    assert state.available == (state.value is not None) == (state.problem is None)
    if state.value is None:
        with pytest.raises(KnobError):
            CqPoll().plan(kernel, "2")
    else:
        assert state.value == "-1" or (state.value.isascii() and state.value.isdigit())
    assert kernel.written == []


def test_absent_file_is_a_state(knob: Knob, kernel: CqPollKernel) -> None:
    kernel.remove()
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert "ib_core_cq_poll is not loaded, or the kernel lacks it" in state.problem
    assert "next: modprobe ib_core_cq_poll" in state.problem
    assert PATH in state.problem


def test_unreadable_file_is_a_state(knob: Knob, kernel: CqPollKernel) -> None:
    kernel.fail(0, os_error(errno.EACCES))
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert "Permission denied" in state.problem
    assert "run as root" in state.problem


# plan


@pytest.mark.parametrize("want", ["-1", "0", "3"])
def test_plan_tells_before_and_after_and_writes_nothing(knob: Knob, kernel: CqPollKernel, want: str) -> None:
    assert knob.plan(kernel, f" {want}\n") == Plan(PATH, before="2", after=want)
    assert kernel.written == []


def test_plan_refuses_what_is_no_cpu(knob: Knob, kernel: CqPollKernel) -> None:
    for want in BAD_VALUES:
        with pytest.raises(KnobError, match="neither a CPU's number nor -1") as caught:
            knob.plan(kernel, want)
        assert "-1 for off" in caught.value.next_step, repr(want)
    assert kernel.written == []


@pytest.mark.parametrize("want", ["1", "4", "8192"])
def test_plan_refuses_a_cpu_that_is_offline_or_impossible(
    knob: Knob, kernel: CqPollKernel, want: str
) -> None:
    kernel.take_offline(1)
    with pytest.raises(KnobError, match=f"CPU {want} is not online") as caught:
        knob.plan(kernel, want)
    assert "0,2-3" in caught.value.next_step
    assert kernel.written == []


def test_plan_refuses_to_leave_a_cpu_that_it_could_not_go_back_to(knob: Knob, vendor: CqPollKernel) -> None:
    vendor.take_offline(2)
    assert vendor.cpu == 2
    with pytest.raises(KnobError, match="CPU 2 is not online"):
        knob.plan(vendor, "3")


def test_plan_needs_the_file(knob: Knob, kernel: CqPollKernel) -> None:
    kernel.remove()
    with pytest.raises(KnobError, match="is not loaded") as caught:
        knob.plan(kernel, "3")
    assert caught.value.next_step == "modprobe ib_core_cq_poll"


@pytest.mark.parametrize("content", ["nonsense\n", None])
def test_plan_needs_to_know_the_cpus_online(knob: Knob, kernel: CqPollKernel, content: str | None) -> None:
    if content is None:
        kernel.online_file.unlink()
    else:
        kernel.online_file.write_text(content)
    with pytest.raises(KnobError) as caught:
        knob.plan(kernel, "3")
    assert caught.value.where == ONLINE


# apply, verify, undo without faults


@pytest.mark.parametrize("vendor", BOTH)
@pytest.mark.parametrize("old", [-1, 0, 2, 3])
@pytest.mark.parametrize("new", [-1, 0, 2, 3])
def test_apply_then_undo(knob: Knob, tmp_path: Path, vendor: bool, old: int, new: int) -> None:
    kernel = boot(tmp_path, vendor, old)
    plan = knob.plan(kernel, str(new))
    for _ in range(2):
        knob.apply(kernel, plan)
        assert kernel.cpu == new
        assert knob.verify(kernel, plan)
    for _ in range(2):
        knob.undo(kernel, plan)
        assert kernel.cpu == old
        assert knob.verify(kernel, plan) == (old == new)
    assert kernel.written == ([] if old == new else [f"{new}\n", f"{old}\n"])


def test_undo_takes_back_a_later_change_too(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    knob.apply(kernel, plan)
    kernel.cpu = 0
    knob.undo(kernel, plan)
    assert kernel.cpu == 2


def test_on_a_plain_tree_of_files(knob: Knob, tmp_path: Path) -> None:
    for path, text in [(PATH, "2\n"), (ONLINE, "0-3\n")]:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    system = LocalSystem(tmp_path)
    plan = knob.plan(system, "3")
    knob.apply(system, plan)
    assert system.read_text(PATH) == "3\n"
    knob.undo(system, plan)
    assert system.read_text(PATH) == "2\n"


# plans that are stale, or not ours


def test_apply_refuses_when_another_cpu_polls_than_when_planned(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    kernel.cpu = 0
    with pytest.raises(
        KnobError, match="the polling CPU is 0, not 2 as when the change was planned"
    ) as caught:
        knob.apply(kernel, plan)
    assert "who else sets it" in caught.value.next_step
    assert kernel.cpu == 0
    assert kernel.written == []


def test_polling_that_ended_because_its_cpu_went_offline(knob: Knob, mainline: CqPollKernel) -> None:
    on, move = Plan(PATH, before="-1", after="2"), knob.plan(mainline, "3")
    assert knob.verify(mainline, on)
    mainline.take_offline(2)
    assert not knob.verify(mainline, on)
    with pytest.raises(KnobError, match="CPU 2 is not online"):
        knob.apply(mainline, on)
    with pytest.raises(KnobError, match="is -1, not 2 as when the change was planned") as caught:
        knob.apply(mainline, move)
    assert "whether its CPU went offline" in caught.value.next_step
    with pytest.raises(KnobError, match="CPU 2 is not online"):
        knob.undo(mainline, move)
    knob.undo(mainline, on)
    assert mainline.written == []


def test_undo_to_a_cpu_that_is_offline_by_now(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    knob.apply(kernel, plan)
    kernel.take_offline(2)
    with pytest.raises(KnobError, match="CPU 2 is not online") as caught:
        knob.undo(kernel, plan)
    assert "bring it online" in caught.value.next_step
    assert kernel.cpu == 3


@pytest.mark.parametrize("gone", [2, 3])
def test_apply_refuses_when_either_cpu_has_gone_offline(knob: Knob, vendor: CqPollKernel, gone: int) -> None:
    plan = knob.plan(vendor, "3")
    vendor.take_offline(gone)
    with pytest.raises(KnobError, match=f"CPU {gone} is not online"):
        knob.apply(vendor, plan)
    assert vendor.written == []


def test_file_that_vanished_since_planning(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    kernel.remove()
    for step in (knob.apply, knob.verify, knob.undo):
        with pytest.raises(KnobError, match="is not loaded"):
            step(kernel, plan)
    assert kernel.written == []
    assert not kernel.exists(PATH)


def test_bad_value_in_a_saved_plan_is_never_written(knob: Knob, kernel: CqPollKernel) -> None:
    for text in [*BAD_VALUES, "4", "8192"]:
        before, after = Plan(PATH, text, "3"), Plan(PATH, "2", text)
        for step, plan in ((knob.apply, before), (knob.undo, before), (knob.apply, after)):
            with pytest.raises(KnobError):
                step(kernel, plan)
            assert kernel.written == [], repr(text)


VALUES = st.text() | st.integers(-3, 5).map(str)


@steady
@given(vendor=st.booleans(), before=VALUES, after=VALUES)
def test_any_saved_plan_leads_to_a_write_of_plain_values_only(
    memory: Path, vendor: bool, before: str, after: str
) -> None:
    kernel = boot(memory, vendor, 2)
    for step in (CqPoll().apply, CqPoll().undo):
        try:
            step(kernel, Plan(PATH, before, after))
        except KnobError:
            pass
        else:
            assert kernel.cpu == int(after if step.__name__ == "apply" else before)
    assert set(kernel.written) <= {"-1\n", "0\n", "1\n", "2\n", "3\n"}


def test_plan_for_another_file_is_refused(knob: Knob, kernel: CqPollKernel) -> None:
    plan = Plan("/sys/kernel/ib_core_poll_stat", "2", "3")
    for step in (knob.apply, knob.verify, knob.undo):
        with pytest.raises(KnobError, match="ib_core_poll_stat"):
            step(kernel, plan)
    assert kernel.written == []


# NFS mounted over RDMA


@pytest.mark.parametrize(("old", "new"), CHANGES)
@pytest.mark.parametrize("filesystem", ["nfs", "nfs4"])
@pytest.mark.parametrize("proto", ["rdma", "rdma6"])
def test_vendor_kernel_is_not_changed_under_a_mount(
    knob: Knob, vendor: CqPollKernel, old: int, new: int, filesystem: str, proto: str
) -> None:
    vendor.cpu = old
    plan = knob.plan(vendor, str(new))
    vendor.mount("/mnt", "tcp")
    vendor.mount("/data", proto, filesystem)
    vendor.mount("/with\\040blank", proto, filesystem)
    for refused in (lambda: knob.plan(vendor, str(new)), lambda: knob.apply(vendor, plan)):
        with pytest.raises(KnobError, match=r"over RDMA on /data, /with\\040blank:") as caught:
            refused()
        assert caught.value.where == MOUNTS
        assert caught.value.next_step == "unmount first, change polling, mount again"
    assert vendor.cpu == old
    assert vendor.written == []


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_vendor_kernel_is_not_changed_back_under_a_mount(
    knob: Knob, vendor: CqPollKernel, old: int, new: int
) -> None:
    vendor.cpu = old
    plan = knob.plan(vendor, str(new))
    knob.apply(vendor, plan)
    vendor.mount()
    with pytest.raises(KnobError, match="over RDMA on /mnt:"):
        knob.undo(vendor, plan)
    assert vendor.cpu == new


def test_what_is_so_already_may_stay_so_under_a_mount(knob: Knob, vendor: CqPollKernel) -> None:
    to_3 = knob.plan(vendor, "3")
    vendor.mount()
    plan = knob.plan(vendor, "2")
    knob.apply(vendor, plan)
    assert knob.verify(vendor, plan)
    knob.undo(vendor, plan)
    knob.undo(vendor, to_3)
    assert vendor.written == []


@pytest.mark.parametrize(
    ("proto", "filesystem"),
    [("tcp", "nfs4"), ("udp6", "nfs"), ("tcp,mountproto=rdma", "nfs"), ("rdma", "cifs"), ("rdma", "nfsd")],
)
def test_other_mounts_do_not_matter(knob: Knob, vendor: CqPollKernel, proto: str, filesystem: str) -> None:
    vendor.mount("/proto=rdma", proto, filesystem)
    knob.apply(vendor, knob.plan(vendor, "-1"))
    assert vendor.cpu == -1


# The kernel escapes blank, tab, newline and backslash.
@steady
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\\\0")))
def test_mount_is_found_wherever_it_is(memory: Path, name: str) -> None:
    vendor = boot(memory, VENDOR, 2)
    vendor.mount("/" + name)
    with pytest.raises(KnobError, match="over RDMA"):
        CqPoll().plan(vendor, "-1")


def test_vendor_kernel_is_not_changed_when_mounts_cannot_be_told(knob: Knob, vendor: CqPollKernel) -> None:
    plan = knob.plan(vendor, "-1")
    vendor.mounts_file.unlink()
    for refused in (lambda: knob.plan(vendor, "-1"), lambda: knob.apply(vendor, plan)):
        with pytest.raises(KnobError, match="cannot tell whether NFS is mounted over RDMA"):
            refused()
    assert vendor.written == []


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_mainline_may_be_changed_under_a_mount(
    knob: Knob, mainline: CqPollKernel, old: int, new: int
) -> None:
    mainline.cpu = old
    mainline.mount()
    plan = knob.plan(mainline, str(new))
    knob.apply(mainline, plan)
    assert mainline.cpu == new
    knob.undo(mainline, plan)
    assert mainline.cpu == old
    assert f"read {MOUNTS}" not in mainline.operations


@pytest.mark.parametrize("operation", range(24))
def test_mount_made_during_a_change_that_fails(knob: Knob, vendor: CqPollKernel, operation: int) -> None:
    """Up to the last operation before -1 is written back, the look at the mounts."""
    vendor.cpu = -1
    plan = knob.plan(vendor, "2")
    vendor.fail(12, os_error(errno.EIO), "after")
    vendor.meanwhile(operation, vendor.mount)
    with pytest.raises(KnobError, match="over RDMA on /mnt:") as caught:
        knob.apply(vendor, plan)
    assert vendor.operations[-1] == f"read {MOUNTS}"
    if operation < 12:
        assert vendor.written == []
    else:
        assert vendor.written == ["2\n"]
        assert (
            "cannot write polling CPU 2: Input/output error; and putting -1 back failed" in caught.value.what
        )
        assert caught.value.next_step.startswith("unmount first")
        assert caught.value.next_step.endswith("then undo this change")


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        # Mounts of other namespaces, and those unmounted lazily, are in /proc/mounts no more.
        ("/sys/module/rpcrdma/refcnt", "2\n", "module rpcrdma is in use"),
        ("/sys/module/nvme_rdma/refcnt", "1\n", "module nvme_rdma is in use"),
        ("/sys/module/ib_isert/refcnt", "odd\n", "module ib_isert is in use"),
        ("/proc/fs/nfsd/portlist", "rdma 20049\ntcp 2049\n", "NFS is served over RDMA"),
    ],
)
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_vendor_kernel_is_left_alone_while_rdma_is_in_use(
    knob: Knob, tmp_path: Path, path: str, text: str, says: str, old: int, new: int
) -> None:
    kernel = boot(tmp_path, VENDOR, old)
    plan = knob.plan(kernel, str(new))
    kernel._make(path, text)
    for step in (lambda: knob.plan(kernel, str(new)), lambda: knob.apply(kernel, plan)):
        with pytest.raises(KnobError, match=says):
            step()
    assert kernel.written == []
    kernel._make(path, "0\n" if path.endswith("refcnt") else "tcp 2049\n")
    knob.apply(kernel, plan)
    assert kernel.cpu == new


def test_vendors_poller_on_a_cpu_that_went_offline_is_not_in_force(knob: Knob, tmp_path: Path) -> None:
    kernel = boot(tmp_path, VENDOR)
    plan = knob.plan(kernel, "2")
    knob.apply(kernel, plan)
    assert knob.verify(kernel, plan)
    kernel.take_offline(2)
    assert knob.read(kernel).value == "2"
    assert not knob.verify(kernel, plan)


# faults


def test_failed_write_leaves_the_old_cpu_and_is_not_followed_by_another(
    knob: Knob, mainline: CqPollKernel
) -> None:
    plan = knob.plan(mainline, "3")
    mainline.fail(3, os_error(errno.EPERM))
    with pytest.raises(
        KnobError, match=r"cannot write polling CPU 3.*the polling CPU is 2 as before"
    ) as caught:
        knob.apply(mainline, plan)
    assert "run as root" in caught.value.next_step
    assert mainline.cpu == 2
    assert sum(operation.startswith("write") for operation in mainline.operations) == 1


def test_write_that_fails_after_it_took_effect_is_taken_back(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "-1")
    kernel.fail(12 if kernel.vendor else 3, os_error(errno.EIO), "after")
    with pytest.raises(KnobError, match="the polling CPU is 2 as before"):
        knob.apply(kernel, plan)
    assert kernel.cpu == 2
    assert kernel.written == ["-1\n", "2\n"]


def test_cpu_that_reads_back_otherwise_is_taken_back(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    kernel.take_instead("0\n")
    with pytest.raises(KnobError, match="took polling CPU 3 but shows 0; the polling CPU is 2 as before"):
        knob.apply(kernel, plan)
    assert kernel.cpu == 2


def test_undo_that_reads_back_otherwise_is_an_error(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    knob.apply(kernel, plan)
    kernel.take_instead("0\n")
    with pytest.raises(KnobError, match="took polling CPU 2 but shows 0"):
        knob.undo(kernel, plan)


@pytest.mark.parametrize(
    ("operation", "says"), [(3, "No such device"), (4, "took polling CPU 3 but shows -1")]
)
def test_cpu_that_goes_offline_during_the_change(
    knob: Knob, mainline: CqPollKernel, operation: int, says: str
) -> None:
    plan = knob.plan(mainline, "3")
    mainline.meanwhile(operation, lambda: mainline.take_offline(3))
    with pytest.raises(KnobError, match=f"{says}; the polling CPU is 2 as before"):
        knob.apply(mainline, plan)
    assert mainline.cpu == 2


def test_failed_change_is_not_taken_back_to_a_cpu_that_went_offline(
    knob: Knob, mainline: CqPollKernel
) -> None:
    plan = knob.plan(mainline, "3")
    mainline.fail(3, os_error(errno.EIO), "after")
    mainline.meanwhile(4, lambda: mainline.take_offline(2))
    with pytest.raises(KnobError, match="and putting 2 back failed: CPU 2 is not online"):
        knob.apply(mainline, plan)
    assert mainline.cpu == 3


def test_both_failures_are_told_when_putting_back_fails_too(knob: Knob, mainline: CqPollKernel) -> None:
    plan = knob.plan(mainline, "3")
    mainline.fail(4, os_error(errno.EIO))
    mainline.fail(5, os_error(errno.ENXIO))
    with pytest.raises(KnobError, match=r"and putting 2 back failed:.*No such device or address") as caught:
        knob.apply(mainline, plan)
    assert caught.value.next_step == "make the file work again, then undo this change"
    assert mainline.cpu == 3
    CqPoll().undo(mainline, plan)
    assert mainline.cpu == 2


def test_verify_raises_when_it_cannot_tell(knob: Knob, kernel: CqPollKernel) -> None:
    plan = knob.plan(kernel, "3")
    kernel.fail(0, os_error(errno.EIO))
    with pytest.raises(KnobError, match="cannot read the polling CPU"):
        knob.verify(kernel, plan)


@pytest.mark.parametrize("vendor", BOTH)
@pytest.mark.parametrize(("old", "new"), CHANGES)
@pytest.mark.parametrize(("fault", "when", "lasting"), SWEEPS)
@pytest.mark.parametrize("method", ["apply", "undo"])
def test_fault_anywhere_leaves_old_or_new_and_can_be_undone(
    tmp_path: Path,
    vendor: bool,
    old: int,
    new: int,
    fault: BaseException,
    when: When,
    lasting: int,
    method: str,
) -> None:
    """Let each operation of apply() or undo() in turn, and those just after it, fail."""
    operation = 0
    while True:
        kernel = boot(tmp_path, vendor, old)
        plan = CqPoll().plan(kernel, str(new))
        if method == "undo":
            CqPoll().apply(kernel, plan)
        for number in range(operation, operation + lasting):
            kernel.fail(number, fault, when)
        try:
            getattr(CqPoll(), method)(kernel, plan)
        except (KnobError, Crash):
            pass
        else:
            break  # `operation` lies beyond the method's last one
        assert kernel.cpu in (old, new), f"operation {operation}"
        kernel.faults.clear()
        CqPoll().undo(kernel, plan)
        assert kernel.cpu == old, f"operation {operation}"
        operation += 1
    online = (old if method == "undo" else new) != OFF
    assert operation >= 4 + online, (
        "both methods read the CPU, those online for any but off, which kernel it is, write, and read back"
    )


@pytest.mark.parametrize("vendor", [False, True])
def test_off_holds_whichever_cpus_are_online(tmp_path: Path, vendor: bool) -> None:
    kernel = boot(tmp_path, vendor, 1)
    plan = CqPoll().plan(kernel, "-1")
    CqPoll().apply(kernel, plan)
    kernel.operations.clear()
    assert CqPoll().verify(kernel, plan)
    assert f"read {ONLINE}" not in kernel.operations
