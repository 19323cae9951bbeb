# SPDX-License-Identifier: Apache-2.0
"""The run-time choice of WFx traps under stress, on a host whose kernel looks for errors: `make stress`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.lab.lab import KVM_SELFTESTS
from cvmtune.lab.machine import Machine
from tests.vm.cq_poll_guest import Background, beside
from tests.vm.shared_machines import CVM_DEBUG
from tests.vm.test_stress_soft_ipi import SPLAT
from tests.vm.wfx_host import CONTROL, GUARD, Site

pytestmark = [pytest.mark.stress, pytest.mark.on(CVM_DEBUG)]

# Writes what may or may not be a mask, while another one does so too. What is one is told by the ABI's text.
FUZZ = """
import os, random, re, sys
random.seed(int(sys.argv[2]))
path, alone = sys.argv[3], sys.argv[4] == "alone"
file = os.open(path, os.O_RDWR)
read = lambda: os.pread(file, 4096, 0)
write = lambda text: (os.lseek(file, 0, 0), os.write(file, text))  # a seq_file takes no pwrite()
GROUP = rb"[0-9a-fA-F]{1,8}"
is_mask = lambda text: re.fullmatch(GROUP + rb"(," + GROUP + rb"){0,15}\\n?", text)
accepted = refused = 0
for number in range(int(sys.argv[1])):
    kind = random.randrange(5)
    if kind == 0:
        text = b"%x" % random.randrange(4)
    elif kind == 1:
        letters = b"0123456789abcdefABCDEF,xg \\n\\0-"
        text = bytes(random.choice(letters) for _ in range(random.randrange(1, 12)))
    elif kind == 2:
        text = bytes(random.randrange(256) for _ in range(random.randrange(1, 40)))
    elif kind == 3:
        text = b",".join(b"%08x" % random.randrange(1 << 32) for _ in range(random.randrange(1, 19)))
    else:
        text = b"0" * random.randrange(4080, 4120) + b"3\\n"
    before = read()
    try:
        write(text)
    except OSError:
        refused += 1
        assert not alone or read() == before, f"refused {text!r}, yet the mask changed"
        assert not is_mask(text), f"{text!r} refused"
    else:
        accepted += 1
        assert is_mask(text), f"{text!r} accepted"
        words = [int(word, 16) for word in text.strip(b"\\n").split(b",")]
        if alone:
            value = sum(word << 32 * n for n, word in enumerate(reversed(words)))
            assert int(read().replace(b",", b""), 16) == value, f"{text!r} became {read()!r}"
    assert re.fullmatch(rb"[0-9a-f]{8}(,[0-9a-f]{8}){0,15}\\n|system\\n", read()), read()
print(accepted, refused)
"""

# Changes all that there is to change, every millisecond; says how often.
FLIPS = """
import os, random, sys, time
random.seed(3)
own, control, guard = sys.argv[1], "{control}", "{guard}"
flips = 0
end = time.monotonic() + float(sys.argv[2])
files = {{path: os.open(path, os.O_WRONLY) for path in (own, control, guard)}}
while time.monotonic() < end:
    path = random.choice([control] * 8 + [own, own, guard])
    if path == own:
        text = random.choice([b"0", b"1", b"2", b"3", b"system"])
    elif path == guard:
        text = random.choice([b"Y", b"N"])
    else:
        text = b"%x" % random.randrange(4)
    os.lseek(files[path], 0, 0)
    os.write(files[path], text)
    flips += 1
    time.sleep(0.001)
print(flips)
"""

# In the guest: both CPUs must go on. Each tells the longest time that it was not seen to, in seconds.
WATCHDOG = """
import os, sys, time
longest = [0.0, 0.0]
children = []
for cpu in (0, 1):
    reader, writer = os.pipe()
    if not os.fork():
        os.sched_setaffinity(0, {cpu})
        worst, turns, last = 0.0, 0, time.monotonic()
        end = last + float(sys.argv[1])
        while last < end:
            time.sleep(0.01)
            now = time.monotonic()
            worst, turns, last = max(worst, now - last), turns + 1, now
        os.write(writer, b"%f %d" % (worst, turns))
        os._exit(0)
    os.close(writer)
    children.append(reader)
