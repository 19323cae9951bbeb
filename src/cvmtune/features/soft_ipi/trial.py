# SPDX-License-Identifier: Apache-2.0
"""What soft IPI passthrough offers the lab."""

from cvmtune.features.soft_ipi.about import ABOUT
from cvmtune.features.soft_ipi.experiment import IpiExperiment
from cvmtune.features.soft_ipi.metrics import NOTIFY, SGI_PER_IPI, VCPU_CPU_USE
from cvmtune.features.soft_ipi.paths import SoftIpiPaths
from cvmtune.features.soft_ipi.switch import SoftIpiSwitch
from cvmtune.features.soft_ipi.verdict import verdict
from cvmtune.features.trial import Trial
from cvmtune.report.rule import Goal, Rule

_GOAL = Goal("IPI notification 7 µs → < 3 µs", (NOTIFY.name,), 2.33)
_RULE = Rule(verdict, SGI_PER_IPI.name, (VCPU_CPU_USE.name,), _GOAL, about=ABOUT)

TRIAL = Trial(IpiExperiment(), _RULE, SoftIpiPaths(), SoftIpiSwitch())
