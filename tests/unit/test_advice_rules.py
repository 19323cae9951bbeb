# SPDX-License-Identifier: Apache-2.0
"""The rules of recommendations at their thresholds, on loads made up for it.

Loads recorded in the lab: test_advice_recordings.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.cq_poll.advice import MIN_RPCS, WINDOW_US
from cvmtune.features.feature import Advice
from cvmtune.features.soft_ipi.advice import BOUND_US, MIN_IPIS
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.wfx.advice import MAX_BESIDE, MAX_WAITED, MIN_WFX_EXITS
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.load import CpuLoad, Load, VcpuLoad, VmLoad
from cvmtune.observe.nfs_load import NfsLoad
from cvmtune.observe.platform import Flavour, Role
from cvmtune.observe.platform import Platform as Place
from cvmtune.observe.steal import MAX_STEAL
from cvmtune.observe.vms import Vcpu, Vm
from tests.fakes.bound import KNOBS, advise, advise_cq_poll, advise_ipi, advise_vtimer, advise_wfx

SOFT_IPI = "/sys/kernel/soft_ipi_passthrough"
BOUND = "/sys/module/soft_ipi/parameters/poll_us"
POLLER = "/sys/kernel/ib_core_poll_cpu"
WINDOW = "/sys/module/ib_core_cq_poll/parameters/idle_us"
WFX = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
OURS = dict.fromkeys((SOFT_IPI, BOUND, POLLER, WINDOW, WFX, GUARD), "0\n") | {POLLER: "-1\n"}
NOBODY = CpuMask(frozenset())
SECONDS = 10.0


def mask(*cpus: int) -> CpuMask:
    return CpuMask(frozenset(cpus))


def cpu(ipis: float = 0.0, *, idle: float = 0.9, steal: float = 0.0, soft: float = 0.0) -> CpuLoad:
    kinds = {"reschedule": ipis, "call function": 0.0, "timer broadcast": 0.0, "irq work": 0.0}
    return CpuLoad(kinds, {ROW: soft}, 100.0, 100.0, busy=1 - idle - steal, idle=idle, steal=steal)


def system(
    role: Role = "guest",
    *,
    cpus: Sequence[CpuLoad] = (cpu(), cpu(), cpu(), cpu()),
    files: Mapping[str, str] = OURS,
    flavour: Flavour = "ours",
    mounts: Sequence[NfsLoad] = (),
    vms: Sequence[VmLoad] = (),
    unreadable: Mapping[str, int] | None = None,
) -> Load:
    every = mask(*range(len(cpus)))
    return Load(
        place=Place(role, None, "", flavour, "6.12", every, every, NOBODY),
        now=Capture(files, unreadable or {}),
        seconds=SECONDS,
        cpus=dict(enumerate(cpus)),
        context_switches=0.0,
        mounts=mounts,
        rdma={},
        server_rpcs=0.0,
        server_over_rdma=False,
        vms=vms,
    )


def rdma(rpcs: float, rtt_ms: float = 0.4, transport: str = "rdma") -> NfsLoad:
    return NfsLoad(("/mnt",), transport, rpcs, rtt_ms)


@dataclass(frozen=True)
class Exiting(VcpuLoad):
    """A vCPU with its exits for WFI and WFE a second, None where they are counted for its VM only."""

    exits: float | None = 1000.0


def vcpu(
    number: int,
    allowed: Sequence[int],
    exits: float | None = 1000.0,
    *,
    beside: Figure = 0.0,
    waited: Figure = 0.0,
    sleeps: Figure = 0.0,
) -> VcpuLoad:
    now = Vcpu(number, 100 + number, mask(*allowed), 0, 0, 0, False)
    return Exiting(now, 0.5, waited, sleeps, beside if len(allowed) == 1 else None, False, exits)


def vm(*vcpus: VcpuLoad, name: str = "one", own: CpuMask | None = None, mode: str | None = None) -> VmLoad:
    exits = {one.now.vcpu: one.exits for one in vcpus if isinstance(one, Exiting)}
    counted = {vcpu: rate for vcpu, rate in exits.items() if rate is not None}
    header = "vcpu entries untrapped guarded wfi_exits wfe_exits\n"

    def files(seconds: float) -> dict[str, str]:
        rows = "".join(f"{vcpu} 0 0 0 {rate * seconds:.0f} 0\n" for vcpu, rate in counted.items())
        total = sum(1000.0 if rate is None else rate for rate in exits.values()) * seconds
        own_mask = {} if own is None else {"wfx_trap_config": f"{own.to_hex()}\n"}
        modes = {} if mode is None else {"vtimer_mode": f"{mode}\n"}
        return {
            "wfx_trap_stats": header + rows,
            "wfi_exit_stat": f"{total:.0f}\n",
            "wfe_exit_stat": "0\n",
            **own_mask,
            **modes,
        }

    before, now = (
        Vm(f"{name}-1", name, [one.now for one in vcpus], files(seconds)) for seconds in (0.0, SECONDS)
    )
    return VmLoad(now, before, vcpus)


# Feature 1


def test_ipi_names_the_cpus_that_take_them() -> None:
    found = advise_ipi(system(cpus=[cpu(20), cpu(30), cpu(4000, idle=0.6), cpu(4100, idle=0.5)]))
    assert found.settings == {"ipi-poll-us": "1000", "ipi": "c"}
    assert "CPUs 2-3 take 4000, 4100 IPIs a second" in found.reason
    assert "8100 IPIs a second" in found.gain
    assert "1.10 more physical CPUs" in found.cost
    assert "ALL" not in found.cost


def test_ipi_says_what_all_cpus_cost() -> None:
    found = advise_ipi(system(cpus=[cpu(2000, idle=0.8)] * 4))
    assert found.settings["ipi"] == "f"
    assert "ALL 4 vCPUs poll: up to 3.20 more physical CPUs" in found.cost


@pytest.mark.parametrize(("rate", "named"), [(MIN_IPIS - 1, False), (MIN_IPIS, True)])
def test_ipi_leaves_it_off_for_few(rate: float, named: bool) -> None:
    found = advise_ipi(system(cpus=[cpu(), cpu(rate)]))
    assert found.settings.get("ipi") == ("2" if named else None)
    if not named:
        assert f"the most is {rate:.0f}" in found.reason


def test_ipi_leaves_out_who_takes_few_beside_the_others() -> None:
    found = advise_ipi(system(cpus=[cpu(MIN_IPIS + 100), cpu(10 * MIN_IPIS + 2000)]))
    assert found.settings["ipi"] == "2"


def test_ipi_counts_soft_ones_and_keeps_who_polls() -> None:
    """Once it is on, the same load must lead to the same mask: polling counts as idle, or as busy."""
    found = advise_ipi(system(cpus=[cpu(10), cpu(5, soft=4000, idle=0.0)]))
    assert found.settings["ipi"] == "2"


def test_ipi_is_of_no_use_to_who_never_idles() -> None:
    found = advise_ipi(system(cpus=[cpu(), cpu(4000, idle=0.01)]))
    assert not found.settings
    assert "only an idle CPU polls" in found.reason


@pytest.mark.parametrize(("steal", "refused"), [(MAX_STEAL, False), (MAX_STEAL + 0.001, True), (0.4, True)])
def test_nothing_polls_on_an_overcommitted_guest(steal: float, refused: bool) -> None:
    load = system(cpus=[cpu(idle=0.5, steal=steal), cpu(4000, idle=0.5)], mounts=[rdma(1000)])
    for found in (advise_ipi(load), advise_cq_poll(load, NOBODY)):
        assert bool(found.settings) is not refused
        assert ("overcommitted" in found.reason) is refused


def test_ipi_minds_cpuidle() -> None:
    deep = "/sys/devices/system/cpu/cpu1/cpuidle/state1/disable"
    load = system(cpus=[cpu(), cpu(4000)], files={**OURS, deep: "0\n"})
    found = advise_ipi(load)
    assert not found.settings
    assert "cpuidle may take CPU 1 deeper than WFI" in found.reason
    assert advise_ipi(replace(load, now=Capture({**OURS, deep: "1\n"}))).settings["ipi"] == "2"


def test_ipi_without_the_feature_tells_who_it_would_have_named() -> None:
    found = advise_ipi(system(cpus=[cpu(), cpu(4000)], files={}, flavour="neither"))
    assert not found.settings
    assert "CPU 1 takes 4000" in found.reason
    assert "no soft IPI passthrough" in found.reason


def test_ipi_on_a_vendors_kernel_sets_no_bound() -> None:
    found = advise_ipi(system(cpus=[cpu(), cpu(4000)], files={SOFT_IPI: "0\n"}, flavour="vendor"))
    assert found.settings == {"ipi": "2"}


@pytest.mark.parametrize("role", ["host", "machine"])
def test_ipi_is_for_guests(role: Role) -> None:
    found = advise_ipi(system(role, cpus=[cpu(4000), cpu(4000)]))
    assert (found.settings, found.reason) == ({}, "it is a guest's feature, and this is no guest")
    # One may be both.
    nested = {**OURS, "/proc/device-tree/compatible": "linux,dummy-virt\0"}
    assert "no guest" not in advise_ipi(system("host", files=nested)).reason


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=64))
def test_ipi_bound_keeps_within_its_ends(rates: list[float]) -> None:
    found = advise_ipi(system(cpus=[cpu(rate) for rate in rates]))
    if found.settings:
        assert BOUND_US[0] <= int(found.settings["ipi-poll-us"]) <= BOUND_US[1]
        named = CpuMask.from_hex(found.settings["ipi"])
        assert all(rates[one] >= MIN_IPIS for one in named)
        assert max(rates) in [rates[one] for one in named]
    else:
        assert max(rates) < MIN_IPIS


# Feature 2


def test_vtimer_has_nothing_to_set() -> None:
    for load, says in (
        (system("guest"), "nothing to set"),
        (system("host"), "no VM here has it"),
        (system("host", vms=[vm(vcpu(0, [0]), mode="masked")]), "on for the one VM here"),
        (
            system("host", vms=[vm(vcpu(0, [at]), name=n, mode="masked") for at, n in enumerate("ab")]),
            "all 2 VMs",
        ),
        (
            system("host", vms=[vm(vcpu(0, [0]), mode="hw")]),
            "VM one is not in mode masked, which is no setting",
        ),
        (
            system("host", vms=[vm(vcpu(0, [at]), name=n, mode="hw") for at, n in enumerate("ab")]),
            "VMs a, b are not in mode masked, which is no setting: write that to their vtimer_mode",
        ),
    ):
        found = advise_vtimer(load)
        assert not found.settings
        assert says in found.reason


# Feature 3


def test_cq_poll_takes_the_cpu_that_idles_most() -> None:
    load = system(cpus=[cpu(idle=0.3), cpu(idle=0.5), cpu(idle=0.9), cpu(idle=0.4)], mounts=[rdma(1000)])
    found = advise_cq_poll(load, NOBODY)
    assert found.settings == {"cq-idle-us": "1000", "cq-poll": "2"}
    assert "1000 RPCs a second, 0.40 ms each; CPU 2 idles 90%" in found.reason
    assert "up to 1 CPU, number 2" in found.cost


def test_cq_poll_takes_the_last_of_equals_and_keeps_off_soft_ipis() -> None:
    load = system(mounts=[rdma(1000)])
    assert advise_cq_poll(load, NOBODY).settings["cq-poll"] == "3"
    assert advise_cq_poll(load, mask(2, 3)).settings["cq-poll"] == "1"
    assert advise_cq_poll(load, mask(0, 1, 2, 3)).settings["cq-poll"] == "3"


def test_cq_poll_keeps_off_cpus_that_are_vcpus_own() -> None:
    """To the host such a CPU looks idle while its vCPU waits."""
    load = system("host", mounts=[rdma(1000)], vms=[vm(vcpu(0, [2]), vcpu(1, [3]))])
    assert advise_cq_poll(load, NOBODY).settings["cq-poll"] == "1"
    isolated = replace(load.place, isolated=mask(1))
    assert advise_cq_poll(replace(load, place=isolated), NOBODY).settings["cq-poll"] == "0"


def test_vendors_poller_is_not_changed_under_a_server() -> None:
    load = system(files={POLLER: "Current polling core is: 2\n"}, flavour="vendor")
    found = advise_cq_poll(replace(load, server_rpcs=2000.0, server_over_rdma=True), NOBODY)
    assert not found.settings
    assert "stop the NFS server" in found.reason


def test_ipi_of_one_cpu_is_in_the_singular() -> None:
    found = advise_ipi(system(cpus=[cpu(), cpu(4000, idle=0.7)]))
    assert found.reason.startswith("CPU 1 takes 4000 IPIs a second; it idles 70% of its time; ")
    found = advise_ipi(system(cpus=[cpu(), cpu(4000, idle=0.01)]))
    assert "but it hardly idles: only" in found.reason
    found = advise_ipi(system(cpus=[cpu(4000)], files={SOFT_IPI: "0\n"}, flavour="vendor"))
    assert found.cost.startswith("its ONLY vCPU polls: 1 physical CPU busy always")


def test_ipi_is_of_no_use_with_nohlt() -> None:
    files = {**OURS, "/proc/cmdline": "console=ttyAMA0 nohlt\n"}
    assert "nohlt" in advise_ipi(system(cpus=[cpu(), cpu(4000)], files=files)).reason


def test_ipi_says_what_polling_without_a_bound_costs() -> None:
    found = advise_ipi(system(cpus=[cpu(4000)] * 4, files={SOFT_IPI: "0\n"}, flavour="vendor"))
    assert "ALL 4 vCPUs poll: 4 physical CPUs busy always" in found.cost


def test_states_that_are_no_deeper_than_wfi_do_not_matter() -> None:
    state = "/sys/devices/system/cpu/cpu1/cpuidle/state1"
    for name, deep in (("WFI", False), ("haltpoll idle", False), ("cpu-sleep-0", True)):
        files = {**OURS, f"{state}/disable": "0\n", f"{state}/name": f"{name}\n"}
        assert bool(advise_ipi(system(cpus=[cpu(), cpu(4000)], files=files)).settings) is not deep


def test_wfx_threshold_is_one_vcpus_not_all_vms_together() -> None:
    vms = [vm(vcpu(0, [one], MIN_WFX_EXITS / 2), name=str(one)) for one in range(4)]
    assert not advise_wfx(system("host", vms=vms)).settings


def test_cq_poll_stays_where_it_polls() -> None:
    """A CPU that polls does not idle. To move the poller for that would be to move it for ever."""
    files = {**OURS, POLLER: "1\n"}
    load = system(cpus=[cpu(), cpu(idle=0.0), cpu(), cpu()], files=files, mounts=[rdma(1000)])
    found = advise_cq_poll(load, NOBODY)
    assert found.settings["cq-poll"] == "1"
    assert "CPU 1 polls already" in found.reason


def test_cq_poll_window_outlasts_the_storages_answer() -> None:
    for rtt_ms, window in ((0.1, 1000), (0.6, 2000), (4.2, 9000), (500, WINDOW_US[1])):
        load = system(mounts=[rdma(1000, rtt_ms)])
        assert advise_cq_poll(load, NOBODY).settings["cq-idle-us"] == str(window)


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (system(), "no NFS over RDMA"),
        (system(mounts=[rdma(5000, transport="tcp")]), "no NFS over RDMA"),
        (system(mounts=[rdma(MIN_RPCS - 1)]), "less than 100"),
        (system(cpus=[cpu()], mounts=[rdma(1000)]), "there is 1"),
        (system(cpus=[cpu(idle=0.2)] * 4, mounts=[rdma(1000)]), "no CPU that is free for it idles 25%"),
        (system(files={}, flavour="neither", mounts=[rdma(1000)]), "modprobe ib_core_cq_poll"),
    ],
)
def test_cq_poll_is_left_off(load: Load, says: str) -> None:
    found = advise_cq_poll(load, NOBODY)
    assert not found.settings
    assert says in found.reason


def test_cq_poll_is_never_changed_under_a_vendors_mount() -> None:
    files = {POLLER: "Current polling thread is down\n"}
    found = advise_cq_poll(system(files=files, flavour="vendor", mounts=[rdma(1000)]), NOBODY)
    assert not found.settings
    assert "unmount /mnt, turn polling on, mount again" in found.reason


def test_cq_poll_serves_a_server_too() -> None:
    load = replace(system(), server_rpcs=2000.0, server_over_rdma=True)
    assert advise_cq_poll(load, NOBODY).settings["cq-poll"] == "3"
    assert not advise_cq_poll(replace(load, server_over_rdma=False), NOBODY).settings


# Feature 4


def test_wfx_names_vcpus_with_cpus_of_their_own() -> None:
    found = advise_wfx(system("host", vms=[vm(vcpu(0, [2]), vcpu(1, [3]))]))
    assert found.settings == {"wfx-guard": "Y", "wfx": "3"}
    assert "vCPUs 0-1 of 1 VM are each pinned" in found.reason
    assert "up to 2000 exits a second fewer" in found.gain
    assert "2 physical CPUs that show as 100 % busy" in found.cost


@pytest.mark.parametrize(
    ("vms", "named", "says"),
    [
        ([vm(vcpu(0, [0, 1]), vcpu(1, [0, 1]))], None, "is not pinned (CPUs 0-1)"),
        ([vm(vcpu(0, [0]), vcpu(1, [0]))], None, "shares CPU 0 with another vCPU"),
        ([vm(vcpu(0, [0], beside=MAX_BESIDE + 0.01), vcpu(1, [1]))], "2", "with others, which took 16%"),
        ([vm(vcpu(0, [0], waited=MAX_WAITED + 0.01), vcpu(1, [1]))], "2", "waited 11.0% of the time"),
        ([vm(vcpu(0, [0])), vm(vcpu(0, [1, 2]), name="two")], None, "of VM two is not pinned"),
        ([vm(vcpu(0, [0]), vcpu(1, [1])), vm(vcpu(0, [1]), name="two")], None, "shares CPU 1"),
    ],
)
def test_wfx_is_refused_on_shared_cpus(vms: list[VmLoad], named: str | None, says: str) -> None:
    found = advise_wfx(system("host", vms=vms))
    assert found.settings.get("wfx") == named
    assert says in found.reason


def test_wfx_mask_is_not_for_vms_with_one_of_their_own() -> None:
    shared = vm(vcpu(0, [2, 3]), name="two", own=NOBODY)
    assert advise_wfx(system("host", vms=[vm(vcpu(0, [0])), shared])).settings["wfx"] == "1"
    assert "masks of their own" in advise_wfx(system("host", vms=[shared])).reason


def test_wfx_tells_what_a_vm_alone_could_have() -> None:
    """One host has pinned VMs and others: the mask for all then names nobody, a VM's own may."""
    vms = [vm(vcpu(0, [0]), vcpu(1, [1])), vm(vcpu(0, [2, 3]), vcpu(1, [2, 3]), name="two")]
    own = {f"/sys/kernel/debug/kvm/{one}-1/wfx_trap_config": "system\n" for one in ("one", "two")}
    found = advise_wfx(system("host", files={**OURS, **own}, vms=vms))
    assert not found.settings
    assert "VM one alone could have 3 = 0-1, written to its /sys/kernel/debug/kvm/one-1/" in found.reason
    assert "VM two alone" not in found.reason
    assert "alone could" not in advise_wfx(system("host", vms=vms)).reason


