# SPDX-License-Identifier: Apache-2.0
"""The lab's machines as data: what each stands for, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

GUEST = "guest"
HOST = "host"


class MachineName(StrEnum):
    """The machines of docs/lab.md: no hypervisor, an ordinary VM, a confidential one."""

    PLAIN = "plain"
    VM = "vm"
    CVM = "cvm"


# The kernel's option that leaves the virtual timer to the host. Of two of the same name the later wins.
NO_MONITOR_TIMER = ("kvm-arm.cvm_vtimer=off",)


@dataclass(frozen=True)
class MachineSpec:
    """A machine: what it stands for, and whether its guest runs on a host of its own, and how.

    `usual_boot_s` is how long a boot takes on a computer of usual speed, in seconds: for estimates alone.
    """

    name: MachineName
    stands_for: str
    nested: bool
    host_append: tuple[str, ...] = ()
    guest_cpus: int = 2
    guest_mb: int = 768
    host_mb: int = 1792
    usual_boot_s: float = 20.0


MACHINES: Mapping[str, MachineSpec] = {
    spec.name: spec
    for spec in (
        MachineSpec(MachineName.PLAIN, "no hypervisor: the floor", nested=False, usual_boot_s=6.0),
        MachineSpec(MachineName.VM, "an ordinary VM, under KVM (VHE)", nested=True),
        MachineSpec(
            MachineName.CVM,
            "a confidential VM: behind pKVM's monitor at EL2, with its host at EL1",
            nested=True,
            # The monitor has the virtual timer.
            host_append=("kvm-arm.mode=protected", "kvm-arm.cvm_vtimer=masked"),
        ),
    )
}


@dataclass(frozen=True)
class Images:
    """What a machine is made of. `host_root` may be missing where there is no host; `store` is a disk of the
    guest that outlives it."""

    kernel: Path
    guest_root: Path
    payload: Path
    host_root: Path | None = None
    store: Path | None = None


@dataclass(frozen=True)
class Terminal:
    """The user's terminal, handed to the shell in a machine: where the shell runs (guest or host), and its
    form."""

    where: str
    rows: int
    columns: int
    term: str
