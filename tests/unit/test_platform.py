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
REALM = {"/sys/devices/platform/arm-cca-dev/uevent": "DRIVER=arm-cca-guest\n"}
KVM = {"/sys/class/misc/kvm/dev": "10:232\n"}
VENDOR = {"/sys/class/dmi/id/sys_vendor": "QEMU\n"}
PRODUCT = {"/sys/class/dmi/id/product_name": "KVM Virtual Machine\n"}
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


@pytest.mark.parametrize("more", [{}, VENDOR, KVM, {"/sys/class/dmi/id/sys_vendor": "Huawei\n"}])
def test_confidential_guest(more: Mapping[str, str]) -> None:
    """One that has KVM of its own is a guest nevertheless."""
    virtcca = place(Capture({**more, **words("virtcca_cvm_guest=1 quiet")}))
    assert (virtcca.role, virtcca.confidential, virtcca.monitor) == ("guest", True, "virtCCA's TMM")
    realm = place(Capture({**more, **REALM}))
    assert (realm.role, realm.confidential, realm.monitor) == ("guest", True, "Arm CCA's RMM")


@pytest.mark.parametrize("word", ["virtcca_cvm_guest=0", "virtcca_cvm_guest", "xvirtcca_cvm_guest=1"])
def test_guest_that_is_not_virtccas(word: str) -> None:
    assert place(Capture({**VENDOR, **words(word)})).confidential is None
    assert place(Capture(words(word))).role == "machine"


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
    ],
)
@pytest.mark.parametrize("more", [KVM, {"/sys/kernel/cvm_wfx_trap_config": "0\n"}, {**KVM, **VENDOR}])
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
