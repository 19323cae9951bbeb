# SPDX-License-Identifier: Apache-2.0
"""The lab's machines are what DESIGN says, and each way of losing one is told apart."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.lab import client
from cvmtune.lab.errors import GuestDied, GuestHung, GuestPanicked
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import Machine


@pytest.fixture(scope="module")
def vm(lab: Lab) -> Iterator[Machine]:
    with lab.boot("vm") as machine:
        yield machine


def test_a_command_gives_its_output_and_status(plain: Machine) -> None:
    done = plain.guest.run(["sh", "-c", "cat; echo err >&2; exit 7"], input="in\n")
    assert (done.status, done.stdout, done.stderr) == (7, "in\n", "err\n")


def test_a_command_that_a_signal_ends_has_a_negative_status(plain: Machine) -> None:
    assert plain.guest.run(["sh", "-c", "kill -TERM $$"]).status == -15


def test_a_command_that_takes_too_long_is_ended_and_the_machine_lives(plain: Machine) -> None:
    with pytest.raises(CvmtuneError, match="did not end within"):
        plain.guest.run(["sleep", "1000"], timeout=0.5)
    assert plain.guest.run(["busybox", "pidof", "sleep"]).status == 1


def test_a_command_that_does_not_exist_cannot_start(plain: Machine) -> None:
    with pytest.raises(CvmtuneError, match="cannot start /no/such"):
        plain.guest.run(["/no/such"])


def test_files_are_read_and_written_as_on_this_machine(plain: Machine) -> None:
    plain.guest.run(["sh", "-c", "echo old >/tmp/file"]).check()
    plain.guest.write_text("/tmp/file", "new")
    assert plain.guest.read_text("/tmp/file") == "new\n"
    with pytest.raises(OSError, match="No such file") as caught:
        plain.guest.write_text("/tmp/missing", "x")
    assert caught.value.errno == errno.ENOENT
    assert not plain.guest.exists("/tmp/missing")


def test_cvmtune_is_installed_in_the_guest(plain: Machine) -> None:
    assert plain.guest.run(["cvmtune", "--version"]).check().stdout.startswith("cvmtune ")


def test_plain_has_no_host(plain: Machine) -> None:
    assert plain.host is None


def test_the_host_of_vm_has_its_kvm_at_el2(vm: Machine) -> None:
    assert vm.host
    assert "VHE mode initialized successfully" in vm.host.run(["dmesg"]).stdout
    assert "Protected" not in vm.host.run(["dmesg"]).stdout


def test_the_host_of_cvm_is_under_pkvm(cvm: Machine) -> None:
    assert cvm.host
    assert "Protected hVHE mode initialized successfully" in cvm.host.run(["dmesg"]).stdout


def test_guest_and_host_are_two_machines(cvm: Machine) -> None:
    assert cvm.host
    assert cvm.guest.read_text("/proc/sys/kernel/hostname") == "guest\n"
    assert cvm.host.read_text("/proc/sys/kernel/hostname") == "host\n"
    boot_ids = {system.read_text("/proc/sys/kernel/random/boot_id") for system in (cvm.guest, cvm.host)}
    assert len(boot_ids) == 2


def test_vcpus_are_pinned_one_to_one(cvm: Machine) -> None:
    assert cvm.host
    script = f"grep -H . /proc/{cvm.vmm_pid}/task/*/comm /dev/null | grep 'CPU ./KVM'"
    threads = cvm.host.run(["sh", "-c", script]).check().stdout.splitlines()
    assert len(threads) == 2
    for line in threads:
        task, _, name = line.partition("/comm:")
        status = cvm.host.read_text(f"{task}/status")
        cpu = name.removeprefix("CPU ").removesuffix("/KVM")
        assert f"Cpus_allowed_list:\t{cpu}\n" in status


def test_a_panic_is_a_panic(lab: Lab) -> None:
    with lab.boot("plain") as machine, pytest.raises(GuestPanicked) as caught:
        machine.guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    assert "sysrq" in caught.value.console.read_text().lower()


def test_a_nested_guests_panic_is_the_guests(lab: Lab) -> None:
    with lab.boot("cvm") as machine, pytest.raises(GuestPanicked) as caught:
        machine.guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    assert caught.value.console.name == "guest.console"


def test_a_machine_that_ends_has_died(lab: Lab) -> None:
    with lab.boot("plain") as machine, pytest.raises(GuestDied):
        machine.guest.run(["busybox", "poweroff", "-f"])


def test_a_guest_whose_vmm_is_killed_has_died(lab: Lab) -> None:
    with lab.boot("vm") as machine:
        assert machine.host
        machine.host.run(["sh", "-c", f"(sleep 1; kill -KILL {machine.vmm_pid}) >/dev/null 2>&1 &"]).check()
        with pytest.raises(GuestDied):
            machine.guest.run(["sleep", "10"])


def test_a_machine_that_does_not_answer_hangs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PROMPT", 3.0)
    with lab.boot("plain") as machine:
        machine.guest.run(["sh", "-c", "(sleep 1; kill -STOP $(busybox pidof python3)) >/dev/null 2>&1 &"])
        time.sleep(2)
        with pytest.raises(GuestHung):
            machine.guest.exists("/")


def test_no_machine_outlives_a_killed_lab(lab: Lab) -> None:
    lab.build("default", host=False)
    argv = [sys.executable, "-m", "cvmtune", "lab", "run", "--machine", "plain", "--", "sleep", "600"]
    tool = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (machines := machines_of(tool.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tool.kill()
    tool.wait()
    time.sleep(1)
    assert not is_machine(machines[0])


def machines_of(pid: int) -> list[str]:
    """The children of a process that are QEMU and run a machine."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if is_machine(child)]


def is_machine(pid: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False
    return argv[0].startswith(b"qemu-system") and b"-kernel" in argv
