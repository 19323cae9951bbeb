# SPDX-License-Identifier: Apache-2.0
"""Whether each CPU's timer interrupt arrives is told by counts; an idle CPU without any proves nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import replace

import pytest

from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.timer import Timers, Visitor, Visits, timer_counts, timers
from tests.fakes.affinity import FakeAffinity
from tests.fakes.bound import place
from tests.fakes.capture import GUEST, changed

INTERRUPTS, STAT, UPTIME = "/proc/interrupts", "/proc/stat", "/proc/uptime"


def table(*rows: tuple[str, tuple[int, ...], str]) -> str:
    header = "".join(f"       CPU{cpu}" for cpu in range(len(rows[0][1])))
    return f"{header}\n" + "".join(
        f"{name:>4}: {' '.join(f'{count:10}' for count in counts)}   {what}\n" for name, counts, what in rows
    )


ARCH = "GICv3  27 Level     arch_timer"


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([("13", (5, 6), ARCH)], {0: 5, 1: 6}),
        # Physical, and in a host's hypervisor; an old GIC; the timer in memory.
        ([("3", (5, 6), "GICv2  30 Level     arch_timer")], {0: 5, 1: 6}),
        ([("13", (0, 0), ARCH), ("14", (7, 8), "GICv3  26 Level     arch_mem_timer")], {0: 7, 1: 8}),
        # A CPU without one of its own gets another's by IPI.
        ([("13", (5, 0), ARCH), ("IPI4", (0, 9), "Timer broadcast interrupts")], {0: 5, 1: 9}),
        # Those are guests', and this is none.
        ([("13", (5, 6), ARCH), ("12", (9, 9), "GICv3  27 Level     kvm guest vtimer")], {0: 5, 1: 6}),
        ([("13", (0, 0), ARCH), ("50", (8, 9), "GICv3  90 Level     watchdog-timer")], {0: 0, 1: 0}),
        ([("50", (8, 9), "GICv3  90 Level     not-arch_timer")], {}),
        # That row is always there.
        ([("46", (1, 2), "virtio0"), ("IPI4", (0, 0), "Timer broadcast interrupts")], {}),
        ([("46", (1, 2), "virtio-mmio  78 Edge      virtio0")], {}),
        ([("IPI0", (1, 2), "Rescheduling interrupts")], {}),
    ],
)
def test_counts_of_timers(rows: list[tuple[str, tuple[int, ...], str]], counts: dict[int, int]) -> None:
    assert timer_counts(table(*rows)) == counts


def test_counts_of_anything() -> None:
    for text in ("", "x", "CPU0\n", "CPU0 CPU1\n13: 1 arch_timer\n", "\0\n"):
        assert timer_counts(text) == {}


def told(
    then: tuple[int, int], now: tuple[int, int], visits: Visits, *, busy: int = 0, more: str = ""
) -> Timers:
    """What is told of the guest's two CPUs; `busy` are the ticks for which CPU 1 was busy meanwhile."""
    stat = "cpu0 0 0 0 100 0 0 0 0 0 0\ncpu1 {} 0 0 100 0 0 0 0 0 0\n"
    first, later = (
        changed(
            GUEST,
            {
                INTERRUPTS: table(("13", counts, ARCH)),
                STAT: stat.format(ticks),
                UPTIME: f"{uptime}.00 1\n",
                f"{CPUS}/nohz_full": f"{more}\n",
            },
        )
        for counts, ticks, uptime in ((then, 0, 1000), (now, busy, 1001))
    )
    seen = replace(later, earlier=first)
    return timers(seen, place(seen), visits)


def test_timers_that_arrive() -> None:
    found = told((5, 5), (6, 5), Visits({1: True}))
    assert (found.arrives.to_list(), found.silent.to_list(), found.unknown) == ("0-1", "", {})


def test_count_of_32_bits_that_passes_its_end() -> None:
    assert told(((1 << 32) - 1, 5), (3, 6), Visits(), busy=9).arrives.to_list() == "0-1"


