# SPDX-License-Identifier: Apache-2.0
"""What the tests of soft IPI passthrough ask of a guest."""

from __future__ import annotations

from cvmtune.core.system import System
from cvmtune.features.soft_ipi.experiment import soft_statistics
from cvmtune.observe.procfs import parse_interrupts

CONTROL = "/sys/kernel/soft_ipi_passthrough"
BOUND = "/sys/module/soft_ipi/parameters/poll_us"
STATS = "/sys/kernel/debug/soft_ipi_passthrough/stats"


def interrupts(system: System, *rows: str, cpu: int) -> int:
    found = parse_interrupts(system.read_text("/proc/interrupts"))
    return sum(found[row][cpu] for row in rows)


def statistics(system: System, cpu: int) -> dict[str, int]:
    return soft_statistics(system.read_text(STATS))[cpu]


def storm(system: System, seconds: int) -> dict[str, int]:
    """Run the storm module and check its books; return them."""
    command = f"echo seconds={seconds} seed=1 >/sys/kernel/debug/cvmtune_storm/run"
    system.run(["sh", "-c", command], timeout=seconds + 120).check()
    lines = (line.split() for line in system.read_text("/sys/kernel/debug/cvmtune_storm/result").splitlines())
    result = {name: int(value) for name, value in lines}
    kinds = [name.removeprefix("requested_") for name in result if name.startswith("requested_")]
    assert sum(result[f"requested_{kind}"] for kind in kinds) > 0
    for kind in kinds:
        handled = result[f"handled_{kind}"] + result.get(f"forgiven_{kind}", 0)
        assert handled == result[f"requested_{kind}"], kind
    for name in ("lost", "wrong_context", "wrong_cpu", "wrong_payload", "send_errors", "hung"):
        assert result[name] == 0, name
    return result
