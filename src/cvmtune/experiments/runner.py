# SPDX-License-Identifier: Apache-2.0
"""Runs one experiment on a machine that is there: states in turns, rounds, parts. It knows none by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.emulator import CpuTime, waited_share
from cvmtune.experiments.experiment import Experiment, Measurement, SiteT, StateT
from cvmtune.experiments.rounds import RawRun, Round, Series, in_turns


def run(
    experiment: Experiment[SiteT, StateT],
    bench: Bench,
    wanted: Measurement,
    *,
    environment: Mapping[str, object],
    advance: Callable[[str], None] = lambda note: None,
    go_on: Callable[[int], bool] = lambda index: True,
) -> RawRun:
    """Run all rounds on a machine that is there; UsageError for a state or a machine that cannot be.

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `advance` is told what is about to be done. `go_on` says whether a round of this index may begin; once one
    may not, none does. In the end the machine is as it was, whatever has failed.
    """
    states = [experiment.state(name) for name in wanted.states]
    collected: dict[tuple[str, int], Round] = {}
    after: list[Round] = []
    findings: dict[str, object] = {}
    stopped = False
    with experiment.prepare(bench):
        for part in wanted.parts:
            place = f"{bench.machine}, {part}" if part else bench.machine
            if stopped:
                break
            measured = False
            with experiment.site(bench, wanted, part) as site:
                for index, state in in_turns(states, wanted.rounds):
                    if not go_on(index):
                        stopped = True
                        break
                    advance(f"{place}, {state.name}, round {index + 1} of {wanted.rounds}")
                    before = CpuTime.of(bench.emulator)
                    with experiment.entered(site, state):
                        series = tuple(experiment.measure(site, state, index))
                    waited = waited_share(before, CpuTime.of(bench.emulator))
                    one = Round(state.name, index, series, waited)
                    measured, key = True, (state.name, index)
                    collected[key] = _joined(collected[key], one) if key in collected else one
                # What nothing was measured with has no end to look at, which may take its time.
                if measured or not stopped:
                    after += experiment.finish(site)
                findings |= experiment.findings(site)
    return RawRun(experiment.name, str(bench.machine), (*collected.values(), *after), environment, findings)


def _joined(first: Round, second: Round) -> Round:
    """One round of two parts."""
    known = [one.waited for one in (first, second) if one.waited is not None]
    waited = max(known) if len(known) == 2 else None
    series: tuple[Series, ...] = first.series + second.series
    return Round(first.state, first.index, series, waited)
