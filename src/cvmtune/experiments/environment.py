# SPDX-License-Identifier: Apache-2.0
"""Where a run was measured: what goes with its figures."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from cvmtune import __version__
from cvmtune.core import command
from cvmtune.lab.machine import Machine
from cvmtune.lab.qemu import QEMU


def environment_of(machine: Machine) -> dict[str, object]:
    """The environment of what is measured in a machine that is running, as result files have it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cvmtune": __version__,
        "kernel": machine.guest.read_text("/proc/version").strip(),
        "guest_cpus": machine.spec.guest_cpus,
        "machine": f"{machine.spec.name}: {machine.spec.stands_for}",
        "boot_seconds": round(machine.boot_seconds, 1),
        "emulator": command.run([QEMU, "--version"]).check().stdout.splitlines()[0],
        "computer": _processor(),
        # A computer that was busy with other things makes times worse, those with the feature on most.
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(models) or '?'} CPUs"
