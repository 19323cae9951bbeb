# SPDX-License-Identifier: Apache-2.0
"""Machines that several modules of tests use, each booted once, and what a test must leave there unchanged.

A test names its machines with the marker `on` and has them by the fixture `machine` (conftest.py):

    @pytest.mark.on(VM, CVM)
    def test_something(machine: Machine) -> None: ...

A module's `pytestmark = pytest.mark.on(CVM)` is for its tests that have no marker of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.system import System
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions, Machine
from cvmtune.workloads import database


@dataclass(frozen=True)
class Shared:
    """A machine to boot. `name` is in the tests' names; `tools` build what its guest and host get beside the
    kernel's own tools."""

    name: str
    machine: str
    flavour: str = "default"
    options: BootOptions = PLAIN_BOOT
    tools: tuple[Callable[[Lab], Path], ...] = ()

    def __str__(self) -> str:
        return self.name


PLAIN = Shared("plain", "plain", tools=(database.build,))
# The policy is that of `cvm` in all but name, where it is the default: so both are tried.
VM = Shared("vm", "vm", options=BootOptions(host_append=("kvm-arm.wfi_trap_policy=trap",)))
CVM = Shared("cvm", "cvm", tools=(database.build,))
# The later of two options of the same name counts.
CVM_WITHOUT = Shared(
    "cvm-without",
    "cvm",
    options=BootOptions(host_append=("kvm-arm.cvm_vtimer=off", "kvm-arm.wfi_trap_policy=notrap")),
)
"""A host that is told at boot to mask no timer, and to trap no WFx."""

# More vCPUs than this computer may have CPUs: the emulator then interrupts them anywhere.
MANY_CPUS = 4
_MANY = BootOptions(cpus=MANY_CPUS, append=("hung_task_panic=0",))
DEBUG = Shared("debug", "plain", "debug", _MANY)
KCSAN = Shared("kcsan", "plain", "kcsan", _MANY)
CVM_DEBUG = Shared("cvm-debug", "cvm", "debug", tools=(Lab.kvm_selftests,))

# Read as a shell's patterns, in guest and host; what is not there is left out.
_FILES = (
    "/proc/mounts",
    "/sys/devices/system/cpu/online",
    "/sys/kernel/soft_ipi_passthrough",
    "/sys/module/soft_ipi/parameters/poll_us",
    "/sys/kernel/cvm_wfx_trap_config",
    "/sys/module/kvm/parameters/wfx_guard",
    "/sys/module/kvm/parameters/halt_poll_ns",
    "/sys/kernel/debug/kvm/*/wfx_trap_config",
    "/sys/kernel/debug/kvm/*/vtimer_mode",
)
# Few programs, and nothing that can be done here: each takes its time in a nested machine.
_STATE = f"""
grep -sH . {" ".join(_FILES)}
ls /sys/class/net /sys/class/infiniband 2>/dev/null
ps --ppid 2 -p 2 --deselect -o comm=
"""
# Of the process of that number.
_VCPUS = "for comm in $(grep -lsE '^CPU [0-9]+/KVM$' /proc/$0/task/*/comm); do cat ${comm%comm}status; done"
# However busy the computer, in seconds.
_PATIENCE = 300.0


def state(machine: Machine) -> frozenset[str]:
    """What tests switch, load, mount and start, as it is now: a line each."""
    lines = {f"guest: {line}" for line in _state_of(machine.guest)}
    if machine.host:
        lines |= {f"host: {line}" for line in _state_of(machine.host)}
        status = _lines(machine.host, _VCPUS, str(machine.vmm_pid))
        pinned = [line.split()[1] for line in status if line.startswith("Cpus_allowed_list:")]
        lines.add(f"host: vCPUs on {', '.join(pinned)}")
    return frozenset(lines)


def _state_of(system: System) -> list[str]:
    modules = (line.split()[0] for line in system.read_text("/proc/modules").splitlines())
    return [*_lines(system, _STATE), *(f"module {name}" for name in modules)]


def _lines(system: System, script: str, *arguments: str) -> list[str]:
    return system.run(["sh", "-c", script, *arguments], timeout=_PATIENCE).stdout.splitlines()
