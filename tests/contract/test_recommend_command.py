# SPDX-License-Identifier: Apache-2.0
"""`cvmtune recommend` on whole machines that are at work: what it says, and that `apply` takes it.

What the rules say to which load is in tests/unit/test_advice_rules.py.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import ANY, patch

import pytest

from cvmtune.commands import recommend
from tests.fakes.controls import BOOT_ID, CQ_IDLE_US, CQ_POLL, IPI, IPI_POLL_US, WFX, WFX_GUARD
from tests.fakes.tree import (
    CMDLINE,
    CPUS,
    MACHINES,
    MOUNTS,
    UPTIME,
    Machine,
    Mount,
    Vcpu,
    Vm,
    our_guest,
    our_host,
    vendor_host,
)

# What each machine's load makes worth setting; of the others' features it is told why not.
WANTED: dict[str, dict[str, str]] = {
    # CPUs 2 and 3 take many IPIs, and CPU 1 is the last of those that idle most and do not poll for them.
    "our_guest": {"ipi-poll-us": ANY, "ipi": "c", "cq-idle-us": ANY, "cq-poll": "1"},
    "our_host": {"wfx-guard": "Y", "wfx": "3"},
    "our_host_unpinned": {},
    "vendor_guest": {"ipi": "c"},
    "vendor_host": {"wfx": "3"},
    "plain_guest": {},
    "plain_host": {},
    # No IPI costs an exit there.
    "bare_machine": {"cq-idle-us": ANY, "cq-poll": "1"},
}
REASONS = {
    "our_guest": {"wfx": "it is the host's feature", "vtimer": "a guest has nothing to set"},
    "our_host": {"ipi": "this is a host", "vtimer": "on for all 2 VMs", "cq-poll": "no NFS over RDMA here"},
    "our_host_unpinned": {"wfx": "vCPU 0 of VM web is not pinned (CPUs 4-7)"},
    "vendor_guest": {"cq-poll": "no NFS over RDMA here"},
    "vendor_host": {"ipi": "this is a host"},
    "plain_guest": {"ipi": "no soft IPI passthrough", "cq-poll": "modprobe ib_core_cq_poll"},
    "plain_host": {"wfx": "this kernel cannot untrap them"},
    "bare_machine": {"ipi": "no guest"},
}


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    return our_guest(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return our_host(tmp_path / "root")


def recommended(machine: Machine) -> Path:
    """Return a file with what is recommended for a machine."""
    outcome = machine.watch("--json")
    assert (outcome.status, outcome.err) == (0, "")
    return machine.user_file("/root/recommended.json", outcome.out)


@pytest.mark.parametrize("name", MACHINES)
def test_says_what_to_set_and_why(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    content = machine.watch("--json").json
    assert content.keys() == {
        *(
            "schema",
            "kind",
            "version",
            "role",
            "kernel",
            "cpus",
            "own_cpus",
            "seconds",
            "settings",
            "advice",
            "unknown",
        ),
    }
    assert (content["schema"], content["kind"]) == (1, "recommendation")
    assert content["seconds"] == 10
    assert content["cpus"] == f"0-{len(machine.cpus) - 1}"
    assert content["settings"] == WANTED[name]
    assert list(content["settings"]) == list(WANTED[name])
    advice = {one["feature"]: one for one in content["advice"]}
    assert list(advice) == ["ipi", "vtimer", "cq-poll", "wfx"]
    for one in advice.values():
        assert one["reason"]
        assert bool(one["settings"]) == bool(one["gain"]) == bool(one["cost"])
    for feature, words in REASONS[name].items():
        assert words in advice[feature]["reason"]
        assert not advice[feature]["settings"]
    text = machine.watch().out
    for one in advice.values():
        for words in (one["reason"], one["gain"], one["cost"]):
            assert words in text
    assert ("To apply all of it: cvmtune recommend --json" in text) == bool(WANTED[name])


def test_shows_masks_in_both_forms(guest: Machine, tmp_path: Path) -> None:
    text = guest.watch().out
    assert "guest, 4 CPUs, watched for 10.0 s" in text
    assert "\nipi: c = 2-3, ipi-poll-us " in text
    assert "\ncq-poll: 1, cq-idle-us " in text
    assert "\nwfx: 3 = 0-1, wfx-guard Y\n" in our_host(tmp_path / "host").watch().out


def test_one_cpu_is_in_the_singular(guest: Machine) -> None:
    del guest.cpus[1:]
    guest.go_on()
    assert "guest, 1 CPU, watched for" in guest.watch().out
    guest.run("apply", "--ipi", "c", "--ipi-poll-us", "100")
    assert "up to 1 physical CPU kept busy by a polling vCPU;" in guest.run("apply", "--ipi", "4").out


def test_says_what_is_on_without_need(guest: Machine) -> None:
    guest.run("apply", "--ipi", "c")
    for cpu in guest.cpus:
        cpu.ipis = 0
    guest.go_on()
    text = guest.watch().out
    assert "it is on now: c = 2-3" in text
    assert "IPIs a second; the most is 0" in text


def test_what_is_on_for_vms_is_not_to_be_turned_off(host: Machine) -> None:
    text = host.watch().out
    assert "vtimer: nothing to set\n  reason  it is on for all 2 VMs" in text


@pytest.mark.parametrize("name", [name for name in MACHINES if WANTED[name]])
def test_what_it_recommends_can_be_applied(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    first = machine.settings()
    path = str(recommended(machine))
    before = machine.snapshot()
    dry = machine.run("apply", path, "--dry-run", "--json")
    assert machine.snapshot() == before
    outcome = machine.run("apply", path, "--json")
    assert (dry.status, outcome.status) == (0, 0)
    assert outcome.json["source"] == f"recommendation {path}"
    assert {one["name"]: one["after"] for one in outcome.json["changes"]} == WANTED[name]
    assert machine.run("verify").status == 0
    assert machine.run("rollback").status == 0
    assert machine.settings() == first


def test_options_come_on_top(guest: Machine) -> None:
    path = recommended(guest)
    assert guest.run("apply", str(path), "--cq-poll", "off", "--ipi", "2-2").status == 0
    assert (guest.settings()[IPI], guest.settings()[CQ_POLL]) == ("4", "-1")
    assert guest.settings()[IPI_POLL_US] == json.loads(path.read_text())["settings"]["ipi-poll-us"]


@pytest.mark.parametrize("name", MACHINES)
def test_changes_nothing_but_the_counters_that_go_on(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    outcome = machine.watch()
    after = machine.snapshot()
    assert outcome.status == 0
    assert machine.system.written == set()
    machine.go_on()
    assert machine.snapshot() == after


# VMs


@pytest.mark.parametrize("name", ["our_host", "vendor_host", "plain_host"])
def test_vms_that_cannot_be_read_are_told_so(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    for vm in machine.vms:
        for file in machine.file(vm.folder).iterdir():
            machine.system.break_("read", f"{vm.folder}/{file.name}", errno.EPERM)
    content = machine.watch("--json").json
    assert content["settings"] == {}
    timer, wfx = (one for one in content["advice"] if one["feature"] in ("wfx", "vtimer"))
    says = "VMs cannot be read: kernel lockdown (db, web)"
    assert (wfx["reason"], timer["reason"]) == (says, says)
    assert all(figure is None for name, figure in wfx["figures"].items() if name.startswith("WFx"))
    assert all("kernel lockdown" in why for name, why in wfx["unknown"].items() if name.startswith("WFx"))
    assert says in machine.watch().out


VMMS = [
    "CPU {}/KVM",
    "fc_vcpu {}",
    "vcpu{}",
    "crosvm_vcpu{}",
    "kvm-vcpu-{}",
    "db_vcpu{}",
    "vcpu-{}",
    "a-vm_vcpu{}",
]


@pytest.mark.parametrize("form", VMMS)
def test_vcpus_are_known_by_their_vmms_names(host: Machine, form: str) -> None:
    named = host._show_thread

    def show(vm: Vm, thread: int, name: str, vcpu: Vcpu) -> None:
        number = re.fullmatch(r"CPU (\d+)/KVM", name)
        named(vm, thread, form.format(number[1]) if number else name, vcpu)

    with patch.object(host, "_show_thread", show):
        host.go_on()
        assert host.watch("--json").json["settings"] == {"wfx-guard": "Y", "wfx": "3"}
    assert host.run("apply", "latency-host", "--dry-run").status == 0


def test_vcpus_without_names_of_their_own_cannot_be_told(host: Machine) -> None:
    named = host._show_thread
    with patch.object(host, "_show_thread", lambda vm, thread, _, vcpu: named(vm, thread, "qemu-kvm", vcpu)):
        host.go_on()
        content = host.watch("--json").json
    untold = "by their names (start QEMU with debug-threads=on)"
    wanted = f"the threads of the vCPUs of VMs db, web cannot be told {untold}"
    assert content["settings"] == {}
    assert content["advice"][-1]["reason"] == wanted
    outcome = host.run("apply", "latency-host", "--dry-run")
    assert outcome.status == 5
    assert wanted in outcome.err


@pytest.mark.parametrize("idle", [0.9, 0.69])
def test_times_that_the_kernel_does_not_keep_are_not_zero(tmp_path: Path, idle: float) -> None:
    machine = MACHINES["vendor_host"](tmp_path / "root")
    for cpu in machine.cpus:
        cpu.idle = idle
    show = machine._show_thread

    def without_times(vm: Vm, thread: int, name: str, vcpu: Vcpu) -> None:
        show(vm, thread, name, vcpu)
        machine.put(f"/proc/{vm.pid}/task/{thread}/schedstat", "0 0 0\n")

    with patch.object(machine, "_show_thread", without_times):
        machine.go_on()
        content = machine.watch("--json").json
    assert content["settings"] == {}
    reason = advised(content, "wfx")["reason"]
    assert reason.startswith(
        "it cannot be told whether a vCPU has a CPU of its own: vCPU 0 of VM db is bound to"
    )
    assert "this kernel does not keep it" in reason
    assert "went to others" not in reason


def test_vcpus_that_wait_are_told_by_their_sleeps(tmp_path: Path) -> None:
    """The vendor's kernel counts exits for the VM only."""
    machine = vendor_host(tmp_path / "root")
    machine.vms[0].vcpus[1].wfi = 0
    machine.vms[1].vcpus[1].wfi = 0
    machine.go_on()
    content = machine.watch("--json").json
    assert content["settings"] == {"wfx": "1"}
    figures = content["advice"][-1]["figures"]
    assert figures["WFx exits a second of VM db"] == 2000
    assert (figures["sleeps a second of VM db, vCPU 0"], figures["sleeps a second of VM db, vCPU 1"]) == (
        2000,
        0,
    )


