# SPDX-License-Identifier: Apache-2.0
"""The status of a feature that is switched by a setting: read through the knobs, as settings are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cvmtune.core.figure import Figure
from cvmtune.features.feature import FeatureStatus
from cvmtune.observe.capture import Capture
from cvmtune.observe.captured import CapturedSystem
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.setting import Setting


def of_setting(
    capture: Capture,
    main: Setting[Any],
    beside: Setting[Any],
    did: Iterator[str],
    statistics: Mapping[str, Figure],
) -> FeatureStatus:
    """Return the status of a feature with the setting `main`, and a parameter `beside` it that may be
    missing."""
    system = CapturedSystem(capture)
    try:
        value = main.knob.value(system)
    except KnobError as error:
        there = system.exists(main.knob.path)
        return FeatureStatus(main.name, "unknown" if there else "absent", problem=str(error))
    settings = {main.name: value}
    if (text := beside.knob.read(system).value) is not None:
        settings[beside.name] = beside.knob.decode(text)
    return FeatureStatus(
        main.name, "off" if value == main.off else "on", settings, ", ".join(did), statistics
    )


def sums(rows: Iterable[Mapping[str, int]], names: Iterable[str]) -> dict[str, float]:
    """The sum of each of these columns; 0 for one that this kernel does not have."""
    rows = list(rows)
    return {name: float(sum(row.get(name, 0) for row in rows)) for name in names}
