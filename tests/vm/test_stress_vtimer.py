# SPDX-License-Identifier: Apache-2.0
"""The virtual timer of a confidential VM under stress, on kernels that look for errors: `make stress`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.lab.lab import KVM_SELFTESTS
from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import Background, beside, wait_until
from tests.vm.kvm_selftests_host import OPTIONS
from tests.vm.shared_machines import CVM_DEBUG
from tests.vm.vtimer_host import HW, MASKED, ONLINE, UNMASKED, Site, books, fired, torture, wait_for
from tests.vm.wfx_host import CONTROL, GUARD

pytestmark = [pytest.mark.stress, pytest.mark.on(CVM_DEBUG)]

LONG_S = 1800
SHORT_S = 30

# What a torture of any length does at least, however slow the computer: timers, and entries with one masked.
ENOUGH = 100
FEW = 10

# On the host: changes modes, WFx masks and the physical CPUs of the vCPUs' threads, at random, until it is
# killed. The mode is `masked` most of the time. Says how many changes there were.
MEDDLER = """
import os, random, sys, time
random.seed(int(sys.argv[1]))
mode_file, own, *threads = sys.argv[2:]
paths = {{"mode": mode_file, "own": own, "control": "{control}", "guard": "{guard}"}}
files = {{name: os.open(path, os.O_WRONLY) for name, path in paths.items()}}
texts = {{
    "mode": ["masked"] * 8 + ["hw", "unmasked"],
    "own": ["0", "1", "2", "3", "system"],
    "control": ["0", "1", "2", "3"],
    "guard": ["N", "N", "Y"],
}}
done = dict.fromkeys([*files, "pin", "together"], 0)
while True:
    what = random.choice(list(done))
    if what in files:
        os.lseek(files[what], 0, 0)
        os.write(files[what], random.choice(texts[what]).encode())
    elif what == "pin":
        os.sched_setaffinity(int(random.choice(threads)), random.choice([{{0}}, {{1}}, {{0, 1}}]))
    else:
        cpu = random.randrange(2)
        for thread in threads:
            os.sched_setaffinity(int(thread), {{cpu}})
    done[what] += 1
    os.lseek(1, 0, 0)
    print(*(f"{{name}}={{count}}" for name, count in done.items()), flush=True)
    time.sleep(random.random() / 20)
"""

# In the guest: a CPU goes and comes.
HOTPLUG = """
import random, time
random.seed(5)
times = 0
while True:
    for state in "01":
        with open("{online}", "w") as file:
            file.write(state)
        time.sleep(random.random())
    times += 1
    print(times, flush=True)
"""

# On the host: other VMs come, use their timers, and go. Their timers are the monitor's too.
OTHERS = """
import subprocess
while True:
    for argv in (["{folder}/aarch64/psci_test"], ["{folder}/arch_timer", {options}]):
        done = subprocess.run(argv, capture_output=True, text=True)
        print(done.returncode, flush=True)
        if done.returncode:
            print(argv, done.stdout, done.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Iterator[Site]:
    with Site(machine).with_timers() as site:
        yield site


@pytest.fixture
def site(ready: Site) -> Iterator[Site]:
    """A machine whose kernels find no fault, and whose timers are masked in the end as in the beginning."""
    ready.reset()
    yield ready
    ready.reset()
    for system in ("host", "guest"):
        assert ready.complaints(system) == []


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> int:
    return SHORT_S if pytestconfig.getoption("--short") else LONG_S


def survived(site: Site, running: Background, seconds: int) -> int:
    """Wait for the end of a torture, check its books, print them; return how many timers fired."""
    wait_for(running, 2 * seconds + 300)
    result = books(site.guest, "kind=torture")
    print(f"\n{fired(result)} timers fired of {result['operations']} operations on {result['cpus']} CPUs:")
    print(*(f"{key}={value}" for key, value in result.items()))
    return fired(result)


@pytest.mark.timeout(3600)
def test_masked_alone_no_exit_is_redundant(site: Site, seconds: int) -> None:
    number = 0

    def run() -> None:
        nonlocal number
        number = survived(site, torture(site.guest, seconds // 3, 1), seconds // 3)

    grown = site.counted(run)
    print(grown)
    # Hundreds in a second, on an idle computer.
    assert number > ENOUGH
    assert grown.total("redundant_exits") == 0
    assert grown.host == 0
    assert min(row["masked_entries"] for row in grown.vcpus.values()) > FEW
    for vcpu, row in grown.vcpus.items():
        print(f"vCPU {vcpu}: {row['timer_exits']} timer exits, {grown.guest[vcpu]} timer interrupts")


def meddler(system: System, site: Site) -> Background:
    text = MEDDLER.format(control=CONTROL, guard=GUARD)
    threads = [str(thread) for thread in site.threads.values()]
    arguments = ["7", site.mode_file, site.own, *threads]
    return Background(system, shlex.join(["exec", "python3", "-I", "-S", "-c", text, *arguments]))


@pytest.mark.timeout(7200)
def test_no_timer_is_lost_whatever_the_host_does(site: Site, seconds: int) -> None:
    # More patience than in an idle host: what it counts as lost is not late by a second.
    options = [*OPTIONS["arch_timer"][:2], "-e", "1000000"]
    others = OTHERS.format(folder=KVM_SELFTESTS, options=str(options)[1:-1])
    before = site.stats()
    meddling = meddler(site.host, site)
    try:
        with (
            beside(site.host, others) as creating,
            beside(site.guest, HOTPLUG.format(online=ONLINE)) as plugging,
        ):
            number = survived(site, torture(site.guest, seconds, 2), seconds)
            wait_until(lambda: len(creating.output.split()) > 1, "another VM's end", 300)
            wait_until(lambda: len(plugging.output.split()) > 1, "a CPU to go and come")
            plugged = plugging.output.split()[-1]
            created = creating.output.removeprefix("started\n")
        assert not meddling.ended, meddling.output
        meddled = dict(word.split("=") for word in meddling.output.split())
    finally:
        meddling.kill()
        site.guest.write_text(ONLINE, "1\n")
    after = site.stats()
    print(f"meddled: {meddled}; CPU 1 went {plugged} times; other VMs: {len(created.split())}")
    for vcpu, row in after.items():
        print({name: value - before[vcpu][name] for name, value in row.items()})
    assert number > ENOUGH
    assert min(map(int, meddled.values())) > 0
    assert set(created.split()) == {"0"}, created
    # All modes had their share.
    for name in ("masked_entries", "redundant_exits"):
        assert sum(after[vcpu][name] - before[vcpu][name] for vcpu in after) > FEW, name
    for mode in (UNMASKED, HW, MASKED):
        site.set_mode(mode)
        grown = site.counted(lambda: survived(site, torture(site.guest, 2, 3), 2))
        assert (grown.total("redundant_exits") > 0) == (mode == UNMASKED), grown
        assert (grown.host > 0) == (mode == HW), grown
