# SPDX-License-Identifier: Apache-2.0
"""CPUs that are kept for others, cores and nodes: which CPU the poller gets for them, and what WFx costs."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest

from cvmtune.core.figure import Unknown
from cvmtune.features.feature import Advice
from cvmtune.observe.capture import CGROUPS, CPUS, Capture
from cvmtune.observe.isolation import kept, kept_untold, nodes, siblings
from cvmtune.observe.load import CpuLoad
from tests.fakes.bound import advise_cq_poll, advise_wfx
from tests.unit.test_advice_rules import NOBODY, OURS, cpu, mask, rdma, system, vcpu, vm

EFFECTIVE, ISOLATED = f"{CGROUPS}/cpuset.cpus.effective", f"{CGROUPS}/cpuset.cpus.isolated"


def partition(group: str, cpus: str, kind: str = "isolated") -> dict[str, str]:
    folder = f"{CGROUPS}/{group}"
    return {f"{folder}/cpuset.cpus.partition": f"{kind}\n", f"{folder}/cpuset.cpus.effective": f"{cpus}\n"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, {}),
        ({f"{CPUS}/isolated": "1\n", f"{CPUS}/nohz_full": "(null)\n"}, {1: "isolated (isolcpus)"}),
        ({f"{CPUS}/nohz_full": "1-2\n"}, dict.fromkeys((1, 2), "without a tick (nohz_full)")),
        ({ISOLATED: "1\n"}, {1: "isolated (a cpuset partition)"}),
        # From Linux 6.12 on the cpusets' list has those of the command line as well.
        (
            {f"{CPUS}/isolated": "1\n", ISOLATED: "1-2\n"},
            {1: "isolated (isolcpus)", 2: "isolated (a cpuset partition)"},
        ),
        # Before Linux 6.7 the partitions alone tell; "root" ones are kept for their group as well.
        (partition("rt.slice", "1"), {1: "a cpuset partition's"}),
        (partition("a/b", "2-3", "root"), dict.fromkeys((2, 3), "a cpuset partition's")),
        (partition("a", "1", "isolated invalid (Cpu list in cpuset.cpus not exclusive)"), {}),
        (partition("a", "1", "member"), {}),
        # However deep: what the top does not have is some partition's. Those offline are nobody's.
        ({EFFECTIVE: "0-2\n", f"{CPUS}/online": "0-3\n"}, {3: "a cpuset partition's"}),
        ({EFFECTIVE: "0-3\n", f"{CPUS}/online": "0-3\n"}, {}),
        ({EFFECTIVE: "\n", f"{CPUS}/online": "0-3\n"}, {}),
        ({ISOLATED: "x\n", EFFECTIVE: "\0\n", f"{CPUS}/isolated": "9-\n"}, {}),
    ],
)
def test_cpus_that_are_kept(files: Mapping[str, str], found: Mapping[int, str]) -> None:
    assert kept(Capture(files)) == found


def smt(*pairs: tuple[int, int]) -> dict[str, str]:
    """CPUs that are two threads of one core."""
    return {
        f"{CPUS}/cpu{one}/topology/thread_siblings_list": f"{a},{b}\n" for a, b in pairs for one in (a, b)
    }


def numa(*nodes: str, device: int | None = None) -> dict[str, str]:
    """The CPUs of each node, and a device's node."""
    files = {f"/sys/devices/system/node/node{at}/cpulist": f"{cpus}\n" for at, cpus in enumerate(nodes)}
    at = {} if device is None else {"/sys/class/infiniband/mlx5_0/device/numa_node": f"{device}\n"}
    return files | at


def test_cores_and_nodes() -> None:
    found = siblings(Capture({**smt((0, 2), (1, 3)), f"{CPUS}/cpu9/topology/thread_siblings_list": "x\n"}))
    assert {cpu: beside.to_list() for cpu, beside in found.items()} == {0: "2", 2: "0", 1: "3", 3: "1"}
    assert nodes(Capture(numa("0-1", "2-3"))) == {0: 0, 1: 0, 2: 1, 3: 1}


def chosen(
    files: Mapping[str, str], cpus: list[CpuLoad] | None = None, polling: tuple[int, ...] = ()
) -> tuple[str | None, str]:
    """The poller's CPU of four that idle, and the reason."""
    load = system(cpus=cpus or [cpu()] * 4, files={**OURS, **files}, mounts=[rdma(1000)])
    found: Advice = advise_cq_poll(load, mask(*polling))
    return found.settings.get("cq-poll"), found.reason


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({ISOLATED: "3\n"}, "left out: CPU 3 (isolated: a cpuset partition)"),
        ({f"{CPUS}/isolated": "3\n"}, "left out: CPU 3 (isolated: isolcpus)"),
        ({f"{CPUS}/nohz_full": "3\n"}, "left out: CPU 3 (without a tick: nohz_full)"),
        (partition("rt.slice", "3"), "left out: CPU 3 (a cpuset partition's)"),
    ],
)
def test_poller_keeps_off_cpus_that_are_kept(files: Mapping[str, str], words: str) -> None:
    where, reason = chosen(files)
    assert where == "2"
    assert words in reason
    where, reason = chosen({path: text.replace("3", "0-3") for path, text in files.items()})
    assert where is None
    assert words.replace("CPU 3", "CPUs 0-3") in reason


