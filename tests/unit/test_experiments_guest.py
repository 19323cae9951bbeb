# SPDX-License-Identifier: Apache-2.0
"""What is read of a guest and its host is read right, and a module put into a guest is taken out again."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed, LocalSystem
from cvmtune.experiments.guest import (
    cyclictest,
    loaded_module,
    named_interrupts,
    parse_cyclictest,
    pingpong,
)
from cvmtune.experiments.host import Host, affinity, process_seconds
from tests.fakes.machine import CYCLICTEST_HEADER

# Of a guest with two CPUs; the rows of a real one, cut short.
INTERRUPTS = """\
           CPU0       CPU1
 10:       2514       1893     GICv3  27 Level     arch_timer
 12:         33          0     GICv3  33 Level     uart-pl011
 13:          0          0  GICv3-23   1 Edge      ACPI:Ged
 46:       1041          0  virtio-mmio  78 Edge      virtio0
IPI0:        60         78       Rescheduling interrupts
IPI1:      1523       1204       Function call interrupts
IPI2:         0          0       CPU stop interrupts
IPI4:         7          0       Timer broadcast interrupts
IPI5:        12          4       IRQ work interrupts
SIPI:         0        500       Soft IPIs
Err:          0
"""


# /proc/interrupts


def test_interrupt_by_the_name_at_the_end_of_its_line() -> None:
    assert named_interrupts(INTERRUPTS, "arch_timer") == (2514, 1893)
    assert named_interrupts(INTERRUPTS, "Soft IPIs") == (0, 500)
    assert named_interrupts("    CPU0\n 11:   7  GICv3 27 Level  kvm guest vtimer\n", "kvm guest vtimer") == (
        7,
    )


@pytest.mark.parametrize(("name", "lines"), [("virtio1", 0), ("pl011", 0), ("interrupts", 5)])
def test_interrupt_without_a_line_of_its_own_is_an_error(name: str, lines: int) -> None:
    """uart-pl011 is no pl011."""
    with pytest.raises(CvmtuneError, match=f"has {lines} lines for '{name}', not 1"):
        named_interrupts(INTERRUPTS, name)


# Processor time and threads


class Files:
    """A system that consists of files, and of modules that come and go.

    `fails` is a command that fails, `says` what commands print.
    """

    def __init__(self, fails: str = "", says: str = "", **files: str) -> None:
        self.files = files
        self.commands: list[str] = []
        self.says = says
        self._fails = fails

    def read_text(self, path: str) -> str:
        return self.files[path]

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError(f"wrote {path}")

    def exists(self, path: str) -> bool:
        return path in self.files

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        self.commands.append(" ".join(argv))
        failed = argv[0] == self._fails
        return Completed(tuple(argv), int(failed), self.says, "refused" if failed else "", 0.1)


def stat(name: str, user: int, system: int) -> dict[str, str]:
    """A process's file in /proc; user and system time are its fields 14 and 15 (proc(5))."""
    return {"/proc/7/stat": f"7 ({name}) S 1 7 7 0 -1 4194560 9 8 7 6 {user} {system} 3 4 20 0 6 0 17\n"}


@pytest.mark.parametrize("name", ["qemu-system-aar", "a b", "x) S 1 (y", "", ")", "1 2 3"])
def test_time_of_a_process_of_any_name(name: str) -> None:
    assert process_seconds(Files(**stat(name, 150, 75)), 7) == pytest.approx(2.25)


@given(st.text(max_size=15), st.integers(0, 2**40), st.integers(0, 2**40))
def test_time_of_any_process(name: str, user: int, system: int) -> None:
    assert process_seconds(Files(**stat(name, user, system)), 7) == pytest.approx((user + system) / 100)


def test_host_tells_exits_and_the_time_of_its_vmm() -> None:
    host = Host(Files(**stat("qemu", 10, 20), **{"/sys/kernel/debug/kvm/exits": "123456\n"}), 7)
    assert host.exits() == 123456
    assert host.vmm_seconds() == pytest.approx(0.3)


