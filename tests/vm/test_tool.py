# SPDX-License-Identifier: Apache-2.0
"""The tool in booted machines, as an operator uses it: under a load whose place is known, from end to end.

What its commands do on kernels that are not ours, or broken, is in tests/contract.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cq_poll_guest import wait_until
from loads import background, nfs_writes, wake_ups

from cvmtune.core.system import System
from cvmtune.experiments.guest import SGI_ROWS
from cvmtune.experiments.host import Host
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.observe.procfs import parse_interrupts, parse_table

SOFT_IPI = "/sys/kernel/soft_ipi_passthrough"
BOUND = "/sys/module/soft_ipi/parameters/poll_us"
POLLER = "/sys/kernel/ib_core_poll_cpu"
WFX = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
CPUS = 3
LOADED = (1, 2)
_SECONDS = 2


@pytest.fixture(scope="module")
def cvm(lab: Lab) -> Iterator[Machine]:
    """As the others' `cvm`, with a CPU that the load is not on."""
    with lab.boot("cvm", options=BootOptions(cpus=CPUS)) as machine:
        yield machine


@pytest.fixture
def guest(cvm: Machine) -> Iterator[System]:
    yield cvm.guest
    tool(cvm.guest, "rollback")


@pytest.fixture
def floor(plain: Machine) -> Iterator[System]:
    """A guest that is quicker, for what takes no hypervisor."""
    yield plain.guest
    tool(plain.guest, "rollback")


@pytest.fixture
def host(cvm: Machine) -> Iterator[Host]:
    assert cvm.host
    yield Host(cvm.host, cvm.vmm_pid)
    tool(cvm.host, "rollback")


def tool(system: System, *words: str, status: int = 0) -> dict[str, Any]:
    """Run a command of the tool that must end with that status; return what it says."""
    done = system.run(["cvmtune", *words, "--json"], timeout=300)
    assert done.status == status, done
    return dict(json.loads(done.stdout)) if done.stdout else {}


def recommended(system: System) -> dict[str, Any]:
    """What is recommended now, in a file for apply()."""
    found = tool(system, "recommend", "--seconds", str(_SECONDS))
    # The file's owner and mode matter: as a shell would make it.
    writer = "import sys; open('/root/recommendation.json', 'w').write(sys.stdin.read())"
    system.run(["python3", "-c", writer], input=json.dumps(found)).check()
    return found


def advice(found: dict[str, Any], feature: str) -> dict[str, Any]:
    (one,) = (one for one in found["advice"] if one["feature"] == feature)
    return dict(one)


@dataclass(frozen=True)
class Traffic:
    """What was counted over some seconds: IPIs that the loaded CPUs took, and exits of all vCPUs."""

    hardware: int
    softly: int
    exits: float

    @property
    def hardware_share(self) -> float:
        return self.hardware / (self.hardware + self.softly)

    def exits_per_ipi(self, quiet: Traffic) -> float:
        """Exits for each IPI, less those of the same time without a load."""
        return (self.exits - quiet.exits) / (self.hardware + self.softly)


def traffic(guest: System, host: Host) -> Traffic:
    def read() -> tuple[int, int, float]:
        rows = parse_interrupts(guest.read_text("/proc/interrupts"))
        return (
            sum(rows[row][cpu] for row in SGI_ROWS for cpu in LOADED),
            sum(rows["SIPI"][cpu] for cpu in LOADED),
            host.exits(),
        )

    before = read()
    time.sleep(_SECONDS)
    after = read()
    return Traffic(after[0] - before[0], after[1] - before[1], after[2] - before[2])


def test_ipis_from_end_to_end(guest: System, host: Host) -> None:
    quiet = traffic(guest, host)
    with wake_ups(guest, *LOADED):
        found = recommended(guest)
        assert found["settings"].get("ipi") == "6", found["advice"]
        assert not advice(found, "cq-poll")["settings"]
        assert not advice(found, "wfx")["settings"]
        before = traffic(guest, host)
        assert before.hardware > 200
        assert before.softly == 0
        # One when it is sent, one when it is taken, and more when the target was asleep (docs/figures.md).
        assert before.exits_per_ipi(quiet) > 1, (quiet, before)

        plan = tool(guest, "apply", "/root/recommendation.json", "--dry-run")
        assert not plan["applied"]
        assert guest.read_text(SOFT_IPI) == "0\n"
        assert not guest.exists("/var/lib/cvmtune")
        tool(guest, "apply", "/root/recommendation.json")
        assert guest.read_text(SOFT_IPI) == "6\n"
        assert guest.read_text(BOUND) == f"{found['settings']['ipi-poll-us']}\n"
        on = traffic(guest, host)
        assert on.hardware_share < 0.3, (before, on)
        assert on.exits_per_ipi(quiet) < before.exits_per_ipi(quiet) / 2, (quiet, before, on)
        assert tool(guest, "verify")["in_force"]
        # What is on must not make the same load look like another.
        assert recommended(guest)["settings"]["ipi"] == "6"

        tool(guest, "rollback")
        assert (guest.read_text(SOFT_IPI), guest.read_text(BOUND)) == ("0\n", "0\n")
        after = traffic(guest, host)
        assert after.softly == 0
        assert after.exits_per_ipi(quiet) > before.exits_per_ipi(quiet) / 2, (quiet, before, after)


