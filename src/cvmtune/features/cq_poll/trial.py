# SPDX-License-Identifier: Apache-2.0
"""What polled completion queues offer the lab."""

from __future__ import annotations

from cvmtune.features.cq_poll.about import ABOUT
from cvmtune.features.cq_poll.experiment import CqPollExperiment
from cvmtune.features.cq_poll.metrics import (
    POLLER_IDLE_USE,
    POLLER_USE,
    WAKEUPS_PER_WRITE,
    WRITE,
    WRITE_CPU_USE,
)
from cvmtune.features.cq_poll.paths import CqPollPaths
from cvmtune.features.cq_poll.switch import CqPollSwitch
from cvmtune.features.cq_poll.verdict import verdict
from cvmtune.features.trial import Switch, Trial
from cvmtune.report.rule import Goal, Rule

_COSTS = (POLLER_USE.name, POLLER_IDLE_USE.name, WRITE_CPU_USE.name)
_GOAL = Goal("storage write 600+ µs → < 400 µs", (WRITE,), 1.5)
_RULE = Rule(verdict, WAKEUPS_PER_WRITE.name, _COSTS, _GOAL, about=ABOUT)


def _beside(others: tuple[Switch, ...]) -> Trial:
    return Trial(CqPollExperiment(others=others), _RULE, CqPollPaths(), CqPollSwitch(), _beside)


TRIAL = _beside(())