# Recordings


@pytest.mark.parametrize("name", MACHINES)
def test_a_recording_gives_the_same_recommendation(tmp_path: Path, name: str) -> None:
    machine = MACHINES[name](tmp_path / "root")
    path = tmp_path / "recording.json"
    live = machine.watch("--json", "--record", str(path))
    assert live.status == 0
    # Also on another machine.
    elsewhere = MACHINES["plain_guest"](tmp_path / "elsewhere")
    for reader in (machine, elsewhere):
        reader.system.operations.clear()
        again = reader.run("recommend", "--counters", str(path), "--json")
        assert (again.status, again.out, again.err) == (0, live.out, "")
        assert not reader.system.operations
    assert elsewhere.run("recommend", "--counters", str(path)).status == 0


def test_a_recording_is_for_its_owner_alone(guest: Machine, tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    guest.watch("--record", str(path))
    assert path.stat().st_mode & 0o777 == 0o600


def edited(edit: Callable[[Any], Any]) -> Callable[[str], bytes]:
    def make(text: str) -> bytes:
        content = json.loads(text)
        changed = edit(content)
        return json.dumps(content if changed is None else changed).encode()

    return make


def turned(content: Any) -> Any:
    return {**content, "before": content["after"], "after": content["before"]}


def other_boot(content: Any) -> None:
    content["after"]["files"][BOOT_ID] = "another\n"


def no_uptime(content: Any) -> None:
    del content["after"]["files"][UPTIME]


def number_for_text(content: Any) -> None:
    content["before"]["files"][UPTIME] = 7


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"nonsense", id="nonsense"),
        pytest.param(lambda _: b"\xff\xfe\x00", id="binary"),
        pytest.param(lambda _: b"[" * 100000, id="deep"),
        pytest.param(lambda _: b"[]", id="list"),
        pytest.param(lambda _: b"{}", id="object"),
        pytest.param(lambda text: text[:-100].encode(), id="cut"),
        pytest.param(edited(lambda content: {**content, "schema": 2}), id="other schema"),
        pytest.param(edited(lambda content: {**content, "after": None}), id="half"),
        pytest.param(edited(turned), id="turned"),
        pytest.param(edited(other_boot), id="other boot"),
        pytest.param(edited(no_uptime), id="no uptime"),
        pytest.param(edited(number_for_text), id="number"),
    ],
)
def test_what_is_no_recording_is_refused(
    guest: Machine, tmp_path: Path, make: Callable[[str], bytes]
) -> None:
    path = tmp_path / "recording.json"
    guest.watch("--record", str(path))
    path.write_bytes(make(path.read_text()))
    outcome = guest.run("recommend", "--counters", str(path), "--json")
    assert (outcome.status, outcome.out) == (2, "")
    assert str(path) in outcome.err