def wfi_exits(host: Host) -> list[float]:
    """Exits for WFI of each vCPU, a second."""

    def read() -> list[int]:
        rows = parse_table(host.system.read_text(f"{host.vm_folder()}/wfx_trap_stats"))
        return [int(row["wfi_exits"]) for row in rows]

    before = read()
    time.sleep(_SECONDS)
    return [(now - then) / _SECONDS for then, now in zip(before, read(), strict=True)]


def test_wfx_from_end_to_end(guest: System, host: Host) -> None:
    # A load for vCPU 1 alone, which leaves an emulated CPU time to wait in between.
    with background(guest, "exec cyclictest --threads=1 --affinity=1 --interval=3000 --quiet"):
        # It takes its time to start.
        wait_until(lambda: wfi_exits(host)[1] > 200, "wake-ups of CPU 1")
        found = recommended(host.system)
        assert found["settings"] == {"wfx-guard": "Y", "wfx": "2"}, advice(found, "wfx")["figures"]
        assert not advice(found, "ipi")["settings"]
        before = wfi_exits(host)

        tool(host.system, "apply", "/root/recommendation.json")
        assert host.system.read_text(WFX) == "00000002\n"
        assert host.system.read_text(GUARD) == "Y\n"
        on = wfi_exits(host)
        assert on[1] < before[1] / 4, (before, on)
        assert tool(host.system, "verify")["in_force"]

        tool(host.system, "rollback")
        assert (host.system.read_text(WFX), host.system.read_text(GUARD)) == ("00000000\n", "N\n")
        after = wfi_exits(host)
        assert after[1] > before[1] / 2, (before, after)


def test_latency_host(guest: System, host: Host) -> None:
    tool(guest, "apply", "latency-host", status=5)
    tool(host.system, "apply", "latency-host")
    assert host.system.read_text(WFX) == "00000007\n"
    tool(host.system, "apply", "database", status=5)


def test_profiles_stack_and_are_taken_back_at_once(guest: System) -> None:
    tool(guest, "apply", "database")
    assert guest.read_text(SOFT_IPI) == "6\n"
    tool(guest, "apply", "off")
    assert guest.read_text(SOFT_IPI) == "0\n"
    tool(guest, "rollback")
    assert tool(guest, "rollback")["settings"] == []


# From here on the guest has lost time to others since its boot.


def test_wfx_is_refused_on_shared_cpus(guest: System, host: Host) -> None:
    with host.pinned(shared=True), background(guest, "exec cyclictest --smp --interval=1000 --quiet"):
        found = recommended(host.system)
        assert not found["settings"], found["advice"]
        assert "shares CPU 0 with another vCPU" in advice(found, "wfx")["reason"]
        # The profile for such hosts wants vCPUs with CPUs of their own.
        tool(host.system, "apply", "latency-host", status=5)
        assert host.system.read_text(WFX) == "00000000\n"


def test_nothing_is_to_poll_on_an_overcommitted_guest(guest: System, host: Host) -> None:
    with host.pinned(shared=True), wake_ups(guest, *LOADED), background(guest, "while :; do :; done"):
        found = recommended(guest)
        assert not advice(found, "ipi")["settings"], found


def test_polled_queues_from_end_to_end(floor: System) -> None:
    with nfs_writes(floor, 0):
        found = recommended(floor)
        # The writer is on the other.
        assert found["settings"].get("cq-poll") == "1", found["advice"]
        tool(floor, "apply", "--cq-poll", "1", "--cq-idle-us", found["settings"]["cq-idle-us"])
        assert floor.read_text(POLLER) == "1\n"
        before = completions(floor)
        time.sleep(_SECONDS)
        assert completions(floor) - before > 100
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


def test_killed_at_any_time_it_can_be_rolled_back(floor: System) -> None:
    """On the real files, at moments that nobody chose; each step in turn is tests/contract/test_kill.py's."""
    argv = ["cvmtune", "apply", "--ipi", "1-1", "--ipi-poll-us", "300"]
    took = floor.run([*argv, "--dry-run"]).check().seconds
    for part in (0.6, 0.8, 0.9, 1.0, 1.1):
        floor.run(["timeout", "-s", "KILL", f"{part * took:.3f}", *argv])
        tool(floor, "rollback")
        assert (floor.read_text(SOFT_IPI), floor.read_text(BOUND)) == ("0\n", "0\n")
    assert not tool(floor, "verify")["applied"]
