# SPDX-License-Identifier: Apache-2.0
"""How VMMs name the threads of their vCPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

# Of each VMM the whole name, with the vCPU's id. Arm has 512 ids of vCPUs. What stands for TCG is no VM of
# KVM's.
_VCPUS: Mapping[str, re.Pattern[str]] = {
    # With debug-threads=on, as libvirt has it; else all threads have the process's name.
    "QEMU": re.compile(r"CPU (\d{1,3})/KVM"),
    "StratoVirt": re.compile(r"CPU(\d{1,3})/KVM"),
    "Firecracker": re.compile(r"fc_vcpu ?(\d{1,3})"),
    "libkrun": re.compile(r"vcpu (\d{1,3})"),
    "Cloud Hypervisor": re.compile(r"vcpu(\d{1,3})"),
    "crosvm": re.compile(r"crosvm_vcpu(\d{1,3})"),
    "kvmtool": re.compile(r"kvm-vcpu-(\d{1,3})"),
    "Dragonball": re.compile(r"db_vcpu(\d{1,3})"),
    "Alioth": re.compile(r"vcpu_(\d{1,3})"),
    "rust-vmm's reference": re.compile(r"vcpu-(\d{1,3})"),
}
# Of others, and of VMMs that put their VM's name first.
_PREFIXED = re.compile(r"[\w.-]+[-_.]vcpu[-_ ]?(\d{1,3})")
# The kernel keeps so many bytes of a name (TASK_COMM_LEN): of a longer one the last digits are lost.
_COMM_BYTES = 15


@lru_cache(maxsize=4096)
def vcpu_of(comm: str) -> int | None:
    """Return the vCPU whose thread has this name; None if it is no vCPU's, or if the number may be cut."""
    if not (match := _match(comm)) or is_cut(comm):
        return None
    return int(match[1])


@lru_cache(maxsize=4096)
def is_cut(comm: str) -> bool:
    """Tell whether a name is a vCPU's and as long as one can be, so that its number may be a part only."""
    if any(pattern.fullmatch(comm) for pattern in _VCPUS.values()):
        return False
    return _PREFIXED.fullmatch(comm) is not None and len(comm.encode()) >= _COMM_BYTES


def _match(comm: str) -> re.Match[str] | None:
    every = (*_VCPUS.values(), _PREFIXED)
    return next((match for pattern in every if (match := pattern.fullmatch(comm))), None)
