# SPDX-License-Identifier: Apache-2.0
"""What the virtual timer offers the lab."""

from cvmtune.features.trial import Trial
from cvmtune.features.vtimer.about import ABOUT
from cvmtune.features.vtimer.experiment import VtimerExperiment
from cvmtune.features.vtimer.metrics import CROSS_RTT, EXITS, SECTION_RTT, TIMER_EXITS
from cvmtune.features.vtimer.paths import VtimerPaths
from cvmtune.features.vtimer.switch import VtimerSwitch
from cvmtune.features.vtimer.verdict import verdict
from cvmtune.report.rule import Goal, Rule

_GOAL = Goal("scheduling latency across vCPUs -50 %", (SECTION_RTT.name, CROSS_RTT["futex"].name), 2.0)
_RULE = Rule(verdict, TIMER_EXITS["section"].name, (EXITS["oneshot"].name,), _GOAL, about=ABOUT)

TRIAL = Trial(VtimerExperiment(), _RULE, VtimerPaths(), VtimerSwitch())
