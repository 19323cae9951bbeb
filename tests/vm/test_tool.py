# SPDX-License-Identifier: Apache-2.0
"""The tool in booted machines, as an operator uses it: under a load whose place is known, from end to end.

What its commands do on kernels that are not ours, or broken, is in tests/contract.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cvmtune.core.system import System
from cvmtune.experiments.guest import SGI_ROWS, named_interrupts
from cvmtune.experiments.host import Host
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.observe.procfs import parse_interrupts, parse_table
from tests.vm.cq_poll_guest import wait_until
from tests.vm.loads import background, nfs_writes, wake_ups
from tests.vm.shared_machines import PLAIN, Shared

SOFT_IPI = "/sys/kernel/soft_ipi_passthrough"
BOUND = "/sys/module/soft_ipi/parameters/poll_us"
POLLER = "/sys/kernel/ib_core_poll_cpu"
WFX = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
LOADED = (1, 2)
_SECONDS = 2

# With a CPU that the load is not on.
pytestmark = pytest.mark.on(Shared("cvm-3-cpus", "cvm", options=BootOptions(cpus=3)))


@pytest.fixture
def guest(machine: Machine) -> Iterator[System]:
    yield machine.guest
    tool(machine.guest, "rollback")


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    assert machine.host
    yield Host(machine.host, machine.vmm_pid)
    tool(machine.host, "rollback")


def tool(system: System, *words: str, status: int = 0) -> dict[str, Any]:
    """Run a command of the tool that must end with that status; return what it says."""
    done = system.run(["cvmtune", *words, "--json"], timeout=300)
    assert done.status == status, done
    return dict(json.loads(done.stdout)) if done.stdout else {}


@dataclass(frozen=True)
class Threshold:
    """What the advice on a feature wants of a load, in events a second (docs/tool.md), and the figures, by
    the ends of their names, that tell how many the load makes."""

    feature: str
    events: float
    figures: tuple[str, ...]


OF_IPIS = Threshold("ipi", 200, tuple(f"CPU {cpu}" for cpu in LOADED))
OF_RPCS = Threshold("cq-poll", 100, ("/mnt",))
OF_WFX = Threshold("wfx", 100, ("vCPU 1",))


def recommended(
    system: System, threshold: Threshold, tmp_path: Path, *, shared: bool = False
) -> dict[str, Any]:
    """What is recommended for the load that is on now, in a file for apply().

    The thresholds are for computers; how many events a second an emulated one makes says how fast this
    computer is today. So what the tool has recorded here is looked at as if it had happened on a computer
    that is as much faster, or slower, as brings this load to twice the threshold: all counts and shares stay.
    Unless the test has the vCPUs shared, what they lost is what others do on this computer, and is left out.
    """
    file = "/root/recording.json"
    live = tool(system, "recommend", "--seconds", str(_SECONDS), "--record", file)
    figures = advice(live, threshold.feature)["figures"]
    rates = [rate for name, rate in figures.items() if name.endswith(threshold.figures)]
    assert len(rates) == len(threshold.figures), figures
    assert min(rates) > 0, figures
    recording = tmp_path / "recording.json"
    times = 2 * threshold.events / min(rates)
    content = faster(json.loads(system.read_text(file)), times)
    recording.write_text(json.dumps(content if shared else unshared(content)))
    argv = [sys.executable, "-m", "cvmtune", "recommend", "--counters", str(recording), "--json"]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    if not shared:
        # `apply` would look at it again.
        found["own_cpus"] = False
    # The file's owner and mode matter: as a shell would make it.
    writer = "import sys; open('/root/recommendation.json', 'w').write(sys.stdin.read())"
    system.run(["python3", "-c", writer], input=json.dumps(found)).check()
    return dict(found)


def faster(recording: dict[str, Any], times: float) -> dict[str, Any]:
    """A recording of the same, with all spans of time that rates and shares are made of divided by that."""
    before, after = recording["before"]["files"], recording["after"]["files"]

    def shorten(path: str, fields: int, form: str) -> None:
        then, now = before[path].split(), after[path].split()
        spans = ((float(new) - float(old)) / times for old, new in zip(then, now, strict=True))
        words = [format(float(old) + span, form) for old, span in zip(then, spans, strict=True)]
        after[path] = " ".join([*words[:fields], *now[fields:]]) + "\n"

    shorten("/proc/uptime", 2, ".6f")
    for path in after.keys() & before.keys():
        # Time on a CPU, time waited for one, turns.
        if path.endswith("/schedstat"):
            shorten(path, 2, ".0f")
    return recording


def unshared(recording: dict[str, Any]) -> dict[str, Any]:
    """A recording of the same, with no time lost to others."""
    for capture in (recording["before"], recording["after"]):
        lines = (line.split(" ") for line in capture["files"]["/proc/stat"].split("\n"))
        # user nice system idle iowait irq softirq steal
        capture["files"]["/proc/stat"] = "\n".join(
            " ".join([*words[:8], "0", *words[9:]] if words[0].startswith("cpu") else words)
            for words in lines
        )
    return recording


def advice(found: dict[str, Any], feature: str) -> dict[str, Any]:
    (one,) = (one for one in found["advice"] if one["feature"] == feature)
    return dict(one)


@dataclass(frozen=True)
class Traffic:
    """IPIs that the loaded CPUs took, and exits of all vCPUs meanwhile."""

    hardware: int
    softly: int
    exits: float

    @property
    def ipis(self) -> int:
        return self.hardware + self.softly

    @property
    def exits_per_ipi(self) -> float:
        return self.exits / self.ipis


def traffic(guest: System, host: Host, ipis: int) -> Traffic:
    """What is counted until the loaded CPUs have taken so many IPIs."""

    def read() -> Traffic:
        exits = host.exits()
        rows = parse_interrupts(guest.read_text("/proc/interrupts"))
        hardware = sum(rows[row][cpu] for row in SGI_ROWS for cpu in LOADED)
        return Traffic(hardware, sum(rows[ROW][cpu] for cpu in LOADED), exits)

    before = read()
    wait_until(lambda: read().ipis >= before.ipis + ipis, f"{ipis} IPIs", pause=0.5)
    after = read()
    return Traffic(after.hardware - before.hardware, after.softly - before.softly, after.exits - before.exits)


def test_ipis_from_end_to_end(guest: System, host: Host, tmp_path: Path) -> None:
    with wake_ups(guest, *LOADED):
        found = recommended(guest, OF_IPIS, tmp_path)
        assert found["settings"].get("ipi") == "6", found["advice"]
        assert not advice(found, "cq-poll")["settings"]
        assert not advice(found, "wfx")["settings"]
        before = traffic(guest, host, 300)
        assert before.softly == 0
        # One when it is sent, one when it is taken, and more when the target was asleep (docs/figures.md).
        assert before.exits_per_ipi > 1, before

        plan = tool(guest, "apply", "/root/recommendation.json", "--dry-run")
        assert not plan["applied"]
        assert guest.read_text(SOFT_IPI) == "0\n"
        assert not guest.exists("/var/lib/cvmtune")
        tool(guest, "apply", "/root/recommendation.json")
        assert guest.read_text(SOFT_IPI) == "6\n"
        assert guest.read_text(BOUND) == f"{found['settings']['ipi-poll-us']}\n"
        # They come faster now, and more of them dwarf what else makes exits.
        on = traffic(guest, host, 1500)
        assert on.hardware < on.softly / 2, (before, on)
        # Ticks and devices make exits by the time: their share hangs on the computer, that of IPIs does not.
        assert on.exits_per_ipi < before.exits_per_ipi, (before, on)
        assert tool(guest, "verify")["in_force"]
        # What is on must not make the same load look like another.
        assert recommended(guest, OF_IPIS, tmp_path)["settings"]["ipi"] == "6"

        tool(guest, "rollback")
        assert (guest.read_text(SOFT_IPI), guest.read_text(BOUND)) == ("0\n", "0\n")
        after = traffic(guest, host, 300)
        assert after.softly == 0
        assert after.exits_per_ipi > on.exits_per_ipi, (on, after)


def wfi_exits(guest: System, host: Host) -> float:
    """Exits for WFI of vCPU 1 for each of its timers, of which it waits for many."""

    def read() -> tuple[int, int]:
        rows = parse_table(host.system.read_text(f"{host.vm_folder()}/wfx_trap_stats"))
        return int(rows[1]["wfi_exits"]), named_interrupts(guest.read_text("/proc/interrupts"), "arch_timer")[
            1
        ]

    before = read()
    wait_until(lambda: read()[1] >= before[1] + 100, "timers of CPU 1", pause=0.5)
    after = read()
    return (after[0] - before[0]) / (after[1] - before[1])


def test_wfx_from_end_to_end(guest: System, host: Host, tmp_path: Path) -> None:
    # A load for vCPU 1 alone, which always waits before the next timer.
    with background(guest, "exec taskset -c 1 cyclictest --threads=1 --relative --interval=3000 --quiet"):
        # It takes its time to start.
        before = wfi_exits(guest, host)
        # The slower the computer, the more timers have expired before it would wait for them.
        assert before > 0.1
        found = recommended(host.system, OF_WFX, tmp_path)
        assert found["settings"] == {"wfx-guard": "Y", "wfx": "2"}, advice(found, "wfx")["figures"]
        assert not advice(found, "ipi")["settings"]

        tool(host.system, "apply", "/root/recommendation.json")
        assert host.system.read_text(WFX) == "00000002\n"
        assert host.system.read_text(GUARD) == "Y\n"
        # The guard traps it now and then.
        on = wfi_exits(guest, host)
        assert on < before / 4, (before, on)
        assert tool(host.system, "verify")["in_force"]

        tool(host.system, "rollback")
        assert (host.system.read_text(WFX), host.system.read_text(GUARD)) == ("00000000\n", "N\n")
        after = wfi_exits(guest, host)
        assert after > before / 2, (before, after)


def test_latency_host(guest: System, host: Host) -> None:
    tool(guest, "apply", "latency-host", status=5)
    tool(host.system, "apply", "latency-host")
    assert host.system.read_text(WFX) == "00000007\n"
    tool(host.system, "apply", "database", status=5)


def test_profiles_stack_and_are_taken_back_at_once(guest: System) -> None:
    def applied() -> bool:
        # On a busy computer the guest does lose time to others now and then, and is refused.
        return guest.run(["cvmtune", "apply", "database"], timeout=300).status == 0

    wait_until(applied, "a second in which the guest loses no time", pause=1)
    assert guest.read_text(SOFT_IPI) == "6\n"
    tool(guest, "apply", "off")
    assert guest.read_text(SOFT_IPI) == "0\n"
    tool(guest, "rollback")
    assert tool(guest, "rollback")["settings"] == []


def test_wfx_is_refused_on_shared_cpus(guest: System, host: Host) -> None:
    with host.pinned(shared=True), background(guest, "exec cyclictest --smp --interval=1000 --quiet"):
        found = tool(host.system, "recommend", "--seconds", str(_SECONDS))
        assert not found["settings"], found["advice"]
        assert "shares CPU 0 with another vCPU" in advice(found, "wfx")["reason"]
        # The profile for such hosts wants vCPUs with CPUs of their own.
        tool(host.system, "apply", "latency-host", status=5)
        assert host.system.read_text(WFX) == "00000000\n"


def test_nothing_is_to_poll_on_an_overcommitted_guest(guest: System, host: Host, tmp_path: Path) -> None:
    with host.pinned(shared=True), wake_ups(guest, *LOADED), background(guest, "while :; do :; done"):
        found = recommended(guest, OF_IPIS, tmp_path, shared=True)
        assert not advice(found, "ipi")["settings"], found
        assert "overcommitted" in advice(found, "ipi")["reason"]


# What takes no hypervisor is quicker without.


@pytest.fixture
def floor(machine: Machine) -> Iterator[System]:
    yield machine.guest
    tool(machine.guest, "rollback")


@pytest.mark.on(PLAIN)
def test_polled_queues_from_end_to_end(floor: System, tmp_path: Path) -> None:
    computing = background(floor, "exec taskset -c 0 nice -n 19 sh -c 'while :; do :; done'")
    with nfs_writes(floor, 0), computing:
        found = recommended(floor, OF_RPCS, tmp_path)
        # The other one has no time to spare.
        assert found["settings"].get("cq-poll") == "1", found["advice"]
        tool(floor, "apply", "--cq-poll", "1", "--cq-idle-us", found["settings"]["cq-idle-us"])
        assert floor.read_text(POLLER) == "1\n"
        before = completions(floor)
        wait_until(lambda: completions(floor) > before + 100, "completions that are polled")
        assert tool(floor, "verify")["in_force"]

        floor.write_text("/sys/devices/system/cpu/cpu1/online", "0\n")
        try:
            assert tool(floor, "verify", status=1)["why"] == "changed since: cq-poll"
            tool(floor, "rollback")
            assert floor.read_text(POLLER) == "-1\n"
        finally:
            floor.write_text("/sys/devices/system/cpu/cpu1/online", "1\n")


def completions(guest: System) -> int:
    """What the poller has found so far."""
    rows = parse_table(guest.read_text("/sys/kernel/debug/ib_core_cq_poll/cqs"))
    return sum(int(row["completions"]) for row in rows)


@pytest.mark.on(PLAIN)
def test_killed_at_any_time_it_can_be_rolled_back(floor: System) -> None:
    """On the real files, at moments that nobody chose; each step in turn is tests/contract/test_kill.py's."""
    argv = ["cvmtune", "apply", "--ipi", "1-1", "--ipi-poll-us", "300"]
    took = floor.run([*argv, "--dry-run"], timeout=300).check().seconds
    for part in (0.7, 0.9, 1.0):
        floor.run(["timeout", "-s", "KILL", f"{part * took:.3f}", *argv], timeout=300)
        tool(floor, "rollback")
        assert (floor.read_text(SOFT_IPI), floor.read_text(BOUND)) == ("0\n", "0\n")
    assert not tool(floor, "verify")["applied"]
