# SPDX-License-Identifier: Apache-2.0
"""Loads of which it is known what they put on which vCPU, for the tool to be tried on.

Run as a program it records the counter sets of tests/unit/recordings, which test_advice_recordings.py goes
by:

    .venv/bin/python tests/vm/loads.py tests/unit/recordings [NAME ...]
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

# Beside this file; as a program it has no other way to them than pytest's configuration.
sys.path.insert(0, str(Path(__file__).parent))

from cvmtune.core.system import System
from cvmtune.experiments.host import Host
from cvmtune.lab.cache import Cache
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.progress import terminal_progress
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import WriteLoad
from tests.vm.cq_poll_guest import Background, load, unload, wait_until

CPUS = 4
_SECONDS = 5
_PAUSE_US = 8000


@contextmanager
def background(system: System, command: str) -> Iterator[None]:
    """Have a shell command run beside; it must not end by itself."""
    running = Background(system, command)
    try:
        yield
        assert not running.ended, f"it has ended by itself: {running.output}"
    finally:
        running.kill()


def wake_ups(guest: System, one: int, other: int) -> AbstractContextManager[None]:
    """Two threads that wake each other: each wake-up of an idle CPU is an IPI to it."""
    return background(guest, f"exec {GUEST_TOOLS}/pingpong futex {one} {other} 10000000")


def timers(guest: System) -> AbstractContextManager[None]:
    """A timer a millisecond on every CPU: interrupts and wake-ups, and hardly an IPI."""
    return background(guest, "exec cyclictest --smp --interval=1000 --distance=0 --quiet")


@contextmanager
def nfs_writes(guest: System, cpu: int) -> Iterator[None]:
    """A writer on that CPU, on a mount over RDMA, with the module for polling loaded and off.

    It pauses after each write, which leaves an emulated machine time to idle, however slow it is.
    """
    load(guest)
    try:
        with nfs_rdma.mounted(guest) as mount:
            logs = guest.run(["mktemp", "-d"]).check().stdout.strip()
            argv = nfs_rdma.write_command(mount.path, WriteLoad(writes=1_000_000, cpu=cpu), logs)
            # Else its job is in a session of its own, and outlives the rest of it.
            argv += ["--thread", f"--thinktime={_PAUSE_US}"]
            with background(guest, f"exec {shlex.join(argv)} >/dev/null"):
                # fio is slow to start.
                wait_until(lambda: mount.statistics()["WRITE"].ops > 10, "fio's first writes")
                yield
    finally:
        unload(guest)


@contextmanager
def busy_task(host: System, cpu: int) -> Iterator[None]:
    """A task of the host that wants all of a CPU."""
    with background(host, f"exec taskset -c {cpu} sh -c 'while :; do :; done'"):
        yield


@dataclass(frozen=True)
class Case:
    """A load, and the side, guest or host, from which it is looked at."""

    side: str
    put: Callable[[Machine], AbstractContextManager[object]]


def _host(machine: Machine) -> Host:
    assert machine.host
    return Host(machine.host, machine.vmm_pid)


@contextmanager
def _overcommitted(machine: Machine) -> Iterator[None]:
    """All vCPUs on one physical CPU, those that wake each other among them."""
    with _host(machine).pinned(shared=True), wake_ups(machine.guest, 2, 3), timers(machine.guest):
        yield


@contextmanager
def _mixed(machine: Machine) -> Iterator[None]:
    with nfs_writes(machine.guest, 0), wake_ups(machine.guest, 2, 3):
        yield


@contextmanager
def _beside_a_task(machine: Machine) -> Iterator[None]:
    with timers(machine.guest), busy_task(_host(machine).system, 1):
        yield


CASES: Mapping[str, Case] = {
    "guest-idle": Case("guest", lambda machine: nullcontext()),
    "guest-wake-ups": Case("guest", lambda machine: wake_ups(machine.guest, 2, 3)),
    "guest-timers": Case("guest", lambda machine: timers(machine.guest)),
    "guest-nfs-writes": Case("guest", lambda machine: nfs_writes(machine.guest, 0)),
    "guest-mixed": Case("guest", _mixed),
    "guest-overcommitted": Case("guest", _overcommitted),
    "host-idle": Case("host", lambda machine: nullcontext()),
    "host-timers": Case("host", lambda machine: timers(machine.guest)),
    "host-overcommitted": Case("host", _overcommitted),
    "host-beside-a-task": Case("host", _beside_a_task),
}


def record(machine: Machine, case: Case) -> str:
    """Have the tool watch a load; return its recording."""
    systems = {"guest": machine.guest, "host": machine.host}
    system = systems[case.side]
    assert system
    with case.put(machine):
        # So that neither its start nor that of the load is in it.
        system.run(["sleep", "2"]).check()
        file = system.run(["mktemp"]).check().stdout.strip()
        argv = ["cvmtune", "recommend", "--seconds", str(_SECONDS), "--record", file]
        print(system.run(argv, timeout=300).check().stdout)
    return system.read_text(file)


def main(directory: Path, names: list[str]) -> None:
    """Record those cases, or all."""
    with ExitStack() as stack:
        lab = Lab(Cache(), terminal_progress())
        machine = stack.enter_context(lab.boot("cvm", options=BootOptions(cpus=CPUS)))
        for name in names or CASES:
            print(f"== {name}", flush=True)
            (directory / f"{name}.json").write_text(record(machine, CASES[name]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
