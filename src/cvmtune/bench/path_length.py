# SPDX-License-Identifier: Apache-2.0
"""How many instructions the paths that soft IPI passthrough touches take: sending an IPI, and idling.

In a machine booted with `icount` the guest's counter goes on by one nanosecond an instruction, whatever the
computer does, so differences of counter readings are counts of instructions. The counter's step is 16 ns:
single samples are that coarse, means over many are not.
"""

from __future__ import annotations

from cvmtune.bench.ipi import loaded_module
from cvmtune.bench.raw import Round, Series
from cvmtune.core.system import System
from cvmtune.knobs.soft_ipi import SoftIpi

_DEBUGFS = "/sys/kernel/debug/cvmtune_ipi"
_SAMPLES = 2000
_GAP_US = 100
_PATHS = {
    "send_path": "Instructions to send a rescheduling IPI to an idle CPU",
    "idle_path": "Instructions of an idle entry and exit with an interrupt already pending",
}


def collect(guest: System, state: str, mask: str, tools: str) -> Round:
    """Measure in a guest that was booted with `icount`; `tools` is its directory with the module.

    `state` names the measurement, `mask` (hex) the polling CPUs; a kernel without the feature takes none.
    """
    with loaded_module(guest, tools):
        return _measure(guest, state, mask)


def _measure(guest: System, state: str, mask: str) -> Round:
    knob = SoftIpi()
    plan = knob.plan(guest, mask) if knob.read(guest).available else None
    if plan:
        knob.apply(guest, plan)
    try:
        clock = _mean(guest, "clock_path")
        series = tuple(
            Series(name, title, "instructions", "count", "lower", (round(_mean(guest, name) - clock, 1),))
            for name, title in _PATHS.items()
        )
    finally:
        if plan:
            knob.undo(guest, plan)
    return Round(state, 0, series)


def _mean(guest: System, kind: str) -> float:
    command = f"echo kind={kind} src=0 dst=1 n={_SAMPLES} gap_us={_GAP_US} >{_DEBUGFS}/run"
    guest.run(["sh", "-c", command], timeout=600).check()
    samples = [int(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split()]
    return sum(samples) / len(samples)