def test_wfx_is_for_vcpus_that_wait_often() -> None:
    few = MIN_WFX_EXITS - 1
    found = advise_wfx(system("host", vms=[vm(vcpu(0, [0], few), vcpu(1, [1]))]))
    assert found.settings["wfx"] == "2"
    assert not advise_wfx(system("host", vms=[vm(vcpu(0, [0], few))])).settings


def test_wfx_goes_on_for_vcpus_that_are_named() -> None:
    """A vCPU that is not trapped makes no such exits any more."""
    load = system("host", files={**OURS, WFX: "00000003\n"}, vms=[vm(vcpu(0, [0], 0.0), vcpu(1, [1], 0.0))])
    assert advise_wfx(load).settings["wfx"] == "3"


def counted_for_vms(exits: float | None, *sleeps: Figure) -> Load:
    """A vendor's host of one VM whose exits are counted for all its vCPUs together; how often these sleep."""
    vcpus = [vcpu(n, [n], None, sleeps=one) for n, one in enumerate(sleeps)]
    one = vm(*vcpus)
    files = {} if exits is None else {"wfi_exit_stat": f"{exits * SECONDS:.0f}\n", "wfe_exit_stat": "0\n"}
    assert one.before
    one = replace(
        one,
        now=replace(one.now, files=files),
        before=replace(one.before, files={"wfi_exit_stat": "0\n", "wfe_exit_stat": "0\n"}),
    )
    return system("host", cpus=[cpu()] * len(sleeps), files={WFX: "0\n"}, flavour="vendor", vms=[one])


