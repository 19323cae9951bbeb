# SPDX-License-Identifier: Apache-2.0
"""What a guest and its host have counted so far."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.core.system import System
from cvmtune.experiments.guest import SGI_ROWS
from cvmtune.experiments.host import Host
from cvmtune.observe.procfs import parse_interrupts, parse_named


@dataclass(frozen=True)
class Counters:
    """What the guest counts of all its CPUs, and its host of all its vCPUs (0 where there is none)."""

    ipis: int
    interrupts: int
    switches: int
    uptime_s: float
    exits: float
    vmm_s: float

    @staticmethod
    def read(guest: System, host: Host | None) -> Counters:
        rows = parse_interrupts(guest.read_text("/proc/interrupts"))
        stat = parse_named(guest.read_text("/proc/stat"))
        return Counters(
            ipis=sum(sum(rows[row]) for row in SGI_ROWS),
            interrupts=stat["intr"],
            switches=stat["ctxt"],
            uptime_s=float(guest.read_text("/proc/uptime").split()[0]),
            exits=host.exits() if host else 0.0,
            vmm_s=host.vmm_seconds() if host else 0.0,
        )
