# SPDX-License-Identifier: Apache-2.0
"""What an experiment runs on."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.core.errors import UsageError
from cvmtune.core.system import System
from cvmtune.experiments.host import Host
from cvmtune.lab.machine import Machine
from cvmtune.lab.specs import MachineName


@dataclass(frozen=True)
class Bench:
    """A guest, its host if it has one, and the directory in both with the lab's modules and helpers.

    `emulator` is the process of this computer that emulates the machine, if it is one of the lab.
    """

    guest: System
    host: Host | None
    machine: MachineName
    tools: str
    emulator: int | None = None

    @staticmethod
    def of(machine: Machine, tools: str) -> Bench:
        """A machine of the lab that is running."""
        host = Host(machine.host, machine.vmm_pid) if machine.host else None
        return Bench(machine.guest, host, machine.spec.name, tools, machine.emulator_pid)

    def need_host(self, why: str, next_step: str) -> Host:
        """The host; UsageError if this machine has none."""
        if self.host is None:
            raise UsageError(f"{why}, and this machine has none", self.machine, next_step)
        return self.host