@pytest.mark.parametrize(
    ("exits", "sleeps", "named", "gain"),
    [
        (1000, [0.0], "1", 1000),  # the one vCPU's, whether or not it sleeps
        (4000, [4000.0, *[0.0] * 7], "1", 4000),
        (6000, [3000.0, 3000.0, *[1.0] * 30], "3", 5970),
        # In part they are halt polling's, and no sleeps.
        (5000, [4000.0, 0.0], "1", 4000),
        # Other things let a thread sleep too: the VM's exits bound what WFI is.
        (2000, [4000.0, 10.0], "1", 1995),
    ],
)
def test_wfx_counted_for_a_vm_only_is_those_vcpus_that_sleep(
    exits: float, sleeps: list[Figure], named: str, gain: int
) -> None:
    found = advise_wfx(counted_for_vms(exits, *sleeps))
    assert found.settings == {"wfx": named}
    assert f"up to {gain} exits a second fewer" in found.gain
    assert found.figures["WFx exits a second of VM one"] == exits
    assert found.figures["sleeps a second of VM one, vCPU 0"] == sleeps[0]


@pytest.mark.parametrize(
    ("exits", "sleeps"),
    [
        (0, [3000.0, 3000.0]),
        (50, [3000.0, 0.0]),
        (99, [0.0, 0.0]),
        (150, [60.0, 90.0]),
        (0, [Unknown("x")] * 2),
    ],
)
def test_wfx_counted_for_a_vm_only_may_be_too_few(exits: float, sleeps: list[Figure]) -> None:
    found = advise_wfx(counted_for_vms(exits, *sleeps))
    assert not found.settings
    assert "no vCPU with a CPU of its own makes 100 WFx exits a second" in found.reason
    assert "cannot be told" not in found.reason


