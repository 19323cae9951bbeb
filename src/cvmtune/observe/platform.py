# SPDX-License-Identifier: Apache-2.0
"""Where we are: guest or host, behind which monitor, on whose kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.isolation import kept

Role = Literal["guest", "host", "machine"]
Flavour = Literal["ours", "vendor", "neither"]

# What firmware says a virtual machine is (DMI's vendor or product, or the device tree's root).
_VIRTUAL = (
    "qemu",
    "kvm",
    "virtual machine",
    "linux,dummy-virt",
    "firecracker",
    "cloud hypervisor",
    "openstack",
    "kubevirt",
    "alibaba cloud ecs",
)


@dataclass(frozen=True)
class Signs:
    """Files by which a kernel is known: those that only our patches make; those that any kernel with features
    has; and of these the ones that only a host's has."""

    ours: frozenset[str]
    features: frozenset[str]
    host: frozenset[str]


@dataclass(frozen=True)
class Platform:
    """A machine. `confidential` is None where nothing in it tells; a host's is about what it can run."""

    role: Role
    confidential: bool | None
    monitor: str
    flavour: Flavour
    release: str
    online: CpuMask
    possible: CpuMask
    isolated: CpuMask


def platform(capture: Capture, signs: Signs) -> Platform:
    """Tell where a capture was made."""
    words = (capture.get("/proc/cmdline") or "").split()
    role = _role(capture, words, signs)
    confidential, monitor = _monitor(capture, words, role)
    return Platform(
        role=role,
        confidential=confidential,
        monitor=monitor,
        flavour=_flavour(capture, signs),
        release=capture.get("/proc/sys/kernel/osrelease") or "unknown",
        online=_cpus(capture, "online"),
        possible=_cpus(capture, "possible"),
        isolated=CpuMask(frozenset(kept(capture))),
    )


def _role(capture: Capture, words: list[str], signs: Signs) -> Role:
    if "virtcca_cvm_guest=1" in words or "/sys/devices/platform/arm-cca-dev/uevent" in capture.files:
        return "guest"
    # A guest that runs guests of its own is a host to us: what it has that others lack is a host's.
    if "/sys/class/misc/kvm/dev" in capture.files or not signs.host.isdisjoint(capture.files):
        return "host"
    firmware = " ".join(
        capture.get(path) or ""
        for path in (
            "/sys/class/dmi/id/sys_vendor",
            "/sys/class/dmi/id/product_name",
            "/proc/device-tree/compatible",
        )
    ).lower()
    return "guest" if any(sign in firmware for sign in _VIRTUAL) else "machine"


def _monitor(capture: Capture, words: list[str], role: Role) -> tuple[bool | None, str]:
    if role == "guest":
        if "virtcca_cvm_guest=1" in words:
            return True, "virtCCA's TMM"
        if "/sys/devices/platform/arm-cca-dev/uevent" in capture.files:
            return True, "Arm CCA's RMM"
        # pKVM lets no guest see that it is there.
        return None, "none that shows itself"
    if role == "host":
        if "virtcca_cvm_host=1" in words:
            return True, "virtCCA's TMM"
        # In names of parameters - and _ are the same, and the last one counts (kernel-parameters.rst).
        parameters = {
            name.replace("_", "-"): value for name, _, value in (word.partition("=") for word in words)
        }
        if parameters.get("kvm-arm.mode") == "protected":
            return True, "pKVM"
    return False, "none"


def _flavour(capture: Capture, signs: Signs) -> Flavour:
    if not signs.ours.isdisjoint(capture.files):
        return "ours"
    if any(path in capture.files or path in capture.unreadable for path in signs.features):
        return "vendor"
    return "neither"


def _cpus(capture: Capture, name: str) -> CpuMask:
    text = capture.get(f"{CPUS}/{name}") or ""
    try:
        return CpuMask.from_list(text)
    except ValueError:
        # "(null)" is what some kernels show for no CPU.
        return CpuMask(frozenset())
