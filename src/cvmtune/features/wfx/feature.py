# SPDX-License-Identifier: Apache-2.0
"""WFx traps (feature 4, on the host): vCPUs that are named wait in their guest, with no exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cvmtune.features.feature import Feature
from cvmtune.features.wfx import advice, settings, status
from cvmtune.features.wfx.knob import GUARD
from cvmtune.features.wfx.vms import OWN_MASK, STATISTICS
from cvmtune.observe.capture import VM_FOLDERS

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial


def _trial() -> Trial:
    from cvmtune.features.wfx.trial import TRIAL

    return TRIAL


FEATURE = Feature(
    name="wfx",
    settings=(settings.WFX_GUARD, settings.WFX),
    files=(f"{VM_FOLDERS}/{OWN_MASK}", f"{VM_FOLDERS}/{STATISTICS}"),
    patched=frozenset({GUARD}),
    on_host=True,
    status=status.status,
    risks=status.risks,
    advise=advice.advise,
    costs=settings.costs,
    profiles=Path(__file__).parent / "profiles",
    trial=_trial,
)