@pytest.mark.parametrize(
    ("exits", "sleeps", "why"),
    [
        (None, [3000.0, 3000.0], "wfi_exit_stat is missing"),
        (4000, [Unknown("its thread came meanwhile"), 0.0], "its thread came meanwhile"),
        (4000, [0.0, 0.0], "more WFx exits than their threads sleep"),
        (150, [500.0, 500.0], "sleep more often than these make WFx exits"),
    ],
)
def test_wfx_that_nothing_tells_by_vcpu_is_left_off(
    exits: float | None, sleeps: list[Figure], why: str
) -> None:
    found = advise_wfx(counted_for_vms(exits, *sleeps))
    assert not found.settings
    assert "it cannot be told which vCPUs wait often; left out: vCPUs 0-1, as " in found.reason
    assert why in found.reason


def test_wfx_names_who_waits_and_says_of_whom_it_cannot_be_told() -> None:
    found = advise_wfx(counted_for_vms(4000, 2000.0, 0.0))
    assert found.settings == {"wfx": "1"}
    assert "left out: vCPU 1, as its VM's vCPUs make more WFx exits" in found.reason


def test_wfx_is_refused_where_it_cannot_be_told_who_else_runs() -> None:
    gone = Unknown("there is no schedstat of its thread")
    for first in (vcpu(0, [0], beside=gone), vcpu(0, [0], waited=gone)):
        found = advise_wfx(system("host", vms=[vm(first, vcpu(1, [1]))]))
        assert found.settings["wfx"] == "2"
        assert "vCPU 0 of VM one is bound to CPU 0, and" in found.reason
        assert "cannot be told: there is no schedstat of its thread" in found.reason


