# SPDX-License-Identifier: Apache-2.0
"""What a raw run cannot be."""

import math

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series

NOTIFY = Series("notify", "t", "ns", "time", "lower", (1.0, 2.5))


def test_refuses_a_round_that_appears_twice() -> None:
    with pytest.raises(ValueError, match="'off 0' appears twice"):
        RawRun("ipi", "cvm", (Round("off", 0, (NOTIFY,)),) * 2, {})


def test_refuses_a_series_that_appears_twice() -> None:
    with pytest.raises(ValueError, match="'notify' appears twice"):
        Round("off", 0, (NOTIFY, NOTIFY))


@pytest.mark.parametrize("samples", [(), (1.0, math.inf), (math.nan,)])
def test_a_series_needs_finite_samples(samples: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="'notify'"):
        Series("notify", "t", "ns", "time", "lower", samples)
