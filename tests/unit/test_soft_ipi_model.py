# SPDX-License-Identifier: Apache-2.0
"""Check the SPIN model of the soft IPI protocol, and that the model can tell a broken protocol from it.

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

MODEL = MODELS / "soft_ipi.pml"

MIN_STATES = 100_000
"""Well below the states of every full search. Fewer mean that some process got stuck."""

SAFETY = Property("assertions and end states", (), claims=False)
INVARIANTS = invariant("invariants")
NO_LOST_IPI = liveness("no_lost_ipi")
UNNAMED_RELEASED = liveness("unnamed_released")
SENDER_ENDS = liveness("sender_ends")
PROPERTIES = (SAFETY, INVARIANTS, NO_LOST_IPI, UNNAMED_RELEASED, SENDER_ENDS)

UNSEEN_PAYLOAD = r"assertion violated .*covers"
INVARIANT = r"assertion violated .*in_poll.*online"

MUTANTS = {
    "NO_RELEASE": (SAFETY, UNSEEN_PAYLOAD),
    "NO_ACQUIRE": (SAFETY, UNSEEN_PAYLOAD),
    "SENDER_TEST_THEN_SET": (INVARIANTS, INVARIANT),
    "SENDER_SKIP_IF_SET": (NO_LOST_IPI, CYCLE),
    "LEAVE_WITHOUT_COLLECT": (NO_LOST_IPI, CYCLE),
    "NO_FINAL_COLLECT_BEFORE_WFI": (NO_LOST_IPI, CYCLE),
    "NO_NAMED_RECHECK": (UNNAMED_RELEASED, CYCLE),
    "NO_ISR_CHECK": (NO_LOST_IPI, CYCLE),
    "OFFLINE_WHILE_POLLING": (INVARIANTS, INVARIANT),
}

UNREACHED = {("store_buffer", "-end-")}
"""(process, statement) that no search reaches: this process alone never ends."""

pytestmark = needs_spin


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.name)
def test_property_holds(prop: Property, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the unchanged model, of which the search sees every state and reaches every statement."""
    report = search_whole(MODEL, prop, tmp_path_factory.getbasetemp())
    assert errors(report) == 0, report
    assert_complete(report, prop, MIN_STATES)
    assert report.count("unreached in proctype") == 3, report
    assert set(unreached(report)) == UNREACHED


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_caught(mutant: str, tmp_path: Path) -> None:
    prop, expected = MUTANTS[mutant]
    assert_violated(MODEL, mutant, prop, expected, tmp_path)


def test_every_mutant_of_the_model_is_tried() -> None:
    assert mutants(MODEL) == set(MUTANTS)