GONE = Unknown("x")


@pytest.mark.parametrize(
    ("vms", "lead"),
    [
        (
            [vm(vcpu(0, [0], beside=GONE), vcpu(1, [1], waited=GONE))],
            "it cannot be told whether a vCPU has a CPU of its own: vCPU 0",
        ),
        ([vm(vcpu(0, [0], beside=GONE), vcpu(1, [1, 2]))], "no vCPU is known to have a CPU of its own: "),
        ([vm(vcpu(0, [0]), vcpu(1, [0]))], "no vCPU has a CPU of its own: "),
        # What is known of one VM settles it for the mask, which is for all.
        (
            [vm(vcpu(0, [0], beside=GONE)), vm(vcpu(0, [1, 2]), name="two")],
            "no vCPU has a CPU of its own: vCPU 0 of VM two is not pinned",
        ),
    ],
)
def test_wfx_says_whether_it_is_known_that_nobody_has_a_cpu(vms: list[VmLoad], lead: str) -> None:
    found = advise_wfx(system("host", vms=vms))
    assert not found.settings
    assert found.reason.startswith(lead)


def test_wfx_counts_the_cpus_of_a_process_with_two_vms_once() -> None:
    one = vm(vcpu(0, [2]), vcpu(1, [3]))
    assert one.before
    other = replace(one, now=replace(one.now, folder="one-2"), before=replace(one.before, folder="one-2"))
    found = advise_wfx(system("host", vms=[one, other]))
    assert found.cost.startswith("2 physical CPUs that show")


