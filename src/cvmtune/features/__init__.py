# SPDX-License-Identifier: Apache-2.0
"""The features, one folder each, and the registry: the one list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvmtune.features.cq_poll.feature import FEATURE as CQ_POLL
from cvmtune.features.registry import Registry
from cvmtune.features.soft_ipi.feature import FEATURE as SOFT_IPI
from cvmtune.features.vtimer.feature import FEATURE as VTIMER
from cvmtune.features.wfx.feature import FEATURE as WFX

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial


def _blackbox(features: Sequence[Trial]) -> Trial:
    from cvmtune.workloads.blackbox.trial import trial_of

    return trial_of(features)


REGISTRY = Registry((SOFT_IPI, VTIMER, CQ_POLL, WFX), {"blackbox": _blackbox})
