# SPDX-License-Identifier: Apache-2.0
"""Parsers of what the kernel counts of CPUs, in /proc (proc(5)), and in our debugfs (docs/kernel-abi.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

TICKS_PER_S = 100  # USER_HZ, in which /proc/stat and /proc/PID/stat count processor time

_UPTIME = re.compile(r"\d+(?:\.\d+)?")
# cpu0 user nice system idle iowait irq softirq steal; guest's are in user's, and later kernels may have more
_CPU_LINE = re.compile(r"cpu(\d+) (\d+(?: \d+){7})(?: .*)?")
# Rows of /proc/interrupts with the hardware IPIs that make up a load, and what they are, from 6.1 to 6.12
# (arch/arm64/kernel/smp.c). The others stop or inspect a CPU.
IPI_ROWS: Mapping[str, str] = {
    "IPI0": "reschedule",
    "IPI1": "call function",
    "IPI4": "timer broadcast",
    "IPI5": "irq work",
}


def parse_interrupts(text: str) -> dict[str, tuple[int, ...]]:
    """Return the rows of /proc/interrupts, or /proc/softirqs, that have a count for each CPU, by name.

    Columns are the online CPUs in order; interrupt_cpus() tells which they are.
    """
    lines = text.splitlines()
    cpus = len(interrupt_cpus(text))
    rows = {}
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        counts = rest.split()[:cpus]
        if len(counts) == cpus and all(count.isdecimal() for count in counts):
            rows[name.strip()] = tuple(int(count) for count in counts)
    return rows


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
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and words[1].isdecimal()}


def parse_table(text: str) -> list[dict[str, str]]:
    """Return the lines of a file of our debugfs that begins with a header, as text by the header's names."""
    header, *lines = (line.split() for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def parse_counts(text: str) -> list[dict[str, int]]:
    """Return the numbers in a file such as parse_table() takes, of any kernel: whatever fits is in them.

    What is no number is left out, and a line that has not as many words as the header.
    """
    header, *lines = [line.split() for line in text.splitlines()] or [[]]
    return [
        {name: int(word) for name, word in zip(header, line, strict=True) if word.isdecimal()}
        for line in lines
        if len(line) == len(header)
    ]
