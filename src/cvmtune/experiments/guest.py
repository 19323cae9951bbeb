# SPDX-License-Identifier: Apache-2.0
"""What experiments put into a guest, run in it and read of it, whatever they measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.observe.procfs import IPI_ROWS, parse_interrupts
from cvmtune.tuning.contract import Knob

SGI_ROWS = tuple(IPI_ROWS)
TIMER_ROW = "arch_timer"
"""What /proc/interrupts calls the timer of a guest's CPUs."""

# How often a guest is looked at that does not get on, and how long is between two looks, in seconds: a minute
# and, on a slow computer, longer.
_LOOKS = 600
_PAUSE_S = 0.1


def online_cpus(guest: System) -> CpuMask:
    """The CPUs that are online."""
    return CpuMask.from_list(guest.read_text("/sys/devices/system/cpu/online"))


def named_interrupts(text: str, name: str) -> tuple[int, ...]:
    """Return the counts, by CPU, of the interrupt of /proc/interrupts whose line ends in `name`."""
    rows = [line for line in text.splitlines() if line.endswith(f" {name}")]
    if len(rows) != 1:
        raise CvmtuneError(f"/proc/interrupts has {len(rows)} lines for {name!r}, not 1")
    (counts,) = parse_interrupts("\n".join((text.splitlines()[0], rows[0]))).values()
    return counts


def timer_interrupts(guest: System) -> tuple[int, ...]:
    """The timer interrupts that each CPU has taken so far."""
    return named_interrupts(guest.read_text("/proc/interrupts"), TIMER_ROW)


def await_timers(guest: System, number: int) -> tuple[int, ...]:
    """Wait until each CPU has taken so many more timer interrupts; return how many each has.

    Where they do not come it gives up after a minute or more.
    """
    before = timer_interrupts(guest)
    taken = (0,) * len(before)
    for _ in range(_LOOKS):
        taken = tuple(now - then for now, then in zip(timer_interrupts(guest), before, strict=True))
        if min(taken) >= number:
            break
        time.sleep(_PAUSE_S)
    return taken


@contextmanager
def applied(knob: Knob, system: System, value: str) -> Iterator[None]:
    """Have this value of a knob for the `with` block."""
    plan = knob.plan(system, value)
    try:
        # Within: a Ctrl-C that comes while it is asked for does not keep it from happening.
        knob.apply(system, plan)
        yield
    finally:
        knob.undo(system, plan)


@contextmanager
def loaded_module(guest: System, tools: str, name: str) -> Iterator[None]:
    """Have a module, a file of directory `tools`, in the guest's kernel for the `with` block."""
    guest.run(["insmod", f"{tools}/{name}.ko"]).check()
    try:
        yield
    finally:
        guest.run(["rmmod", name]).check()


def pingpong(guest: System, tools: str, method: str, cpus: tuple[int, int], rounds: int) -> tuple[float, ...]:
    """Run the lab's helper; return the round trips between those two CPUs, in nanoseconds."""
    argv = [f"{tools}/pingpong", method, *map(str, cpus), str(rounds)]
    return tuple(float(line) for line in guest.run(argv, timeout=300).check().stdout.split())


def cyclictest(guest: System, cpu: int, interval_us: int, loops: int) -> tuple[float, ...]:
    """Return how late a thread on that CPU was for each of its timers, in nanoseconds."""
    argv = [
        *("cyclictest", "--threads=1", f"--affinity={cpu}", "--nsecs", "--verbose"),
        *(f"--interval={interval_us}", f"--loops={loops}"),
    ]
    samples = parse_cyclictest(guest.run(argv, timeout=300).check().stdout)
    if len(samples) < loops:
        raise CvmtuneError(f"of {loops} wake-ups it tells {len(samples)}", " ".join(argv))
    return samples


def parse_cyclictest(text: str) -> tuple[float, ...]:
    """Return the values of `cyclictest --verbose`, lines "thread: number: value" each."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(float(row[2]) for row in rows if len(row) == 3 and all(f.strip().isdecimal() for f in row))


def hackbench(guest: System, loops: int) -> float:
    """Run hackbench with one group, many threads that pass messages; return the time it tells, in seconds."""
    argv = ["hackbench", "--groups", "1", "--loops", str(loops)]
    lines = guest.run(argv, timeout=300).check().stdout.splitlines()
    times = [float(line.split()[1]) for line in lines if line.startswith("Time:")]
    if len(times) != 1:
        raise CvmtuneError("hackbench printed no time", " ".join(argv))
    return times[0]