@pytest.mark.parametrize("damage", ["", "\0 no: 1 such,\n7 thing \xe9\n", "half", None])
def test_a_recording_with_a_damaged_file_is_no_fault_of_ours(
    host: Machine, tmp_path: Path, damage: str | None
) -> None:
    path = tmp_path / "recording.json"
    host.watch("--record", str(path))
    whole = json.loads(path.read_text())
    for name, text in whole["after"]["files"].items():
        content = json.loads(json.dumps(whole))
        if damage is None:
            del content["after"]["files"][name]
        else:
            content["after"]["files"][name] = text[: len(text) // 2] if damage == "half" else damage
        path.write_text(json.dumps(content))
        outcome = host.run("recommend", "--counters", str(path))
        assert outcome.status in (0, 2), (name, outcome.err)


def test_a_missing_recording_and_a_place_where_none_can_be(guest: Machine, tmp_path: Path) -> None:
    for option in ("--counters", "--record"):
        outcome = guest.run("recommend", "--seconds", "0.1", option, str(tmp_path / "nowhere" / "file"))
        assert (outcome.status, outcome.out) == (3, "")
        assert "nowhere" in outcome.err


def test_only_a_regular_file_becomes_a_recording(guest: Machine, tmp_path: Path) -> None:
    """A device, or what somebody else reads, keeps its mode and its content."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o644)
    for path in (fifo, tmp_path):
        mode = path.stat().st_mode
        outcome = guest.watch("--record", str(path))
        assert (outcome.status, outcome.out) == (2, "")
        assert path.stat().st_mode == mode


def test_recording_that_cannot_be_kept_costs_no_advice(
    guest: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recommend, "write_whole", full)
    path = tmp_path / "recording.json"
    outcome = guest.watch("--record", str(path))
    assert outcome.status == 3
    assert "ipi: c = 2-3" in outcome.out
    assert f"cannot keep the counters: No space left on device ({path})" in outcome.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_wrong_times_are_refused(guest: Machine, seconds: str) -> None:
    assert guest.run("recommend", "--seconds", seconds).status == 2


def test_a_machine_that_stands_still_was_not_watched(guest: Machine) -> None:
    outcome = guest.run("recommend", "--seconds", "0.1")
    assert (outcome.status, outcome.out) == (3, "")
    assert "not a later one of the same machine" in outcome.err


def test_a_cpu_that_goes_meanwhile_is_not_judged(guest: Machine) -> None:
    def unplug() -> None:
        guest.go_on(10)
        guest.cpus.pop()
        guest.go_on()
        guest.put(f"{CPUS}/online", "0-2\n")

    guest.system.at("read", UPTIME, unplug, nth=2)
    content = guest.run("recommend", "--seconds", "0.1", "--json").json
    assert content["settings"]["ipi"] == "4"
    assert content["cpus"] == "0-3"


# Recommendations that do not fit


def test_a_recommendation_for_the_other_role_does_not_fit(tmp_path: Path) -> None:
    guest, host = our_guest(tmp_path / "guest"), our_host(tmp_path / "host")
    for machine, path in ((host, recommended(guest)), (guest, recommended(host))):
        before = machine.snapshot()
        outcome = machine.run("apply", str(path))
        assert outcome.status == 5
        assert "does not fit this system: wants a " in outcome.err
        assert machine.snapshot() == before


def test_a_recommendation_for_other_cpus_does_not_fit(guest: Machine) -> None:
    path = recommended(guest)
    guest.put(f"{CPUS}/possible", "0-7\n")
    before = guest.snapshot()
    outcome = guest.run("apply", str(path))
    assert outcome.status == 5
    assert "it is for CPUs 0-3, and this machine has 0-7" in outcome.err
    assert guest.snapshot() == before


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        (lambda one: {**one, "settings": {}}, "is to set nothing"),
        (lambda one: {**one, "settings": {"ipi": "nonsense"}}, "give a hex mask"),
        (lambda one: {**one, "settings": {"ipi": 3}}, "give a hex mask"),
        (lambda one: {**one, "settings": {"/etc/passwd": "3"}}, "no setting"),
        (lambda one: {**one, "settings": 3}, "not a recommendation"),
        (lambda one: {**one, "kind": "recording"}, "not a recommendation"),
        (lambda one: {**one, "schema": 2}, "not a recommendation"),
        (lambda one: {"settings": one["settings"]}, "not a recommendation"),
        (lambda one: [one], "not a recommendation"),
        (lambda one: "nonsense", "not a recommendation"),
    ],
)
def test_what_is_no_recommendation_is_refused(guest: Machine, edit: Callable[[Any], Any], hint: str) -> None:
    path = recommended(guest)
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    before = guest.snapshot()
    outcome = guest.run("apply", str(path))
    assert outcome.status == 2
    assert hint in outcome.err
    assert guest.snapshot() == before


@pytest.mark.parametrize("text", ["", "nonsense", "[" * 100000])
def test_a_recommendation_that_is_no_json_is_refused(guest: Machine, text: str) -> None:
    path = guest.user_file("/root/it.json", text)
    outcome = guest.run("apply", str(path))
    assert outcome.status == 2
    assert "not a recommendation" in outcome.err


def test_a_pipe_is_no_recommendation(guest: Machine) -> None:
    path = guest.user_file("/root/it.json", "")
    path.unlink()
    os.mkfifo(path)
    assert guest.run("apply", str(path)).status == 3


def test_a_host_that_has_it_on_keeps_it(host: Machine) -> None:
    host.run("apply", "--wfx", "3")
    for vm in host.vms:
        for vcpu in vm.vcpus:
            vcpu.wfi = 0
    host.go_on()
    assert host.watch("--json").json["settings"] == {"wfx-guard": "Y", "wfx": "3"}
    assert host.settings()[WFX] == "00000003"


# What counts once, and what is not known


def advised(content: Any, feature: str) -> Any:
    return next(one for one in content["advice"] if one["feature"] == feature)


def test_one_file_system_in_five_places_counts_once(guest: Machine) -> None:
    guest.unmount()
    for number in range(5):
        guest.mount(Mount(f"/pods/p{number}", rpcs=40, device=45))
    guest.go_on()
    found = advised(guest.watch("--json").json, "cq-poll")
    assert "makes 40 RPCs a second, less than 100" in found["reason"]
    assert found["figures"]["RPCs a second on /pods/p0, /pods/p1, /pods/p2, /pods/p3, /pods/p4"] == 40
    # Without the list their counters tell; of different ones it is not known.
    guest.system.break_("read", "/proc/self/mountinfo", errno.EACCES)
    assert "makes 40 RPCs a second" in advised(guest.watch("--json").json, "cq-poll")["reason"]


@pytest.mark.parametrize(
    ("path", "feature"),
    [
        ("/proc/stat", "ipi"),
        ("/proc/interrupts", "ipi"),
        ("/proc/self/mountstats", "cq-poll"),
        ("/proc/stat", "cq-poll"),
    ],
)
@pytest.mark.parametrize("how", ["gone", "hidden", "empty", "binary"])
def test_what_is_not_known_is_null_and_nothing_rests_on_it(
    guest: Machine, path: str, feature: str, how: str
) -> None:
    def damage() -> None:
        guest.go_on(10)
        if how == "gone":
            guest.file(path).unlink()
        elif how == "hidden":
            guest.system.break_("read", path, errno.EACCES)
        else:
            guest.put(path, "" if how == "empty" else "\0\1 \2: 7\n")

    guest.system.at("read", UPTIME, damage, nth=2)
    outcome = guest.run("recommend", "--seconds", "0.01", "--json")
    assert outcome.status == 0, outcome.err
    found = advised(outcome.json, feature)
    assert found["settings"] == {}
    assert path in found["reason"]
    assert "cannot be told" in found["reason"] or "idles" in found["reason"]
    nulls = {name for name, figure in found["figures"].items() if figure is None}
    assert nulls == found["unknown"].keys()
    if (path, feature) not in (("/proc/stat", "ipi"), ("/proc/stat", "cq-poll")):
        assert nulls
        assert all(path in why for why in found["unknown"].values())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/sys/fs/cgroup/cpuset.cpus.isolated", "1\n"),
        (f"{CPUS}/isolated", "1\n"),
        (f"{CPUS}/nohz_full", "1\n"),
        ("/sys/fs/cgroup/cpuset.cpus.effective", "0,2-3\n"),
    ],
)
def test_the_poller_gets_no_isolated_cpu(guest: Machine, path: str, text: str) -> None:
    guest.put(path, text)
    content = guest.watch("--json").json
    assert content["settings"]["cq-poll"] == "0"
    assert "left out: CPU 1 (" in advised(content, "cq-poll")["reason"]


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        (f"{CPUS}/hotplug/states", "  0: offline\n", "its hypervisor does not tell it (no steal clock)"),
        (f"{CPUS}/hotplug/states", None, "hotplug/states cannot be read (Permission denied)"),
    ],
)
def test_both_pollers_say_that_steal_cannot_be_told(
    guest: Machine, path: str, text: str | None, why: str
) -> None:
    if text is None:
        guest.system.break_("read", path, errno.EACCES)
    else:
        guest.put(path, text)
    content = guest.watch("--json").json
    assert content["settings"] == WANTED["our_guest"]
    assert content["own_cpus"] is False
    for name in ("ipi", "cq-poll"):
        reason = advised(content, name)["reason"]
        assert "whether others take its physical CPUs (steal) cannot be told: " in reason
        assert why in reason
    assert ("no steal clock" in guest.watch().out) == (text is not None)


@pytest.mark.parametrize(
    ("path", "feature", "settings", "words"),
    [
        (IPI_POLL_US, "ipi", {"ipi": "c"}, f"unless a bound is set: {IPI_POLL_US} cannot be read"),
        (CQ_IDLE_US, "cq-poll", {"cq-poll": "1"}, f"unless a window is set: {CQ_IDLE_US} cannot be read"),
        (f"{CPUS}/isolated", "cq-poll", {}, "which CPUs are kept from ordinary tasks cannot be told"),
        ("/sys/fs/cgroup/cpuset.cpus.isolated", "cq-poll", {}, "ordinary tasks cannot be told"),
        (f"{CPUS}/cpu2/cpuidle/state1/disable", "ipi", {}, "deeper than WFI cannot be told"),
        (CMDLINE, "ipi", {}, f"(nohlt) cannot be told: {CMDLINE} cannot be read"),
    ],
)
def test_what_is_there_and_cannot_be_read_is_not_taken_for_missing(
    guest: Machine, path: str, feature: str, settings: dict[str, str], words: str
) -> None:
    if not guest.file(path).exists():
        guest.put(path, "\n")
    guest.system.break_("read", path, errno.EACCES)
    found = advised(guest.watch("--json").json, feature)
    assert found["settings"] == settings
    assert words in found["reason"] + found["cost"]
    assert "this kernel" not in found["cost"]


def test_a_guard_that_cannot_be_read_is_told(host: Machine) -> None:
    host.system.break_("read", WFX_GUARD, errno.EACCES)
    found = advised(host.watch("--json").json, "wfx")
    assert found["settings"] == {"wfx": "3"}
    assert f"whether the guard is on cannot be told, and it is not set: {WFX_GUARD}" in found["cost"]


def test_a_recommendation_without_known_cpus_is_for_any(guest: Machine) -> None:
    guest.system.break_("read", f"{CPUS}/possible", errno.EACCES)
    path = recommended(guest)
    content = json.loads(path.read_text())
    assert content["cpus"] is None
    assert content["unknown"] == {"cpus": f"{CPUS}/possible cannot be read (Permission denied)"}
    assert "it is for CPUs" not in guest.run("apply", str(path), "--dry-run").err


def test_a_poller_on_a_cpu_that_is_isolated_is_to_move(guest: Machine) -> None:
    guest.run("apply", "--cq-poll", "1")
    guest.put(f"{CPUS}/isolated", "1\n")
    found = advised(guest.watch("--json").json, "cq-poll")
    assert found["settings"]["cq-poll"] == "0"
    assert "CPU 1, which polls now, is isolated (isolcpus)" in found["reason"]


def test_a_vendors_poller_on_a_cpu_that_is_isolated_stays(tmp_path: Path) -> None:
    machine = MACHINES["vendor_guest"](tmp_path / "root")
    machine.run("apply", "--cq-poll", "1")
    machine.mount(Mount())
    machine.put(f"{CPUS}/isolated", "1\n")
    machine.go_on()
    found = advised(machine.watch("--json").json, "cq-poll")
    assert found["settings"] == {}
    assert "may hang a mount when polling changes" in found["reason"]
    assert "CPU 1, which polls now, is isolated (isolcpus)" in found["reason"]
    assert "is on CPU 1, which is isolated (isolcpus)" in machine.run("status").out


def test_the_poller_gets_no_cpu_of_a_partition(guest: Machine) -> None:
    for group in ("rt.slice", "a.slice/rt.service"):
        guest.put(f"/sys/fs/cgroup/{group}/cpuset.cpus.partition", "isolated\n")
        guest.put(f"/sys/fs/cgroup/{group}/cpuset.cpus.effective", "1\n")
        guest.put("/sys/fs/cgroup/other.slice/cpuset.cpus.partition", "member\n")
        guest.put("/sys/fs/cgroup/other.slice/cpuset.cpus.effective", "0-3\n")
        content = guest.watch("--json").json
        assert content["settings"]["cq-poll"] == "0"
        assert "CPU 1 (a cpuset partition's)" in advised(content, "cq-poll")["reason"]
        guest.put(f"/sys/fs/cgroup/{group}/cpuset.cpus.partition", "member\n")
        assert guest.watch("--json").json["settings"]["cq-poll"] == "1"


def test_a_recording_tells_what_is_in_it_and_nobodys_names(guest: Machine, tmp_path: Path) -> None:
    user = "//fs.example.test/share /mnt/s cifs rw,username=svc_backup,domain=CORP,addr=192.0.2.5 0 0\n"
    guest.put(MOUNTS, guest.get(MOUNTS) + user)
    guest.put(CMDLINE, "root=/dev/vda luks.key=hunter2\n")
    path = tmp_path / "recording.json"
    outcome = guest.watch("--json", "--record", str(path))
    text = path.read_text()
    for secret in ("svc_backup", "fs.example.test", "CORP", "hunter2", "10.0.0.1"):
        assert secret not in text
    assert f"{path} holds, of two moments:" in outcome.err
    for kept in json.loads(text)["after"]["files"]:
        if not any(digit in kept for digit in "0123456789"):
            assert kept in outcome.err
    assert "of NFS mounts: place and transport" in outcome.err