for reader in children:
    print(os.read(reader, 99).decode())
"""

# For a wake-up, in seconds: more than any busy computer takes.
PATIENCE = 30.0

LOADS = (
    "while :; do hackbench --groups 1 --loops 10; done",
    "while :; do /opt/cvmtune/pingpong futex 0 1 200 >/dev/null; done",
    "exec cyclictest --smp --interval=500 --distance=0 --quiet",
)


@pytest.fixture(scope="module")
def ready(machine: Machine) -> Site:
    return Site(machine)


@pytest.fixture
def site(ready: Site) -> Iterator[Site]:
    """A machine whose kernels find no fault, and whose vCPUs do what they do by default in the end."""
    ready.reset()
    yield ready
    ready.reset()
    with ready.timers():
        ready.watch(0, 1)
    for system in ("host", "guest"):
        console = ready.machine.console(system).read_text(errors="replace")
        assert [line for line in console.splitlines() if SPLAT.search(line)] == []


def script(system: System, text: str, *arguments: str) -> Background:
    return Background(system, shlex.join(["exec", "python3", "-I", "-S", "-c", text, *arguments]))


@pytest.mark.timeout(1800)
def test_fuzzed_masks(site: Site, pytestconfig: pytest.Config) -> None:
    number = "500" if pytestconfig.getoption("--short") else "5000"
    with site.timers():
        # One alone on each file, so that what was written must be what is read; then two on one.
        writers = [
            script(site.host, FUZZ, number, str(n), path, "alone")
            for n, path in enumerate((CONTROL, site.own))
        ]
        for writer in writers:
            assert writer.wait(900) == 0, writer.output
        writers = [script(site.host, FUZZ, number, str(n), CONTROL, "together") for n in (2, 3)]
        for writer in writers:
            assert writer.wait(900) == 0, writer.output
            accepted, refused = map(int, writer.output.split())
            assert min(accepted, refused) > int(number) / 10
            print(accepted, refused)


def made(creating: Background) -> list[str]:
    """The statuses of the VMs that were made."""
    return creating.output.removeprefix("started\n").split()


@pytest.mark.timeout(1800)
def test_flips_every_millisecond(site: Site, pytestconfig: pytest.Config) -> None:
    short = pytestconfig.getoption("--short")
    seconds = 10 if short else 120
    loads = [Background(site.guest, load) for load in LOADS]
    flips = FLIPS.format(control=CONTROL, guard=GUARD)
    # Other VMs come, run and go meanwhile.
    vms = f"""
        import subprocess
        while True:
            done = subprocess.run(["{KVM_SELFTESTS}/aarch64/psci_test"], capture_output=True)
            print(done.returncode, end=" ", flush=True)
    """
    before = site.statistics()
    try:
        with beside(site.host, vms) as creating:
            watchdog = script(site.guest, WATCHDOG, str(seconds))
            flipping = script(site.host, flips, site.own, str(seconds))
            end = time.monotonic() + seconds
            while time.monotonic() < end or not made(creating):
                # Threads of vCPUs move under way.
                site.pin("1", "0")
                time.sleep(0.2)
                site.pin("0", "1")
                time.sleep(0.3)
            assert flipping.wait(300) == 0, flipping.output
            assert watchdog.wait(300) == 0, watchdog.output
            created = made(creating)
    finally:
        for load in loads:
            load.kill()
    after = site.statistics()
    print(f"{flipping.output} flips; VMs made: {len(created)}; watchdog (longest gap s, turns):")
    print(watchdog.output)
    assert int(flipping.output) > 100
    assert set(created) == {"0"}
    for line in watchdog.output.splitlines():
        gap, turns = line.split()
        # A lost wake-up lasts until something else wakes the CPU, or for ever.
        assert float(gap) < PATIENCE
        assert int(turns) > 10
    for vcpu, row in after.items():
        for name in ("entries", "untrapped", "guarded", "wfi_exits"):
            assert row[name] > before[vcpu][name], (vcpu, name)