@pytest.mark.parametrize(
    ("files", "partitioned", "its"),
    [
        (
            {f"{CPUS}/isolated": "2-3\n"},
            False,
            "own, reserved as isolated (isolcpus), ",
        ),
        ({}, True, "own, reserved as a cpuset partition's, "),
        ({f"{CPUS}/isolated": "2\n"}, False, "own, of which"),
    ],
)
def test_wfx_names_what_reserves_the_cpus(files: dict[str, str], partitioned: bool, its: str) -> None:
    isolated = CpuMask.from_list(files.get(f"{CPUS}/isolated", "").strip())
    vcpus = [
        replace(one, reserved=partitioned or one.now.pinned_to in isolated)
        for one in (vcpu(0, [2]), vcpu(1, [3]))
    ]
    found = advise_wfx(system("host", files={**OURS, **files}, vms=[vm(*vcpus)]))
    assert f"pinned to a CPU of its {its}" in found.reason


def test_wfx_guard_that_cannot_be_read_is_told() -> None:
    files = {path: text for path, text in OURS.items() if path != GUARD}
    found = advise_wfx(system("host", files=files, unreadable={GUARD: 13}, vms=[vm(vcpu(0, [0]))]))
    assert found.settings == {"wfx": "1"}
    assert "whether the guard is on cannot be told, and it is not set" in found.cost
    assert "cannot be read (Permission denied)" in found.cost


