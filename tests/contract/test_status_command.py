# SPDX-License-Identifier: Apache-2.0
"""`cvmtune status` on whole machines: guests and hosts, of our kernel, a vendor's, one without features."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import pytest

from cvmtune.observe.timer import INTERRUPTS, Visitor
from tests.fakes.affinity import FakeAffinity
from tests.fakes.controls import CQ_IDLE_US, CQ_POLL, IPI, IPI_POLL_US, NEXT_BOOT, WFX, WFX_GUARD
from tests.fakes.kernel import Crash
from tests.fakes.tree import (
    CMDLINE,
    CPUS,
    DEBUG,
    MACHINES,
    MOUNTS,
    RDMA,
    SOFT_STATS,
    STAT,
    TSI,
    Machine,
    Mount,
    our_guest,
    our_host,
    our_host_unpinned,
    vendor_guest,
    vendor_host,
)

# Role, whether it is confidential, behind what, whose kernel, and each feature's status.
PLACES = {
    "our_guest": ("guest", None, "none that shows itself", "ours", "off elsewhere off elsewhere"),
    "our_host": ("host", True, "pKVM", "ours", "off on absent off"),
    "our_host_unpinned": ("host", True, "pKVM", "ours", "off on absent off"),
    "vendor_guest": ("guest", True, "virtCCA's TMM", "vendor", "off elsewhere off elsewhere"),
    "vendor_host": ("host", True, "virtCCA's TMM", "vendor", "absent absent absent off"),
    "plain_guest": ("guest", None, "none that shows itself", "neither", "absent elsewhere absent elsewhere"),
    "plain_host": ("host", False, "none", "neither", "absent absent absent absent"),
    "bare_machine": ("machine", False, "none", "ours", "off elsewhere off elsewhere"),
}
WORDS = {
    "our_guest": ["guest; not confidential, or", "pKVM", "with cvmtune's patches", "0-3 online"],
    "our_host": ["host, behind pKVM", "0-7 online", "VM db: masked"],
    "our_host_unpinned": ["host, behind pKVM"],
    "vendor_guest": ["guest, confidential: behind virtCCA's TMM", "a vendor's"],
    "vendor_host": ["host, behind virtCCA's TMM", "a vendor's"],
    "plain_guest": ["without the features", "modprobe ib_core_cq_poll"],
    "plain_host": ["host, without a monitor", "without the features"],
    "bare_machine": ["a machine without KVM"],
}


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return our_guest(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return our_host(tmp_path / "root")


def status(machine: Machine) -> dict[str, Any]:
    outcome = machine.run("status", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    return dict(outcome.json)


def risks(machine: Machine) -> str:
    """All that is risky, as both forms of the command tell it."""
    outcome = machine.run("status")
    assert outcome.status == 0
    found = status(machine)["risks"]
    for risk in found:
        assert f"{risk['what']}. Next: {risk['next_step']}" in outcome.out
        assert risk["next_step"]
    assert ("No risks seen." in outcome.out) == (found == [])
    return "\n".join(risk["what"] for risk in found)


def lock_down(machine: Machine, but: Container[str] = ()) -> None:
    """Let the files of VMs in debugfs give EPERM, but those of some names."""
    for vm in machine.vms:
        for file in machine.file(vm.folder).iterdir():
            if file.name not in but:
                machine.system.break_("read", f"{vm.folder}/{file.name}", errno.EPERM)


def feature(machine: Machine, name: str) -> dict[str, Any]:
    (one,) = (one for one in status(machine)["features"] if one["name"] == name)
    return dict(one)


@pytest.mark.parametrize("name", MACHINES)
def test_tells_where_it_is_and_what_is_there(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    found = status(machine)
    assert found.keys() == {
        *("schema", "version", "role", "confidential", "monitor", "kernel", "cpus", "timer", "features"),
        *("applied", "risks"),
    }
    features = {one["name"]: one["status"] for one in found["features"]}
    assert list(features) == ["ipi", "vtimer", "cq-poll", "wfx"]
    flavour = found["kernel"]["flavour"]
    place = (found["role"], found["confidential"], found["monitor"], flavour, " ".join(features.values()))
    assert place == PLACES[name]
    assert found["applied"] is None
    text = machine.run("status").out
    for words in [*WORDS[name], found["kernel"]["release"], "nothing by cvmtune"]:
        assert words in text


def test_a_guest_to_which_its_monitor_does_not_answer_is_not_confidential(tmp_path: Path) -> None:
    machine = vendor_guest(tmp_path / "root")
    machine.file(TSI).unlink()
    for words, claim in (
        ("virtcca_cvm_guest=1 cvm_guest=1", "virtcca_cvm_guest"),
        ("cvm_guest=1", "cvm_guest"),
    ):
        machine.put(CMDLINE, f"root=/dev/vda {words}\n")
        found = status(machine)
        assert (found["role"], found["confidential"], found["monitor"]) == ("guest", False, "none")
        says = f"started as one ({claim}), but the monitor does not answer: not confidential"
        assert says in machine.run("status").out


def test_a_parameter_makes_a_host_no_guest(tmp_path: Path) -> None:
    machine = vendor_host(tmp_path / "root")
    machine.put(CMDLINE, "root=/dev/sda2 virtcca_cvm_guest=1\n")
    found = status(machine)
    assert (found["role"], found["confidential"], found["monitor"]) == ("host", False, "none")
    assert "host, without a monitor" in machine.run("status").out


def test_a_confidential_guest_is_one_whatever_else_it_has(tmp_path: Path) -> None:
    for path, monitor in [
        (None, "virtCCA's TMM"),
        ("/sys/bus/auxiliary/devices/arm_cca_guest.arm-rsi-dev.0/uevent", "Arm CCA's RMM"),
        ("/sys/devices/platform/arm-cca-dev/uevent", "Arm CCA's RMM"),
    ]:
        machine = vendor_guest(tmp_path / str(path).replace("/", "_"))
        machine.put("/sys/class/misc/kvm/dev", "10:232\n")
        if path:
            machine.file(TSI).unlink()
            machine.put(CMDLINE, "root=/dev/vda\n")
            machine.put(path, "DRIVER=arm-cca-dev\n")
        found = status(machine)
        assert (found["role"], found["confidential"], found["monitor"]) == ("guest", True, monitor)


def test_a_host_is_one_by_its_control(tmp_path: Path) -> None:
    machine = vendor_host(tmp_path / "root")
    machine.file("/sys/class/misc/kvm/dev").unlink()
    assert status(machine)["role"] == "host"


@pytest.mark.parametrize("name", MACHINES)
def test_changes_nothing(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    before = machine.snapshot()
    machine.run("status")
    machine.run("verify")
    assert machine.snapshot() == before
    assert machine.system.written == set()


@pytest.mark.parametrize("name", [name for name in MACHINES if not name.startswith("vendor")])
def test_where_all_is_off_nothing_is_risky(tmp_path: Path, name: str) -> None:
    assert risks(MACHINES[name](tmp_path / "root")) == ""


def test_does_not_ask_devices_for_their_counters(guest: Machine) -> None:
    status(guest)
    guest.run("apply", "--ipi", "c")
    guest.run("verify")
    touched = {path for _, path in guest.system.operations}
    assert not any(path.startswith(RDMA) or path == "/proc/self/mountstats" for path in touched)
    guest.watch()
    touched = {path for _, path in guest.system.operations}
    assert {f"{RDMA}/rxe0/ports/1/hw_counters/rcvd_pkts", "/proc/self/mountstats"} <= touched


# What is on, and what it did


def test_shows_a_guests_settings_and_what_they_did(guest: Machine) -> None:
    guest.run("apply", "--ipi", "2-3", "--ipi-poll-us", "200", "--cq-poll", "1")
    for cpu in guest.cpus[2:]:
        cpu.ipis, cpu.soft_ipis = 20, 500
    guest.go_on()
    ipi, polling = feature(guest, "ipi"), feature(guest, "cq-poll")
    assert (ipi["status"], ipi["settings"]) == ("on", {"ipi": "c", "ipi-poll-us": "200"})
    # 1000 s since boot: 500 a second on two CPUs, 20 on all four; CPUs 2 and 3 polled 70 % of their time.
    assert ipi["statistics"]["soft_ipis"] == 1_000_000
    assert ipi["statistics"]["reschedule"] == 1_000_000
    assert ipi["statistics"]["hardware_ipis"] == 80_000
    assert ipi["statistics"]["polled_s"] == pytest.approx(1400)
    assert (polling["status"], polling["settings"]) == ("on", {"cq-poll": "1", "cq-idle-us": "1000"})
    assert polling["statistics"]["queues"] == 3
    assert polling["statistics"]["polled_queues"] == 2
    assert polling["statistics"]["completions"] == 770
    text = guest.run("status").out
    for words in [
        *("c = 2-3, ipi-poll-us 200", "1000000 IPIs softly, 80000 by hardware", "polled 1400.0 s"),
        *("1, cq-idle-us 1000", "2 of 3 queues polled", "770 completions", "awake 2.5 s"),
        "--ipi 2-3 --ipi-poll-us 200 --cq-poll 1: ",
    ]:
        assert words in text


def test_shows_a_hosts_settings_and_what_they_did(host: Machine) -> None:
    host.vms[1].own_mask = "00000002"
    host.go_on()
    host.run("apply", "latency-host")
    wfx, timer = feature(host, "wfx"), feature(host, "vtimer")
    assert (wfx["status"], wfx["settings"]) == ("on", {"wfx": "ff", "wfx-guard": "Y"})
    assert wfx["statistics"]["vms"] == 2
    # Four vCPUs with 2000 exits for WFI in a second, 1000 s long; each second entry ended by one.
    assert wfx["statistics"]["wfi_exits"] == 8_000_000
    assert timer["statistics"]["timer_exits"] == 4_000_000
    text = host.run("status").out
    for words in [
        *("ff = 0-7, wfx-guard Y", "2 VMs", "0 of 16000000 entries untrapped"),
        *("VM web has a mask of its own, 2 = 1", "VM db: masked, VM web: masked", "0 redundant"),
        "profile latency-host: wfx-guard Y, wfx ff = 0-7",
    ]:
        assert words in text


@pytest.mark.parametrize(("value", "state"), [("-1", "off"), ("3", "on")])
def test_understands_the_vendors_sentences(tmp_path: Path, value: str, state: str) -> None:
    machine = vendor_guest(tmp_path / "root")
    machine.echo(value, CQ_POLL)
    assert "Current polling" in machine.get(CQ_POLL)
    found = feature(machine, "cq-poll")
    assert (found["status"], found["settings"]) == (state, {"cq-poll": value})


# Risks


def all_poll(machine: Machine) -> None:
    machine.run("apply", "--ipi", "all")


def bounded(machine: Machine) -> None:
    machine.run("apply", "--ipi", "all", "--ipi-poll-us", "100")


def offline(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.put(f"{CPUS}/online", "0-2\n")


def deep(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    for state, disable in (("state0", "0"), ("state1", "1"), ("state2", "0")):
        machine.put(f"{CPUS}/cpu2/cpuidle/{state}/disable", f"{disable}\n")


def shallow(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    for state, disable in (("state0", "0"), ("state1", "1")):
        machine.put(f"{CPUS}/cpu2/cpuidle/{state}/disable", f"{disable}\n")


def nohlt(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.put(CMDLINE, "root=/dev/vda nohlt\n")


def stolen(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.cpus[1].steal = 0.3
    machine.go_on()


def sleepless(machine: Machine) -> None:
    machine.run("apply", "--cq-poll", "3", "--cq-idle-us", "0")


def hides(path: str, *flags: str) -> Callable[[Machine], None]:
    """A file that is there and cannot be read, once this has been applied."""

    def arrange(machine: Machine) -> None:
        machine.run("apply", *flags)
        if not machine.file(path).exists():
            machine.put(path, "\n")
        machine.system.break_("read", path, errno.EACCES)

    return arrange


def no_clock(machine: Machine) -> None:
    machine.run("apply", "--ipi", "c")
    machine.put(f"{CPUS}/hotplug/states", "  0: offline\n")


def isolated(machine: Machine) -> None:
    machine.run("apply", "--cq-poll", "1")
    machine.put(f"{CPUS}/isolated", "1\n")


@pytest.mark.parametrize("name", ["online", "possible"])
def test_cpus_that_cannot_be_told_are_null(guest: Machine, name: str) -> None:
    guest.run("apply", "--ipi", "0-3")
    guest.system.break_("read", f"{CPUS}/{name}", errno.EACCES)
    why = f"{CPUS}/{name} cannot be read (Permission denied)"
    cpus = status(guest)["cpus"]
    assert (cpus[name], cpus["unknown"]) == (None, {name: why})
    text = risks(guest)
    assert "offline" not in text
    assert "all 4 CPUs poll without a bound" in text
    assert (f"cannot be told: {why}" in guest.run("status").out) == (name == "online")
    if name == "online":
        assert guest.run("apply", "--ipi", "all").status != 0
        assert guest.run("apply", "--cq-poll", "last").status != 0
    assert int(guest.settings()[IPI], 16) == 15


@pytest.mark.parametrize(
    ("path", "text", "what"),
    [
        ("/sys/module/nvme_rdma/refcnt", "3\n", "module nvme_rdma is in use: its I/O hangs"),
        ("/proc/fs/nfsd/portlist", "rdma 20049\n", "NFS is served over RDMA: its I/O hangs"),
        (MOUNTS, None, "cannot tell whether NFS is mounted over RDMA: Permission denied"),
        ("/sys/module/rpcrdma/refcnt", None, "cannot tell whether RDMA is in use: Permission denied"),
    ],
)
def test_status_knows_what_apply_knows_of_a_vendors_polling(
    tmp_path: Path, path: str, text: str | None, what: str
) -> None:
    machine = vendor_guest(tmp_path / "root")
    if text is None:
        machine.put(path, "0\n")
        machine.system.break_("read", path, errno.EACCES)
    else:
        machine.put(path, text)
    found = risks(machine)
    assert what in found
    assert "if polling is changed now" in found
    assert "polls only what is mounted" not in found
    assert machine.run("apply", "--cq-poll", "1").status != 0


def test_statistics_that_are_locked_away_are_unknown(guest: Machine) -> None:
    for path in (f"{DEBUG}/ib_core_cq_poll/cqs", f"{DEBUG}/ib_core_cq_poll/totals"):
        guest.system.break_("read", path, errno.EPERM)
    found = feature(guest, "cq-poll")
    assert "queues polled and completions found cannot be told" in found["did"]
    assert found["statistics"]["awake_ns"] is None
    assert found["statistics"].keys() == found["unknown"].keys()


@pytest.mark.parametrize(
    ("arrange", "risk"),
    [
        (all_poll, "all 4 CPUs poll without a bound"),
        (bounded, ""),
        (offline, "CPU 3 is to poll, and is offline"),
        (deep, "CPU 2 is to poll, and cpuidle may take it deeper than WFI"),
        (shallow, ""),
        (nohlt, "with nohlt all CPUs poll elsewhere"),
        (stolen, "lose time to others (steal)"),
        (sleepless, "the poller on CPU 3 never sleeps"),
        *(
            (hides(path, "--ipi", "c"), f"{words}{path} cannot be read (Permission denied)")
            for path, words in {
                STAT: "and what this guest's vCPUs lose to others (steal) cannot be told: ",
                f"{CPUS}/hotplug/states": "this guest's vCPUs lose to others (steal) cannot be told: ",
                f"{CPUS}/online": "which CPUs are online cannot be told: ",
                CMDLINE: "whether all CPUs poll elsewhere instead (nohlt) cannot be told: ",
                f"{CPUS}/cpu2/cpuidle/state1/disable": "may take them deeper than WFI cannot be told: ",
            }.items()
        ),
        (hides(IPI_POLL_US, "--ipi", "0-3"), "all 4 CPUs poll, and whether with a bound cannot be told: "),
        *(
            (hides(path, "--cq-poll", "1"), words)
            for path, words in {
                CQ_IDLE_US: "whether the poller on CPU 1 ever sleeps cannot be told",
                f"{CPUS}/isolated": "and whether that is kept from ordinary tasks cannot be told",
            }.items()
        ),
        (no_clock, "its hypervisor does not tell it (no steal clock)"),
        (isolated, "the poller is on CPU 1, which is isolated (isolcpus)"),
    ],
)
def test_names_a_guests_risks(guest: Machine, arrange: Callable[[Machine], None], risk: str) -> None:
    arrange(guest)
    found = risks(guest)
    assert risk in found
    assert len(found.splitlines()) == (1 if risk else 0), found


def test_polling_for_ipis_on_a_host_is_a_risk(host: Machine) -> None:
    host.run("apply", "--ipi", "c")
    assert "CPUs 2-3 poll for IPIs on a host" in risks(host)


@pytest.mark.parametrize(
    ("options", "risk"),
    [
        (["--wfx", "0-1"], "WFx of vCPUs 0-1 of VM web is not trapped, and vCPU 0 is not pinned (CPUs 4-7)"),
        (["--wfx", "2"], "WFx of vCPU 1 of VM web is not trapped"),
        (["--wfx", "0-1", "--wfx-guard", "on"], ""),
        (["--wfx", "4-5"], ""),
    ],
)
def test_an_untrapped_vcpu_that_is_not_pinned_is_a_risk(
    tmp_path: Path, options: list[str], risk: str
) -> None:
    machine = our_host_unpinned(tmp_path / "root")
    assert machine.run("apply", *options).status == 0
    found = risks(machine)
    assert risk in found
    assert len(found.splitlines()) == (1 if risk else 0), found
    assert "VM db" not in found


def test_what_counts_is_a_vms_own_mask(tmp_path: Path) -> None:
    machine = our_host_unpinned(tmp_path / "root")
    machine.vms[1].own_mask = "00000002"
    machine.go_on()
    assert "WFx of vCPU 1 of VM web is not trapped" in risks(machine)
    machine.vms[1].own_mask = "00000000"
    machine.go_on()
    machine.run("apply", "--wfx", "0-1")
    assert risks(machine) == ""


def test_pinned_to_the_same_cpu_is_as_bad(host: Machine) -> None:
    host.run("apply", "--wfx", "0-1")
    assert risks(host) == ""
    host.vms[1].vcpus[0].allowed = host.vms[0].vcpus[1].allowed
    host.go_on()
    found = risks(host)
    assert "WFx of vCPU 1 of VM db is not trapped, and vCPU 1 shares CPU 3" in found
    assert "WFx of vCPU 0 of VM web is not trapped, and vCPU 0 shares CPU 3" in found


def test_names_a_vendor_guests_risks(tmp_path: Path) -> None:
    machine = vendor_guest(tmp_path / "root")
    found = risks(machine)
    assert "after a mask that does not parse this vendor's kernel hangs (ipi)" in found
    assert "polls only what is mounted after polling was turned on" in found
    machine.mount(Mount("/data"))
    found = risks(machine)
    assert "NFS is mounted over RDMA on /data: its I/O hangs if polling is changed now" in found
    assert "off only after unmounting" in machine.run("status").out


def test_names_a_vendor_hosts_risks(tmp_path: Path) -> None:
    found = risks(vendor_host(tmp_path / "root"))
    assert found == "after a mask that does not parse this vendor's kernel hangs (wfx)"


# What was applied


def test_what_was_applied_and_changed_since_is_a_risk(guest: Machine) -> None:
    guest.run("apply", "--ipi", "c")
    applied = status(guest)["applied"]
    assert applied["source"] == "--ipi c"
    assert [(one["name"], one["wanted"], one["present"]) for one in applied["checks"]] == [("ipi", "c", "c")]
    guest.echo("1", IPI)
    assert risks(guest) == "not all that was applied is in force"


def test_what_ended_with_an_earlier_boot_is_a_risk(guest: Machine) -> None:
    guest.run("apply", "database")
    guest.restart(NEXT_BOOT, "6.12.58-cvmtune")
    assert "what was applied (profile database) ended with an earlier boot" in risks(guest)


def test_an_interrupted_change_is_a_risk(guest: Machine) -> None:
    guest.system.fail("write", CQ_POLL, Crash())
    with pytest.raises(Crash):
        guest.run("apply", "--ipi", "c", "--cq-poll", "3")
    assert "a change of settings was interrupted" in risks(guest)


def test_a_journal_not_to_be_trusted_is_a_risk_and_hides_nothing_else(guest: Machine) -> None:
    guest.run("apply", "--ipi", "c")
    (guest.root / "var/lib/cvmtune").chmod(0o777)
    assert "the journal is not to be trusted" in risks(guest)
    assert feature(guest, "ipi")["settings"]["ipi"] == "c"
    assert "not known" in guest.run("status").out


# Machines that are half broken


def test_without_debugfs_it_says_what_is_not_seen(host: Machine) -> None:
    host.system.break_("list", DEBUG, errno.EACCES)
    host.system.break_("list", f"{DEBUG}/kvm", errno.EACCES)
    assert "statistics and VMs are not seen: debugfs cannot be read" in risks(host)
    assert feature(host, "wfx")["status"] == "off"


@pytest.mark.parametrize("name", ["our_host", "vendor_host", "plain_host"])
def test_vms_that_cannot_be_read_are_a_risk_and_not_none(tmp_path: Path, name: str) -> None:
    """Kernel lockdown lists the folders of VMs, and gives EPERM for their files."""
    machine = MACHINES[name](tmp_path / "root")
    lock_down(machine)
    assert "VMs cannot be read: kernel lockdown (db, web)" in risks(machine)
    text = machine.run("status").out
    assert "0 VMs" not in text
    assert "No risks" not in text
    timer = feature(machine, "vtimer")
    assert (timer["status"], set(timer["statistics"].values())) == ("unknown", {None})
    assert timer["unknown"].keys() == timer["statistics"].keys() != set()
    if name != "plain_host":
        wfx = feature(machine, "wfx")
        assert wfx["statistics"] == {
            **dict.fromkeys(("entries", "untrapped", "guarded", "wfi_exits", "wfe_exits")),
            "vms": 2,
        }
        assert wfx["unknown"].keys() == wfx["statistics"].keys() - {"vms"}
        assert "kernel lockdown" in wfx["unknown"]["wfi_exits"]


def test_a_mask_of_its_own_that_is_hidden_is_not_the_systems(host: Machine) -> None:
    """Lockdown leaves files of mode 0444 open, as the statistics."""
    host.vms[1].own_mask = "2"
    host.go_on()
    host.run("apply", "--wfx", "3")
    lock_down(host, but=("wfx_trap_stats", "vtimer_stats"))
    assert "VMs cannot be read: kernel lockdown (db, web)" in risks(host)
    wfx = feature(host, "wfx")
    assert wfx["statistics"]["wfi_exits"] == host.uptime * 2000 * 4
    assert "mask of its own" not in wfx["did"]


def test_debugfs_without_kvms_part_shows_no_vms(host: Machine) -> None:
    shutil.rmtree(host.file(f"{DEBUG}/kvm"))
    why = "VMs cannot be seen: KVM is there, and debugfs shows nothing of it here"
    assert why in risks(host)
    wfx, timer = feature(host, "wfx"), feature(host, "vtimer")
    assert (wfx["statistics"]["vms"], wfx["unknown"]["vms"]) == (None, why)
    assert (timer["status"], timer["problem"]) == ("unknown", why)
    assert "no VM runs" not in host.watch().out


def test_a_guest_that_could_run_guests_is_one(guest: Machine) -> None:
    guest.put("/sys/class/misc/kvm/dev", "10:232\n")
    guest.put(f"{DEBUG}/kvm/exits", "0\n")
    guest.run("apply", "--ipi", "3")
    assert status(guest)["role"] == "guest"
    assert "host" not in risks(guest)


@pytest.mark.parametrize("how", ["not mounted", "forbidden"])
def test_without_debugfs_nothing_is_zero(host: Machine, how: str) -> None:
    if how == "not mounted":
        shutil.rmtree(host.file(DEBUG))
        host.file(DEBUG).mkdir()
    else:
        host.system.break_("list", DEBUG, errno.EACCES)
        host.system.break_("list", f"{DEBUG}/kvm", errno.EACCES)
        host.system.break_("read", SOFT_STATS, errno.EACCES)
    wfx, ipi = feature(host, "wfx"), feature(host, "ipi")
    assert set(wfx["statistics"].values()) == {None}
    assert "VMs cannot be seen without debugfs" in wfx["unknown"]["vms"]
    assert (ipi["statistics"]["polled_s"], ipi["statistics"]["reschedule"]) == (None, None)
    assert SOFT_STATS in ipi["unknown"]["polled_s"]
    assert feature(host, "vtimer")["status"] == "unknown"


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.EACCES, "/proc hides processes (hidepid, or not root)"),
        (errno.EPERM, "/proc hides processes (hidepid, or not root)"),
        (errno.ENOENT, "this /proc lacks their processes (hidepid, or a container's)"),
    ],
)
def test_vms_whose_processes_are_hidden_are_a_risk(host: Machine, number: int, why: str) -> None:
    for vm in host.vms:
        host.system.break_("list", f"/proc/{vm.pid}/task", number)
    assert risks(host) == f"the vCPUs of VMs cannot be read: {why} (db, web)"
    # What KVM counts is known nevertheless.
    assert feature(host, "wfx")["statistics"]["wfi_exits"] == host.uptime * 2000 * 4


def test_untrapped_vcpus_that_cannot_be_told_are_a_risk(host: Machine) -> None:
    host.run("apply", "--wfx", "1")
    folder = f"/proc/{host.vms[0].pid}/task"
    for vcpu in (3, 4):
        host.put(f"{folder}/{host.vms[0].pid + vcpu}/comm", "qemu-system-aar\n")
    found = risks(host)
    assert (
        "WFx of vCPU 0 of VM db is not trapped, and the threads of the vCPUs of VM db cannot be told" in found
    )
    host.run("apply", "--wfx-guard", "on")
    assert risks(host) == ""


@pytest.mark.parametrize("how", ["gone", "unreadable", "no rows", "no header"])
def test_ipis_that_nothing_counts_are_not_none(guest: Machine, how: str) -> None:
    path = "/proc/interrupts"
    match how:
        case "gone":
            guest.file(path).unlink()
        case "unreadable":
            guest.system.break_("read", path, errno.EACCES)
        case "no rows":
            guest.put(path, "       CPU0 CPU1 CPU2 CPU3\n 13:  1 2 3 4  GICv3 27 Level  arch_timer\n")
        case "no header":
            guest.put(path, guest.get(path).partition("\n")[2])
    ipi = feature(guest, "ipi")
    assert (ipi["statistics"]["hardware_ipis"], ipi["statistics"]["soft_ipis"]) == (None, None)
    assert path in ipi["unknown"]["hardware_ipis"]
    assert "by hardware cannot be told: /proc/interrupts" in guest.run("status").out


@pytest.mark.parametrize(
    ("path", "name"),
    [(IPI, "ipi"), (CQ_POLL, "cq-poll"), (WFX, "wfx")],
)
@pytest.mark.parametrize("how", ["EIO", "nonsense", "nothing"])
def test_a_control_that_cannot_be_read_is_unknown_and_a_risk(
    tmp_path: Path, path: str, name: str, how: str
) -> None:
    machine = (our_host if path == WFX else our_guest)(tmp_path / "root")
    if how == "EIO":
        machine.system.break_("read", path, errno.EIO)
    else:
        machine.put(path, "" if how == "nothing" else "no such thing\n")
    assert feature(machine, name)["status"] == "unknown"
    assert f"{name}: " in risks(machine)


@pytest.mark.parametrize("path", [IPI_POLL_US, CQ_IDLE_US, WFX_GUARD])
def test_a_parameter_that_cannot_be_read_is_left_out(tmp_path: Path, path: str) -> None:
    machine = (our_host if path == WFX_GUARD else our_guest)(tmp_path / "root")
    machine.system.break_("read", path, errno.EIO)
    names = {IPI_POLL_US: "ipi", CQ_IDLE_US: "cq-poll", WFX_GUARD: "wfx"}
    assert list(feature(machine, names[path])["settings"]) == [names[path]]


@pytest.mark.parametrize("name", ["our_guest", "our_host", "vendor_guest"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "nonsense", "forbidden"])
def test_no_file_that_is_broken_keeps_the_rest_from_being_told(
    tmp_path: Path, name: str, damage: str
) -> None:
    machine = MACHINES[name](tmp_path / "root")
    for file in [path for path in machine.root.rglob("*") if path.is_file()]:
        path, text = f"/{file.relative_to(machine.root)}", file.read_text()
        match damage:
            case "gone":
                file.unlink()
            case "forbidden":
                machine.system.break_("read", path, errno.EACCES)
            case "half":
                file.write_text(text[: len(text) // 2])
            case _:
                file.write_text("" if damage == "empty" else "\0 no: 1 such,\n7 thing \xe9\n")
        outcome = machine.run("status", "--json")
        assert outcome.status == 0, (path, outcome.err)
        assert len(outcome.json["features"]) == 4
        machine.system.broken.clear()
        file.write_text(text)


def test_a_vm_that_ends_while_it_is_looked_at(host: Machine) -> None:
    folder = f"/proc/{host.vms[0].pid}/task/{host.vms[0].pid + 3}"

    def end() -> None:
        for file in host.file(folder).iterdir():
            file.unlink()

    host.system.at("read", f"{folder}/schedstat", end)
    found = feature(host, "wfx")
    assert found["statistics"]["vms"] == 2


# What a guest loses, and its timers


def losing(machine: Machine, cpu: int, share: float) -> Callable[[float], None]:
    """While a command sleeps, ten seconds pass, of which others take a share of a CPU's time."""

    def sleep(seconds: float) -> None:
        before = machine.get(STAT).splitlines()
        machine.go_on(10)
        after = machine.get(STAT).splitlines()
        name, *_ = before[cpu + 1].split()
        times = [int(word) for word in before[cpu + 1].split()[1:]]
        times[3] += round(1000 * (1 - share))
        times[7] += round(1000 * share)
        after[cpu + 1] = " ".join([name, *map(str, times)])
        machine.put(STAT, "\n".join(after) + "\n")

    return sleep


