# SPDX-License-Identifier: Apache-2.0
"""What the tests of WFx traps ask of a host and its guest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.core.system import System
from cvmtune.experiments.host import Host
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import parse_table

CONTROL = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
NONE = "00000000\n"


class Site:
    """A machine's host and guest, and the files of the guest's VM."""

    def __init__(self, machine: Machine) -> None:
        assert machine.host
        self.machine = machine
        self.guest: System = machine.guest
        self.host: System = machine.host
        self.vmm_pid = machine.vmm_pid
        self.threads = Host(machine.host, machine.vmm_pid).vcpu_threads()
        found = self.host.run(["sh", "-c", f"echo /sys/kernel/debug/kvm/{self.vmm_pid}-*"]).check()
        self.own = f"{found.stdout.strip()}/wfx_trap_config"

    def statistics(self) -> dict[int, dict[str, int]]:
        """The VM's wfx_trap_stats by vCPU."""
        text = self.host.read_text(self.own.replace("config", "stats"))
        return {
            int(row["vcpu"]): {name: int(value) for name, value in row.items()} for row in parse_table(text)
        }

    def grown(self, seconds: float, name: str) -> list[int]:
        """By how much a count of each vCPU grows in that time, from now on."""
        before = self.statistics()
        time.sleep(seconds)
        after = self.statistics()
        return [after[vcpu][name] - before[vcpu][name] for vcpu in sorted(after)]

    def pin(self, *cpus: str) -> None:
        """Have vCPU n on the physical CPUs cpus[n]."""
        for thread, where in zip(self.threads.values(), cpus, strict=True):
            self.host.run(["taskset", "-cp", where, str(thread)]).check()

    def reset(self) -> None:
        """As after boot: nobody named, no guard, each vCPU on a physical CPU of its own."""
        self.host.write_text(CONTROL, "0\n")
        self.host.write_text(self.own, "system\n")
        self.host.write_text(GUARD, "N\n")
        self.pin("0", "1")

    @contextmanager
    def timers(self) -> Iterator[None]:
        """Have both CPUs of the guest wake by timers all the time."""
        script = "cyclictest --smp --interval=1000 --distance=0 --quiet >/dev/null 2>&1 & echo $!"
        pid = self.guest.run(["sh", "-c", script]).check().stdout.strip()
        try:
            time.sleep(0.5)
            yield
        finally:
            self.guest.run(["kill", pid]).check()
