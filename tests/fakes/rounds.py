# SPDX-License-Identifier: Apache-2.0
"""Rounds that nobody has measured: what a right kernel counts in each experiment, and verdicts on it and on
what departs from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import Kind, RawRun, Round, Series
from cvmtune.features.cq_poll import metrics as cq_poll
from cvmtune.features.soft_ipi import metrics as soft_ipi
from cvmtune.features.vtimer import metrics as vtimer
from cvmtune.features.wfx import metrics as wfx
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.judge import judge
from cvmtune.report.rule import Rules
from cvmtune.workloads.blackbox.experiment import AFTER
from cvmtune.workloads.blackbox.metrics import CLOSED, MAIN_METRICS
from tests.fakes.bound import RULES

Values = Mapping[str, float]
"""One sample of each metric, by its name."""


def _measures(*modules: ModuleType) -> Iterator[Measure]:
    for value in (value for module in modules for value in vars(module).values()):
        found = value.values() if isinstance(value, Mapping) else (value,)
        yield from (one for one in found if isinstance(one, Measure))


MEASURES: Mapping[str, Measure] = {one.name: one for one in _measures(soft_ipi, vtimer, cq_poll, wfx)}


# The black box makes its metrics as it goes.
TIMES = frozenset((*MAIN_METRICS, *(f"{load}_served" for load in MAIN_METRICS), "insert_2"))


@dataclass(frozen=True)
class Right:
    """What an experiment measures of a right kernel: off, on, and in states beside these."""

    off: Values
    on: Values
    beside: Mapping[str, Values]


def measure(name: str) -> Measure:
    """A metric of this name, as the experiments have it, or made up."""
    kind: Kind = "time" if name in TIMES else "count"
    return MEASURES.get(name) or Measure(name, name.upper(), "each", kind)


def series(values: Values) -> tuple[Series, ...]:
    return tuple(measure(name).value(value) for name, value in values.items())


@dataclass(frozen=True)
class Rounds:
    """Pairs of rounds of an experiment on `machine`, off and on, each with what departs from a right kernel.

    `waited` is how busy the computer was in all of them. `beside` has what departs in the states beside;
    one that is None was not measured.
    """

    experiment: str
    right: Right
    machine: str = "cvm"
    waited: float | None = 0.0
    rules: Rules = field(default_factory=lambda: RULES)

    def run(
        self, pairs: Sequence[tuple[Values, Values]], beside: Mapping[str, Values | None] | None = None
    ) -> RawRun:
        departs = dict(beside or {})
        rounds = [
            Round(state, index, series({**well, **values}), self.waited)
            for index, (off, on) in enumerate(pairs)
            for state, well, values in (("off", self.right.off, off), ("on", self.right.on, on))
        ]
        for state, well in self.right.beside.items():
            values = departs.get(state, {})
            if values is not None:
                rounds.append(Round(state, 0, series({**well, **values})))
        return RawRun(self.experiment, self.machine, tuple(rounds), {})

    def counts(self) -> Mapping[str, tuple[float, float]]:
        """What a right kernel counts, off and on."""
        counts = (name for name in self.right.off if measure(name).kind == "count")
        return {name: (self.right.off[name], self.right.on[name]) for name in counts}

    def judged(
        self,
        *pairs: tuple[Values, Values],
        beside: Mapping[str, Values | None] | None = None,
        baselines: Sequence[RawRun] = (),
    ) -> Judged:
        """What the experiment's rule says of them, without what the judge adds."""
        return self.judged_run(self.run(pairs, beside), baselines)

    def judged_run(self, run: RawRun, baselines: Sequence[RawRun] = ()) -> Judged:
        rule = self.rules[self.experiment]
        said: list[Judged] = []

        def ask(evidence: Evidence) -> Judged:
            said.append(rule.judge(evidence))
            return said[-1]

        judge([run], baselines, {self.experiment: replace(rule, judge=ask, factors=None)})
        (only,) = said
        return only

    def verdict(
        self, *pairs: tuple[Values, Values], beside: Mapping[str, Values | None] | None = None
    ) -> str:
        return self.judged(*pairs, beside=beside)[0]

    def why(self, *pairs: tuple[Values, Values], beside: Mapping[str, Values | None] | None = None) -> str:
        return self.judged(*pairs, beside=beside)[1]

    def without(self, name: str, *, off: bool = True, on: bool = True) -> Judged:
        """What it says of a pair of which this was not measured in one or both of the states."""
        right = Right(
            {key: value for key, value in self.right.off.items() if not (off and key == name)},
            {key: value for key, value in self.right.on.items() if not (on and key == name)},
            self.right.beside,
        )
        return replace(self, right=right).judged(GOOD)


