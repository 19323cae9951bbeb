# SPDX-License-Identifier: Apache-2.0
"""What the tests of WFx traps ask of a host and its guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.core.system import System
from cvmtune.experiments.guest import timer_interrupts
from cvmtune.experiments.host import Host
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import parse_table
from tests.vm.cq_poll_guest import wait_until

CONTROL = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
NONE = "00000000\n"
# Enough timers, each after a wait, to tell exits for all from exits for none; and such exits.
TIMERS = 40
EXITS = 20


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
        return timer_interrupts(self.guest)

    def watch(self, *trapped: int) -> dict[int, dict[str, int]]:
        """By how much each vCPU's counts grow, from now until each has taken many timer interrupts, and those
        that are to be trapped have made many exits for WFI."""
        before, least = self.statistics(), [count + TIMERS for count in self.wake_ups()]

        def seen() -> bool:
            now, timers = self.statistics(), self.wake_ups()
            exits = (now[vcpu]["wfi_exits"] - before[vcpu]["wfi_exits"] for vcpu in trapped)
            waited = all(count >= then for count, then in zip(timers, least, strict=True))
            return waited and all(count >= EXITS for count in exits)

        wait_until(seen, f"timers of each CPU, and exits for WFI of vCPUs {trapped}", pause=0.1)
        after = self.statistics()
        return {
            vcpu: {name: value - before[vcpu][name] for name, value in row.items()}
            for vcpu, row in after.items()
        }

    def check_trapped(self, *trapped: int) -> dict[int, dict[str, int]]:
        """As watch(), of a guest whose CPUs wait; the other vCPUs must make no exit for WFI at all."""
        grown = self.watch(*trapped)
        for vcpu, row in grown.items():
            assert vcpu in trapped or row["wfi_exits"] == 0, (vcpu, grown)
        return grown

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
