# SPDX-License-Identifier: Apache-2.0
"""What the feature costs where it is compiled in but off, in instructions: exact, so held to a number."""

from __future__ import annotations

import pytest

from cvmtune.experiments.bench import Bench
from cvmtune.features.soft_ipi.paths import SoftIpiPaths
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions

# A static key leaves a NOP in each path; the compiler may lay out the rest a little differently.
NOPS = 4.0


# With the stress tests for its kernel, which no other test needs.
@pytest.mark.stress
@pytest.mark.long
def test_off_costs_a_nop_or_two(lab: Lab) -> None:
    lengths = {}
    for state, flavour in (("absent", "absent"), ("off", "default"), ("on", "default")):
        with lab.boot("plain", flavour=flavour, options=BootOptions(icount=True)) as machine:
            (found,) = SoftIpiPaths().measure(Bench.of(machine, GUEST_TOOLS), state, on=state == "on")
        lengths[state] = {one.name: one.samples[0] for one in found.series}
    print(lengths)
    for path in ("send_path", "idle_path"):
        assert lengths["off"][path] - lengths["absent"][path] <= NOPS, path
    # And what is sent softly takes fewer than what goes through the interrupt controller.
    assert lengths["on"]["send_path"] < lengths["off"]["send_path"]