def test_poller_is_near_the_device() -> None:
    where, reason = chosen(numa("0-1", "2-3", device=0))
    assert where == "1"
    assert "it is on mlx5_0's NUMA node" in reason
    # Where none there is free, another is better than none; and -1 is no node.
    where, reason = chosen(numa("0-1", "2-3", device=0), [cpu(idle=0.1), cpu(idle=0.1), cpu(), cpu()])
    assert where == "3"
    assert "it is not on mlx5_0's NUMA node" in reason
    where, reason = chosen(numa("0-1", "2-3", device=-1))
    assert where == "3"
    assert "NUMA" not in reason


def test_poller_is_near_the_device_that_is_at_work() -> None:
    files = {**OURS, **numa("0-1", "2-3", device=0), "/sys/class/infiniband/b/device/numa_node": "1\n"}
    load = system(files=files, mounts=[rdma(1000)])
    for name, where in (("mlx5_0", "1"), ("b", "3")):
        at_work = replace(load, rdma={f"{name}/ports/1/hw_counters/x": 5.0})
        assert advise_cq_poll(at_work, NOBODY).settings["cq-poll"] == where


def test_poller_shares_no_core_with_who_is_busy() -> None:
    files = smt((0, 2), (1, 3))
    where, reason = chosen(files, [cpu(), cpu(idle=0.3), cpu(), cpu()])
    assert where == "2"
    assert "the other thread of its core (SMT), CPU 0, is idle enough" in reason
    assert chosen(files, polling=(1,))[0] == "2"
    # A core of which one thread is kept for others is theirs too.
    assert chosen({**files, ISOLATED: "1\n"})[0] == "2"
    where, reason = chosen(files, [cpu(idle=0.3), cpu(idle=0.3), cpu(), cpu()])
    assert where == "3"
    assert "CPU 1, is busy, polls or is another's" in reason


def test_cores_of_four_threads_are_in_the_plural() -> None:
    files = {f"{CPUS}/cpu{one}/topology/thread_siblings_list": "0-3\n" for one in range(4)}
    assert "the other threads of its core (SMT), CPUs 0-2, are idle enough" in chosen(files)[1]


@pytest.mark.parametrize(
    ("unreadable", "told"),
    [
        ({f"{CPUS}/nohz_full": errno.EACCES}, False),
        ({f"{CGROUPS}/rt.slice/cpuset.cpus.partition": errno.EACCES}, False),
        # A group that went meanwhile.
        ({f"{CGROUPS}/rt.slice/cpuset.cpus.partition": errno.ENODEV}, True),
        ({f"{CPUS}/present": errno.EACCES}, True),
    ],
)
def test_cpus_of_which_it_cannot_be_told_whether_they_are_kept(
    unreadable: Mapping[str, int], told: bool
) -> None:
    assert bool(kept_untold(Capture({}, unreadable))) is not told


@pytest.mark.parametrize(("text", "told"), [("", True), ("(null)\n", True), ("1,3\n", True), ("9-\n", False)])
def test_lists_that_are_none_tell_nothing(text: str, told: bool) -> None:
    assert bool(kept_untold(Capture({f"{CPUS}/isolated": text}))) is not told


def test_cpu_of_which_it_is_not_known_whether_it_idles_gets_no_poller() -> None:
    hidden = replace(cpu(), idle=Unknown("/proc/stat is hidden"), busy=Unknown("/proc/stat is hidden"))
    assert chosen({}, [cpu(), cpu(), cpu(), hidden])[0] == "2"
    where, reason = chosen({}, [hidden] * 4)
    assert where is None
    assert "/proc/stat is hidden" in reason


# WFx


def test_vcpus_on_two_threads_of_a_core_are_told() -> None:
    files = {**OURS, **smt((2, 3))}
    found = advise_wfx(system("host", files=files, vms=[vm(vcpu(0, [2]), vcpu(1, [3]))]))
    assert found.settings["wfx"] == "3"
    assert "which a WFI leaves to the other: vCPUs 0 and 1 of VM one (CPUs 2 and 3)" in found.cost
    assert "core" not in advise_wfx(system("host", vms=[vm(vcpu(0, [2]), vcpu(1, [3]))])).cost


def test_vcpu_whose_core_another_vm_has_too_is_refused() -> None:
    files = {**OURS, **smt((2, 3))}
    vms = [vm(vcpu(0, [2]), vcpu(1, [4])), vm(vcpu(0, [3]), name="two")]
    found = advise_wfx(system("host", files=files, vms=vms))
    assert found.settings["wfx"] == "2"
    assert "vCPU 0 of VM one shares CPU 2's core with CPU 3, vCPU 0 of VM two's (SMT)" in found.reason
    # One that is not pinned is there as well; the vCPUs of its own VM are no strangers.
    floating = [vm(vcpu(0, [2])), vm(vcpu(0, [3, 7]), vcpu(1, [3, 7]), name="two", own=NOBODY)]
    found = advise_wfx(system("host", files=files, vms=floating))
    assert not found.settings
    assert "shares CPU 2's core with CPU 3, where vCPUs of VM two may run (SMT)" in found.reason
    own = advise_wfx(system("host", files=files, vms=[vm(vcpu(0, [2]), vcpu(1, [3, 7]))]))
    assert own.settings["wfx"] == "1"
    # A thread that is nobody's vCPU's does not matter.
    assert advise_wfx(system("host", files={**OURS, **smt((2, 7))}, vms=[vm(vcpu(0, [2]))])).settings


def test_vcpu_beside_whom_it_is_not_known_who_runs_is_refused() -> None:
    hidden = replace(vcpu(0, [2]), beside=Unknown("/proc/stat is hidden"))
    found = advise_wfx(system("host", vms=[vm(hidden, vcpu(1, [3]))]))
    assert found.settings["wfx"] == "2"
    assert "whether others run there cannot be told: /proc/stat is hidden" in found.reason
