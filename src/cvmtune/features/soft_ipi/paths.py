# SPDX-License-Identifier: Apache-2.0
"""The instructions of sending an IPI, and of an idle CPU that takes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.experiments.path_length import MODULE, Paths, samples_of
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.soft_ipi.metrics import IDLE_PATH, SEND_PATH
from cvmtune.lab.specs import MachineName

# Both CPUs poll where any does: the idle path is measured on one, the other is sent to.
_BOTH = "3"


class SoftIpiPaths(Paths):
    machine = MachineName.PLAIN

    def measure(self, bench: Bench, state: str, *, on: bool) -> list[Round]:
        guest, knob = bench.guest, SoftIpi()
        # A kernel without the feature is measured, too.
        mask = applied(knob, guest, _BOTH if on else "0") if knob.read(guest).available else nullcontext()
        with loaded_module(guest, bench.tools, MODULE), mask:
            return [Round(state, 0, tuple(_lengths(guest)))]


def _lengths(guest: System) -> Iterator[Series]:
    clock = _mean(guest, "clock_path")
    for metric in (SEND_PATH, IDLE_PATH):
        yield metric.value(round(_mean(guest, metric.name) - clock, 1))


def _mean(guest: System, kind: str) -> float:
    samples = samples_of(guest, kind)
    return sum(samples) / len(samples)
