# SPDX-License-Identifier: Apache-2.0
"""What the four features are set to and have done, and that odd files are no end of it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.figure import Unknown, known
from cvmtune.features.feature import FeatureStatus as Feature
from cvmtune.observe.capture import KVM, Capture
from cvmtune.observe.captured import CapturedSystem
from tests.fakes.bound import features, place, present, shown
from tests.fakes.capture import CQ_TOTALS, CQS, GUEST, HOST, SOFT_STATS, changed, vm

IPI = "/sys/kernel/soft_ipi_passthrough"
CQ_POLL = "/sys/kernel/ib_core_poll_cpu"
WFX = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
NAMES = ["ipi", "vtimer", "cq-poll", "wfx"]
Changes = Mapping[str, str | None]


def of(seen: Capture, name: str) -> Feature:
    found = features(seen, place(seen))
    assert [one.name for one in found] == NAMES
    return found[NAMES.index(name)]


def guest(name: str, changes: Changes) -> Feature:
    return of(changed(GUEST, changes), name)


def host(name: str, changes: Changes) -> Feature:
    return of(changed(HOST, changes), name)


# 1: soft IPI passthrough


@pytest.mark.parametrize(("mask", "status", "value"), [("00000003\n", "on", "3"), ("0\n", "off", "0")])
def test_ipi(mask: str, status: str, value: str) -> None:
    found = guest("ipi", {IPI: mask})
    assert found == Feature(
        "ipi",
        "on" if status == "on" else "off",
        {"ipi": value, "ipi-poll-us": "0"},
        "500 IPIs softly, 2888 by hardware, polled 3.5 s",
        {
            **{"soft_ipis": 500, "hardware_ipis": 60 + 78 + 1523 + 1204 + 7 + 12 + 4},
            **{"reschedule": 300, "call_function": 180, "timer": 15, "irq_work": 5},
            **{"polled_s": 3.5, "fallbacks": 9},
        },
    )


def test_ipi_of_a_kernel_without_it() -> None:
    found = of(Capture({}), "ipi")
    assert (found.status, found.settings, found.did, found.statistics) == ("absent", {}, "", {})
    assert "has no soft IPI passthrough" in found.problem


def test_ipi_of_a_vendors_kernel() -> None:
    """Which has neither a bound nor statistics."""
    seen = Capture({IPI: "0000000f\n", "/proc/interrupts": GUEST["/proc/interrupts"].replace("SIPI", "XXXX")})
    found = of(seen, "ipi")
    assert (found.status, found.settings) == ("on", {"ipi": "f"})
    missing = Unknown("/proc/interrupts has no row SIPI")
    assert found.did == f"IPIs softly {missing}, 2888 by hardware"
    assert found.statistics == {"soft_ipis": missing, "hardware_ipis": 2888}


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "cpu\n0\n1\n", "-\n"),
        "cpu sent reschedule call_function timer irq_work polls poll_ns fallbacks limit_ns\n0 1 2\n1 x\n",
    ],
)
def test_ipi_whose_statistics_tell_nothing(text: str) -> None:
    found = guest("ipi", {SOFT_STATS: text, IPI: "1\n"})
    assert found.status == "on"
    assert found.did.startswith("500 IPIs softly, 2888 by hardware, polling cannot be told: ")
    assert isinstance(found.statistics["polled_s"], Unknown)
    assert isinstance(found.statistics["reschedule"], Unknown)


def test_ipi_whose_statistics_have_other_columns() -> None:
    text = "new poll_ns cpu reschedule\n- 1000000000 0 7\n- 1500000000 1 8\n"
    found = guest("ipi", {SOFT_STATS: text}).statistics
    assert (found["polled_s"], found["reschedule"]) == (2.5, 15)
    assert found["timer"] == Unknown(f"{SOFT_STATS} has no timer")


def test_ipi_whose_statistics_cannot_be_read() -> None:
    files = {path: text for path, text in GUEST.items() if path != SOFT_STATS}
    for path in (SOFT_STATS, "/sys/kernel/debug"):
        found = of(Capture(files, {path: errno.EACCES}), "ipi").statistics
        assert found["polled_s"] == Unknown(f"{SOFT_STATS} cannot be read: Permission denied")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        GUEST["/proc/interrupts"].partition("\n")[2],
        GUEST["/proc/interrupts"].replace("IRQ work", "other"),
    ],
)
def test_ipi_with_interrupts_that_do_not_tell(text: str | None) -> None:
    found = guest("ipi", {"/proc/interrupts": text})
    assert isinstance(found.statistics["hardware_ipis"], Unknown)
    assert "by hardware cannot be told: /proc/interrupts" in found.did


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_ipi_with_interrupts_that_cannot_be_read(number: int) -> None:
    files = {path: text for path, text in GUEST.items() if path != "/proc/interrupts"}
    found = of(Capture(files, {"/proc/interrupts": number}), "ipi")
    assert "by hardware cannot be told: /proc/interrupts cannot be read" in found.did


# 2: the virtual timer


def test_vtimer_is_the_hosts() -> None:
    found = guest("vtimer", {})
    assert (found.status, found.problem, found.did) == ("elsewhere", "it is the monitor's and the host's", "")


def test_vtimer_of_a_host_without_it() -> None:
    gone = {f"{KVM}/{folder}/vtimer_mode": None for folder in ("1200-13", "1300-9")}
    found = host("vtimer", gone)
    assert (found.status, found.problem) == ("absent", "no VM here has it")


def test_vtimer() -> None:
    found = host("vtimer", {f"{KVM}/1300-9/vtimer_mode": "hw\n"})
    assert (found.status, found.settings) == ("on", {})
    assert found.did == "VM db: masked, VM of process 1300: hw; 120 timer exits, 1 redundant"
    assert found.statistics == {
        **{"entries": 27000, "masked_entries": 300, "timer_exits": 120, "redundant_exits": 1}
    }


def test_vtimer_that_is_masked_nowhere_is_off() -> None:
    modes = {f"{KVM}/1200-13/vtimer_mode": "hw\n", f"{KVM}/1300-9/vtimer_mode": "unmasked\n"}
    assert host("vtimer", modes).status == "off"


@pytest.mark.parametrize(
    "text", [None, "", "\n", "vcpu\n0\n1\n", "vcpu entries timer_exits\n0 1\n1\n", "\0\n"]
)
def test_vtimer_whose_statistics_tell_nothing(text: str | None) -> None:
    files = {f"{KVM}/{folder}/vtimer_stats": text for folder in ("1200-13", "1300-9")}
    found = host("vtimer", files)
    assert "; timer exits cannot be told: " in found.did
    assert all(isinstance(figure, Unknown) for figure in found.statistics.values())


@pytest.mark.parametrize("name", ["vtimer_stats", "vtimer_mode"])
def test_vtimer_of_a_vm_that_cannot_be_read(name: str) -> None:
    """What is known of the others is no part of a sum that is not known."""
    path = f"{KVM}/1300-9/{name}"
    found = of(replace(changed(HOST, {path: None}), unreadable={path: errno.EPERM}), "vtimer")
    assert (found.status, found.statistics["timer_exits"]) == (
        "on",
        Unknown("vtimer_stats cannot be read: kernel lockdown") if name == "vtimer_stats" else 120,
    )
    assert ("VM of process 1300: cannot be read" in found.did) == (name == "vtimer_mode")


def test_vtimer_of_vms_that_cannot_be_read_is_unknown() -> None:
    paths = [path for path in HOST if path.startswith(KVM)]
    seen = replace(changed(HOST, dict.fromkeys(paths)), unreadable=dict.fromkeys(paths, errno.EPERM))
    found = of(seen, "vtimer")
    wanted = "VMs cannot be read: kernel lockdown (db, of process 1300)"
    assert (found.status, found.problem) == ("unknown", wanted)
    wfx = of(seen, "wfx")
    assert wfx.did == f"2 VMs, {wanted}"
    assert wfx.statistics["vms"] == 2
    assert all(isinstance(figure, Unknown) for name, figure in wfx.statistics.items() if name != "vms")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_vms_without_debugfs_are_unknown(number: int) -> None:
    files = {path: text for path, text in HOST.items() if not path.startswith(KVM)}
    seen = Capture(files, {"/sys/kernel/debug": number})
    assert of(seen, "vtimer").status == "unknown"
    wfx = of(seen, "wfx")
    assert "VMs cannot be seen without debugfs" in wfx.did
    assert all(isinstance(figure, Unknown) for figure in wfx.statistics.values())


# 3: polled completion queues


@pytest.mark.parametrize(("value", "status"), [("1\n", "on"), ("0\n", "on"), ("-1\n", "off")])
def test_cq_poll(value: str, status: str) -> None:
    found = guest("cq-poll", {CQ_POLL: value})
    assert (found.status, found.settings) == (status, {"cq-poll": value.strip(), "cq-idle-us": "1000"})
    assert found.did == "2 of 3 queues polled, 770 completions found, awake 2.5 s"
    assert found.statistics == {
        **{"taken": 2, "given_back": 0, "sleeps": 12, "wakeups": 12, "awake_ns": 2.5e9},
        **{"queues": 3, "polled_queues": 2, "completions": 770},
    }


@pytest.mark.parametrize(
    ("sentence", "status", "value"),
    [("Current polling core is: 3\n", "on", "3"), ("Current polling thread is down\n", "off", "-1")],
)
def test_cq_poll_of_a_vendors_kernel(sentence: str, status: str, value: str) -> None:
    found = of(Capture({CQ_POLL: sentence, "/sys/kernel/ib_core_poll_stat": "0\n"}), "cq-poll")
    assert (found.status, found.settings, found.did) == (status, {"cq-poll": value}, "")


def test_cq_poll_that_is_not_loaded() -> None:
    found = guest("cq-poll", {CQ_POLL: None})
    assert found.status == "absent"
    assert "is not loaded" in found.problem


@pytest.mark.parametrize(
    "text", ["", "\n", "device cq owner\nrxe0 2\n", "cq\n", "device polled completions x\n0 1 2\n", None]
)
def test_cq_poll_whose_queues_do_not_tell(text: str | None) -> None:
    found = guest("cq-poll", {CQS: text, CQ_TOTALS: "x\n"})
    for name in ("polled_queues", "completions"):
        assert isinstance(found.statistics[name], Unknown)
    assert "0 completions" not in found.did
    assert ("completions found cannot be told" in found.did) == (text is not None)


def test_cq_poll_without_queues() -> None:
    found = guest("cq-poll", {CQS: "device cq owner polled polls completions\n", CQ_TOTALS: "x\n"})
    assert found.did == "0 of 0 queues polled, 0 completions found"


def test_cq_poll_whose_queues_have_other_columns() -> None:
    found = guest("cq-poll", {CQS: "new polled cq device\n- 1 2 rxe0\n- 0 3 rxe0\n"})
    assert found.did.startswith("1 of 2 queues polled, completions found cannot be told")


# 4: WFx traps


def test_wfx() -> None:
    found = host("wfx", {WFX: "00000003\n", GUARD: "Y\n"})
    assert (found.status, found.settings) == ("on", {"wfx": "3", "wfx-guard": "Y"})
    assert found.did == "2 VMs, 90 of 27000 entries untrapped"
    assert found.statistics == {
        **{"entries": 27000, "untrapped": 90, "guarded": 12, "wfi_exits": 1120, "wfe_exits": 560, "vms": 2}
    }


def test_wfx_names_vms_that_have_masks_of_their_own() -> None:
    found = host("wfx", vm("1200-13", mask="00000002"))
    assert found.status == "off"
    assert found.did.endswith("VM db has a mask of its own, 2 = 1")
    assert host("wfx", vm("1200-13", mask="0")).did.endswith("VM db has a mask of its own, 0 = none")


def test_wfx_of_a_guest_is_the_hosts() -> None:
    found = guest("wfx", {})
    assert (found.status, found.settings, found.problem) == ("elsewhere", {}, "it is the host's")


def test_wfx_of_a_host_without_it() -> None:
    found = host("wfx", {WFX: None})
    assert found.status == "absent"
    assert "no control of WFx traps" in found.problem


@pytest.mark.parametrize(
    ("text", "did"),
    [
        (None, "2 VMs"),
        ("", "2 VMs"),
        ("vcpu entries untrapped\n0 5\n", "2 VMs"),
        ("vcpu named\n0 1\n", "2 VMs"),
    ],
)
def test_wfx_whose_statistics_tell_nothing(text: str | None, did: str) -> None:
    files: dict[str, str | None] = {
        f"{KVM}/{folder}/wfx_trap_stats": text for folder in ("1200-13", "1300-9")
    }
    found = host("wfx", files)
    assert found.did == did
    assert isinstance(found.statistics["untrapped"], Unknown)
    # What KVM itself counts is known.
    assert (found.statistics["wfi_exits"], found.statistics["vms"]) == (1120, 2)


@pytest.mark.parametrize("text", ["", "x\n", "0x3\n", "g,0\n"])
def test_wfx_of_a_vm_whose_mask_does_not_parse(text: str) -> None:
    found = host("wfx", {f"{KVM}/1200-13/wfx_trap_config": text})
    assert "mask of its own" not in found.did


# Controls that do not say what they are set to


@pytest.mark.parametrize(("name", "path"), [("ipi", IPI), ("cq-poll", CQ_POLL), ("wfx", WFX)])
def test_control_that_says_something_else_is_unknown(name: str, path: str) -> None:
    found = host(name, {path: "on fire\n"})
    assert (found.status, found.settings, found.did) == ("unknown", {}, "")
    assert "on fire" in found.problem


@pytest.mark.parametrize(("name", "path"), [("ipi", IPI), ("cq-poll", CQ_POLL), ("wfx", WFX)])
def test_control_that_cannot_be_read_is_unknown(name: str, path: str) -> None:
    seen = replace(changed(HOST, {path: None}), unreadable={path: errno.EACCES})
    found = of(seen, name)
    assert found.status == "unknown"
    assert "Permission denied" in found.problem
    assert "run as root" in found.problem


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ipi", "/sys/module/soft_ipi/parameters/poll_us"),
        ("cq-poll", "/sys/module/ib_core_cq_poll/parameters/idle_us"),
    ],
)
@pytest.mark.parametrize("text", ["", "many\n", "-1\n", None])
def test_parameter_that_cannot_be_told_is_left_out(name: str, path: str, text: str | None) -> None:
    found = guest(name, {path: text})
    assert found.settings.keys() == {name}
    assert found.status == "off"


# Settings


def test_settings_that_are_there() -> None:
    assert present(Capture(GUEST)) == {"ipi", "ipi-poll-us", "cq-poll", "cq-idle-us", "wfx-guard"}
    assert present(Capture(HOST)) == {"ipi", "ipi-poll-us", "wfx", "wfx-guard"}
    # To say that there is none would have `apply off` leave it on.
    assert present(Capture({}, {IPI: errno.EACCES})) == {"ipi"}
    assert present(changed(HOST, {IPI: "x\n", WFX: ""})) == present(Capture(HOST))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ipi", "c", "c = 2-3"),
        ("wfx", "1,00000000", "1,00000000 = 32"),
        ("ipi", "0", "0 = none"),
        ("cq-poll", "-1", "off"),
        ("cq-poll", "3", "3"),
        ("cq-idle-us", "1000", "1000"),
        ("wfx-guard", "Y", "Y"),
    ],
)
def test_settings_as_people_want_to_see_them(name: str, value: str, words: str) -> None:
    assert shown(name, value) == words


# A capture as a system


def test_captured_system_reads_what_was_read() -> None:
    system = CapturedSystem(Capture({"/a": " 3\n"}, {"/b": errno.EACCES}))
    assert system.read_text("/a") == " 3\n"
    assert [system.exists(path) for path in ("/a", "/b", "/c")] == [True, True, False]
    with pytest.raises(PermissionError, match="/b"):
        system.read_text("/b")
    with pytest.raises(FileNotFoundError, match="/c"):
        system.read_text("/c")


def test_captured_system_cannot_be_changed() -> None:
    files = {"/a": "3\n"}
    system = CapturedSystem(Capture(files))
    with pytest.raises(OSError, match="Read-only file system"):
        system.write_text("/a", "4\n")
    with pytest.raises(NotImplementedError):
        system.run(["true"])
    assert files == {"/a": "3\n"}


@given(
    st.sampled_from([GUEST, HOST]),
    st.dictionaries(st.sampled_from([*GUEST, *HOST, CQ_POLL]), st.text() | st.none(), max_size=4),
)
def test_any_texts(files: Mapping[str, str], changes: dict[str, str | None]) -> None:
    seen = changed(files, changes)
    for one in features(seen, place(seen)):
        assert one.status in ("on", "off", "absent", "elsewhere", "unknown")
        assert (one.status in ("on", "off")) == (not one.problem)
        assert all((known(value) or 0) >= 0 for value in one.statistics.values())
        assert all(shown(name, value) for name, value in one.settings.items())
    assert present(seen) <= {"ipi", "ipi-poll-us", "cq-poll", "cq-idle-us", "wfx-guard", "wfx"}
