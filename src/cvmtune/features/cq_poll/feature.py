# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues (feature 3, in the guest): a thread finds RDMA's completions, for NFS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cvmtune.features.cq_poll import advice, settings, status
from cvmtune.features.cq_poll.knob import IDLE_US, OWNERS_PARAMETER, USES, VENDORS_STATISTICS
from cvmtune.features.feature import Feature

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial


def _trial() -> Trial:
    from cvmtune.features.cq_poll.trial import TRIAL

    return TRIAL


FEATURE = Feature(
    name="cq-poll",
    settings=(settings.CQ_IDLE_US, settings.CQ_POLL),
    files=(OWNERS_PARAMETER, VENDORS_STATISTICS, status.QUEUES, status.TOTALS, *USES),
    patched=frozenset({IDLE_US}),
    status=status.status,
    risks=status.risks,
    vendors_risks=status.vendors_risks,
    advise=advice.advise,
    costs=settings.costs,
    profiles=Path(__file__).parent / "profiles",
    trial=_trial,
)