def test_threads_of_vcpus_are_found_by_their_names() -> None:
    """Those of this process, which stands in for a VMM."""
    names = [
        "CPU 10/KVM",
        "CPU 1/KVM",
        "worker",
        "CPU 2/TCG",
        "xCPU 3/KVM",
        "CPU 4/KVMx",
        "a:CPU 5/KVM",
        "CPU 0/KVM",
    ]
    there = threading.Barrier(len(names) + 1)

    def be(name: str) -> int:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
        there.wait(60)
        there.wait(60)
        return threading.get_native_id()

    with ThreadPoolExecutor(len(names)) as pool:
        threads = [pool.submit(be, name) for name in names]
        there.wait(60)
        found = Host(LocalSystem(), os.getpid()).vcpu_threads()
        there.wait(60)
        ids = {name: thread.result() for name, thread in zip(names, threads, strict=True)}
    assert list(found.items()) == [(vcpu, ids[f"CPU {vcpu}/KVM"]) for vcpu in (0, 1, 10)]


def test_process_without_threads_of_vcpus_is_an_error() -> None:
    with pytest.raises(CvmtuneError, match=rf"no threads with the names of vCPUs .*/{os.getpid()}/task"):
        Host(LocalSystem(), os.getpid()).vcpu_threads()


def test_threads_that_end_meanwhile_do_not_matter() -> None:
    class Ending(Files):
        def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
            return Completed(tuple(argv), 2, "/proc/7/task/9/comm:CPU 0/KVM\n", "", 0.1)

    assert Host(Ending(), 7).vcpu_threads() == {0: 9}


# Modules


def test_module_is_there_for_the_block() -> None:
    guest = Files()
    with loaded_module(guest, "/tools", "one"), loaded_module(guest, "/tools", "other"):
        assert guest.commands == ["insmod /tools/one.ko", "insmod /tools/other.ko"]
    assert guest.commands[2:] == ["rmmod other", "rmmod one"]


def test_failing_block_leaves_no_module() -> None:
    guest = Files()
    with pytest.raises(KeyboardInterrupt), loaded_module(guest, "/tools", "one"):
        raise KeyboardInterrupt
    assert guest.commands == ["insmod /tools/one.ko", "rmmod one"]


def test_module_that_cannot_be_loaded_is_not_unloaded() -> None:
    guest = Files(fails="insmod")
    with pytest.raises(CvmtuneError, match="refused"), loaded_module(guest, "/tools", "one"):
        raise AssertionError("loaded in spite of it")
    assert guest.commands == ["insmod /tools/one.ko"]


def test_module_that_stays_is_an_error() -> None:
    with pytest.raises(CvmtuneError, match="rmmod one ended"), loaded_module(Files("rmmod"), "/tools", "one"):
        pass


# The folder of a VM, and where its vCPUs are


def test_folder_of_the_vm_is_that_of_its_vmm() -> None:
    system = Files(says="/sys/kernel/debug/kvm/7-13\n")
    assert Host(system, 7).vm_folder() == "/sys/kernel/debug/kvm/7-13"
    assert system.commands == ["sh -c ls -d /sys/kernel/debug/kvm/7-*"]


@pytest.mark.parametrize("says", ["", "/sys/kernel/debug/kvm/7-13\n/sys/kernel/debug/kvm/7-14\n"])
def test_no_folder_or_several_is_an_error(says: str) -> None:
    with pytest.raises(CvmtuneError, match=rf"has {len(says.split())} such folders, not 1.*/kvm/7-\*"):
        Host(Files(says=says), 7).vm_folder()


def test_folder_on_this_computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cvmtune.experiments.host._KVM", str(tmp_path))
    (tmp_path / "17-13").mkdir()
    (tmp_path / "7-13").mkdir()
    assert Host(LocalSystem(), 7).vm_folder() == str(tmp_path / "7-13")
    with pytest.raises(CvmtuneError, match="has 0 such folders"):
        Host(LocalSystem(), 1).vm_folder()


