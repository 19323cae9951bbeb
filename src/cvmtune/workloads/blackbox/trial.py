# SPDX-License-Identifier: Apache-2.0
"""The black box as a trial of all features together."""

from __future__ import annotations

from collections.abc import Iterable

from cvmtune.features.trial import Trial, switches_of
from cvmtune.report.rule import Factors, Rule
from cvmtune.workloads.blackbox.about import ABOUT
from cvmtune.workloads.blackbox.experiment import BlackboxExperiment
from cvmtune.workloads.blackbox.metrics import CPU_USE, MAIN_METRICS
from cvmtune.workloads.blackbox.verdict import GOAL, BlackboxJudge


def trial_of(features: Iterable[Trial]) -> Trial:
    """The trial of these features, in the order in which states name them."""
    switches = switches_of(features)
    experiment = BlackboxExperiment(switches)
    judge = BlackboxJudge.of(switches)
    states = {name: state.features for name, state in experiment.states.items()}
    rule = Rule(
        judge,
        headline=f"{MAIN_METRICS[1]}_{judge.saved[0].event.suffix}",
        costs=tuple(f"{load}_{CPU_USE}" for load in MAIN_METRICS),
        goal=GOAL,
        factors=Factors(experiment.features, states, MAIN_METRICS),
        about=ABOUT,
    )
    return Trial(experiment, rule)
