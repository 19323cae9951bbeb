# SPDX-License-Identifier: Apache-2.0
"""What the knob of WFx traps has beyond other knobs of masks (test_mask_knobs.py): which vCPU ids it takes.

Mainline, WfxKernel, takes ids to 511. The vendor's, FakeKernel, takes no id past its machine's CPUs and fails
the test on one.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.wfx.knob import GUARD, PATH, POSSIBLE, Wfx
from cvmtune.tuning.contract import Knob, KnobError, Plan
from tests.fakes.kernel import BootKernel, FakeKernel, WfxKernel, os_error

BOTH = [pytest.param(WfxKernel, id="mainline"), pytest.param(FakeKernel, id="vendor")]
Kind = type[FakeKernel]

# Each input makes files, which takes what a busy computer leaves; and the inputs are the same on every run.
steady = settings(deadline=None, derandomize=True)


@pytest.fixture
def knob() -> Knob:
    return Wfx()


def mask(*ids: int) -> str:
    return CpuMask(frozenset(ids)).to_hex()


# the fakes


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (set(), "00000000\n"),
        ({0, 1}, "00000003\n"),
        ({31}, "80000000\n"),
        ({32}, "00000001,00000000\n"),
        ({1, 64}, "00000001,00000000,00000002\n"),
        ({511}, "80000000" + ",00000000" * 15 + "\n"),
    ],
)
@pytest.mark.parametrize("width", [1, 4, 200])
def test_fake_mainline_shows_no_more_groups_than_needed(
    boot: BootKernel, width: int, ids: set[int], text: str
) -> None:
    kernel = boot(PATH, width, kind=WfxKernel)
    kernel.cpus = ids
    assert kernel.read_text(PATH) == text
    kernel.cpus = {5}
    for written in (text, text.strip(), text.strip().lstrip("0,") or "0"):
        kernel.write_text(PATH, written)
        assert kernel.cpus == ids


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *[(text, "Invalid argument") for text in ("", "\n", "0x3", "g", "1\n2", "3\n\n")],
        *[(text, "too large") for text in ("1" + ",00000000" * 16, "0" + ",00000000" * 16, "000000001")],
    ],
)
def test_fake_mainline_refuses_a_bad_mask(boot: BootKernel, text: str, says: str) -> None:
    kernel = boot(PATH, kind=WfxKernel)
    kernel.cpus = {3}
    with pytest.raises(OSError, match=says):
        kernel.write_text(PATH, text)
    assert kernel.cpus == {3}


@pytest.mark.parametrize("text", ["", "\n", "0x3", "g", "10\n", "1,00000000\n", "000000001"])
def test_fake_vendor_kernel_fails_the_test_on_a_bad_mask(boot: BootKernel, text: str) -> None:
    kernel = boot(PATH)
    with pytest.raises(pytest.fail.Exception):
        kernel.write_text(PATH, text)


# mainline: every id to 511, whatever the machine's CPUs


@pytest.mark.parametrize("width", [1, 33, 600])
@pytest.mark.parametrize("ids", [{32}, {4, 200}, {511}, set(range(512))])
def test_mainline_takes_ids_beyond_the_cpus(knob: Knob, boot: BootKernel, width: int, ids: set[int]) -> None:
    kernel = boot(PATH, width, kind=WfxKernel)
    plan = knob.plan(kernel, mask(*ids))
    knob.apply(kernel, plan)
    assert kernel.cpus == ids
    knob.undo(kernel, plan)
    assert kernel.cpus == set()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("highest", [512, 513, 8191])
def test_plan_refuses_ids_that_no_vcpu_can_have(
    knob: Knob, boot: BootKernel, kind: Kind, highest: int
) -> None:
    kernel = boot(PATH, kind=kind)
    with pytest.raises(KnobError, match=f"vCPUs that this kernel cannot take: {highest} ") as caught:
        knob.plan(kernel, mask(0, highest))
    assert caught.value.where == PATH
    assert caught.value.next_step == f"name only those of 0-{511 if kind is WfxKernel else 3}"
    assert kernel.written == []


# a vendor's: none beyond the CPUs


@pytest.mark.parametrize("width", [1, 2, 32, 33, 600])
def test_vendor_kernel_gets_ids_up_to_its_last_cpu_only(knob: Knob, boot: BootKernel, width: int) -> None:
    kernel = boot(PATH, width)
    with pytest.raises(KnobError, match=f"cannot take: {width} ") as caught:
        knob.plan(kernel, mask(0, width))
    allowed = "0" if width == 1 else f"0-{width - 1}"
    assert caught.value.next_step == f"name only those of {allowed}"
    kernel.cpus = {0}
    knob.apply(kernel, knob.plan(kernel, mask(width - 1)))
    assert kernel.cpus == {width - 1}


def test_holes_among_the_possible_cpus_do_not_matter(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, width=8, possible="0-1,7")
    knob.apply(kernel, knob.plan(kernel, "fc"))
    assert kernel.cpus == set(range(2, 8))


def test_undo_on_a_machine_that_has_shrunk(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, width=2)
    with pytest.raises(KnobError, match="cannot take: 2-3 "):
        knob.undo(kernel, Plan(PATH, before="c", after="1"))
    assert kernel.written == []


# which kernel it is


def test_mainline_is_not_asked_for_its_cpus(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, kind=WfxKernel)
    kernel.possible_file.unlink()
    plan = knob.plan(kernel, "3")
    knob.apply(kernel, plan)
    knob.undo(kernel, plan)
    assert kernel.written == ["3\n", "0\n"]


def test_kernel_that_is_not_known_is_taken_for_a_vendors(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, kind=WfxKernel)
    plan = knob.plan(kernel, "10")
    assert isinstance(kernel, WfxKernel)
    kernel.guard_file.unlink()
    for refused in (lambda: knob.plan(kernel, "10"), lambda: knob.apply(kernel, plan)):
        with pytest.raises(KnobError, match="cannot take: 4 "):
            refused()
    assert kernel.written == []
    knob.apply(kernel, knob.plan(kernel, "8"))
    assert kernel.cpus == {3}


@pytest.mark.parametrize("kind", BOTH)
def test_plan_needs_to_know_which_kernel_it_is(knob: Knob, boot: BootKernel, kind: Kind) -> None:
    kernel = boot(PATH, kind=kind)
    kernel.fail(1, os_error(errno.EACCES))
    with pytest.raises(KnobError, match="cannot tell which kernel this is") as caught:
        knob.plan(kernel, "3")
    assert caught.value.where == GUARD


@pytest.mark.parametrize("content", ["nonsense\n", "", None])
def test_plan_needs_to_know_a_vendors_possible_cpus(
    knob: Knob, boot: BootKernel, content: str | None
) -> None:
    kernel = boot(PATH)
    if content is None:
        kernel.possible_file.unlink()
    else:
        kernel.possible_file.write_text(content)
    with pytest.raises(KnobError) as caught:
        knob.plan(kernel, "1")
    assert caught.value.where == (PATH if content == "" else POSSIBLE)


# any masks on any machine

IDS = st.frozensets(st.integers(0, 40) | st.integers(0, 520), max_size=3)
WIDTHS = st.integers(1, 520)


@steady
@given(kind=st.sampled_from([WfxKernel, FakeKernel]), width=WIDTHS, old=IDS, new=IDS)
def test_any_mask_that_the_kernel_has_is_set_and_put_back_and_no_other(
    memory: Path, kind: Kind, width: int, old: frozenset[int], new: frozenset[int]
) -> None:
    kernel = kind(Path(mkdtemp(dir=memory)), PATH, width, f"0-{width - 1}")
    old = frozenset(cpu for cpu in old if cpu < kernel.width)
    kernel.cpus = set(old)
    if max(new, default=-1) >= kernel.width:
        with pytest.raises(KnobError, match="cannot take"):
            Wfx().plan(kernel, mask(*new))
        return
    plan = Wfx().plan(kernel, mask(*new))
    Wfx().apply(kernel, plan)
    assert kernel.cpus == new
    Wfx().undo(kernel, plan)
    assert kernel.cpus == old


@steady
@given(kind=st.sampled_from([WfxKernel, FakeKernel]), width=WIDTHS, present=IDS, before=IDS, after=IDS)
def test_no_saved_plan_leads_to_a_mask_that_the_kernel_does_not_take(
    memory: Path,
    kind: Kind,
    width: int,
    present: frozenset[int],
    before: frozenset[int],
    after: frozenset[int],
) -> None:
    kernel = kind(Path(mkdtemp(dir=memory)), PATH, width, f"0-{width - 1}")
    kernel.cpus = {cpu for cpu in present if cpu < kernel.width}
    for step in (Wfx().undo, Wfx().apply, Wfx().undo):
        with suppress(KnobError):
            step(kernel, Plan(PATH, mask(*before), mask(*after)))
    for text in list(kernel.written):
        kernel.write_text(PATH, text)  # neither refused nor fatal
