# SPDX-License-Identifier: Apache-2.0
"""The instructions of an exit, and of timers in each mode of a confidential VM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import OFF
from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import HaltPoll
from cvmtune.experiments.path_length import Paths, exit_path
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.vtimer import metrics
from cvmtune.features.vtimer.experiment import STATES
from cvmtune.features.vtimer.site import Site, VtimerScale, prepared
from cvmtune.features.vtimer.switch import TRAVEL_EXITS
from cvmtune.lab.specs import NO_MONITOR_TIMER, MachineName

# One thread emulates all CPUs there, and figures are exact.
_SCALE = VtimerScale(timers=20, sections=9, round_trips=2000)


@dataclass(frozen=True)
class VtimerPaths(Paths):
    scale: VtimerScale = _SCALE
    machine = MachineName.CVM
    off_append = NO_MONITOR_TIMER

    def measure(self, bench: Bench, state: str, *, on: bool) -> list[Round]:
        # Not the state in which others count an exit: a baseline of that name would be of both.
        state = state.replace("feature", "vtimer")
        exits = Round(state, 0, (exit_path(bench),))
        return [exits, *(self.in_each_mode(bench, state) if on else ())]

    def in_each_mode(self, bench: Bench, state: str) -> Iterator[Round]:
        """Count in each mode, without halt polling."""
        host = bench.need_host("the virtual timer is the monitor's", "use cvm")
        with ExitStack() as stack:
            stack.enter_context(applied(HaltPoll(), host.system, "0"))
            site = stack.enter_context(prepared(bench, self.scale))
            for name, mode in ((one.name, one.mode) for one in STATES.values() if one.mode):
                with site.timer.mode(mode):
                    series = tuple(_paths(site, mode, travels=name == OFF))
                yield Round(f"{state}, {mode}", 0, series)


def _paths(site: Site, mode: str, *, travels: bool) -> Iterator[Series]:
    """All paths in a mode; `travels` is whether it depends on how long an interrupt travels."""
    yield metrics.SECTION_PATH.series(_sections(site))
    if travels:
        # Nobody knows how long that is elsewhere.
        for name, factor in (("half", 0.5), ("double", 2.0)):
            named = replace(
                metrics.SECTION_PATH,
                name=f"{metrics.SECTION_PATH.name}_{name}",
                title=f"{metrics.SECTION_PATH.title}, with {factor:g} of the travel time",
            )
            with site.timer.travel(site.exit_ns * TRAVEL_EXITS * factor), site.timer.mode(mode):
                yield named.series(_sections(site))
    site.run_module(site.timers_line())
    yield metrics.ONESHOT_PATH.series(sorted(site.samples())[: site.scale.timers // 2])
    # What has just ended leaves work on either CPU, beside which round trips are shorter or longer: the
    # first ones are not told, nor the extremes of the others.
    site.trips("futex")
    samples = sorted(site.trips("futex"))
    yield metrics.CROSS_FUTEX_PATH.series(samples[len(samples) // 4 : -len(samples) // 4])


def _sections(site: Site) -> Sequence[float]:
    site.run_module(site.section_line(site.scale.sections))
    # The other CPUs' instructions take their part of the time: those with the least of them.
    return sorted(site.samples())[: site.scale.sections // 2 + 1]
