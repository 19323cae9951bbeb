# SPDX-License-Identifier: Apache-2.0
"""What untrapped WFx offers the lab."""

from __future__ import annotations

from cvmtune.features.trial import Switch, Trial
from cvmtune.features.wfx.about import ABOUT
from cvmtune.features.wfx.experiment import WfxExperiment
from cvmtune.features.wfx.metrics import (
    FUTEX_RTT,
    IDLE_CPU_USE,
    NEIGHBOUR_SHARE,
    TIMER_WAKE,
    WFX_PER_FUTEX_RTT,
)
from cvmtune.features.wfx.paths import WfxPaths
from cvmtune.features.wfx.switch import WfxSwitch
from cvmtune.features.wfx.verdict import verdict
from cvmtune.report.rule import Goal, Rule

_GOAL = Goal("vCPU scheduling time -5 %", (TIMER_WAKE.name, FUTEX_RTT.name), 1.05)
_COSTS = (IDLE_CPU_USE.name, NEIGHBOUR_SHARE.name)
_RULE = Rule(verdict, WFX_PER_FUTEX_RTT.name, _COSTS, _GOAL, about=ABOUT)


def _beside(others: tuple[Switch, ...]) -> Trial:
    return Trial(WfxExperiment(others=others), _RULE, WfxPaths(), WfxSwitch(), _beside)


TRIAL = _beside(())