class Pinned(Files):
    """A host of threads 9 and 8 of vCPUs 0 and 1, and where these may run. `fails_at` is a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.cpus = {"9": "0-1", "8": "0,2"}
        self.fails_at = ""

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        status, says = 0, ""
        match list(argv):
            case ["sh", "-c", _]:
                says = "/proc/7/task/8/comm:CPU 1/KVM\n/proc/7/task/9/comm:CPU 0/KVM\n"
            case ["taskset", "-cp", thread]:
                says = f"pid {thread}'s current affinity list: {self.cpus[thread]}\n"
            case ["taskset", "-cp", cpus, thread]:
                self.commands.append(f"{thread} on {cpus}")
                status = int(thread == self.fails_at)
                self.cpus[thread] = self.cpus[thread] if status else cpus
            case _:
                pytest.fail(f"no such command: {argv}")
        return Completed(tuple(argv), status, says, "", 0.1)


@pytest.mark.parametrize(("shared", "cpus"), [(False, ["0", "1"]), (True, ["0", "0"])])
def test_vcpus_are_pinned_for_the_block(shared: bool, cpus: list[str]) -> None:
    host = Pinned()
    with Host(host, 7).pinned(shared=shared):
        assert [host.cpus["9"], host.cpus["8"]] == cpus
    assert host.cpus == {"9": "0-1", "8": "0,2"}


def test_failing_block_leaves_the_vcpus_where_they_were() -> None:
    host = Pinned()
    with pytest.raises(KeyboardInterrupt), Host(host, 7).pinned():
        raise KeyboardInterrupt
    assert host.cpus == {"9": "0-1", "8": "0,2"}


@pytest.mark.parametrize("thread", ["9", "8"])
def test_vcpu_that_cannot_be_pinned_leaves_the_others_where_they_were(thread: str) -> None:
    host = Pinned()
    host.fails_at = thread
    with pytest.raises(CvmtuneError, match=f"taskset -cp .* {thread}"), Host(host, 7).pinned():
        raise AssertionError("pinned in spite of it")
    assert host.cpus == {"9": "0-1", "8": "0,2"}
    assert any(command.startswith(thread) for command in host.commands)


def test_cpus_of_a_thread_of_this_computer() -> None:
    assert CpuMask.from_list(affinity(LocalSystem(), os.getpid())).cpus == os.sched_getaffinity(0)


def test_cpus_of_a_process_that_is_gone_are_an_error() -> None:
    with pytest.raises(CvmtuneError, match="taskset"):
        affinity(LocalSystem(), 2**30)


# Programs


def test_cyclictests_values_among_other_lines() -> None:
    text = "       0:       1:   82310\n       0:       2:      -5\n0:3:9:1\n  0:   3: 91004  \nT: 0: 7\n"
    assert parse_cyclictest(f"{CYCLICTEST_HEADER}{text}") == (82310.0, 91004.0)


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 3)))
def test_any_values_of_cyclictest(rows: list[tuple[int, int, int]]) -> None:
    text = "".join(f"{thread:8}:{number:8}:{value:8}\n" for thread, number, value in rows)
    assert parse_cyclictest(f"{CYCLICTEST_HEADER}{text}") == tuple(float(value) for _, _, value in rows)


@given(st.text())
def test_any_text_of_cyclictest(text: str) -> None:
    assert all(value >= 0 for value in parse_cyclictest(text))


def test_cyclictest_is_asked_for_one_thread_on_one_cpu() -> None:
    guest = Files(says=CYCLICTEST_HEADER + "0:0:81000\n0:1:79000\n")
    assert cyclictest(guest, 3, 500, 2) == (81000.0, 79000.0)
    (command,) = guest.commands
    assert command.split()[0] == "cyclictest"
    assert set(command.split()[1:]) == {
        *("--threads=1", "--affinity=3", "--nsecs", "--verbose", "--interval=500", "--loops=2")
    }


@pytest.mark.parametrize("says", ["", CYCLICTEST_HEADER, "0:0:81000\n"])
def test_cyclictest_that_tells_too_little_is_an_error(says: str) -> None:
    with pytest.raises(CvmtuneError, match=r"of 2 wake-ups it tells [01].*cyclictest .*--loops=2"):
        cyclictest(Files(says=says), 1, 500, 2)


def test_cyclictest_that_fails_is_an_error() -> None:
    with pytest.raises(CvmtuneError, match="refused"):
        cyclictest(Files(fails="cyclictest", says="0:0:1\n0:1:2\n"), 1, 500, 2)


def test_round_trips_between_two_cpus() -> None:
    guest = Files(says="9000\n9500\n")
    assert pingpong(guest, "/tools", "futex", (0, 1), 2) == (9000.0, 9500.0)
    assert guest.commands == ["/tools/pingpong futex 0 1 2"]


def test_round_trips_that_fail_are_an_error() -> None:
    with pytest.raises(CvmtuneError, match="refused"):
        pingpong(Files(fails="/tools/pingpong"), "/tools", "pipe", (0, 1), 2)
