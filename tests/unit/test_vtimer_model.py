# SPDX-License-Identifier: Apache-2.0
"""Check the SPIN model of a confidential VM's timer interrupt, and that it can tell broken masking from it.

The model's own header says what its properties and mutants mean.
"""

from pathlib import Path

import pytest

from tests.fakes.spin import (
    CYCLE,
    MODELS,
    Property,
    assert_complete,
    assert_violated,
    errors,
    invariant,
    liveness,
    mutants,
    needs_spin,
    search_whole,
    unreached,
)

MODEL = MODELS / "vtimer.pml"

MIN_STATES = 1_200
"""Below the some 1,500 states of every full search. Fewer mean that some process got stuck."""

NO_LOST = liveness("no_lost")
ONCE = invariant("once")
UNTOUCHED = invariant("untouched")
RETRACTED = invariant("retracted")
WAKES = liveness("wakes")
PROPERTIES = (NO_LOST, ONCE, UNTOUCHED, RETRACTED, WAKES)

LET_THROUGH = r"assertion violated .*masked.*known"
CHANGED = r"assertion violated .*ctl==wrote"
LISTED = r"assertion violated .*handed.*lr&1.*wrote"

VIOLATIONS = [
    ("NEVER_MASK", ONCE, LET_THROUGH),
    ("NEVER_MASK", NO_LOST, CYCLE),  # the guest never gets to its first instruction
    ("NO_UNMASK", WAKES, CYCLE),
    ("NO_UNMASK", NO_LOST, CYCLE),
    ("MASK_ON_OUTPUT_ALONE", NO_LOST, CYCLE),
    ("NO_LISTED", ONCE, LET_THROUGH),
    ("NO_TOLD", ONCE, LET_THROUGH),
    ("TOLD_WITHOUT_HOST", NO_LOST, CYCLE),
    ("STATE_REPLACED", NO_LOST, CYCLE),
    ("NO_EOI_EXIT", NO_LOST, CYCLE),
    ("HOST_LEAVES_OUT", NO_LOST, CYCLE),
    ("MASK_BY_IMASK", UNTOUCHED, CHANGED),
    ("MASK_BY_IMASK", RETRACTED, LISTED),
    ("HOST_READS_MASK", NO_LOST, CYCLE),
]
"""A mutant, a property that it must violate, and how the verifier puts that."""

UNREACHED = {(process, "-end-") for process in ("guest", "counter", "line", "hyp")}
"""(process, statement) that no search reaches: no process ever ends."""

pytestmark = needs_spin


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.name)
def test_property_holds(prop: Property, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the unchanged model, of which the search sees every state and reaches every statement."""
    report = search_whole(MODEL, prop, tmp_path_factory.getbasetemp())
    assert errors(report) == 0, report
    assert_complete(report, prop, MIN_STATES)
    assert report.count("unreached in proctype") == 4, report
    assert set(unreached(report)) == UNREACHED


@pytest.mark.parametrize(
    ("mutant", "prop", "expected"),
    [pytest.param(*row, id=f"{row[0]}-{row[1].name}") for row in VIOLATIONS],
)
def test_mutant_is_caught(mutant: str, prop: Property, expected: str, tmp_path: Path) -> None:
    assert_violated(MODEL, mutant, prop, expected, tmp_path)


def test_every_mutant_of_the_model_is_tried() -> None:
    assert mutants(MODEL) == {mutant for mutant, _, _ in VIOLATIONS}
