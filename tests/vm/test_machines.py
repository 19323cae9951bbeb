# SPDX-License-Identifier: Apache-2.0
"""The lab's machines are what DESIGN says, and each way of losing one is told apart."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.lab import client
from cvmtune.lab.errors import GuestDied, GuestHung, GuestPanicked, LabError
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import wait_until
from tests.vm.shared_machines import CVM, PLAIN, VM

pytestmark = pytest.mark.on(PLAIN)


def test_a_command_gives_its_output_and_status(machine: Machine) -> None:
    done = machine.guest.run(["sh", "-c", "cat; echo err >&2; exit 7"], input="in\n")
    assert (done.status, done.stdout, done.stderr) == (7, "in\n", "err\n")


def test_a_command_that_a_signal_ends_has_a_negative_status(machine: Machine) -> None:
    assert machine.guest.run(["sh", "-c", "kill -TERM $$"]).status == -15


def test_a_command_that_takes_too_long_is_ended_and_the_machine_lives(machine: Machine) -> None:
    with pytest.raises(CvmtuneError, match="did not end within"):
        machine.guest.run(["sleep", "1000"], timeout=0.5)
    assert machine.guest.run(["busybox", "pidof", "sleep"]).status == 1


def test_a_command_that_does_not_exist_cannot_start(machine: Machine) -> None:
    with pytest.raises(CvmtuneError, match="cannot start /no/such"):
        machine.guest.run(["/no/such"])


def test_files_are_read_and_written_as_on_this_machine(machine: Machine) -> None:
    machine.guest.run(["sh", "-c", "echo old >/tmp/file"]).check()
    machine.guest.write_text("/tmp/file", "new")
    assert machine.guest.read_text("/tmp/file") == "new\n"
    with pytest.raises(OSError, match="No such file") as caught:
        machine.guest.write_text("/tmp/missing", "x")
    assert caught.value.errno == errno.ENOENT
    assert not machine.guest.exists("/tmp/missing")


def test_cvmtune_is_installed_in_the_guest(machine: Machine) -> None:
    assert machine.guest.run(["cvmtune", "--version"]).check().stdout.startswith("cvmtune ")


def test_plain_has_no_host(machine: Machine) -> None:
    assert machine.host is None


@pytest.mark.on(VM)
def test_the_host_of_vm_has_its_kvm_at_el2(machine: Machine) -> None:
    assert machine.host
    assert "VHE mode initialized successfully" in machine.host.run(["dmesg"]).stdout
    assert "Protected" not in machine.host.run(["dmesg"]).stdout


@pytest.mark.on(CVM)
def test_the_host_of_cvm_is_under_pkvm(machine: Machine) -> None:
    assert machine.host
    assert "Protected hVHE mode initialized successfully" in machine.host.run(["dmesg"]).stdout


@pytest.mark.on(CVM)
def test_guest_and_host_are_two_machines(machine: Machine) -> None:
    assert machine.host
    assert machine.guest.read_text("/proc/sys/kernel/hostname") == "guest\n"
    assert machine.host.read_text("/proc/sys/kernel/hostname") == "host\n"
    boot_ids = {
        system.read_text("/proc/sys/kernel/random/boot_id") for system in (machine.guest, machine.host)
    }
    assert len(boot_ids) == 2


@pytest.mark.on(CVM)
def test_vcpus_are_pinned_one_to_one(machine: Machine) -> None:
    assert machine.host
    script = f"grep -H . /proc/{machine.vmm_pid}/task/*/comm /dev/null | grep 'CPU ./KVM'"
    threads = machine.host.run(["sh", "-c", script]).check().stdout.splitlines()
    assert len(threads) == 2
    for line in threads:
        task, _, name = line.partition("/comm:")
        status = machine.host.read_text(f"{task}/status")
        cpu = name.removeprefix("CPU ").removesuffix("/KVM")
        assert f"Cpus_allowed_list:\t{cpu}\n" in status


# A panic of a machine without a host is in test_soft_ipi.py.
@pytest.mark.ends
@pytest.mark.on(CVM)
def test_a_nested_guests_panic_is_the_guests(machine: Machine) -> None:
    with pytest.raises(GuestPanicked) as caught:
        machine.guest.run(["sh", "-c", "echo c >/proc/sysrq-trigger"])
    assert caught.value.console.name == "guest.console"


@pytest.mark.ends
@pytest.mark.on(VM)
def test_a_guest_whose_vmm_is_killed_has_died(machine: Machine) -> None:
    assert machine.host
    # The host ends with its guest, and its answer may be lost with it.
    with suppress(LabError):
        machine.host.run(["kill", "-KILL", str(machine.vmm_pid)])
    with pytest.raises(GuestDied):
        machine.guest.run(["true"])


def test_a_machine_that_ends_has_died(lab: Lab) -> None:
    with lab.boot("plain") as machine, pytest.raises(GuestDied):
        machine.guest.run(["busybox", "poweroff", "-f"])


def test_a_machine_that_does_not_answer_hangs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.boot("plain") as machine:
        # The agent itself, which stops before it can answer, or a little later.
        stop = "kill -STOP $(busybox pidof python3)"
        machine.guest.run(["sh", "-c", f"(sleep 0.1; {stop}) >/dev/null 2>&1 &"]).check()
        monkeypatch.setattr(client, "_PROMPT", 5.0)
        with pytest.raises(GuestHung):
            wait_until(lambda: not machine.guest.exists("/"), "the agent to stop")


def test_no_machine_outlives_a_killed_lab(lab: Lab) -> None:
    lab.build("default", host=False)
    argv = [sys.executable, "-m", "cvmtune", "lab", "run", "--machine", "plain", "--", "sleep", "600"]
    tool = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(machines_of(tool.pid)), "the machine's start")
    (machine,) = machines_of(tool.pid)
    tool.kill()
    tool.wait()
    wait_until(lambda: not is_machine(machine), "its end")


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
