# SPDX-License-Identifier: Apache-2.0
"""The virtual timer (feature 2, in the monitor and on the host): its interrupt is masked once it has
expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmtune.features.feature import Feature
from cvmtune.features.vtimer import advice, status
from cvmtune.features.vtimer.knob import FILE
from cvmtune.observe.capture import VM_FOLDERS

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial


def _trial() -> Trial:
    from cvmtune.features.vtimer.trial import TRIAL

    return TRIAL


FEATURE = Feature(
    name="vtimer",
    files=(f"{VM_FOLDERS}/{FILE}", f"{VM_FOLDERS}/{status.STATISTICS}"),
    on_host=True,
    status=status.status,
    advise=advice.advise,
    trial=_trial,
)
