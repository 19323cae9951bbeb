# SPDX-License-Identifier: Apache-2.0
"""The knobs of masks against fake kernels of CPUs 0-3, with and without faults; from mask 3 to mask c."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmtune.core.system import LocalSystem
from cvmtune.features.soft_ipi import knob as soft_ipi
from cvmtune.features.wfx import knob as wfx
from cvmtune.tuning.contract import Knob, KnobError, Plan
from cvmtune.tuning.file_knob import MaskKnob
from tests.fakes.kernel import SWEEPS, BootKernel, Crash, FakeKernel, WfxKernel, When, os_error

Start = Callable[[int], FakeKernel]

OLD, NEW, OTHER = {0, 1}, {2, 3}, {1}
BAD_MASKS = [
    *["", " ", "\n", "0x", "0xc", ",", "c,", ",c", "1,,c", "g", "-1", "1 2", "3\x00", "2-3", "000000001"],
    "\N{FULLWIDTH DIGIT THREE}",
]


@dataclass(frozen=True)
class Case:
    """A knob and a kernel for it."""

    make: type[MaskKnob]
    kernel: type[FakeKernel]
    path: str
    missing: str
    too_wide: str  # the least mask that this kernel does not have
    write: int  # which of apply()'s operations writes


SOFT_IPI = Case(soft_ipi.SoftIpi, FakeKernel, soft_ipi.PATH, "no soft IPI passthrough", "10", write=2)
WFX_VENDOR = Case(wfx.Wfx, FakeKernel, wfx.PATH, "no control of WFx traps", "10", write=3)
WFX = Case(wfx.Wfx, WfxKernel, wfx.PATH, "no control of WFx traps", "1" + 16 * ",00000000", write=2)


@pytest.fixture(
    params=[
        pytest.param(SOFT_IPI, id="soft_ipi"),
        pytest.param(WFX, id="wfx"),
        pytest.param(WFX_VENDOR, id="wfx-vendor"),
    ]
)
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


@pytest.fixture
def knob(case: Case) -> Knob:
    return case.make()


@pytest.fixture
def start(case: Case, boot: BootKernel) -> Start:
    """Return a function that makes a fresh kernel of the case, of a machine with so many CPUs."""
    return lambda width: boot(case.path, width, kind=case.kernel)


@pytest.fixture
def kernel(start: Start) -> FakeKernel:
    kernel = start(4)
    kernel.cpus = OLD
    return kernel


# read


def test_reads_the_mask_in_canonical_form(knob: Knob, start: Start) -> None:
    kernel = start(40)
    kernel.cpus = {2, 3}  # shown as 00,0000000c or 0000000c
    state = knob.read(kernel)
    assert (state.available, state.value, state.problem) == (True, "c", None)


def test_absent_file_is_a_state(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    kernel.remove()
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert case.missing in state.problem
    assert case.path in state.problem


def test_unreadable_file_is_a_state(knob: Knob, kernel: FakeKernel) -> None:
    kernel.fail(0, os_error(errno.EACCES))
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert "Permission denied" in state.problem
    assert "run as root" in state.problem


def test_file_that_shows_no_mask_is_a_state(knob: Knob, kernel: FakeKernel) -> None:
    for text in ("", "nonsense\n", "Current mask: 3\n", "0x3\n"):
        kernel.show(text)
        state = knob.read(kernel)
        assert (state.available, state.value) == (False, None), repr(text)
        assert state.problem is not None
        assert "something else than a mask" in state.problem


# plan


def test_plan_tells_before_and_after_and_writes_nothing(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    assert knob.plan(kernel, "0000000C\n") == Plan(case.path, before="3", after="c")
    assert kernel.written == []


def test_plan_refuses_what_is_no_mask(knob: Knob, kernel: FakeKernel) -> None:
    for want in BAD_MASKS:
        with pytest.raises(KnobError, match="no hex CPU mask"):
            knob.plan(kernel, want)
        assert kernel.written == [], repr(want)


def test_plan_needs_the_file(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    kernel.remove()
    with pytest.raises(KnobError, match=case.missing):
        knob.plan(kernel, "c")


# apply, verify, undo without faults


@pytest.mark.parametrize("width", [4, 32, 33, 512])
def test_apply_then_undo(knob: Knob, start: Start, width: int) -> None:
    kernel = start(width)
    old, new = set(range(0, width, 2)), {0, width - 1}
    kernel.cpus = old
    plan = knob.plan(kernel, hex_groups(new))
    assert not knob.verify(kernel, plan)
    knob.apply(kernel, plan)
    assert kernel.cpus == new
    assert knob.verify(kernel, plan)
    knob.undo(kernel, plan)
    assert kernel.cpus == old
    assert not knob.verify(kernel, plan)


def hex_groups(cpus: set[int]) -> str:
    groups = range(max(cpus) // 32, -1, -1)
    return ",".join(f"{sum(1 << cpu % 32 for cpu in cpus if cpu // 32 == group):08x}" for group in groups)


def test_writes_once_with_a_newline_as_echo_does(knob: Knob, kernel: FakeKernel) -> None:
    knob.apply(kernel, knob.plan(kernel, "c"))
    assert kernel.written == ["c\n"]


def test_turns_on_from_nothing_and_off_to_nothing(knob: Knob, kernel: FakeKernel) -> None:
    kernel.cpus = set()
    on = knob.plan(kernel, "f")
    assert on.before == "0"
    knob.apply(kernel, on)
    knob.apply(kernel, knob.plan(kernel, "0"))
    assert kernel.cpus == set()


def test_apply_and_undo_may_be_repeated(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    knob.apply(kernel, plan)
    knob.apply(kernel, plan)
    knob.undo(kernel, plan)
    knob.undo(kernel, plan)
    assert kernel.cpus == OLD
    assert kernel.written == ["c\n", "3\n"]


def test_plan_for_the_present_mask_writes_nothing(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "00000003")
    knob.apply(kernel, plan)
    assert knob.verify(kernel, plan)
    knob.undo(kernel, plan)
    assert kernel.written == []


def test_undo_takes_back_a_later_change_too(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    knob.apply(kernel, plan)
    kernel.cpus = OTHER
    knob.undo(kernel, plan)
    assert kernel.cpus == OLD


def test_on_a_plain_tree_of_files(case: Case, knob: Knob, tmp_path: Path) -> None:
    for path, text in [(case.path, "3\n"), ("/sys/devices/system/cpu/possible", "0-3\n")]:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    system = LocalSystem(tmp_path)
    plan = knob.plan(system, "c")
    knob.apply(system, plan)
    assert system.read_text(case.path) == "c\n"
    knob.undo(system, plan)
    assert system.read_text(case.path) == "3\n"


# plans that are stale, or not ours


def test_apply_refuses_when_the_mask_changed_since_planning(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    kernel.cpus = OTHER
    with pytest.raises(KnobError, match="the mask is 2, not 3"):
        knob.apply(kernel, plan)
    assert kernel.cpus == OTHER
    assert kernel.written == []


def test_file_that_vanished_since_planning(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    kernel.remove()
    for step in (knob.apply, knob.verify, knob.undo):
        with pytest.raises(KnobError, match=case.missing):
            step(kernel, plan)
    assert kernel.written == []
    assert not kernel.exists(case.path)


def test_bad_mask_in_a_saved_plan_is_never_written(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    for text in [*BAD_MASKS, "1" + 20 * ",00000000", case.too_wide]:
        before, after = Plan(case.path, text, "c"), Plan(case.path, "3", text)
        for step, plan in ((knob.apply, before), (knob.undo, before), (knob.apply, after)):
            with pytest.raises(KnobError):
                step(kernel, plan)
            assert kernel.cpus == OLD, repr(text)
            assert kernel.written == [], repr(text)


def test_plan_for_another_file_is_refused(case: Case, knob: Knob, kernel: FakeKernel) -> None:
    plan = Plan("/sys/kernel/ib_core_poll_cpu", "3", "c")
    for step in (knob.apply, knob.verify, knob.undo):
        with pytest.raises(KnobError, match="ib_core_poll_cpu"):
            step(kernel, plan)
    assert kernel.written == []


# faults


def test_failed_write_leaves_the_old_mask_and_is_not_followed_by_another(
    case: Case, knob: Knob, kernel: FakeKernel
) -> None:
    plan = knob.plan(kernel, "c")
    kernel.fail(case.write, os_error(errno.EPERM))
    with pytest.raises(KnobError, match=r"cannot write mask c.*the mask is 3 as before") as caught:
        knob.apply(kernel, plan)
    assert "run as root" in caught.value.next_step
    assert kernel.cpus == OLD
    assert sum(operation.startswith("write") for operation in kernel.operations) == 1


def test_write_that_fails_after_it_took_effect_is_taken_back(
    case: Case, knob: Knob, kernel: FakeKernel
) -> None:
    plan = knob.plan(kernel, "c")
    kernel.fail(case.write, os_error(errno.EIO), "after")
    with pytest.raises(KnobError, match="as before"):
        knob.apply(kernel, plan)
    assert kernel.cpus == OLD


def test_mask_that_reads_back_otherwise_is_taken_back(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    kernel.take_instead("2")
    with pytest.raises(KnobError, match="took mask c but shows 2; the mask is 3 as before"):
        knob.apply(kernel, plan)
    assert kernel.cpus == OLD


def test_undo_that_reads_back_otherwise_is_an_error(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    knob.apply(kernel, plan)
    kernel.take_instead("2")
    with pytest.raises(KnobError, match="took mask 3 but shows 2"):
        knob.undo(kernel, plan)


def test_both_failures_are_told_when_putting_back_fails_too(
    case: Case, knob: Knob, kernel: FakeKernel
) -> None:
    plan = knob.plan(kernel, "c")
    kernel.fail(case.write + 1, os_error(errno.EIO))
    kernel.fail(case.write + 2, os_error(errno.EPERM))
    with pytest.raises(KnobError, match=r"and putting 3 back failed:.*not permitted") as caught:
        knob.apply(kernel, plan)
    assert "undo" in caught.value.next_step
    assert kernel.cpus == NEW
    case.make().undo(kernel, plan)
    assert kernel.cpus == OLD


def test_verify_raises_when_it_cannot_tell(knob: Knob, kernel: FakeKernel) -> None:
    plan = knob.plan(kernel, "c")
    kernel.fail(0, os_error(errno.EIO))
    with pytest.raises(KnobError, match="cannot read the mask"):
        knob.verify(kernel, plan)


@pytest.mark.parametrize(("fault", "when", "lasting"), SWEEPS)
@pytest.mark.parametrize("method", ["apply", "undo"])
def test_fault_anywhere_leaves_old_or_new_and_can_be_undone(
    case: Case, start: Start, fault: BaseException, when: When, lasting: int, method: str
) -> None:
    """Let each operation of apply() or undo() in turn, and those just after it, fail."""
    operation = 0
    while True:
        kernel = start(4)
        kernel.cpus = OLD
        plan = case.make().plan(kernel, "c")
        if method == "undo":
            case.make().apply(kernel, plan)
        for number in range(operation, operation + lasting):
            kernel.fail(number, fault, when)
        try:
            getattr(case.make(), method)(kernel, plan)
        except (KnobError, Crash):
            pass
        else:
            break  # `operation` lies beyond the method's last one
        assert kernel.cpus in (OLD, NEW), f"operation {operation}"
        kernel.faults.clear()
        case.make().undo(kernel, plan)
        assert kernel.cpus == OLD, f"operation {operation}"
        operation += 1
    assert operation >= case.write + 2, (
        "both methods read the mask, look what it may be, write, and read back"
    )
