# SPDX-License-Identifier: Apache-2.0
"""All trials by the names of their experiments, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cvmtune.features.trial import Trial


def _soft_ipi() -> Trial:
    from cvmtune.features.soft_ipi.trial import TRIAL

    return TRIAL


def _vtimer() -> Trial:
    from cvmtune.features.vtimer.trial import TRIAL

    return TRIAL


def _cq_poll() -> Trial:
    from cvmtune.features.cq_poll.trial import TRIAL

    return TRIAL


def _wfx() -> Trial:
    from cvmtune.features.wfx.trial import TRIAL

    return TRIAL


def _blackbox() -> Trial:
    from cvmtune.workloads.blackbox.trial import trial_of

    return trial_of(load() for load in _FEATURES.values())


_FEATURES: Mapping[str, Callable[[], Trial]] = {
    "ipi": _soft_ipi,
    "vtimer": _vtimer,
    "cq-poll": _cq_poll,
    "wfx": _wfx,
}
TRIALS: Mapping[str, Callable[[], Trial]] = {**_FEATURES, "blackbox": _blackbox}