def test_what_others_take_today_shows_though_little_was_taken_since_boot(guest: Machine) -> None:
    guest.uptime = 1_000_000
    guest.cpus[1].steal = 0.002
    guest.go_on()
    assert guest.run("apply", "database").status == 0
    guest.sleep = losing(guest, 1, 0.6)
    found = risks(guest)
    assert (
        "lose time to others (steal): CPU 1 lost 60.0% of its time to others (steal) in the last 10.0 s"
        in found
    )
    guest.run("rollback")
    outcome = guest.run("apply", "database")
    assert outcome.status == 5
    assert "CPU 1 lost 60.0% of its time to others (steal) in the last 10.0 s" in outcome.err


def test_what_others_took_long_ago_does_not_matter(guest: Machine) -> None:
    guest.cpus[1].steal = 0.5
    guest.go_on()
    outcome = guest.run("apply", "database")
    assert outcome.status == 5
    assert "CPU 1 lost 50.0% of its time to others (steal) since boot" in outcome.err
    guest.sleep = losing(guest, 1, 0.0)
    assert guest.run("apply", "database").status == 0
    assert risks(guest) == ""


def test_nobody_waits_on_a_host_or_for_single_settings(guest: Machine, tmp_path: Path) -> None:
    host = our_host(tmp_path / "host")
    waited: list[float] = []
    guest.sleep = host.sleep = waited.append
    host.run("status")
    host.run("apply", "latency-host")
    guest.run("apply", "--ipi", "c")
    assert waited == []
    guest.run("status")
    assert waited == [1.0]


