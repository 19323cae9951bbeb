# SPDX-License-Identifier: Apache-2.0
"""The definition of a metric: one constant that an experiment, its verdict and its headline share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cvmtune.experiments.rounds import Better, Heading, Kind, Series


@dataclass(frozen=True)
class Measure(Heading):
    """A metric. Counts decide, times inform."""

    kind: Kind = "count"
    better: Better = "lower"

    def series(self, samples: Iterable[float]) -> Series:
        """The samples of one round; ValueError if there are none, or one is not a finite number."""
        return Series(*self.head(), tuple(samples))

    def value(self, value: float) -> Series:
        """The one sample of a round."""
        return self.series((value,))
