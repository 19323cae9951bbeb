# SPDX-License-Identifier: Apache-2.0
"""Guests and hosts of each monitor are told apart, and our kernels from a vendor's."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe.capture import CPUS, Capture
from tests.fakes.bound import place
from tests.fakes.capture import GUEST, HOST, changed

CMDLINE = "/proc/cmdline"
TSI = {"/sys/class/misc/tsi/dev": "10:123\n"}
REALM = {"/sys/devices/platform/arm-cca-dev/uevent": "DRIVER=arm-cca-guest\n"}
KVM = {"/sys/class/misc/kvm/dev": "10:232\n"}
VENDOR = {"/sys/class/dmi/id/sys_vendor": "QEMU\n"}
PRODUCT = {"/sys/class/dmi/id/product_name": "KVM Virtual Machine\n"}
CONTROL = {"/sys/kernel/cvm_wfx_trap_config": "0\n"}
NOTHING = CpuMask(frozenset())


def words(line: str) -> dict[str, str]:
    return {CMDLINE: f"root=/dev/vda {line}\n"}


# Where


@pytest.mark.parametrize(
    "files",
    [
        VENDOR,
        PRODUCT,
        {"/sys/class/dmi/id/sys_vendor": "Red Hat\n", **PRODUCT},
        {"/proc/device-tree/compatible": "linux,dummy-virt\0"},
        {"/sys/class/dmi/id/product_name": "Firecracker\n"},
        {"/sys/class/dmi/id/sys_vendor": "KVM\n"},
        {"/sys/class/dmi/id/sys_vendor": "Cloud Hypervisor\n"},
        {"/sys/class/dmi/id/product_name": "Virtual Machine\n"},
        # Not that it would be: what the host of this guest is, is not the guest's to know.
        {**VENDOR, **words("kvm-arm.mode=protected virtcca_cvm_host=1")},
    ],
)
def test_guest_whose_monitor_does_not_show_itself(files: Mapping[str, str]) -> None:
    """As under pKVM, and as an ordinary VM."""
    found = place(Capture(files))
    assert (found.role, found.confidential, found.monitor) == ("guest", None, "none that shows itself")


def dmi(vendor: str, product: str, **more: str) -> dict[str, str]:
    texts = {"sys_vendor": vendor, "product_name": product, **more}
    return {f"/sys/class/dmi/id/{name}": f"{text}\n" for name, text in texts.items()}


@pytest.mark.parametrize(
    "files",
    [
        # The clouds that run arm64.
        *(
            dmi("Amazon EC2", product)
            for product in ("m7g.large", "t4g.nano", "c7gd.16xlarge", "x2gd.medium")
        ),
        dmi("Google", "Google Compute Engine"),
        dmi("Microsoft Corporation", "Virtual Machine"),
        dmi("QEMU", "KVM Virtual Machine", chassis_asset_tag="OracleCloud.com"),
        dmi("Alibaba Cloud", "Alibaba Cloud ECS"),
        dmi("Huawei Cloud", "OpenStack Nova"),
        dmi("OpenStack Foundation", "OpenStack Nova"),
        dmi("Tencent Cloud", "CVM"),
        dmi("Hetzner", "vServer"),
        dmi("Scaleway", "SCW-COPARM1-2C-8G"),
        # Hypervisors.
        dmi("Apple Inc.", "Apple Virtualization Generic Platform"),
        dmi("Parallels International GmbH.", "Parallels ARM Virtual Machine"),
        dmi("VMware, Inc.", "VMware20,1"),
        dmi("Xen", "HVM domU"),
        dmi("ChromiumOS", "crosvm"),
        dmi("Cloud Hypervisor", "cloud-hypervisor"),
        dmi("Nutanix", "AHV"),
        dmi("Red Hat", "OpenStack Compute"),
        dmi("Red Hat", "KVM"),
        dmi("Oracle Corporation", "VirtualBox"),
        dmi("KubeVirt", "None"),
        {"/proc/device-tree/compatible": "linux,dummy-virt\0"},
        {"/proc/device-tree/compatible": "xen,xenvm-4.17\0xen,xenvm\0"},
        # What only a guest has, whatever it is called.
        *(
            {**dmi("Wiwynn", "Mt. Jade"), **sign}
            for sign in (
                {f"{CPUS}/hotplug/states": "  0: offline\n154: hypervisor/arm/pvtime:online\n"},
                {"/proc/device-tree/hypervisor/compatible": "linux,kvm\0"},
                {"/proc/device-tree/hypervisor@0/compatible": "xen,xen-4.17\0xen,xen\0"},
                {"/proc/device-tree/fw-cfg@9020000/compatible": "qemu,fw-cfg-mmio\0"},
                {"/sys/hypervisor/type": "xen\n"},
                {"/sys/hypervisor/type": "xen\n", "/proc/xen/capabilities": "\n"},
                {"/sys/bus/acpi/devices/QEMU0002:00/hid": "QEMU0002\n"},
                {"/sys/bus/acpi/devices/VMGENCTR:00/hid": "VMGENCTR\n"},
                {"/sys/class/ptp/ptp0/clock_name": "KVM virtual PTP\n"},
                {"/proc/stat": "cpu0 1 0 0 9 0 0 0 1 0 0\n"},
            )
        ),
    ],
)
def test_guest_of_a_cloud_or_a_hypervisor(files: Mapping[str, str]) -> None:
    assert place(Capture(files)).role == "guest"
    # It is a host to us where it runs guests, or can untrap theirs, not where it only could run some.
    assert place(Capture({**files, **KVM})).role == "guest"
    for more in ({"/sys/kernel/debug/kvm/7-1/exits": "7\n"}, {"/sys/kernel/cvm_wfx_trap_config": "0\n"}):
        assert place(Capture({**files, **KVM, **more})).role == "host"
    hidden = {"/sys/kernel/debug/kvm/7-1/exits": errno.EPERM}
    assert place(Capture({**files, **KVM}, hidden)).role == "host"


@pytest.mark.parametrize(
    "files",
    [
        *(
            dmi("Amazon EC2", product)
            for product in ("m7g.metal", "c6gn.metal", "m8g.metal-24xl", "a1.metal")
        ),
        dmi("Google", "Google Compute Engine", product_family="c4a-highmem-96-metal"),
        dmi("Alibaba Cloud", "Alibaba Cloud ECS Bare Metal"),
        dmi("Alibaba Cloud", "ecs.ebmg8y.32xlarge"),
        dmi("Alibaba Cloud", "Alibaba Cloud ECS", product_version="ebmgn7"),
        dmi("Tencent Cloud", "BMS5"),
        dmi("Oracle Corporation", "BM.Standard.A1.160"),
        dmi("Oracle Corporation", "ORACLE SERVER A1-2c"),
        dmi("Huawei Cloud", "physical.ks1ne.4xlarge"),
        dmi("Scaleway", "EM-A610R"),
        dmi("Hetzner", "RX170"),
        dmi("Ampere(R)", "Mt. Jade"),
        dmi("GIGABYTE", "R272-P30-JG"),
        dmi("Huawei", "TaiShan 200 (Model 2280)"),
        dmi("HPE", "ProLiant RL300 Gen11"),
        dmi("Lenovo", "HR350A"),
        dmi("Microsoft Corporation", "Surface Pro X"),
        dmi("Nutanix", "NX-3060"),
        {"/proc/device-tree/compatible": "apple,j274\0apple,t8103\0"},
        {f"{CPUS}/hotplug/states": "  0: offline\n", "/sys/class/ptp/ptp0/clock_name": "mlx5_ptp\n"},
        # Xen's first domain.
        {
            "/proc/xen/capabilities": "control_d\n",
            "/sys/hypervisor/type": "xen\n",
            "/proc/device-tree/hypervisor/compatible": "xen,xen-4.17\0xen,xen\0",
            "/proc/stat": "cpu0 1 0 0 9 0 0 0 1 0 0\n",
        },
        {"/sys/hypervisor/type": "\n", "/proc/stat": "cpu0 1 0 0 9 0 0 0 0 0 0\n"},
    ],
)
def test_whole_machine_of_a_cloud_or_a_maker(files: Mapping[str, str]) -> None:
    assert place(Capture(files)).role == "machine"


# The device of a realm, where kernels have had it so far.
REALMS = [
    "/sys/devices/platform/arm-cca-dev/uevent",
    "/sys/devices/faux/arm-cca-dev/uevent",
    "/sys/bus/platform/devices/arm-cca-dev/uevent",
    "/sys/bus/platform/drivers/arm-cca-guest/arm-cca-dev/uevent",
    "/sys/bus/auxiliary/devices/arm_cca_guest.arm-rsi-dev.0/uevent",
    "/sys/devices/platform/arm-smccc/arm_cca_guest.arm-rsi-dev.0/uevent",
]


@pytest.mark.parametrize("more", [{}, VENDOR, KVM, {"/sys/class/dmi/id/sys_vendor": "Huawei\n"}])
def test_confidential_guest(more: Mapping[str, str]) -> None:
    """One that has KVM of its own is a guest nevertheless; what the command line says is not asked."""
    for line in ("quiet", "virtcca_cvm_guest=1", "virtcca_cvm_guest=0"):
        virtcca = place(Capture({**more, **words(line), **TSI}))
        assert (virtcca.role, virtcca.confidential, virtcca.monitor) == ("guest", True, "virtCCA's TMM")
        assert not virtcca.claim
    for path in REALMS:
        realm = place(Capture({**more, path: "DRIVER=arm-cca-guest\n"}))
        assert (realm.role, realm.confidential, realm.monitor) == ("guest", True, "Arm CCA's RMM")


@pytest.mark.parametrize(
    ("line", "claim"),
    [
        ("virtcca_cvm_guest=1 cvm_guest=1", "virtcca_cvm_guest"),
        ("cvm_guest=1", "cvm_guest"),
        ("virtcca_cvm_guest=2", "virtcca_cvm_guest"),
        ("virtcca_cvm_guest=01", "virtcca_cvm_guest"),
        ("virtcca_cvm_guest=+1", "virtcca_cvm_guest"),
        ("virtcca-cvm-guest=1", "virtcca_cvm_guest"),
        ("virtcca_cvm-guest=1", "virtcca_cvm_guest"),
        ('virtcca_cvm_guest="1"', "virtcca_cvm_guest"),
        ('"virtcca_cvm_guest=1"', "virtcca_cvm_guest"),
        ("virtcca_cvm_guest=0 virtcca_cvm_guest=1", "virtcca_cvm_guest"),
        # The parser turns it on for any number but 0, and nothing turns it off.
        ("virtcca_cvm_guest=1 virtcca_cvm_guest=0", "virtcca_cvm_guest"),
        ("virtcca_cvm_guest=1 virtcca_cvm_guest=x", "virtcca_cvm_guest"),
        ("virtcca_cvm_guest=0", ""),
        ("virtcca_cvm_guest", ""),
        ("virtcca_cvm_guest=", ""),
        ("virtcca_cvm_guest=y", ""),
        ("virtcca_cvm_guest=-1", ""),
        ("virtcca_cvm_guest=0x1", ""),
        ("virtcca_cvm_guest=4294967296", ""),
        ("xvirtcca_cvm_guest=1", ""),
        ('dyndbg="file virtcca_cvm_guest=1 +p"', ""),
        ("quiet -- virtcca_cvm_guest=1", ""),
    ],
)
def test_guest_to_which_its_monitor_does_not_answer(line: str, claim: str) -> None:
    found = place(Capture({**VENDOR, **words(line)}))
    wanted = (False, "none") if claim else (None, "none that shows itself")
    assert (found.role, found.confidential, found.monitor, found.claim) == ("guest", *wanted, claim)
    # It makes a host, or a machine, no guest.
    host = place(Capture({**KVM, **words(line)}))
    assert (host.role, host.confidential, host.claim) == ("host", False, "")
    machine = place(Capture(words(line)))
    assert (machine.role, machine.confidential, machine.claim) == ("machine", False, claim)


def test_driver_that_may_not_be_read_is_there() -> None:
    for number in (errno.EACCES, errno.EIO):
        found = place(Capture(VENDOR, dict.fromkeys(TSI, number)))
        assert (found.role, found.confidential, found.monitor) == ("guest", True, "virtCCA's TMM")


def test_devices_that_may_not_be_seen_leave_it_open() -> None:
    closed = dict.fromkeys((*TSI, *KVM), errno.EACCES)
    found = place(Capture({**VENDOR, **words("virtcca_cvm_guest=1")}, closed))
    assert (found.role, found.confidential) == ("guest", None)
    assert "cannot be read" in found.monitor


@pytest.mark.parametrize(
    ("line", "confidential", "monitor"),
    [
        ("", False, "none"),
        ("kvm-arm.mode=nvhe", False, "none"),
        ("kvm-arm.mode=protected", True, "pKVM"),
        # Of two the later counts, and - and _ are the same: kernel-parameters.rst.
        ("kvm-arm.mode=protected kvm-arm.mode=nvhe", False, "none"),
        ("kvm-arm.mode=nvhe kvm-arm.mode=protected quiet", True, "pKVM"),
        ("kvm_arm.mode=protected", True, "pKVM"),
        ("kvm-arm.mode=protected kvm_arm.mode=vhe", False, "none"),
        ("kvm-arm.mode", False, "none"),
        ("xkvm-arm.mode=protected", False, "none"),
        ("virtcca_cvm_host=1", True, "virtCCA's TMM"),
        ("virtcca_cvm_host=0", False, "none"),
        ("virtcca_cvm_host=01", True, "virtCCA's TMM"),
        ("virtcca-cvm-host=2", True, "virtCCA's TMM"),
        ("virtcca_cvm_host=0 virtcca_cvm_host=1", True, "virtCCA's TMM"),
        # setup_virtcca_cvm_host() turns a static key on and never off.
        ("virtcca_cvm_host=1 virtcca_cvm_host=0", True, "virtCCA's TMM"),
        ("virtcca_cvm_host=yes", False, "none"),
    ],
)
@pytest.mark.parametrize("more", [KVM, CONTROL, {**CONTROL, **KVM, **VENDOR}])
def test_host(more: Mapping[str, str], line: str, confidential: bool, monitor: str) -> None:
    """Also one that is itself a VM."""
    found = place(Capture({**more, **words(line)}))
    assert (found.role, found.confidential, found.monitor) == ("host", confidential, monitor)


@pytest.mark.parametrize(
    "files",
    [{}, {"/sys/class/dmi/id/sys_vendor": "Ampere(R)\n"}, words("kvm-arm.mode=protected virtcca_cvm_host=1")],
)
def test_neither_guest_nor_host(files: Mapping[str, str]) -> None:
    found = place(Capture(files))
    assert (found.role, found.confidential, found.monitor) == ("machine", False, "none")


# Whose kernel


@pytest.mark.parametrize(
    ("path", "flavour"),
    [
        ("/sys/module/kvm/parameters/wfx_guard", "ours"),
        ("/sys/module/soft_ipi/parameters/poll_us", "ours"),
        ("/sys/module/ib_core_cq_poll/parameters/idle_us", "ours"),
        ("/sys/kernel/soft_ipi_passthrough", "vendor"),
        ("/sys/kernel/ib_core_poll_cpu", "vendor"),
        ("/sys/kernel/cvm_wfx_trap_config", "vendor"),
        ("/sys/kernel/ib_core_poll_stat", "neither"),
        ("/proc/stat", "neither"),
    ],
)
def test_flavour_by_a_file(path: str, flavour: str) -> None:
    assert place(Capture({path: "0\n"})).flavour == flavour


def test_our_files_count_more_than_those_that_all_have() -> None:
    assert place(Capture(GUEST)).flavour == "ours"
    assert place(Capture(HOST)).flavour == "ours"


def test_host_whose_control_may_not_be_read_is_one() -> None:
    for path in ("/sys/kernel/cvm_wfx_trap_config", "/sys/class/misc/kvm/dev"):
        assert place(Capture({}, {path: errno.EACCES})).role == "host"


def test_parameter_of_ours_that_may_not_be_read_is_ours() -> None:
    path = "/sys/module/soft_ipi/parameters/poll_us"
    assert place(Capture({"/sys/kernel/soft_ipi_passthrough": "0\n"}, {path: errno.EACCES})).flavour == "ours"


def test_control_that_may_not_be_read_is_there() -> None:
    assert place(Capture({}, {"/sys/kernel/soft_ipi_passthrough": errno.EACCES})).flavour == "vendor"
    assert place(Capture({}, {"/proc/stat": errno.EACCES})).flavour == "neither"


def test_release() -> None:
    assert place(Capture(GUEST)).release == "6.12.57-cvmtune"
    assert place(Capture({})).release == "unknown"


# CPUs


def test_cpus() -> None:
    lists = {"online": "0-2,4\n", "possible": "0-7\n", "isolated": "4-5\n", "nohz_full": "2\n"}
    found = place(Capture({f"{CPUS}/{name}": text for name, text in lists.items()}))
    assert found.online.to_list() == "0-2,4"
    assert found.possible.to_list() == "0-7"
    assert found.isolated.to_list() == "2,4-5"


@pytest.mark.parametrize(
    "text", ["\n", "", "(null)\n", "  (null)\n", "0-\n", "a\n", "3-1\n", "0-99999\n", "0x3"]
)
def test_list_that_is_none_names_no_cpu(text: str) -> None:
    """Where no CPU is named, nohz_full reads as "(null)" with some kernels."""
    found = place(changed(GUEST, {f"{CPUS}/{name}": text for name in ("online", "isolated", "nohz_full")}))
    assert (found.online, found.isolated) == (NOTHING, NOTHING)
    assert found.possible.to_list() == "0-1"
    one = place(changed(GUEST, {f"{CPUS}/isolated": "1\n", f"{CPUS}/nohz_full": text}))
    assert one.isolated.to_list() == "1"


@given(st.dictionaries(st.sampled_from([*GUEST, *HOST, *VENDOR, *PRODUCT, *REALM, CMDLINE]), st.text()))
def test_any_texts(files: dict[str, str]) -> None:
    found = place(Capture(files))
    assert found.role in ("guest", "host", "machine")
    assert found.confidential in (True, False, None)
    assert place(Capture({path: f"  {text}\n" for path, text in files.items()})).role == found.role
