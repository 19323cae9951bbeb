# SPDX-License-Identifier: Apache-2.0
"""What the tests of WFx traps ask of a host and its guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.core.system import System
from cvmtune.experiments.guest import named_interrupts
from cvmtune.experiments.host import Host
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import parse_table
from tests.vm.cq_poll_guest import wait_until

CONTROL = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
NONE = "00000000\n"
# Of timers, after as many waits: enough to tell exits for all from exits for none.
TIMERS = 40


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

    def wake_ups(self) -> tuple[int, ...]:
        """Timer interrupts that each CPU of the guest has taken."""
        return named_interrupts(self.guest.read_text("/proc/interrupts"), "arch_timer")

    def watch(self, timers: int = TIMERS) -> dict[int, dict[str, int]]:
        """By how much each vCPU's counts grow while each takes so many timer interrupts, from now on."""
        before, least = self.statistics(), [count + timers for count in self.wake_ups()]
        wait_until(
            lambda: all(now >= then for now, then in zip(self.wake_ups(), least, strict=True)),
            f"{timers} timers of each CPU",
            pause=0.1,
        )
        after = self.statistics()
        return {
            vcpu: {name: value - before[vcpu][name] for name, value in row.items()}
            for vcpu, row in after.items()
        }

    def wfi_exits(self, timers: int = TIMERS) -> list[int]:
        """The exits for WFI of each vCPU while each takes so many timer interrupts."""
        return [row["wfi_exits"] for _, row in sorted(self.watch(timers).items())]

    def pin(self, *cpus: str) -> None:
        """Have vCPU n on the physical CPUs cpus[n]."""
        moves = (
            f"taskset -cp {where} {thread}" for thread, where in zip(self.threads.values(), cpus, strict=True)
        )
        self.host.run(["sh", "-ec", "; ".join(moves)]).check()

    def reset(self) -> None:
        """As after boot: nobody named, no guard, each vCPU on a physical CPU of its own."""
        self.host.write_text(CONTROL, "0\n")
        self.host.write_text(self.own, "system\n")
        self.host.write_text(GUARD, "N\n")
        self.pin("0", "1")

    @contextmanager
    def timers(self) -> Iterator[None]:
        """Have both CPUs of the guest wake by timers all the time, with a wait before each, however slow."""
        script = "cyclictest --smp --relative --interval=1000 --distance=0 --quiet >/dev/null 2>&1 & echo $!"
        pid = self.guest.run(["sh", "-c", script]).check().stdout.strip()
        try:
            yield
        finally:
            self.guest.run(["kill", pid]).check()