def test_timer_that_does_not_arrive_where_a_program_ran() -> None:
    found = told((5, 5), (6, 5), Visits({0: True, 1: False}))
    assert (found.arrives.to_list(), found.silent.to_list(), found.unknown) == ("0", "1", {})
    # What arrived afterwards did arrive.
    assert told((5, 5), (6, 6), Visits({0: True, 1: False})).silent.to_list() == ""


def test_idle_cpu_that_takes_none_proves_nothing() -> None:
    found = told((5, 5), (6, 5), Visits())
    assert found.silent.to_list() == ""
    assert found.unknown == {1: "it was idle, and its timer with it"}
    # One that was busy would have met its tick.
    assert told((5, 5), (6, 5), Visits(), busy=4).silent.to_list() == ""
    assert told((5, 5), (6, 5), Visits(), busy=5).silent.to_list() == "1"


def test_cpu_where_nobody_may_run_and_cpu_without_a_tick() -> None:
    found = told((5, 5), (6, 5), Visits({0: True}, {1: "this process may not run there (Invalid argument)"}))
    assert found.unknown == {1: "this process may not run there (Invalid argument)"}
    found = told((5, 5), (6, 5), Visits({0: True, 1: False}), more="1")
    assert found.silent.to_list() == ""
    assert "nohz_full" in found.unknown[1]


@pytest.mark.parametrize("text", [None, "", table(("46", (1, 2), "virtio0"))])
def test_table_without_timers_does_not_tell(text: str | None) -> None:
    seen = changed(GUEST, {INTERRUPTS: text})
    found = timers(replace(seen, earlier=seen), place(seen), Visits())
    assert (found.arrives.to_list(), found.silent.to_list()) == ("", "")
    assert all("no row of a timer: /proc/interrupts" in why for why in found.unknown.values())
    assert len(found.unknown) == 2
    assert timers(Capture({}), place(Capture({})), Visits()).unknown == {}


class Cpus(FakeAffinity):
    """CPUs, of which some are forbidden; the one where the thread is takes a tick with each reading."""

    def __init__(self, *, forbidden: Iterable[int] = (), silent: Iterable[int] = ()) -> None:
        super().__init__(4, forbidden)
        self.silent = set(silent)
        self.counts = [5, 5, 5, 5]

    def read(self) -> str:
        (cpu,) = self.now
        self.counts[cpu] += cpu not in self.silent
        return table(("13", tuple(self.counts), ARCH))


def test_visitor_runs_on_each_cpu_and_comes_back() -> None:
    cpus = Cpus(forbidden={2}, silent={3})
    found = Visitor(cpus, patience_s=0.001).visit(range(4), cpus.read)
    assert found.grew == {0: True, 1: True, 3: False}
    assert found.refused == {2: "this process may not run there (Invalid argument)"}
    assert found.arrived.to_list() == "0-1"
    assert cpus.history == [{0}, {1}, {3}, {0, 1, 2, 3}]


def test_visitor_comes_back_from_what_fails() -> None:
    cpus = Cpus()

    def broken() -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert Visitor(cpus).visit([1], broken).refused == {
        1: "/proc/interrupts cannot be read (Input/output error)"
    }
    assert cpus.now == {0, 1, 2, 3}


def test_who_sleeps_does_so_where_it_will_be_woken() -> None:
    cpus = Cpus(forbidden={0})
    visitor = Visitor(cpus)
    with visitor.kept_on(place(changed(GUEST, {f"{CPUS}/online": "2-3\n"})).online):
        assert cpus.now == {2, 3}
    # Where none is known to wake anybody, or it is forbidden, it stays where it is.
    for online in ("7\n", "0\n"):
        with visitor.kept_on(place(changed(GUEST, {f"{CPUS}/online": online})).online):
            assert cpus.now == {0, 1, 2, 3}
    assert cpus.now == {0, 1, 2, 3}