class Ticking(FakeAffinity):
    """This thread's affinity on a machine's CPUs: the CPU where it runs takes ticks, unless it is silent."""

    def __init__(self, machine: Machine, silent: set[int], forbidden: set[int]) -> None:
        super().__init__(len(machine.cpus), forbidden)
        self.machine, self.silent = machine, silent

    def set(self, cpus: Iterable[int]) -> None:
        super().set(cpus)
        if len(self.now) == 1:
            # It takes one by the time that it is looked at again.
            self.machine.system.at("read", INTERRUPTS, self._tick, nth=2)

    def _tick(self) -> None:
        for cpu in self.now - self.silent:
            count_timer(self.machine, cpu)


def count_timer(machine: Machine, cpu: int) -> None:
    header, timer, *rest = machine.get(INTERRUPTS).splitlines()
    name, *words = timer.split()
    words[cpu] = str(int(words[cpu]) + 1)
    machine.put(INTERRUPTS, "\n".join([header, " ".join([name, *words]), *rest]) + "\n")


@pytest.mark.parametrize(
    ("silent", "forbidden", "arrives", "dead", "unknown"),
    [
        (set(), set(), "0-3", "", {}),
        ({2}, set(), "0-1,3", "2", {}),
        ({1, 2}, set(), "0,3", "1-2", {}),
        ({2}, {2}, "0-1,3", "", {"2": "this process may not run there (Invalid argument)"}),
    ],
)
def test_timer_interrupt_that_does_not_arrive_is_a_risk(
    guest: Machine, silent: set[int], forbidden: set[int], arrives: str, dead: str, unknown: dict[str, str]
) -> None:
    guest.visitor = Visitor(Ticking(guest, silent, forbidden), patience_s=0.02)
    found = status(guest)
    assert found["timer"] == {"arrives": arrives, "silent": dead, "unknown": unknown}
    what = "\n".join(risk["what"] for risk in found["risks"])
    assert what.startswith(
        f"the timer interrupt does not arrive on CPU{'s' if '-' in dead else ''} {dead}: " if dead else ""
    )
    assert bool(what) is bool(dead)
    guest.go_on()
    text = guest.run("status").out
    assert f"its interrupt arrives on CPUs {arrives}" in text
    if dead:
        assert f"its interrupt does not arrive on CPU{'s' if '-' in dead else ''} {dead}" in text
    if unknown:
        assert f"whether its interrupt arrives cannot be told for CPU {', '.join(unknown)}: " in text
    assert all(why in text for why in unknown.values())


def test_a_tree_of_files_has_no_cpus_to_run_on(guest: Machine, tmp_path: Path) -> None:
    """Where no time passes nothing is told, where it does what was busy tells."""
    assert set(status(guest)["timer"]["unknown"].values()) == {"it was idle, and its timer with it"}

    def sleep(seconds: float) -> None:
        before = guest.get(INTERRUPTS)
        guest.go_on(10)
        guest.put(INTERRUPTS, before)

    guest.sleep = sleep
    assert "the timer interrupt does not arrive on CPUs 0-3" in risks(guest)
    assert status(our_host(tmp_path / "host"))["timer"] is None


def test_a_containers_view_is_told(guest: Machine) -> None:
    guest.run("apply", "--ipi", "c")
    guest.put("/run/systemd/container", "lxc\n")
    assert "this is a container's view of the machine (lxc, by /run/systemd/container)" in risks(guest)
    content = guest.watch("--json").json
    assert (content["settings"], content["own_cpus"]) == ({}, False)
    for one in content["advice"]:
        assert all(figure is None for figure in one["figures"].values())
        assert one["figures"].keys() == one["unknown"].keys()
    outcome = guest.run("apply", "database")
    assert outcome.status == 5
    assert "whether it is so cannot be told" in outcome.err
