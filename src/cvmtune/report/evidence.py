# SPDX-License-Identifier: Apache-2.0
"""What a verdict is made from, and how it treats a computer that was too busy to tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cvmtune.report.schema import Baseline, Metric, Verdict
from cvmtune.report.stats import Stats

BUSY = 0.2
"""The share of the time in which the emulator waited for a CPU, above which a computer is too busy to tell a
right kernel from a wrong one where a count is a little too high. On 2 CPUs that did nothing else it was 0.04
to 0.11, as the emulator has more threads than that; beside two busy programs 0.36 to 0.62."""

NOTHING = 0.5
"""A feature that leaves this share or more of what it is to lower has done nothing, however busy the computer
was. Rules whose count a busy computer can raise further say what they go by instead."""

Judged = tuple[Verdict, str]
"""A verdict, and why: one sentence."""


@dataclass(frozen=True)
class Evidence:
    """All that was measured of an experiment on a machine.

    `metrics` were measured both off and on; `baselines` have whatever else was measured there, the states
    other than off and on included. `waited` is the largest `waited` of a round, None where a round off or on
    has none.
    """

    metrics: Sequence[Metric]
    baselines: Sequence[Baseline] = ()
    waited: float | None = None

    @cached_property
    def by_name(self) -> Mapping[str, Metric]:
        return {metric.name: metric for metric in self.metrics}

    def beside(self, state: str) -> Mapping[str, Stats]:
        """What was measured in that state by the metrics' names; in all rounds where it is "feature off" or
        "feature on"."""
        found = (one.metrics for one in self.baselines if one.name == f"{one.machine}, {state}")
        return {metric.name: metric.values for metrics in found for metric in metrics}

    def missing(self, names: Iterable[str]) -> Judged | None:
        """UNDECIDED if one of these was not measured both off and on."""
        if lacking := [name for name in names if name not in self.by_name]:
            return Verdict.UNDECIDED, f"Not measured both off and on: {', '.join(lacking)}."
        return None

    def exercised(self, metric: Metric, least: float) -> Judged | None:
        """UNDECIDED if the metric's mean with the feature off is below `least`: nothing was to be lowered."""
        if metric.off.mean >= least:
            return None
        return Verdict.UNDECIDED, (
            f"{metric.title}: {figure(metric.off.mean)} off, where less than {figure(least)} shows nothing."
        )

    def exactly(self, metric: Metric, right: float, *, off: bool = False) -> Judged | None:
        """FAIL if a sample on, or `off` too, is not `right`, however busy the computer was; those of rounds
        without a counterpart count as well."""
        for state, paired in (*((("off", metric.off),) if off else ()), ("on", metric.on)):
            stats = self.beside(f"feature {state}").get(metric.name, paired)
            if wrong := [sample for sample in stats.samples if sample != right]:
                most = max(wrong, key=lambda sample: abs(sample - right))
                return (
                    Verdict.FAIL,
                    f"{metric.title}: {figure(most)} {state}, where only {figure(right)} is right.",
                )
        return None

    def at_most(self, metric: Metric, most: float, *, nothing: float = NOTHING) -> Judged | None:
        """None where the metric's mean with the feature on is at most `most`.

        Else FAIL if that off was more, and it is `nothing` of that or more: then the feature did nothing,
        however busy the computer was. Else as unless_busy().
        """
        on, off = metric.on.mean, metric.off.mean
        if on <= most:
            return None
        if off > most and on >= nothing * off:
            return Verdict.FAIL, f"{metric.title}: {figure(off)} off, still {figure(on)} on."
        return self.unless_busy(f"{metric.title}: {figure(on)} on", f"at most {figure(most)}")

    def at_least(self, metric: Metric, least: float, *, gone: float) -> Judged | None:
        """None where the metric's mean with the feature on is at least `least`; else FAIL if it is at most
        `gone`, however busy the computer was, and as unless_busy() if not."""
        on = metric.on.mean
        if on >= least:
            return None
        found, right = f"{metric.title}: {figure(on)} on", f"at least {figure(least)}"
        if on <= gone:
            return Verdict.FAIL, f"{found}, where {right} is right."
        return self.unless_busy(found, right)

    def unless_busy(self, found: str, right: str) -> Judged:
        """FAIL by what was found, or UNDECIDED where it may be the computer's fault; `right` is what would be
        right."""
        if self.waited is None:
            return Verdict.UNDECIDED, (
                f"{found}, where {right} is right, and whether the computer was too busy to tell is unknown."
            )
        if self.waited > BUSY:
            return Verdict.UNDECIDED, (
                f"{found}, but the computer was too busy to tell: the emulator waited for a CPU "
                f"{self.waited:.0%} of the time."
            )
        return Verdict.FAIL, f"{found}, where {right} is right."


def worst(found: Iterable[Judged | None]) -> Judged | None:
    """The first FAIL, or the first UNDECIDED, or None."""
    kept = [one for one in found if one]
    fails = [one for one in kept if one[0] is Verdict.FAIL]
    return next(iter([*fails, *kept]), None)


def off_on(metric: Metric) -> str:
    """The metric's two figures, under its title."""
    return f"{metric.title}: {figure(metric.off.mean)} off, {figure(metric.on.mean)} on"


def figure(value: float) -> str:
    """A figure as a sentence has it: three digits, and no exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")
