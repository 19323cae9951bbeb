# SPDX-License-Identifier: Apache-2.0
"""The experiment `wfx` against a guest and a host whose counters count as real ones would."""

from __future__ import annotations

import errno
import os
import re
import shlex
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_kernel import FakeKernel, WfxKernel
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.bench import wfx
from cvmtune.bench.guest import Host
from cvmtune.bench.raw import RawRun
from cvmtune.bench.wfx import BOOT_POLICY, GUARD, SETTINGS, Scale, collect, parse_cyclictest
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import Completed, LocalSystem
from cvmtune.knobs import soft_ipi
from cvmtune.knobs import wfx as wfx_knob
from cvmtune.knobs.contract import KnobError

SCALE = Scale(
    **{"watch_s": 2.0, "wakeups": 40, "interval_us": 500, "round_trips": 8, "hackbench_loops": 3},
    neighbour_s=0.5,
)
ALL_STATES = (*SETTINGS, BOOT_POLICY)
PID = 321  # of the VMM
THREADS = {0: 102, 1: 101}  # of the vCPUs
STATISTICS = f"/sys/kernel/debug/kvm/{PID}-13/wfx_trap_stats"
TIMERS = "cyclictest --smp --interval=500 --distance=0 --quiet >/dev/null 2>&1 & echo $!"
READING = (
    f"cat /proc/uptime; cd /proc/{PID}/task || exit; cat 102/schedstat 101/schedstat; "
    f"cat /sys/kernel/debug/kvm/{PID}-*/wfx_trap_stats"
)
# As cyclictest 2.4 begins.
HEADER = "# /dev/cpu_dma_latency set to 0us\nMax CPUs = 2\nOnline CPUs = 2\n"


# Parser


def test_values_among_other_lines() -> None:
    text = f"{HEADER}       0:       1:   82310\n       0:       2:      -5\n0:3:9:1\n  0:   3: 91004  \nT: 0: 7\n"
    assert parse_cyclictest(text) == (82310.0, 91004.0)


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 3)))
def test_any_values(rows: list[tuple[int, int, int]]) -> None:
    text = "".join(f"{thread:8}:{number:8}:{value:8}\n" for thread, number, value in rows)
    assert parse_cyclictest(f"{HEADER}{text}") == tuple(float(value) for _, _, value in rows)


@given(st.text())
def test_any_text(text: str) -> None:
    assert all(value >= 0 for value in parse_cyclictest(text))


# A guest and its host


class Refused(OSError):
    """A file's operation fails, or a command ends with a status."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, os.strerror(errno.EINVAL))


class Machine:
    """A guest with two vCPUs on a host with two CPUs, and what is counted of them.

    A trapped wait ends in an exit for WFI, each fourth in one for WFE besides, and the vCPU is on a CPU for a
    quarter of the time; else it is there all the time. 50 other exits a second come to each. Between what the
    experiment is to count, everything counts too.
    """

    def __init__(self, root: Path) -> None:
        self.uptime = 1000.0
        self.counts = {vcpu: {"entries": 9000, "wfi": 700 + vcpu, "wfe": 80 + vcpu} for vcpu in THREADS}
        self.nanoseconds = dict.fromkeys(THREADS, 10**12)
        self.lag_s = 0.0  # until a mask is in force
        self.named_at = 0.0
        self.timers = False
        self.guest = FakeGuest(self, root / "guest")
        self.host = FakeHost(self, root / "host")
        self.trace: list[tuple[FakeSystem, int, str, set[str]]] = []
        self.seen: list[dict[str, object]] = []
        self.first = self.state()

    def state(self) -> dict[str, object]:
        """All that the experiment changes."""
        return {
            "mask": frozenset(self.host.cpus),
            "guard": self.host.guard_file.read_text(),
            "soft IPIs": frozenset(self.guest.cpus),
            **{f"thread {thread}": cpus for thread, cpus in self.host.affinity.items()},
            "timers": self.timers,
        }

    def changed(self) -> set[str]:
        return {name for name, value in self.state().items() if value != self.first[name]}

    def work(self, seconds: float, waits: Mapping[int, int]) -> None:
        """Let time pass in which the vCPUs wait so often."""
        late = min(seconds, max(0.0, self.named_at + self.lag_s - self.uptime))
        for vcpu, number in waits.items():
            trapped = late / seconds if vcpu in self.host.cpus else 1
            counts, wfi = self.counts[vcpu], round(trapped * number)
            counts["wfi"] += wfi
            counts["wfe"] += wfi // 4
            counts["entries"] += wfi + wfi // 4 + round(50 * seconds)
            self.nanoseconds[vcpu] += round((trapped / 4 + 1 - trapped) * seconds * 1e9)
        self.uptime += seconds

    def pass_time(self, seconds: float) -> None:
        self.work(seconds, dict.fromkeys(THREADS, round((1000 if self.timers else 20) * seconds)))

    def disturb(self) -> None:
        """Do what makes everything count that nobody should be counting now."""
        for counts in self.counts.values():
            counts.update({name: value + 10_000_019 for name, value in counts.items()})
        self.nanoseconds.update({vcpu: value + 10**15 for vcpu, value in self.nanoseconds.items()})
        self.uptime += 10_000.0


class FakeSystem(FakeKernel):
    """A kernel whose commands count as operations too, and can fail as its files can."""

    def __init__(self, machine: Machine, root: Path, path: str) -> None:
        self.machine = machine
        root.mkdir()
        super().__init__(root, path, width=2, possible="0-1")
        self._make("/sys/devices/system/cpu/online", "0-1\n")

    def _begin(self, operation: str) -> int:
        # There only once both systems are.
        if trace := getattr(self.machine, "trace", None) is not None and self.machine.trace:
            pass
        return super()._begin(operation)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        try:
            number = self._begin(f"run {shlex.join(argv)}")
        except Refused:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        says = self._do(list(argv))
        self._raise_if_due(number, "after")
        return Completed(tuple(argv), 0, says, "", 0.1)

    @abstractmethod
    def _do(self, argv: list[str]) -> str:
        """What the command does and prints."""
