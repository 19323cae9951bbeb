# SPDX-License-Identifier: Apache-2.0
"""The instructions of an exit, and of wake-ups.

A time is a number of instructions there, of all the machine's CPUs together, and a halted CPU has none: one
that waits in WFI is woken at once, as one of hardware nearly is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied
from cvmtune.experiments.host import HaltPoll
from cvmtune.experiments.path_length import Paths, exit_path
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.wfx.metrics import WAKE_PATHS
from cvmtune.features.wfx.site import DEFAULT_SCALE, Site, WfxScale, site_of
from cvmtune.features.wfx.switch import WfxSwitch
from cvmtune.lab.specs import NO_MONITOR_TIMER, MachineName


@dataclass(frozen=True)
class WfxPaths(Paths):
    scale: WfxScale = DEFAULT_SCALE
    machine = MachineName.CVM
    # Or what the monitor does for the timer would be part of its exits, and not where it is not compiled in.
    off_append = NO_MONITOR_TIMER
    on_append = NO_MONITOR_TIMER

    def measure(self, bench: Bench, state: str, *, on: bool) -> list[Round]:
        with WfxSwitch().switched(bench, on=on, cpu=self.scale.named):
            exits = exit_path(bench)
        return [Round(state, 0, (exits, *self.wakes(bench, on=on)))]

    def wakes(self, bench: Bench, *, on: bool) -> Iterator[Series]:
        """Wake-ups with and without KVM's halt polling."""
        site = site_of(bench, self.scale)
        with ExitStack() as stack:
            stack.enter_context(site.hypervisor.pinned())
            stack.enter_context(WfxSwitch().switched(bench, on=on, cpu=self.scale.named))
            yield from _wakes(site, "", "")
            stack.enter_context(applied(HaltPoll(), site.host, "0"))
            yield from _wakes(site, "_no_halt_poll", ", without halt polling")


def _wakes(site: Site, suffix: str, conditions: str) -> Iterator[Series]:
    for method, metric in WAKE_PATHS.items():
        samples = site.timer_wakes() if method == "timer" else site.trips(method)
        named = replace(metric, name=f"{metric.name}{suffix}", title=f"{metric.title}{conditions}")
        yield named.series(samples)
