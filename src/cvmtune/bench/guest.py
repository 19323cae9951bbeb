# SPDX-License-Identifier: Apache-2.0
"""What experiments read of a guest and its host, whatever the feature, and what they put into the guest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.knobs.contract import Knob

# Rows of /proc/interrupts with the hardware IPIs that make up a load (arch/arm64/kernel/smp.c); the others
# stop or inspect a CPU.
SGI_ROWS = ("IPI0", "IPI1", "IPI4", "IPI5")
TICKS_PER_S = 100  # USER_HZ, in which /proc counts processor time
_KVM = "/sys/kernel/debug/kvm"


@dataclass(frozen=True)
class Host:
    """The host of the guest: its counters, and the process that runs the guest's vCPUs."""

    system: System
    vmm_pid: int

    def exits(self) -> float:
        """Exits of all vCPUs of all guests so far."""
        return float(self.system.read_text(f"{_KVM}/exits"))

    def vmm_seconds(self) -> float:
        """The processor time that the guest's VMM has used, its vCPUs' included, in seconds."""
        return process_seconds(self.system, self.vmm_pid)

    def vcpu_threads(self) -> dict[int, int]:
        """The threads of the guest's vCPUs, by the vCPUs' ids; QEMU names them with `debug-threads=on`."""
        pattern = f"/proc/{self.vmm_pid}/task/*/comm"
        found = {}
        # Not checked: other threads end while it looks.
        for line in self.system.run(["sh", "-c", f"grep -sH . {pattern}"]).stdout.splitlines():
            path, _, name = line.partition(":")
            if match := re.fullmatch(r"CPU (\d+)/KVM", name):
                found[int(match[1])] = int(path.split("/")[4])
        if not found:
            raise CvmtuneError("the guest's VMM has no threads with the names of vCPUs", pattern)
        return dict(sorted(found.items()))


def process_seconds(system: System, pid: int) -> float:
    """The processor time that a process, all its threads together, has used so far, in seconds."""
    # proc(5): the name may hold anything, so count from its closing parenthesis; then utime and stime.
    fields = system.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def parse_interrupts(text: str) -> dict[str, tuple[int, ...]]:
    """Return the rows of /proc/interrupts that have a count for each CPU, by name."""
    lines = text.splitlines()
    cpus = len(lines[0].split())
    rows = {}
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        counts = rest.split()[:cpus]
        if len(counts) == cpus and all(count.isdecimal() for count in counts):
            rows[name.strip()] = tuple(int(count) for count in counts)
    return rows


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


def hackbench(guest: System, loops: int) -> float:
    """Run hackbench with one group, many threads that pass messages; return the time it tells, in seconds."""
    argv = ["hackbench", "--groups", "1", "--loops", str(loops)]
    lines = guest.run(argv, timeout=300).check().stdout.splitlines()
    times = [float(line.split()[1]) for line in lines if line.startswith("Time:")]
    if len(times) != 1:
        raise CvmtuneError("hackbench printed no time", " ".join(argv))
    return times[0]


def table(text: str) -> list[dict[str, str]]:
    """Return the lines of a file of our debugfs that begins with a header, as text by the header's names."""
    header, *lines = (line.split() for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]
