# SPDX-License-Identifier: Apache-2.0
"""What a verdict is made from, and how it treats a computer that was too busy to tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cvmtune.report.schema import Baseline, Metric, Verdict

BUSY = 0.1
"""The share of the time in which the emulator waited for a CPU, above which a computer is too busy to tell a
right kernel from a wrong one where a count is a little too high. A quiet computer has a hundredth or two, one
whose every CPU has another busy program half."""

NOTHING = 0.5
"""A feature that leaves this share or more of what it is to lower has done nothing, however busy the computer
was."""

Judged = tuple[Verdict, str]
"""A verdict, and why: one sentence."""


@dataclass(frozen=True)
class Evidence:
    """All that was measured of an experiment on a machine.

    `metrics` were measured both off and on; `baselines` have whatever else was measured there, the states
    other than off and on included. `waited` is the largest `waited` of a round off or on, None where a round
    has none.
    """

    metrics: Sequence[Metric]
    baselines: Sequence[Baseline] = ()
    waited: float | None = None

    @cached_property
    def by_name(self) -> Mapping[str, Metric]:
        return {metric.name: metric for metric in self.metrics}

    def missing(self, names: Iterable[str]) -> Judged | None:
        """UNDECIDED if one of these was not measured both off and on."""
        if lacking := [name for name in names if name not in self.by_name]:
            return Verdict.UNDECIDED, f"Not measured both off and on: {', '.join(lacking)}."
        return None

    def at_most(self, metric: Metric, most: float, *, nothing: float = NOTHING) -> Judged | None:
        """None where the metric's mean with the feature on is at most `most`.

        Else FAIL if it is `nothing` of that off or more, or the computer was quiet, and UNDECIDED if the
        computer was busy, or it is unknown whether it was.
        """
        on, off = metric.on.mean, metric.off.mean
        if on <= most:
            return None
        said = f"{metric.title}: {on:.3g} with the feature on, where at most {most:.3g} is right"
        if on >= nothing * off:
            return Verdict.FAIL, f"{said} ({off:.3g} off)."
        return self.unless_busy(said)

    def at_least(self, metric: Metric, least: float, *, gone: float) -> Judged | None:
        """None where the metric's mean with the feature on is at least `least`; else FAIL if it is at most
        `gone`, or the computer was quiet."""
        on = metric.on.mean
        if on >= least:
            return None
        said = f"{metric.title}: {on:.3g} with the feature on, where at least {least:.3g} is right"
        return (Verdict.FAIL, f"{said}.") if on <= gone else self.unless_busy(said)

    def unless_busy(self, said: str) -> Judged:
        """FAIL by what was found, or UNDECIDED where it may be the computer's fault."""
        if self.waited is None:
            return Verdict.UNDECIDED, f"{said}; whether the computer was too busy to tell is unknown."
        if self.waited > BUSY:
            return Verdict.UNDECIDED, (
                f"{said}, but the computer was too busy to tell: the emulator waited for a CPU "
                f"{self.waited:.0%} of the time."
            )
        return Verdict.FAIL, f"{said}."


def worst(found: Iterable[Judged | None]) -> Judged | None:
    """The first FAIL, or the first UNDECIDED, or None."""
    kept = [one for one in found if one]
    fails = [one for one in kept if one[0] is Verdict.FAIL]
    return next(iter([*fails, *kept]), None)
