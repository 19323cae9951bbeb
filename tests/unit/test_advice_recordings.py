# SPDX-License-Identifier: Apache-2.0
"""What is recommended for loads that were recorded in the lab, and are known: tests/vm/loads.py.

All are of machine `cvm` with 4 vCPUs on 4 physical CPUs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmtune.cli import main
from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.feature import Advice
from cvmtune.observe.load import Load
from cvmtune.observe.recording import parse
from tests.fakes.bound import advise, load

RECORDINGS = Path(__file__).parent / "recordings"


def number(figure: Figure) -> float:
    assert not isinstance(figure, Unknown)
    return figure


def recorded(name: str) -> Load:
    path = RECORDINGS / f"{name}.json"
    return load(*parse(path.read_text(encoding="utf-8"), str(path)))


def advised(name: str) -> dict[str, Advice]:
    return {one.feature: one for one in advise(recorded(name))}


def settings(name: str) -> dict[str, str]:
    return {key: value for one in advised(name).values() for key, value in one.settings.items()}


@pytest.mark.parametrize(
    "name", ["guest-idle", "guest-timers", "guest-overcommitted", "host-idle", "host-overcommitted"]
)
def test_nothing_is_recommended(name: str) -> None:
    assert settings(name) == {}


def test_wake_ups_between_two_vcpus() -> None:
    found = advised("guest-wake-ups")
    assert found["ipi"].settings["ipi"] == "c"
    assert "ALL" not in found["ipi"].cost
    assert not found["cq-poll"].settings


def test_timers_are_no_ipis() -> None:
    """They wake every CPU a thousand times a second, and still nobody is to poll for IPIs."""
    seen = recorded("guest-timers")
    assert all(number(cpu.interrupts) > 500 for cpu in seen.cpus.values())
    assert "no CPU takes 200 IPIs a second" in advised("guest-timers")["ipi"].reason


def test_a_writer_gets_a_poller_elsewhere() -> None:
    seen = recorded("guest-nfs-writes")
    found = advised("guest-nfs-writes")["cq-poll"]
    chosen = int(found.settings["cq-poll"])
    # It was on CPU 0.
    assert chosen != 0
    assert number(seen.cpus[chosen].idle) >= 0.25
    assert any(mount.transport == "rdma" and number(mount.rpcs) > 100 for mount in seen.mounts)
    assert int(found.settings["cq-idle-us"]) >= 1000 * min(number(mount.rtt_ms) for mount in seen.mounts)


def test_wake_ups_beside_a_writer() -> None:
    found = advised("guest-mixed")
    # RDMA in software sends IPIs of its own, so that more than the two may be named.
    assert CpuMask.from_hex("c") <= CpuMask.from_hex(found["ipi"].settings["ipi"])
    assert found["cq-poll"].settings["cq-poll"] not in ("2", "3")


def test_an_overcommitted_guest_is_told_so() -> None:
    """The very load that is worth polling for where vCPUs own their CPUs."""
    seen = recorded("guest-overcommitted")
    assert max(number(cpu.steal) for cpu in seen.cpus.values()) > 0.1
    assert "this guest is overcommitted" in advised("guest-overcommitted")["ipi"].reason


def test_vcpus_that_wait_on_cpus_of_their_own() -> None:
    found = advised("host-timers")["wfx"]
    assert found.settings == {"wfx-guard": "Y", "wfx": "f"}
    assert "masked" in recorded("host-timers").vms[0].now.files["vtimer_mode"]


def test_vcpus_on_one_cpu_are_refused() -> None:
    assert "vCPU 0 of VM" in advised("host-overcommitted")["wfx"].reason
    assert "shares CPU 0 with another vCPU" in advised("host-overcommitted")["wfx"].reason


def test_a_vcpu_beside_a_busy_task_is_left_out() -> None:
    found = advised("host-beside-a-task")["wfx"]
    assert found.settings["wfx"] == "d"
    assert "left out: vCPU 1" in found.reason


def test_command_line_takes_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--counters", str(RECORDINGS / "guest-wake-ups.json")]) == 0
    out = capsys.readouterr().out
    assert "c = 2-3" in out
    assert "IPIs a second" in out