GOOD: tuple[Values, Values] = ({}, {})


_IPI = {
    **{"sgi_per_ipi": 1.02, "sgi_per_call_sync": 1.02, "injected_per_ipi": 0.0, "exits_per_ipi": 2.0},
    **{"vcpu_cpu_use": 1.1, "idle_cpu_share": 0.9, "poll_share": 0.0, "hackbench": 1.2},
    **{"notify": 90e3, "call_sync": 95e3, "call_many": 95e3, "wake": 99e3, "wakeup_rtt": 200e3},
}
IPI = Rounds(
    "ipi",
    Right(
        off=_IPI,
        on={
            **_IPI,
            **{"sgi_per_ipi": 0.008, "sgi_per_call_sync": 0.005, "injected_per_ipi": 1.01},
            **{"exits_per_ipi": 0.02, "vcpu_cpu_use": 2.2, "poll_share": 0.9},
            **{"notify": 2.4e3, "call_sync": 4e3, "call_many": 4e3, "wake": 6e3, "wakeup_rtt": 20e3},
        },
        beside={},
    ),
)

_LOADS = ("oneshot", "tick", "section")
_HW = {
    **{"timers_lost": 0.0, "timers_wrong": 0.0, "ticks_taken": 1.0},
    **{f"redundant_per_{load}": 0.0 for load in _LOADS},
    **{f"timer_exits_beyond_{load}": 0.0 for load in _LOADS},
    **{"timer_exits_per_oneshot": 0.007, "timer_exits_per_tick": 0.86, "timer_exits_per_section": 1.05},
    **{"interrupts_per_oneshot": 1.05, "interrupts_per_tick": 1.0, "interrupts_per_section": 2.3},
    **{"exits_per_oneshot": 1.14, "exits_per_tick": 2.9, "exits_per_section": 5.5},
    **{"ticks_per_s": 100.0, "busy_work": 2e6, "storm": 187.0, "section": 6.3e6},
    **{"oneshot_late": 90e3, "cyclictest": 300e3, "section_rtt": 2.2e6},
    **{"cross_futex_rtt": 570e3, "cross_pipe_rtt": 640e3},
}
VTIMER = Rounds(
    "vtimer",
    Right(
        off={
            **_HW,
            **{"redundant_per_oneshot": 0.6, "redundant_per_tick": 0.34, "redundant_per_section": 74.2},
            **{"timer_exits_per_oneshot": 0.61, "timer_exits_per_tick": 1.22},
            **{"timer_exits_per_section": 75.2, "timer_exits_beyond_section": 7290.0},
            **{
                "timer_exits_beyond_tick": 11.0,
                "exits_per_section": 79.8,
                "storm": 5400.0,
                "section": 13.9e6,
            },
        },
        on={**_HW, "timer_exits_per_section": 1.03, "exits_per_oneshot": 2.24},
        beside={"HW bit": _HW},
    ),
)

