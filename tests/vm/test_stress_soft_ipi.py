# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough under stress on the kernels that look for errors: `make stress`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import pytest

from cvmtune.core.system import System
from cvmtune.experiments.guest import loaded_module
from cvmtune.lab.lab import GUEST_TOOLS
from cvmtune.lab.machine import Machine
from tests.vm.shared_machines import DEBUG, KCSAN, MANY_CPUS
from tests.vm.soft_ipi_guest import BOUND, CONTROL, statistics, storm

pytestmark = [pytest.mark.stress, pytest.mark.on(DEBUG, pytest.param(KCSAN, marks=pytest.mark.long))]

# What a debug kernel says when it has found something. KCSAN's own reports are looked at apart.
SPLAT = re.compile(
    r"WARNING:|BUG:(?! KCSAN)|KASAN|possible recursive locking|circular locking|inconsistent lock state"
    r"|suspicious RCU usage|INFO: task .* blocked|rcu.*detected stalls|soft lockup|hard LOCKUP|Oops"
)
# A race's headline names the two functions that access the data. Those of others (timers, the scheduler) are
# there without the feature too, and not ours to judge; they are printed.
RACE = re.compile(r"BUG: KCSAN: .*")
OURS = re.compile(r"soft_ipi|smp_cross_call|arm64_handle_ipi|arm64_idle_interrupt|cvmtune")

# Run in the guest while the storm blows: each line a thing that must not disturb it.
DISTURBERS = {
    "mask flips every millisecond": """
        import os, random, time
        random.seed(1)
        fd = os.open("/sys/kernel/soft_ipi_passthrough", os.O_WRONLY)
        while True:
            os.pwrite(fd, b"%x" % random.randrange(16), 0)
            time.sleep(0.001)
    """,
    "bound changes": """
        import os, random, time
        random.seed(2)
        fd = os.open("/sys/module/soft_ipi/parameters/poll_us", os.O_WRONLY)
        while True:
            os.pwrite(fd, b"%d" % random.choice([0, 0, 20, 200, 5000]), 0)
            time.sleep(0.05)
    """,
    "CPU hotplug": """
        import os, random, time
        random.seed(3)
        while True:
            path = "/sys/devices/system/cpu/cpu%d/online" % random.randrange(1, 4)
            for state in "01":
                with open(path, "w") as file:
                    file.write(state)
                time.sleep(random.random() / 4)
    """,
    "module load": """
        import subprocess
        while True:
            subprocess.run(["insmod", "/opt/cvmtune/cvmtune_ipi.ko"], check=True)
            subprocess.run(["rmmod", "cvmtune_ipi"], check=True)
    """,
    "wake-ups from user space": """
        import subprocess
        while True:
            subprocess.run(["hackbench", "-g", "1", "-l", "20"], stdout=subprocess.DEVNULL, check=True)
    """,
}

# Writes what may or may not be a mask; the file must then hold the old mask or, if accepted, the new one.
FUZZ = """
import os, random, sys
PATH = "/sys/kernel/soft_ipi_passthrough"
random.seed(int(sys.argv[2]))
fd = os.open(PATH, os.O_RDWR)
read = lambda: int(os.pread(fd, 4096, 0).replace(b",", b""), 16)
alphabet = b"0123456789abcdefABCDEF,xg \\n\\0-"
accepted = refused = 0
now = read()
for number in range(int(sys.argv[1])):
    kind = random.randrange(4)
    if kind == 0:
        text = b"%x" % random.randrange(24)
    elif kind == 1:
        text = bytes(random.choice(alphabet) for _ in range(random.randrange(1, 12)))
    elif kind == 2:
        text = bytes(random.randrange(256) for _ in range(random.randrange(1, 40)))
    else:
        text = b",".join(b"%08x" % random.randrange(1 << 32) for _ in range(random.randrange(1, 300)))
    try:
        os.pwrite(fd, text, 0)
    except OSError:
        refused += 1
        assert read() == now, f"refused {text!r}, yet the mask changed"
    else:
        accepted += 1
        now = read()
        assert now < 16, f"{text!r} named CPUs that do not exist"
        digits = bytes(c for c in text.split(b"\\n")[0] if c in b"0123456789abcdefABCDEF")
        assert digits, f"{text!r} is no mask"
        if kind == 0:
            assert now == int(text, 16), f"{text!r} became {now:x}"
print(accepted, refused)
"""


