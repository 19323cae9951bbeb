# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough (feature 1, in the guest): IPIs reach an idle vCPU through memory, with no exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cvmtune.features.feature import Feature
from cvmtune.features.soft_ipi import advice, settings, status
from cvmtune.features.soft_ipi.knob import POLL_US

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial


def _trial() -> Trial:
    from cvmtune.features.soft_ipi.trial import TRIAL

    return TRIAL


FEATURE = Feature(
    name="ipi",
    settings=(settings.POLL_US, settings.IPI),
    files=(status.STATISTICS,),
    patched=frozenset({POLL_US}),
    status=status.status,
    risks=status.risks,
    advise=advice.advise,
    costs=settings.costs,
    profiles=Path(__file__).parent / "profiles",
    trial=_trial,
)
