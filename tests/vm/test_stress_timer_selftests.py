# SPDX-License-Identifier: Apache-2.0
"""The kernel's own tests of timers in guests: what passes without the queue passes with it. `make stress`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmtune.lab.kernel_selftests import TIMERS, programs
from cvmtune.lab.lab import TIMER_SELFTESTS, Lab
from tests.vm.kvm_selftests_host import PASS, Outcome, regressions, run, table
from tests.vm.test_stress_kvm_selftests import PATCHED, UNPATCHED
from tests.vm.test_stress_soft_ipi import SPLAT

pytestmark = [pytest.mark.stress, pytest.mark.long]

# What cannot say anything here, and why. Those that the Makefile calls destructive are not built: they step
# the clock or change its rate, play leap seconds, suspend the machine; what they look at is the clock.
LEFT_OUT = {
    "mqueue-lat": "needs mq_open(3), which the lab's kernels are built without",
    "raw_skew": "measures the clock for two minutes, and no timer",
    "rtcpie": "wants interrupts of an RTC within a tenth of their period, which is 1.6 ms at 64 Hz",
}

# In seconds: for each of the clocks, and in all.
OPTIONS = {"inconsistency-check": ("-t", "3"), "threadtest": ("-t", "10")}

# So many pass; fewer would say that the machine, not the queue, is at fault. posix_timers does not: three of
# its 18 parts, all of how a timer's signal is delivered, fail on the kernel as it comes.
ENOUGH = 3


def chosen(selftests: Path) -> list[str]:
    """The tests to run, of those that there are."""
    return [name for name in programs(selftests / TIMERS.name) if name not in LEFT_OUT]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", ["vm", "cvm"])
def test_what_passes_without_the_queue_passes_with_it(lab: Lab, machine: str) -> None:
    selftests = lab.timer_selftests()
    names = chosen(selftests)
    outcomes: dict[str, dict[str, Outcome]] = {}
    complaints = {}
    for flavour in (UNPATCHED, PATCHED):
        with lab.boot(machine, flavour=flavour, tools=[selftests]) as booted:
            outcomes[flavour] = run(booted.guest, names, TIMER_SELFTESTS, OPTIONS)
            consoles = [booted.console(name).read_text(errors="replace") for name in ("host", "guest")]
            lines = "\n".join(consoles).splitlines()
            complaints[flavour] = [line for line in lines if SPLAT.search(line)]
    after = outcomes[PATCHED]
    before = outcomes[UNPATCHED]
    print("", f"Machine {machine}:", "", *table(before, after), "", sep="\n")
    assert regressions(before, after) == []
    # What the kernel complains of without the queue is not the queue's fault.
    assert complaints[PATCHED] == [] or complaints[UNPATCHED]
    passed = [name for name, outcome in after.items() if outcome.result == PASS]
    assert len(passed) >= ENOUGH, "too few to tell anything"