@pytest.fixture
def guest(machine: Machine) -> Iterator[System]:
    """A guest whose kernel finds no fault, and in which nobody is named in the end."""
    yield machine.guest
    machine.guest.write_text(CONTROL, "0")
    assert reports(machine) == []


def reports(machine: Machine) -> list[str]:
    """What the kernel has found fault with, one text each."""
    log = machine.guest.run(["dmesg"]).check().stdout
    found = [line for line in log.splitlines() if SPLAT.search(line)]
    races = set(RACE.findall(log))
    print("\n".join(sorted(races)))
    return found + [race for race in races if OURS.search(race)]


def disturb(system: System, scripts: list[str]) -> None:
    for name in scripts:
        script = textwrap.dedent(DISTURBERS[name])
        system.write_text("/dev/kmsg", f"cvmtune: starting {name}")
        started = (
            f"nohup python3 -c '{script}' >/tmp/disturber.log 2>&1 </dev/null & echo $! >>/tmp/disturbers"
        )
        system.run(["sh", "-c", started]).check()


def calm(system: System) -> None:
    """End the disturbers; each must have lasted until now."""
    alive = system.run(["sh", "-c", "kill $(cat /tmp/disturbers)"])
    log = system.run(["cat", "/tmp/disturber.log"]).stdout
    system.run(["rm", "-f", "/tmp/disturbers", "/tmp/disturber.log"])
    for cpu in range(1, MANY_CPUS):
        system.write_text(f"/sys/devices/system/cpu/cpu{cpu}/online", "1")
    system.write_text(BOUND, "0")
    assert alive.status == 0, f"a disturber ended by itself: {alive.stderr} {log}"


def test_no_ipi_is_lost_whatever_else_happens(guest: System, pytestconfig: pytest.Config) -> None:
    seconds = 20 if pytestconfig.getoption("--short") else 300
    cpus = range(MANY_CPUS)
    before = [statistics(guest, cpu) for cpu in cpus]
    with loaded_module(guest, GUEST_TOOLS, "cvmtune_storm"):
        disturb(guest, list(DISTURBERS))
        try:
            result = storm(guest, seconds)
        finally:
            calm(guest)
    after = [statistics(guest, cpu) for cpu in cpus]
    print({name: value for name, value in result.items() if name.startswith("handled_")})
    # A storm that never met a polling CPU would have shown nothing.
    for kind in ("reschedule", "call_function", "timer"):
        assert sum(after[cpu][kind] - before[cpu][kind] for cpu in cpus) > 0, kind


def test_fuzzed_writes_leave_the_old_mask_or_a_new_valid_one(
    guest: System, pytestconfig: pytest.Config
) -> None:
    writes = 2_000 if pytestconfig.getoption("--short") else 10_000
    done = guest.run(["python3", "-c", FUZZ, str(writes), "7"], timeout=600).check()
    accepted, refused = map(int, done.stdout.split())
    assert accepted > writes // 10
    assert refused > writes // 10


def test_concurrent_writers_leave_one_of_their_masks(guest: System, pytestconfig: pytest.Config) -> None:
    times = 50 if pytestconfig.getoption("--short") else 200
    script = (
        "for mask in 1 2 4 8 f; do"
        f' (for i in $(seq {times}); do echo $mask >{CONTROL} || exit 1; done) & pids="$pids $!"; done;'
        " for pid in $pids; do wait $pid || exit 1; done"
    )
    guest.run(["sh", "-c", script], timeout=600).check()
    assert int(guest.read_text(CONTROL), 16) in (1, 2, 4, 8, 15)


def test_the_kselftest_passes(guest: System) -> None:
    done = guest.run([f"{GUEST_TOOLS}/soft_ipi_passthrough"], timeout=300)
    assert done.status == 0, done.stdout
