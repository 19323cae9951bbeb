# SPDX-License-Identifier: Apache-2.0
"""Path lengths: reading the clock is taken off, the mask put back, a kernel without the feature served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.host import Host
from cvmtune.experiments.path_length import exit_path, hypercalls
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.soft_ipi.knob import PATH
from cvmtune.features.soft_ipi.paths import SoftIpiPaths
from cvmtune.features.wfx import knob as wfx
from cvmtune.features.wfx.switch import WfxSwitch
from cvmtune.lab.specs import MachineName
from tests.fakes.kernel import FakeKernel, WfxKernel

SAMPLES = {
    "clock_path": "16\n32\n",
    "send_path": "160\n176\n",
    "idle_path": "320\n321\n",
    "exit_path": "912\n896\n9000\n912\n",  # an interrupt in one of them
}
LOADED = ["insmod /tools/cvmtune_ipi.ko", "rmmod cvmtune_ipi"]


class Guest(FakeKernel):
    """Gives each kind of path its samples."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PATH, width=2, possible="0-1")
        self.modules: list[str] = []
        self.masks: list[set[int]] = []
        self.fails_at = ""
        self._samples = ""

    def read_text(self, path: str) -> str:
        if path == "/sys/kernel/debug/cvmtune_ipi/samples":
            assert self.modules == LOADED[:1], "read when there are none"
            return self._samples
        return super().read_text(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        if argv[0] != "sh":
            self.modules.append(" ".join(argv))
            return Completed(tuple(argv), 0, "", "", 0.1)
        assert self.modules == LOADED[:1]
        kind = argv[2].partition("kind=")[2].split()[0]
        self._samples = SAMPLES[kind]
        if self.exists(PATH):
            self.masks.append(self.cpus)
        return Completed(tuple(argv), 1 if kind == self.fails_at else 0, "", "", 1.0)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def collect(guest: Guest, state: str, *, on: bool) -> Round:
    (found,) = SoftIpiPaths().measure(Bench(guest, None, MachineName.PLAIN, "/tools"), state, on=on)
    return found


class Vmm(WfxKernel):
    """A host with the two threads of a guest's vCPUs."""

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        comms = "".join(f"/proc/7/task/{8 + vcpu}/comm:CPU {vcpu}/KVM\n" for vcpu in (0, 1))
        return Completed(tuple(argv), 0, comms, "", 0.1)


def collect_exits(guest: Guest, host: Vmm, *, on: bool) -> Series:
    bench = Bench(guest, Host(host, 7), MachineName.CVM, "/tools")
    with WfxSwitch().switched(bench, on=on, cpu=0):
        return exit_path(bench)


def test_reading_the_clock_is_taken_off(guest: Guest) -> None:
    found = collect(guest, "feature on", on=True)
    assert (found.state, found.index) == ("feature on", 0)
    assert {series.name: series.samples for series in found.series} == {
        "send_path": (144.0,),
        "idle_path": (296.5,),
    }
    assert {series.unit for series in found.series} == {"instructions"}
    assert guest.masks == [{0, 1}] * 3
    assert guest.cpus == set()
    assert guest.modules == LOADED


def test_kernel_without_the_feature_is_measured_too(guest: Guest) -> None:
    guest.remove()
    assert len(collect(guest, "not compiled in", on=False).series) == 2
    assert guest.written == []


def test_failure_leaves_the_guest_as_it_was(guest: Guest) -> None:
    guest.fails_at = "idle_path"
    with pytest.raises(CvmtuneError, match="idle_path"):
        collect(guest, "feature on", on=True)
    assert guest.cpus == set()
    assert guest.modules == LOADED


def test_exits_with_an_interrupt_in_them_are_left_out(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    host = Vmm(tmp_path / "host", wfx.PATH, width=2, possible="0-1")
    series = collect_exits(guest, host, on=True)
    assert series.samples == ((912 + 896 + 912) / 3,)
    assert host.written == ["3\n", "0\n"]
    assert host.cpus == set()
    assert guest.modules == LOADED


def test_exits_of_a_host_without_the_feature_are_measured_too(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    host = Vmm(tmp_path / "host", wfx.PATH, width=2, possible="0-1")
    host.remove()
    assert collect_exits(guest, host, on=False).samples == (2720 / 3,)
    assert host.written == []


def test_hypercalls_are_told_as_they_were_and_the_module_is_unloaded(guest: Guest) -> None:
    """Those with an interrupt in them too: to leave them out, or not, is up to who asks."""
    assert hypercalls(guest, "/tools") == [912, 896, 9000, 912]
    assert guest.modules == LOADED
    assert guest.written == []


def test_hypercalls_that_fail_unload_the_module(guest: Guest) -> None:
    guest.fails_at = "exit_path"
    with pytest.raises(CvmtuneError, match="exit_path"):
        hypercalls(guest, "/tools")
    assert guest.modules == LOADED
