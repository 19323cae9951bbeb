# SPDX-License-Identifier: Apache-2.0
"""What polled completion queues offer the lab."""

from cvmtune.features.cq_poll.about import ABOUT
from cvmtune.features.cq_poll.experiment import CqPollExperiment
from cvmtune.features.cq_poll.metrics import WAKEUPS_PER_WRITE
from cvmtune.features.cq_poll.paths import CqPollPaths
from cvmtune.features.cq_poll.switch import CqPollSwitch
from cvmtune.features.cq_poll.verdict import verdict
from cvmtune.features.trial import Trial
from cvmtune.report.rule import Rule

TRIAL = Trial(
    CqPollExperiment(), Rule(verdict, WAKEUPS_PER_WRITE.name, about=ABOUT), CqPollPaths(), CqPollSwitch()
)
