# SPDX-License-Identifier: Apache-2.0
"""A host of 200 VMs with 16 vCPUs each: nothing is read, or worked out, more often than it must be.

What a command takes there is printed (pytest -s), and asserted nowhere.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from typing import Any

import pytest

from cvmtune.features.wfx import advice
from cvmtune.observe import vms
from tests.fakes.controls import WFX
from tests.fakes.kernel import WfxKernel
from tests.fakes.tree import UPTIME, Machine, Vcpu, Vm, our_host

VMS, VCPUS, CPUS = 200, 16, 256
_OF_VCPU = re.compile(r"/proc/\d+/task/\d+/(\w+)")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = our_host(tmp_path_factory.mktemp("dense") / "root")
    for vm in machine.vms:
        shutil.rmtree(machine.file(vm.folder))
    machine.vms = [
        # Twelve VMs and a half share each CPU, as the host of such density has it.
        Vm(f"vm{n}", 10_000 + 100 * n, [Vcpu(str((n * VCPUS + vcpu) % CPUS)) for vcpu in range(VCPUS)])
        for n in range(VMS)
    ]
    machine.cpus = [machine.cpus[0]] * CPUS
    machine.add(WfxKernel(machine.root, WFX, CPUS, f"0-{CPUS - 1}"))
    machine.go_on()
    return machine


class Calls:
    """How often functions of a module are called."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.counted: Counter[str] = Counter()
        self._patch = patch

    def count(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def counting(*arguments: Any) -> Any:
            self.counted[name] += 1
            return real(*arguments)

        self._patch.setattr(module, name, counting)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def reads(machine: Machine) -> Counter[str]:
    """How often files of threads were read, by what they are, in all."""
    found: Counter[str] = Counter()
    for (operation, path), count in machine.system.operations.items():
        if operation == "read" and (match := _OF_VCPU.fullmatch(path)):
            found[match[1]] += count
    return found


def most(machine: Machine, operation: str) -> int:
    """How often the file, or folder, was touched that was touched most."""
    return max(n for (one, _), n in machine.system.operations.items() if one == operation)


def test_status(dense: Machine, calls: Calls) -> None:
    calls.count(vms, "_find")
    dense.system.operations.clear()
    start = time.process_time()
    outcome = dense.run("status", "--json")
    print(f"\nstatus of {VMS} VMs: {time.process_time() - start:.2f} s of a CPU's time")
    (wfx,) = (one for one in outcome.json["features"] if one["name"] == "wfx")
    assert (wfx["statistics"]["vms"], wfx["unknown"]) == (VMS, {})
    assert wfx["statistics"]["wfi_exits"] == dense.uptime * 2000 * VMS * VCPUS
    # Once for the whole capture, whoever asks for VMs.
    assert calls.counted == {"_find": 1}
    # Each VM has a thread beside its vCPUs', of which the name is looked at.
    assert reads(dense) == {"comm": VMS * (VCPUS + 1), "status": VMS * VCPUS}
    assert most(dense, "list") == 1


def test_recommend(dense: Machine, calls: Calls) -> None:
    calls.count(vms, "_find")
    calls.count(advice, "unowned")
    dense.system.operations.clear()
    # Time passes, and nothing else does: to write all files anew would be most of what is timed.
    dense.system.at("read", UPTIME, lambda: dense.put(UPTIME, f"{dense.uptime + 10}.00 1.00\n"), nth=2)
    start = time.process_time()
    outcome = dense.run("recommend", "--seconds", "0.01", "--json")
    print(f"\nrecommend for {VMS} VMs: {time.process_time() - start:.2f} s of a CPU's time")
    (wfx,) = (one for one in outcome.json["advice"] if one["feature"] == "wfx")
    assert not wfx["settings"]
    assert "shares CPU 0 with another vCPU" in wfx["reason"]
    assert len(wfx["figures"]) == VMS * (VCPUS + 1)
    # A capture before, and one after.
    assert calls.counted == {"_find": 2, "unowned": 1}
    each = VMS * VCPUS * 2
    assert reads(dense) == {
        "comm": VMS * (VCPUS + 1) * 2,
        **dict.fromkeys(("status", "schedstat", "cgroup"), each),
    }
    assert most(dense, "list") == 2