def test_wfx_figures_of_a_vm_that_cannot_be_read_are_not_known() -> None:
    hidden = vm(vcpu(0, [1], None))
    names = ("wfx_trap_config", "wfi_exit_stat", "wfe_exit_stat")
    reasons = dict.fromkeys(names, "kernel lockdown")
    hidden = replace(hidden, now=replace(hidden.now, files={}, unreadable=reasons))
    found = advise_wfx(system("host", vms=[hidden]))
    assert isinstance(found.figures["WFx exits a second of VM one"], Unknown)
    unseen = advise_wfx(system("host", unreadable={"/sys/kernel/debug": 13}))
    assert isinstance(unseen.figures["WFx exits a second"], Unknown)


def test_wfx_is_refused_while_a_vm_cannot_be_read() -> None:
    """Its mask may be its own, and its exits are not known."""
    for file in ("wfx_trap_config", "wfi_exit_stat"):
        other = vm(vcpu(0, [1]), name="two")
        hidden = replace(other, now=replace(other.now, unreadable={file: "kernel lockdown"}))
        found = advise_wfx(system("host", vms=[vm(vcpu(0, [0])), hidden]))
        assert (found.settings, found.reason) == ({}, "VMs cannot be read: kernel lockdown (two)")


def test_wfx_is_refused_while_a_mask_is_not_understood() -> None:
    odd = vm(vcpu(0, [0]))
    odd = replace(odd, now=replace(odd.now, files={**odd.now.files, "wfx_trap_config": "?\n"}))
    found = advise_wfx(system("host", vms=[odd]))
    assert (found.settings, found.reason) == (
        {},
        "VM one: wfx_trap_config shows something else than a mask",
    )


