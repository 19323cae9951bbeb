# SPDX-License-Identifier: Apache-2.0
"""KVM's own selftests on the hosts: what passes without the queue passes with it. `make stress`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmtune.lab.kernel_selftests import KVM, programs
from cvmtune.lab.lab import Lab
from tests.vm.kvm_selftests_host import LEFT_OUT, PASS, SHORT, SKIP, Outcome, regressions, run, table
from tests.vm.test_stress_soft_ipi import SPLAT

pytestmark = pytest.mark.stress

UNPATCHED = "unpatched"
PATCHED = "default"
# What the queue adds, and on which machines it has something to test.
OURS = {"aarch64/wfx_trap": ("vm", "cvm"), "aarch64/vtimer_mode": ("cvm",)}
# So many pass on either machine; fewer would say that the machine, not the queue, is at fault.
ENOUGH = 20


def chosen(selftests: Path, *, short: bool) -> list[str]:
    """The tests to run, of those that there are."""
    built = programs(selftests / KVM.name)
    return [name for name in built if name not in LEFT_OUT and (name in SHORT or not short)]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", [pytest.param("vm", marks=pytest.mark.long), "cvm"])
def test_what_passes_without_the_queue_passes_with_it(
    lab: Lab, machine: str, pytestconfig: pytest.Config
) -> None:
    selftests = lab.kvm_selftests()
    short = pytestconfig.getoption("--short")
    names = chosen(selftests, short=short)
    outcomes: dict[str, dict[str, Outcome]] = {}
    complaints = {}
    # The short ones are known to pass without the queue (docs/kvm-selftests.md): that kernel, which nothing
    # else needs, is not built for them.
    for flavour in (PATCHED,) if short else (UNPATCHED, PATCHED):
        with lab.boot(machine, flavour=flavour, tools=[selftests]) as booted:
            assert booted.host
            outcomes[flavour] = run(booted.host, names)
            console = booted.console("host").read_text(errors="replace")
            complaints[flavour] = [line for line in console.splitlines() if SPLAT.search(line)]
    after = outcomes[PATCHED]
    before = outcomes.get(UNPATCHED, {})
    print("", f"Machine {machine}:", "", *table(before, after), "", sep="\n")
    theirs = dict.fromkeys(set(names) - set(OURS), Outcome(PASS, 0.0))
    assert regressions(before or theirs, after) == []
    for name, machines in OURS.items():
        assert after[name].result == (PASS if machine in machines else SKIP), (name, after[name])
    # What the kernel complains of without the queue is not the queue's fault.
    assert complaints[PATCHED] == [] or complaints.get(UNPATCHED)
    passed = [name for name, outcome in after.items() if outcome.result == PASS]
    assert len(passed) >= (len(SHORT) - len(OURS) if short else ENOUGH), "too few to tell anything"
