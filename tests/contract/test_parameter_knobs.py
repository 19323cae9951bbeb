# SPDX-License-Identifier: Apache-2.0
"""The knobs of module parameters against fake kernels, with and without faults."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.core.system import LocalSystem
from cvmtune.features.cq_poll.knob import CqIdleUs
from cvmtune.features.soft_ipi.knob import IpiPollUs
from cvmtune.features.wfx.knob import WfxGuard
from cvmtune.tuning.contract import Knob, KnobError, Plan
from tests.fakes.controls import CQ_IDLE_US, IPI_POLL_US, WFX_GUARD, BoolKernel, UintKernel
from tests.fakes.kernel import SWEEPS, Crash, FakeSystem, When, os_error

# What is none, whether a user gives it, a saved plan or the kernel.
BAD_NUMBERS = [
    *["", " ", "\n", "-1", "+1", "00", "01", "0x10", "1.0", "1e3", "1,000", "1 2", "1\n2", "1\x00", "10us"],
    *["4294967296", "99999999999", "9" * 5000, "\N{FULLWIDTH DIGIT ONE}", "\N{SUPERSCRIPT TWO}", "off", "Y"],
]
BAD_SWITCHES = [
    "",
    " ",
    "\n",
    "2",
    "-1",
    "01",
    "yes",
    "no",
    "true",
    "false",
    "t",
    "o",
    "Y N",
    "Y\nN",
    "Y\x00",
]

# Each input makes files, which takes what a busy computer leaves; and the inputs are the same on every run.
steady = settings(deadline=None, derandomize=True)


@dataclass(frozen=True)
class Case:
    """A knob, a kernel for it, the value that it has at first, another, and texts that are none."""

    make: type[IpiPollUs | CqIdleUs | WfxGuard]
    kernel: Callable[[Path], FakeSystem[Any]]
    path: str
    first: str
    other: str
    noun: str
    missing: str
    bad: list[str]


IPI = Case(
    *(IpiPollUs, lambda root: UintKernel(root, IPI_POLL_US, 0), IPI_POLL_US, "0", "50"),
    *("polling bound", "soft IPI passthrough", BAD_NUMBERS),
)
CQ = Case(
    *(CqIdleUs, lambda root: UintKernel(root, CQ_IDLE_US, 1000), CQ_IDLE_US, "1000", "200"),
    *("idle window", "ib_core_cq_poll is not loaded", BAD_NUMBERS),
)
GUARD = Case(
    *(WfxGuard, lambda root: BoolKernel(root, WFX_GUARD, False), WFX_GUARD, "N", "Y"),
    *("guard", "guard of WFx traps", BAD_SWITCHES),
)


@pytest.fixture(params=[IPI, CQ, GUARD], ids=["ipi-poll-us", "cq-idle-us", "wfx-guard"])
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


@pytest.fixture
def knob(case: Case) -> Knob:
    return case.make()


@pytest.fixture
def kernel(case: Case, tmp_path: Path) -> FakeSystem[Any]:
    return case.kernel(tmp_path)


# the fakes


@pytest.mark.parametrize(
    ("text", "number"), [("1\n", 1), ("4294967295", 4294967295), ("0x10\n", 16), ("+7", 7)]
)
def test_fake_uint_takes_what_a_kernel_takes(tmp_path: Path, text: str, number: int) -> None:
    kernel = UintKernel(tmp_path, IPI_POLL_US, 3)
    kernel.write_text(IPI_POLL_US, text)
    assert kernel.read_text(IPI_POLL_US) == f"{number}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [*[(text, "Invalid") for text in ("", "\n", "x", "1 ", "-1", "1\n\n")], ("4294967296", "out of range")],
)
def test_fake_uint_refuses_what_is_none(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OSError, match=says):
        UintKernel(tmp_path, IPI_POLL_US, 3).write_text(IPI_POLL_US, text)


@pytest.mark.parametrize(("text", "shown"), [("1", "Y\n"), ("on", "Y\n"), ("y\n", "Y\n"), ("off\n", "N\n")])
def test_fake_bool_shows_a_letter(tmp_path: Path, text: str, shown: str) -> None:
    kernel = BoolKernel(tmp_path, WFX_GUARD, shown == "N\n")
    kernel.write_text(WFX_GUARD, text)
    assert kernel.read_text(WFX_GUARD) == shown


# read and plan


def test_reads_the_value(case: Case, knob: Knob, kernel: FakeSystem[Any]) -> None:
    state = knob.read(kernel)
    assert (state.available, state.value, state.problem) == (True, case.first, None)


def test_absent_file_is_a_state(case: Case, knob: Knob, kernel: FakeSystem[Any]) -> None:
    kernel.remove()
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert case.missing in state.problem
    assert "patches" in state.problem
    assert case.path in state.problem
    with pytest.raises(KnobError, match=case.missing):
        knob.plan(kernel, case.other)


def test_unreadable_file_is_a_state(knob: Knob, kernel: FakeSystem[Any]) -> None:
    kernel.fail(0, os_error(errno.EACCES))
    state = knob.read(kernel)
    assert (state.available, state.value) == (False, None)
    assert state.problem is not None
    assert "run as root" in state.problem


def test_file_that_shows_no_value_is_a_state_and_is_not_written(
    case: Case, knob: Knob, kernel: FakeSystem[Any]
) -> None:
    plan = knob.plan(kernel, case.other)
    for text in case.bad:
        kernel.show(text)
        state = knob.read(kernel)
        assert (state.available, state.value) == (False, None), repr(text)
        assert state.problem is not None
        assert f"something else than a {case.noun}" in state.problem
        for step in (knob.apply, knob.verify, knob.undo):
            with pytest.raises(KnobError, match="something else"):
                step(kernel, plan)
    assert kernel.written == []


def test_plan_tells_before_and_after_and_writes_nothing(
    case: Case, knob: Knob, kernel: FakeSystem[Any]
) -> None:
    assert knob.plan(kernel, f" {case.other}\n") == Plan(case.path, case.first, case.other)
    assert kernel.written == []


def test_plan_refuses_what_is_no_value(case: Case, knob: Knob, kernel: FakeSystem[Any]) -> None:
    for text in case.bad:
        with pytest.raises(KnobError, match=r"is no number of microseconds|is neither Y nor N") as caught:
            knob.plan(kernel, text)
        assert caught.value.next_step.startswith("give ")
    assert kernel.operations == []


@pytest.mark.parametrize("knob", [IpiPollUs(), CqIdleUs()])
@pytest.mark.parametrize("want", ["0", "1", "9", "10", "4294967295"])
def test_any_number_of_32_bits_will_do(tmp_path: Path, knob: IpiPollUs | CqIdleUs, want: str) -> None:
    kernel = UintKernel(tmp_path, knob.path, 77)
    knob.apply(kernel, knob.plan(kernel, want))
    assert kernel.read_text(knob.path) == f"{want}\n"


@pytest.mark.parametrize(
    ("words", "value"),
    [(["Y", "y", "1", "on", "ON", "oN"], "Y"), (["N", "n", "0", "off", "OFF", "Off"], "N")],
)
def test_what_users_write_for_the_guard(tmp_path: Path, words: list[str], value: str) -> None:
    kernel = BoolKernel(tmp_path, WFX_GUARD, False)
    assert {WfxGuard().plan(kernel, word).after for word in words} == {value}


# apply, verify, undo


def test_apply_then_undo(case: Case, knob: Knob, kernel: FakeSystem[Any]) -> None:
    plan = knob.plan(kernel, case.other)
    assert not knob.verify(kernel, plan)
    for _ in range(2):
        knob.apply(kernel, plan)
        assert knob.verify(kernel, plan)
        assert knob.read(kernel).value == case.other
    for _ in range(2):
        knob.undo(kernel, plan)
        assert knob.read(kernel).value == case.first
    assert kernel.written == [f"{case.other}\n", f"{case.first}\n"]


def test_on_a_plain_tree_of_files(case: Case, knob: Knob, kernel: FakeSystem[Any], tmp_path: Path) -> None:
    kernel.show(f"{case.other}\n")
    plan = knob.plan(LocalSystem(tmp_path), case.first)
    knob.apply(kernel, plan)
    assert kernel.written == [f"{case.first}\n"]


def test_apply_refuses_when_the_value_changed_since_planning(
    case: Case, knob: Knob, kernel: FakeSystem[Any]
) -> None:
    # There are but two values of the guard, so it is planned from and to one that is not the present.
    stale = Plan(case.path, case.other, case.other)
    with pytest.raises(KnobError, match=f"the {case.noun} is {case.first}, not {case.other}"):
        knob.apply(kernel, stale)
    assert kernel.written == []


def test_value_that_reads_back_otherwise_is_taken_back(
    case: Case, knob: Knob, kernel: FakeSystem[Any]
) -> None:
    plan = knob.plan(kernel, case.other)
    kernel.take_instead(case.first)
    with pytest.raises(KnobError, match=f"took {case.noun} {case.other} but shows {case.first}"):
        knob.apply(kernel, plan)
    assert knob.read(kernel).value == case.first


def test_bad_value_in_a_saved_plan_is_never_written(case: Case, knob: Knob, kernel: FakeSystem[Any]) -> None:
    for text in case.bad:
        for plan in (Plan(case.path, text, case.other), Plan(case.path, case.other, text)):
            with pytest.raises(KnobError):
                knob.apply(kernel, plan)
        with pytest.raises(KnobError):
            knob.undo(kernel, Plan(case.path, text, case.other))
    assert kernel.written == []


@steady
@given(st.text() | st.integers(-3, 1 << 33).map(str), st.sampled_from([IPI, CQ, GUARD]))
def test_any_text_leads_to_a_value_in_canonical_form_or_to_none(memory: Path, text: str, case: Case) -> None:
    kernel = case.kernel(Path(mkdtemp(dir=memory)))
    with suppress(KnobError):
        plan = case.make().plan(kernel, text)
        case.make().apply(kernel, plan)
        assert kernel.read_text(case.path) == f"{plan.after}\n"
        assert plan.after in ("Y", "N") if case is GUARD else plan.after == str(int(text))


@pytest.mark.parametrize(("fault", "when", "lasting"), SWEEPS)
@pytest.mark.parametrize("method", ["apply", "undo"])
def test_fault_anywhere_leaves_old_or_new_and_can_be_undone(
    case: Case, tmp_path: Path, fault: BaseException, when: When, lasting: int, method: str
) -> None:
    """Let each operation of apply() or undo() in turn, and those just after it, fail."""
    operation = 0
    while True:
        kernel = case.kernel(Path(mkdtemp(dir=tmp_path)))
        plan = case.make().plan(kernel, case.other)
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
        kernel.faults.clear()
        assert case.make().read(kernel).value in (case.first, case.other), f"operation {operation}"
        case.make().undo(kernel, plan)
        assert case.make().read(kernel).value == case.first, f"operation {operation}"
        operation += 1
    assert operation >= 3, "both methods read, write and read back"
