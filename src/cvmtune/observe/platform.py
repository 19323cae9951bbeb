# SPDX-License-Identifier: Apache-2.0
"""Where we are: guest or host, behind which monitor, on whose kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvmtune.core.cpumask import CpuMask
from cvmtune.features.cq_poll.knob import IDLE_US as CQ_IDLE_US
from cvmtune.features.cq_poll.knob import PATH as CQ_POLL
from cvmtune.features.soft_ipi.knob import PATH as SOFT_IPI
from cvmtune.features.soft_ipi.knob import POLL_US as IPI_POLL_US
from cvmtune.features.wfx.knob import GUARD as WFX_GUARD
from cvmtune.features.wfx.knob import PATH as WFX
from cvmtune.observe.capture import CPUS, Capture

Role = Literal["guest", "host", "machine"]
Flavour = Literal["ours", "vendor", "neither"]

# Files that only our patches make, and those that the request, hence any kernel with the features, has.
_OURS = (WFX_GUARD, IPI_POLL_US, CQ_IDLE_US)
_REQUESTED = (SOFT_IPI, CQ_POLL, WFX)
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
class Place:
    """A machine. `confidential` is None where nothing in it tells; a host's is about what it can run."""

    role: Role
    confidential: bool | None
    monitor: str
    flavour: Flavour
    release: str
    online: CpuMask
    possible: CpuMask
    isolated: CpuMask


def place(capture: Capture) -> Place:
    """Tell where a capture was made."""
    words = (capture.get("/proc/cmdline") or "").split()
    role = _role(capture, words)
    confidential, monitor = _monitor(capture, words, role)
    return Place(
        role=role,
        confidential=confidential,
        monitor=monitor,
        flavour=_flavour(capture),
        release=capture.get("/proc/sys/kernel/osrelease") or "unknown",
        online=_cpus(capture, "online"),
        possible=_cpus(capture, "possible"),
        isolated=_cpus(capture, "isolated") | _cpus(capture, "nohz_full"),
    )


def _role(capture: Capture, words: list[str]) -> Role:
    if "virtcca_cvm_guest=1" in words or "/sys/devices/platform/arm-cca-dev/uevent" in capture.files:
        return "guest"
    # A guest that runs guests of its own is a host to us: what it has that others lack is a host's.
    if "/sys/class/misc/kvm/dev" in capture.files or WFX in capture.files:
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


def _flavour(capture: Capture) -> Flavour:
    if any(path in capture.files for path in _OURS):
        return "ours"
    if any(path in capture.files or path in capture.unreadable for path in _REQUESTED):
        return "vendor"
    return "neither"


def _cpus(capture: Capture, name: str) -> CpuMask:
    text = capture.get(f"{CPUS}/{name}") or ""
    try:
        return CpuMask.from_list(text)
    except ValueError:
        # "(null)" is what some kernels show for no CPU.
        return CpuMask(frozenset())
