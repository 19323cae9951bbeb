# SPDX-License-Identifier: Apache-2.0
"""What the soft IPI knob has beyond the other knobs of masks (test_mask_knobs.py): only possible CPUs."""

from __future__ import annotations

import pytest

from cvmtune.features.soft_ipi.knob import PATH, POSSIBLE, SoftIpi
from cvmtune.tuning.contract import Knob, KnobError, Plan
from tests.fakes.kernel import BootKernel, FakeKernel


@pytest.fixture
def knob() -> Knob:
    return SoftIpi()


@pytest.fixture
def kernel(boot: BootKernel) -> FakeKernel:
    kernel = boot(PATH)
    kernel.cpus = {0, 1}
    return kernel


@pytest.mark.parametrize(("want", "culprits"), [("10", ": 4 "), ("ff", ": 4-7 "), ("1,00000003", ": 32 ")])
def test_plan_refuses_impossible_cpus(knob: Knob, kernel: FakeKernel, want: str, culprits: str) -> None:
    with pytest.raises(KnobError, match="cannot have") as caught:
        knob.plan(kernel, want)
    assert culprits in str(caught.value)
    assert "0-3" in caught.value.next_step
    assert kernel.written == []


def test_plan_minds_holes_among_the_possible_cpus(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, width=8, possible="0-1,4-5")
    assert knob.plan(kernel, "33").after == "33"
    with pytest.raises(KnobError, match="cannot have: 2 "):
        knob.plan(kernel, "4")


def test_plan_refuses_to_replace_what_it_could_not_put_back(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, width=8, possible="0-3")
    kernel.cpus = {7}
    with pytest.raises(KnobError, match="cannot have: 7 "):
        knob.plan(kernel, "c")


@pytest.mark.parametrize("content", ["nonsense\n", None])
def test_plan_needs_to_know_the_possible_cpus(knob: Knob, kernel: FakeKernel, content: str | None) -> None:
    if content is None:
        kernel.possible_file.unlink()
    else:
        kernel.possible_file.write_text(content)
    with pytest.raises(KnobError) as caught:
        knob.plan(kernel, "c")
    assert caught.value.where == POSSIBLE


def test_undo_on_a_machine_that_has_shrunk(knob: Knob, boot: BootKernel) -> None:
    kernel = boot(PATH, width=2)
    with pytest.raises(KnobError, match="cannot have"):
        knob.undo(kernel, Plan(PATH, before="c", after="1"))
    assert kernel.written == []
