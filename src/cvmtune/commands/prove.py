# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`: run experiments in the lab, off and on, beside their baselines, and judge them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.experiments.campaign import Measured, carry_out
from cvmtune.experiments.path_length import Paths, count, dry_run_line
from cvmtune.experiments.plan import Plan, plan
from cvmtune.features.trial import Trial
from cvmtune.lab.cache import Cache
from cvmtune.lab.lab import Lab
from cvmtune.lab.progress import terminal_progress
from cvmtune.lab.specs import MACHINES
from cvmtune.report import render
from cvmtune.report.judge import judge
from cvmtune.report.schema import Verdict
from cvmtune.report.screen import show

Trials = Mapping[str, Callable[[], Trial]]

BUDGET_MIN = 10.0
"""Minutes for measuring, if nothing is named: nobody who names none wants to wait for all of all."""


def main(
    names: Sequence[str],
    machine: str,
    rounds: int | None,
    *,
    budget_min: float | None,
    json: Path | None,
    html: Path | None,
    path_length: bool,
    verbose: bool,
    dry_run: bool,
    trials: Trials,
) -> int:
    """Prove what is named, show and write the results; return 0 if every verdict is PASS, else 1.

    `budget_min` are minutes for measuring; None: BUDGET_MIN if neither features nor rounds are said, else as
    many as it takes.
    """
    brief = not names
    if budget_min is None and brief and rounds is None:
        budget_min = BUDGET_MIN
    wanted = {name: trials[name]() for name in _known(names, trials)} if names else _possible(machine, trials)
    plans = [plan(trial.experiment, machine, rounds, brief=brief) for trial in wanted.values()]
    for path in filter(None, (html, json)):
        # Not only after all has been measured.
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UsageError("cannot write a file there", str(path), "name a file in a directory of yours")
    paths = _paths(wanted, trials) if path_length else {}
    if dry_run:
        for line in _dry_run(plans, paths, budget_min):
            print(line)
        return 0
    measured, failed = _measure(plans, paths, budget_min)
    rules = {name: trial.rule for name, trial in wanted.items()}
    results = judge(measured.judged, measured.beside, rules)
    try:
        # Shown first: nothing that goes wrong with a file may lose them. Written in any case: nor may a
        # terminal that is gone.
        show(results, rules, Console(), verbose=verbose)
    finally:
        render(results, rules, html=html, json=json, judged=measured.judged, beside=measured.beside)
    for path in filter(None, (html, json)):
        print(f"written: {path}")
    if failed:
        raise failed
    return 0 if all(result.verdict is Verdict.PASS for result in results.results) else 1


def _known(names: Sequence[str], trials: Trials) -> Sequence[str]:
    for name in names:
        if name not in trials:
            raise UsageError(
                f"no experiment for feature {name!r}", next_step=f"features: {', '.join(trials)}"
            )
    return names


def _possible(machine: str, trials: Trials) -> dict[str, Trial]:
    """All that the machine can have. Of one that we do not know plan() will tell."""
    loaded = {name: load() for name, load in trials.items()}
    return {
        name: trial
        for name, trial in loaded.items()
        if machine not in MACHINES or machine in trial.experiment.machines
    }


def _paths(wanted: Mapping[str, Trial], trials: Trials) -> dict[str, Paths]:
    """The paths of what is proved; UsageError if there are none."""
    found = {name: trial.paths for name, trial in wanted.items() if trial.paths}
    if not found:
        those = [name for name, load in trials.items() if load().paths]
        raise UsageError("no path of its own to count", next(iter(wanted)), f"name {' or '.join(those)} too")
    return found


def _dry_run(plans: Sequence[Plan], paths: Mapping[str, Paths], budget_min: float | None) -> Iterator[str]:
    for one in plans:
        yield from one.lines()
    if paths:
        yield dry_run_line(paths)
    if budget_min is not None:
        yield f"within {budget_min:g} min from the end of building on: fewer rounds, if there is no time"


def _measure(
    plans: Sequence[Plan], paths: Mapping[str, Paths], budget_min: float | None
) -> tuple[Measured, CvmtuneError | None]:
    """What was measured, and why paths could not be counted."""
    lab = Lab(Cache(), terminal_progress())
    measured = carry_out(lab, plans, None if budget_min is None else 60 * budget_min)
    try:
        measured.beside += count(lab, paths) if paths else []
    except CvmtuneError as error:
        # What was measured before is shown and written first.
        return measured, error
    return measured, None