_EXACT = {"handled_per_posted": 1.0, "violations": 0.0, "verified": 1.0}
_CQ_POLL = {
    **_EXACT,
    **{"wakeups_per_write": 4.78, "ipis_per_write": 2.86, "works_per_write": 19.1, "exits_per_write": 18.0},
    **{"interrupts_per_write": 6.6, "switches_per_write": 27.7, "completion": 106e3},
    **{"write": 4.6e6, "write_rtt": 4e6, "write_exe": 4.2e6, "write_depth_1": 1.8e6},
    **{"poller_use": 0.0, "poller_idle_use": 0.0, "write_cpu_use": 0.7},
}
CQ_POLL = Rounds(
    "cq-poll",
    Right(
        off={**_CQ_POLL, **{f"siw_{name}": value for name, value in _CQ_POLL.items()}},
        on={
            **_CQ_POLL,
            **{f"siw_{name}": value for name, value in _CQ_POLL.items()},
            **{"wakeups_per_write": 0.013, "ipis_per_write": 3.22, "works_per_write": 14.4},
            **{
                "siw_wakeups_per_write": 0.04,
                "poller_use": 0.96,
                "poller_idle_use": 1.0,
                "completion": 360e3,
            },
        },
        beside={},
    ),
)

_WFX = {
    **{"timers_taken": 310.0, "wfx_exits_named": 1.03, "wfx_exits_other": 1.05, "wfx_exits_back": 1.02},
    **{"exits_named": 2.1, "idle_wfx_exits": 10.0, "idle_exits": 11.0, "mixed_wfx_exits": 930.0},
    **{"wfx_per_timer": 1.2, "wfx_per_futex_rtt": 2.04, "wfx_per_pipe_rtt": 2.02},
    **{"idle_cpu_use": 0.007, "timer_cpu_use": 0.34, "neighbour_share": 0.996},
    **{"timer_wake": 317e3, "futex_rtt": 320e3, "pipe_rtt": 320e3, "mixed_time": 1.2},
}
WFX = Rounds(
    "wfx",
    Right(
        off=_WFX,
        on={
            **_WFX,
            **{"wfx_exits_named": 0.0, "idle_wfx_exits": 0.0, "mixed_wfx_exits": 0.0, "wfx_per_timer": 0.0},
            **{"wfx_per_futex_rtt": 0.0, "wfx_per_pipe_rtt": 0.0, "wfx_exits_other": 0.98},
            **{"idle_exits": 200.0, "idle_cpu_use": 1.8, "timer_cpu_use": 1.8, "neighbour_share": 0.5},
            **{"timer_wake": 266e3, "futex_rtt": 499e3, "pipe_rtt": 471e3},
        },
        beside={},
    ),
)


def of_load(load: str, name: str) -> str:
    """A metric of this load of the black box, or of the same without a rate; "" is the latency."""
    if name == "closed_exits":
        return f"{CLOSED[load]}_exits"
    return f"{load}_{name}" if name else load


def of_each(values: Values) -> Values:
    """These for each of the black box's loads."""
    return {of_load(load, name): value for load in MAIN_METRICS for name, value in values.items()}


_OFF = {
    **of_each({"": 9e6, "lost": 0.0, "ipis": 10.0, "wakeups": 4.0, "exits": 20.0, "wfx_exits": 6.0}),
    **of_each({"timer_exits": 8.0, "redundant_exits": 2.0, "closed_exits": 10.0, "served": 8e6}),
    **of_each({"switches": 30.0, "poller_use": 0.0, "cpu_use": 0.5}),
    **{"insert_2": 9e6, "insert_2_lost": 0.0, "tpcb_4_closed_lost": 0.0},
}
ALONE: Mapping[str, Values] = {
    "ipi": of_each({"ipis": 3.0}),
    "vtimer": of_each({"redundant_exits": 0.0}),
    "cq-poll": of_each({"wakeups": 0.1}),
    "wfx": of_each({"wfx_exits": 0.0}),
}
"""What each feature changes alone."""
BLACKBOX = Rounds(
    "blackbox",
    Right(
        off=_OFF,
        on={
            **_OFF,
            **of_each({"": 3e6, "ipis": 4.0, "wakeups": 0.1, "exits": 18.0, "wfx_exits": 0.1}),
            **of_each({"timer_exits": 12.0, "redundant_exits": 0.01, "closed_exits": 5.0}),
            **of_each({"switches": 60.0, "poller_use": 1.0, "cpu_use": 1.9}),
        },
        beside={
            **{feature: {**_OFF, **values} for feature, values in ALONE.items()},
            AFTER: {"all_lost": 0.0, "damage": 0.0},
        },
    ),
)