def test_wfx_control_that_cannot_be_read() -> None:
    files = {path: text for path, text in OURS.items() if path != WFX}
    found = advise_wfx(system("host", files=files, unreadable={WFX: 13}, vms=[vm(vcpu(0, [0]))]))
    assert not found.settings
    assert "the mask cannot be read: Permission denied" in found.reason


def test_vtimer_of_vms_that_cannot_be_read() -> None:
    masked = vm(vcpu(0, [0]), mode="masked")
    hidden = replace(masked, now=replace(masked.now, name="two", files={}, unreadable={"vtimer_mode": "x"}))
    assert advise_vtimer(system("host", vms=[hidden])).reason == "VMs cannot be read: x (two)"
    found = advise_vtimer(system("host", vms=[masked, hidden])).reason
    assert found == "it is on for 1 VM; of others it cannot be told: VMs cannot be read: x (two)"
    assert "run as root" in advise_vtimer(system("host", unreadable={"/sys/kernel/debug": 2})).reason


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (system("guest", vms=[vm(vcpu(0, [0]))]), "it is the host's"),
        (system("host"), "no VM runs"),
        (system("host", unreadable={"/sys/kernel/debug": 13}), "run as root"),
        (system("host", vms=[vm()]), "cannot be told by their names"),
        (system("host", files={}, vms=[vm(vcpu(0, [0]))]), "cannot untrap them"),
    ],
)
def test_wfx_is_left_off(load: Load, says: str) -> None:
    found = advise_wfx(load)
    assert not found.settings
    assert says in found.reason


# All of them


@given(
    st.sampled_from(["guest", "host", "machine"]),
    st.lists(
        st.builds(cpu, st.floats(0, 1e5), idle=st.floats(0, 1), steal=st.floats(0, 0.1)),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.builds(rdma, st.floats(0, 1e5), st.floats(0, 100)), max_size=2),
)
def test_whatever_is_recommended_has_reason_gain_and_cost(
    role: Role, cpus: list[CpuLoad], mounts: list[NfsLoad]
) -> None:
    every: list[Advice] = advise(system(role, cpus=cpus, mounts=mounts))
    assert [one.feature for one in every] == ["ipi", "vtimer", "cq-poll", "wfx"]
    for one in every:
        assert one.reason
        assert set(one.settings) <= set(KNOBS)
        assert bool(one.settings) == bool(one.gain) == bool(one.cost)
