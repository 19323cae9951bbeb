# SPDX-License-Identifier: Apache-2.0
"""Figures and ratios as text, alike in tables, summary and page."""

from __future__ import annotations

from cvmtune.report.gains import Factorial
from cvmtune.report.stats import LEAST_ROUNDS, Effect

NO_FIGURE = "n/a"

RATIO = "ratio [95 %] or (spread)"
"""The heading of a column of effects."""

HOW_TO_READ = (
    "A ratio above 1 is better with the feature on. [low, high] is its 95 % interval, which is given from "
    f"{LEAST_ROUNDS} rounds on; (low to high) is the spread of fewer rounds, which is no interval and "
    "settles nothing."
)


def format_figure(value: float) -> str:
    """A figure with three significant digits, or all those before the point; millions as in "1.23M"."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:#.3g}".rstrip(".") + "M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def format_effect(effect: Effect | None) -> str:
    """As in "5.10 [4.80, 5.60]" with a 95 % interval, and "5.10 (4.80 to 5.60)" with a spread."""
    if effect is None:
        return NO_FIGURE
    ratio, interval = format_figure(effect.ratio), effect.interval
    if interval is None:
        return ratio
    low, high = format_figure(interval.low), format_figure(interval.high)
    return f"{ratio} [{low}, {high}]" if interval.kind == "95 %" else f"{ratio} ({low} to {high})"


def format_rounds(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"


def why_no_order(found: Factorial) -> str:
    """Why it is not told which feature to turn on first, as a sentence; empty where there are intervals."""
    if any(gain.alone.ci95 for gain in found.gains):
        return ""
    rounds = found.rounds
    nothing = (
        f"{format_rounds(rounds)} settle{'s' * (rounds == 1)} nothing" if rounds else "the file has no rounds"
    )
    return f"Which to turn on first is not told: {nothing}, and at least {LEAST_ROUNDS} are needed."
