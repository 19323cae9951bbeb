# SPDX-License-Identifier: Apache-2.0
"""What the tests of a confidential VM's virtual timer ask of a host and its guest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from cvmtune.core.system import System
from cvmtune.experiments.guest import named_interrupts, timer_interrupts
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from cvmtune.observe.procfs import parse_named, parse_table
from tests.vm import wfx_host
from tests.vm.cq_poll_guest import Background
from tests.vm.test_stress_soft_ipi import SPLAT

MASKED = "masked"
UNMASKED = "unmasked"
HW = "hw"
MODES = (HW, MASKED, UNMASKED)

ONLINE = "/sys/devices/system/cpu/cpu1/online"
_FOLDER = "/sys/kernel/debug/cvmtune_timer"
_INTERRUPTS = "/proc/interrupts"
# What cvmtune_timer.c says must be 0, of any kind of run and of torture alone.
_VIOLATIONS = ("lost", "early", "twice", "hung")
_OF_TORTURE = ("cancelled_fired", "masked_repeat", "tainted")


@dataclass(frozen=True)
class Counts:
    """By how much counts have grown: vtimer_stats by vCPU, timer interrupts that each CPU of the guest took,
    and those of guests' timers that the host took."""

    vcpus: Mapping[int, Mapping[str, int]]
    guest: tuple[int, ...]
    host: int

    def total(self, name: str) -> int:
        return sum(row[name] for row in self.vcpus.values())


class Site(wfx_host.Site):
    """A machine's host and guest, and the files of the timers of the guest's VM."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        folder = PurePosixPath(self.own).parent
        self.mode_file = str(folder / "vtimer_mode")
        self.stats_file = str(folder / "vtimer_stats")
        # What is in the monitor's hands, if anything.
        self.is_confidential = self.host.exists(self.mode_file)

    @contextmanager
    def with_timers(self) -> Iterator[Site]:
        """Have the module cvmtune_timer in the guest."""
        self.guest.run(["insmod", f"{GUEST_TOOLS}/cvmtune_timer.ko"], timeout=120).check()
        try:
            yield self
        finally:
            self.guest.run(["rmmod", "cvmtune_timer"], timeout=120).check()

    def mode(self) -> str:
        return self.host.read_text(self.mode_file).removesuffix("\n")

    def set_mode(self, mode: str) -> None:
        """Set the VM's mode, and wait until both vCPUs have been in their guest with it."""
        self.host.write_text(self.mode_file, f"{mode}\n")
        # One that sleeps follows when it is entered next; for that its old timer may yet interrupt the host.
        for cpu in ("0", "1"):
            self.guest.run(["taskset", "-c", cpu, "true"]).check()

    def reset(self) -> None:
        super().reset()
        if self.is_confidential:
            self.set_mode(MASKED)

    def stats(self) -> dict[int, dict[str, int]]:
        """The VM's vtimer_stats by vCPU; none if it is not confidential."""
        rows = parse_table(self.host.read_text(self.stats_file)) if self.is_confidential else []
        return {int(row.pop("vcpu")): {name: int(value) for name, value in row.items()} for row in rows}

    def guest_interrupts(self) -> tuple[int, ...]:
        return timer_interrupts(self.guest)

    def host_interrupts(self) -> int:
        return sum(named_interrupts(self.host.read_text(_INTERRUPTS), "kvm guest vtimer"))

    def counted(self, action: Callable[[], object]) -> Counts:
        """Do something; return by how much all counts have grown meanwhile.

        The guest's are read first and last: each exit that is counted has its interrupt, if there is one,
        counted too.
        """
        guest, host, vcpus = self.guest_interrupts(), self.host_interrupts(), self.stats()
        action()
        vcpus_after, host_after, guest_after = self.stats(), self.host_interrupts(), self.guest_interrupts()
        return Counts(
            {
                vcpu: {name: value - vcpus[vcpu][name] for name, value in row.items()}
                for vcpu, row in vcpus_after.items()
            },
            tuple(after - before for before, after in zip(guest, guest_after, strict=True)),
            host_after - host,
        )

    def complaints(self, system: str) -> list[str]:
        """What this system's kernel has found fault with."""
        console = self.machine.console(system).read_text(errors="replace")
        return [line for line in console.splitlines() if SPLAT.search(line)]

    def timers_run(self, line: str) -> dict[str, int]:
        """Have the module run this; check its books, return them."""
        self.guest.run(["sh", "-c", command(line)], timeout=300).check()
        return books(self.guest, line)

    def timers_counted(self, line: str) -> Counts:
        """By how much counts grow while the module runs this."""
        return self.counted(lambda: self.timers_run(line))


def command(line: str) -> str:
    """The shell command that has the module run this."""
    return f"echo {line} >{_FOLDER}/run"


def torture(system: System, seconds: int, seed: int) -> Background:
    return Background(system, command(f"kind=torture seconds={seconds} seed={seed}"))


def books(system: System, line: str) -> dict[str, int]:
    """Check what the module says of the run that this line asked for; return it."""
    result = parse_named(system.read_text(f"{_FOLDER}/result"))
    keys = dict(word.split("=") for word in line.split())
    if keys["kind"] == "torture":
        kinds = {key.removeprefix("started_") for key in result if key.startswith("started_")}
        wanted = {kind: result[f"started_{kind}"] for kind in kinds}
        fired = {kind: result[f"fired_{kind}"] for kind in kinds}
        wanted["cancel"] -= result["cancelled"]
        assert fired == wanted, result
        assert min(fired.values()) > 0, result
    else:
        started = "sections" if keys["kind"] == "irqoff" else "started"
        assert result["fired"] == result[started] == int(keys["n"]), result
    for name in _VIOLATIONS + (_OF_TORTURE if keys["kind"] == "torture" else ()):
        assert result[name] == 0, (name, result)
    return result


def fired(result: Mapping[str, int]) -> int:
    """How many timers fired in a torture: so many expiries, none lost and none twice."""
    return sum(value for key, value in result.items() if key.startswith("fired_"))


def wait_for(running: Background, seconds: float) -> None:
    """As Background.wait(), but without asking the guest all the time; its status must be 0."""
    end = time.monotonic() + seconds
    while not running.ended:
        assert time.monotonic() < end, f"waited {seconds:g} s; it says: {running.output}"
        time.sleep(1)
    assert running.wait() == 0, running.output
