# SPDX-License-Identifier: Apache-2.0
"""Whether a machine is a VM: by what only a VM has, then by what its firmware calls itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.procfs import parse_cpu_times

_DMI = "/sys/class/dmi/id"
_PRODUCT_FILES = ("product_name", "product_family", "product_version")
# A guest's kernel that has found stolen time (arch/arm64/kernel/paravirt.c) prepares it on each CPU.
PV_TIME = "hypervisor/arm/pvtime"
# Nodes of the device tree, devices of ACPI and files that a hypervisor makes for its guests.
_GUESTS_FILES = re.compile(
    r"/sys/hypervisor/type"
    r"|/proc/device-tree/(?:hypervisor|fw-cfg)(?:@[^/]*)?/compatible"
    r"|/sys/bus/acpi/devices/(?:QEMU|VMBUS|MSFT1000|VMGENCTR|XEN|VMW)[^/]*/hid"
)
# What Xen's first domain may do, which has the machine's hardware and Xen's devices beside it.
_XEN = "/proc/xen/capabilities"
_CLOCK = re.compile(r"/sys/class/ptp/[^/]+/clock_name")
_GUESTS_CLOCKS = ("KVM virtual PTP", "hyperv")


@dataclass(frozen=True)
class Maker:
    """Whose firmware it is: patterns of DMI's vendor and product, either of which may be any.

    `bare` is the pattern of the products that are whole machines.
    """

    name: str
    vendor: str = ""
    product: str = ""
    bare: str = ""


# What clouds call the instances that are whole machines.
_METAL = r"\bmetal\b|\bbare[ -]?metal\b"
_MAKERS = (
    # Hypervisors, whoever runs them.
    Maker("QEMU", vendor=r"\bqemu\b"),
    Maker("QEMU", product=r"\bqemu\b"),
    Maker("KVM", vendor=r"\bkvm\b"),
    Maker("KVM", product=r"\bkvm\b"),
    Maker("Firecracker", product=r"\bfirecracker\b"),
    Maker("Firecracker", vendor=r"\bfirecracker\b"),
    Maker("Cloud Hypervisor", vendor=r"\bcloud[ -]hypervisor\b"),
    Maker("Cloud Hypervisor", product=r"\bcloud[ -]hypervisor\b"),
    Maker("crosvm", product=r"\bcrosvm\b"),
    Maker("StratoVirt", product=r"\bstratovirt\b"),
    Maker("StratoVirt", vendor=r"\bstratovirt\b"),
    Maker("Hyper-V, Azure", product=r"\bvirtual machine\b"),
    Maker("Apple's Virtualization framework", product=r"\bapple virtualization\b"),
    Maker("Parallels", vendor=r"\bparallels\b"),
    Maker("VMware", vendor=r"\bvmware\b"),
    Maker("VMware", product=r"\bvmware"),
    Maker("VirtualBox", product=r"\bvirtualbox\b"),
    Maker("VirtualBox", vendor=r"\binnotek\b"),
    Maker("Xen", vendor=r"\bxen\b"),
    Maker("Xen", product=r"\bdomu\b"),
    Maker("bhyve", product=r"\bbhyve\b"),
    Maker("Nutanix AHV", vendor=r"\bnutanix\b", product=r"\bahv\b"),
    Maker("Proxmox", vendor=r"\bproxmox\b"),
    # What manages them.
    Maker("OpenStack", vendor=r"\bopenstack\b", bare=_METAL),
    Maker("OpenStack", product=r"\bopenstack\b", bare=_METAL),
    Maker("KubeVirt", vendor=r"\bkubevirt\b"),
    Maker("KubeVirt", product=r"\bkubevirt\b"),
    Maker("oVirt, RHEV", vendor=r"\bovirt\b"),
    Maker("oVirt, RHEV", product=r"\bovirt\b|\brhev\b|\bopenshift virtualization\b"),
    Maker("CloudStack", product=r"\bcloudstack\b"),
    # Clouds.
    Maker("Amazon EC2", vendor=r"\bamazon\b", bare=_METAL),
    Maker("Google Compute Engine", product=r"\bgoogle compute engine\b", bare=_METAL),
    Maker("Oracle Cloud", vendor=r"\boracle\b", product=r"^vm\b|\bvm\.", bare=_METAL),
    Maker("Alibaba Cloud", vendor=r"\balibaba cloud\b", bare=rf"\bebm|{_METAL}"),
    Maker("Alibaba Cloud", product=r"\balibaba cloud ecs\b", bare=rf"\bebm|{_METAL}"),
    Maker("Huawei Cloud", vendor=r"\bhuawei ?cloud\b", bare=rf"\bphysical\b|\bbms\b|{_METAL}"),
    Maker("Tencent Cloud", vendor=r"\btencent\b", bare=rf"\bc?bms?|{_METAL}"),
    Maker("Baidu Cloud", vendor=r"\bbaidu\b", bare=rf"\bbbc\b|{_METAL}"),
    Maker("Volcengine", vendor=r"\bvolcengine\b|\bvolcano engine\b", bare=rf"\bebm|{_METAL}"),
    Maker("JD Cloud", vendor=r"\bjd ?cloud\b", bare=_METAL),
    Maker("UCloud", vendor=r"\bucloud\b", bare=_METAL),
    Maker("Hetzner Cloud", vendor=r"\bhetzner\b", product=r"\bvserver\b"),
    Maker("Scaleway", vendor=r"\bscaleway\b", bare=rf"^em-|{_METAL}"),
    Maker("Akamai, Linode", vendor=r"\blinode\b|\bakamai\b", bare=_METAL),
    Maker("DigitalOcean", product=r"\bdroplet\b"),
    Maker("Vultr", vendor=r"\bvultr\b", bare=_METAL),
    Maker("UpCloud", vendor=r"\bupcloud\b", bare=_METAL),
    Maker("Exoscale", vendor=r"\bexoscale\b", bare=_METAL),
    Maker("Yandex Cloud", vendor=r"\byandex\b", bare=_METAL),
)
# The device tree's root, where there is no DMI: kvmtool, QEMU, crosvm and Firecracker, Xen.
_TREES = re.compile(r"linux,dummy-virt|xen,xenvm|\bqemu\b|gunyah-vm|ranchu", re.I)


def is_guest(capture: Capture) -> bool:
    """Tell whether this is a VM, also one that does not know of it otherwise."""
    return _has_what_guests_have(capture) or _is_called_a_vm(capture)


def _has_what_guests_have(capture: Capture) -> bool:
    if "control_d" in (capture.get(_XEN) or ""):
        return False
    if PV_TIME in (capture.get(f"{CPUS}/hotplug/states") or ""):
        return True
    # Only a hypervisor takes time.
    if any(one.steal for one in parse_cpu_times(capture.files.get("/proc/stat", "")).values()):
        return True
    if any(text.strip("\0 \n") for _, text in capture.matching(_GUESTS_FILES)):
        return True
    return any(text.strip() in _GUESTS_CLOCKS for _, text in capture.matching(_CLOCK))


def _is_called_a_vm(capture: Capture) -> bool:
    if _TREES.search(capture.get("/proc/device-tree/compatible") or ""):
        return True
    vendor = (capture.get(f"{_DMI}/sys_vendor") or "").lower()
    products = [(capture.get(f"{_DMI}/{name}") or "").lower() for name in _PRODUCT_FILES]
    makers = [one for one in _MAKERS if re.search(one.vendor, vendor) and re.search(one.product, products[0])]
    return any(not (one.bare and any(re.search(one.bare, product) for product in products)) for one in makers)
