# SPDX-License-Identifier: Apache-2.0
"""What polled completion queues offer the lab."""

from __future__ import annotations

from cvmtune.features.cq_poll.about import ABOUT
from cvmtune.features.cq_poll.experiment import CqPollExperiment
from cvmtune.features.cq_poll.metrics import WAKEUPS_PER_WRITE, WRITE
from cvmtune.features.cq_poll.paths import CqPollPaths
from cvmtune.features.cq_poll.switch import CqPollSwitch
from cvmtune.features.cq_poll.verdict import verdict
from cvmtune.features.trial import Switch, Trial
from cvmtune.report.rule import Rule

_RULE = Rule(verdict, WAKEUPS_PER_WRITE.name, WRITE, "storage write 600+ µs → < 400 µs", about=ABOUT)


def _beside(others: tuple[Switch, ...]) -> Trial:
    return Trial(CqPollExperiment(others=others), _RULE, CqPollPaths(), CqPollSwitch(), _beside)


TRIAL = _beside(())
