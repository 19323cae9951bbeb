# SPDX-License-Identifier: Apache-2.0
"""Parsers of what the kernel counts of CPUs, in /proc (proc(5)), and in our debugfs (docs/kernel-abi.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

TICKS_PER_S = 100  # USER_HZ, in which /proc/stat and /proc/PID/stat count processor time

_UPTIME = re.compile(r"\d+(?:\.\d+)?")
# cpu0 user nice system idle iowait irq softirq steal; guest's are in user's, and later kernels may have more
_CPU_LINE = re.compile(r"cpu(\d+) (\d+(?: \d+){7})(?: .*)?")
# Rows of /proc/interrupts with the hardware IPIs that make up a load, as parse_interrupts() names them, and
# what they are (ipi_types in arch/arm64/kernel/smp.c). The others stop or inspect a CPU. Their numbers, IPI0
# and so on, are others in each kernel.
IPI_ROWS: Mapping[str, str] = {
    "Rescheduling interrupts": "reschedule",
    "Function call interrupts": "call function",
    "Timer broadcast interrupts": "timer broadcast",
    "IRQ work interrupts": "irq work",
}
_DIGITS = 20  # of 64 bits at most
_IPI = re.compile(r"IPI\d+")


def parse_interrupts(text: str) -> dict[str, tuple[int, ...]]:
    """Return the rows of /proc/interrupts, or /proc/softirqs, that have a count for each CPU, by name.

    An IPI's name is the description at the end of its line, as "Rescheduling interrupts". Columns are the
    online CPUs in order; interrupt_cpus() tells which they are.
    """
    lines = text.splitlines()
    cpus = len(interrupt_cpus(text))
    rows = {}
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        counts, description = words[:cpus], " ".join(words[cpus:])
        if len(counts) == cpus and all(is_count(count) for count in counts):
            rows[_row_name(name.strip(), description)] = tuple(int(count) for count in counts)
    return rows


def _row_name(name: str, description: str) -> str:
    if not _IPI.fullmatch(name) or not description:
        return name
    # Before what an IPI is there may be what brings it.
    return next((known for known in IPI_ROWS if description.endswith(f" {known}")), description)


def interrupt_cpus(text: str) -> tuple[int, ...]:
    """Return the CPUs that the columns of /proc/interrupts, or /proc/softirqs, are for."""
    header = text.splitlines()[:1]
    return tuple(int(word[3:]) for word in "".join(header).split() if re.fullmatch(r"CPU\d+", word))


@dataclass(frozen=True)
class CpuTimes:
    """Where a CPU's time went since boot, in ticks; `busy` includes guests and interrupts, not steal."""

    busy: int
    idle: int
    steal: int

    @property
    def total(self) -> int:
        return self.busy + self.idle + self.steal


def uptime(files: Mapping[str, str]) -> float:
    """Return how long a machine has been up by its files, in s; nan where that is not known."""
    match = _UPTIME.match(files.get("/proc/uptime", "").strip())
    return float(match[0]) if match else math.nan


def parse_cpu_times(stat: str) -> dict[int, CpuTimes]:
    """Return the online CPUs' times out of /proc/stat. Waiting for I/O is idle."""
    times = {}
    for line in stat.splitlines():
        if match := _CPU_LINE.fullmatch(line):
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, match[2].split())
            times[int(match[1])] = CpuTimes(user + nice + system + irq + softirq, idle + iowait, steal)
    return times


def parse_named(text: str) -> dict[str, int]:
    """Return the first number after the name of each line "name number ..."; other lines do not count."""
    pairs = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and is_count(words[1])}


def is_count(word: str) -> bool:
    """Tell whether a word is a number that the kernel can count to."""
    # Not by a pattern: of a host with many VMs there are a hundred thousand.
    return len(word) <= _DIGITS and word.isascii() and word.isdecimal()


def parse_table(text: str) -> list[dict[str, str]]:
    """Return the lines of a file of our debugfs that begins with a header, as text by the header's names."""
    header, *lines = (line.split() for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


# A host has many VMs, and each rule looks at the same files.
@lru_cache(maxsize=4096)
def parse_counts(text: str) -> Sequence[Mapping[str, int]]:
    """Return the numbers in a file such as parse_table() takes, of any kernel: whatever fits is in them.

    What is no number is left out, and a line that has not as many words as the header.
    """
    header, *lines = [line.split() for line in text.splitlines()] or [[]]
    return [
        {name: int(word) for name, word in zip(header, line, strict=True) if is_count(word)}
        for line in lines
        if len(line) == len(header)
    ]
