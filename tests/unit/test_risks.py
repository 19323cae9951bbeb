# SPDX-License-Identifier: Apache-2.0
"""What is wrong or risky on a machine is told, and nothing on one where all is well."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Unknown
from cvmtune.features.cq_poll.knob import rdma_mounts
from cvmtune.features.feature import Risk
from cvmtune.observe.capture import CPUS, KVM, Capture
from cvmtune.observe.command_line import nohlt
from cvmtune.observe.cpus import deep_idle, own_cpus, stolen
from cvmtune.observe.reduction import reduced
from cvmtune.observe.steal import MAX_STEAL
from tests.fakes.bound import advise, features, load, place, risks
from tests.fakes.capture import BOOT_ID, GUEST, HOST, changed, thread, vm

IPI = "/sys/kernel/soft_ipi_passthrough"
BOUND = "/sys/module/soft_ipi/parameters/poll_us"
CQ_POLL = "/sys/kernel/ib_core_poll_cpu"
WINDOW = "/sys/module/ib_core_cq_poll/parameters/idle_us"
WFX = "/sys/kernel/cvm_wfx_trap_config"
GUARD = "/sys/module/kvm/parameters/wfx_guard"
MOUNTS = "/proc/mounts"
STAT = "/proc/stat"
UPTIME = "/proc/uptime"
Changes = Mapping[str, str | None]

# A vendor's guest: controls, and nothing that only our kernel has.
VENDOR: Mapping[str, str] = {
    **{
        path: GUEST[path] for path in ("/proc/stat", "/proc/interrupts", f"{CPUS}/online", f"{CPUS}/possible")
    },
    "/proc/cmdline": "virtcca_cvm_guest=1\n",
    "/sys/class/misc/tsi/dev": "10:123\n",
    IPI: "0\n",
    CQ_POLL: "Current polling thread is down\n",
    MOUNTS: "",
}


def of(seen: Capture) -> list[Risk]:
    where = place(seen)
    return risks(seen, where, features(seen, where))


def guest(changes: Changes) -> list[Risk]:
    return of(changed(GUEST, changes))


def host(changes: Changes) -> list[Risk]:
    return of(changed(HOST, changes))


def stat(steal: int, total: int = 1000) -> str:
    """Two CPUs, of which the second lost that much of its time."""
    return f"cpu0 0 0 0 {total} 0 0 0 0 0 0\ncpu1 0 0 0 {total - steal} 0 0 0 {steal} 0 0\n"


@pytest.mark.parametrize("files", [GUEST, HOST, {}])
def test_all_is_well(files: Mapping[str, str]) -> None:
    assert of(Capture(files)) == []


def test_risk_says_what_to_do() -> None:
    (risk,) = guest({IPI: "2\n", "/proc/cmdline": "nohlt\n"})
    assert risk == Risk(
        "CPU 1 polls for IPIs, but with nohlt all CPUs poll elsewhere, and take IPIs by hardware",
        "boot without nohlt",
    )


# What cannot be told


def test_control_that_cannot_be_told() -> None:
    (risk,) = guest({IPI: "?\n"})
    assert risk.what.startswith("ipi: the kernel shows something else than a mask")
    assert "\n" not in risk.what


def test_debugfs_that_cannot_be_read() -> None:
    for number in (errno.EACCES, errno.ENOENT):
        (risk,) = of(Capture(GUEST, {"/sys/kernel/debug": number}))
        assert "debugfs cannot be read" in risk.what
        assert "root" in risk.next_step
    assert of(Capture(GUEST, {"/sys/kernel/debug/x": errno.EACCES})) == []


# A vendor's kernel


def test_masks_of_a_vendors_kernel() -> None:
    risk, _ = of(Capture(VENDOR))
    assert "vendor's kernel hangs (ipi)" in risk.what
    risk, _ = of(changed(VENDOR, {WFX: "0\n"}))
    assert "vendor's kernel hangs (ipi and wfx)" in risk.what
    assert of(changed(VENDOR, {IPI: None, CQ_POLL: None, WFX: "0\n"}))[0].what.endswith("hangs (wfx)")
    (risk,) = of(changed(VENDOR, {IPI: None}))
    assert "hangs" not in risk.what


@pytest.mark.parametrize("mask", ["0\n", "1\n", "?\n"])
def test_masks_of_a_vendors_kernel_whatever_they_are(mask: str) -> None:
    assert any("hangs (ipi)" in risk.what for risk in of(changed(VENDOR, {IPI: mask})))


def test_polling_of_a_vendors_kernel() -> None:
    *_, risk = of(Capture(VENDOR))
    assert "polls only what is mounted after" in risk.what
    *_, risk = of(changed(VENDOR, {MOUNTS: "s:/e /mnt nfs4 rw,proto=rdma,port=20049 0 0\n"}))
    assert risk.what == "NFS is mounted over RDMA on /mnt: its I/O hangs if polling is changed now"
    assert not any("mounted" in one.what for one in of(changed(VENDOR, {CQ_POLL: None})))


def test_mounts_do_not_matter_to_our_kernel() -> None:
    assert guest({MOUNTS: "s:/e /mnt nfs4 rw,proto=rdma,port=20049 0 0\n", CQ_POLL: "1\n"}) == []


@pytest.mark.parametrize(
    ("line", "points"),
    [
        ("s:/e /mnt nfs4 rw,vers=4.2,proto=rdma,port=20049 0 0", ["/mnt"]),
        ("s:/e /mnt nfs rw,proto=rdma 0 0", ["/mnt"]),
        ("s:/e /mnt nfs proto=rdma6,rw 0 0", ["/mnt"]),
        ("s:/e /a\\040b nfs4 rw,proto=rdma 0 0", ["/a\\040b"]),
        # Whitespace that the kernel does not escape (features/cq_poll/knob.py).
        ("s:/e /a\xa0b\vc\x85d nfs4 rw,proto=rdma 0 0", ["/a\xa0b\vc\x85d"]),
        ("s:/e /mnt nfs4 rw,proto=tcp,mountproto=rdma 0 0", []),
        ("s:/e /mnt nfs4 rw,proto=rdmax 0 0", []),
        ("s:/e /mnt nfs5 rw,proto=rdma 0 0", []),
        ("s:/e /mnt fuse.nfs4 rw,proto=rdma 0 0", []),
        ("/dev/vda / ext4 rw 0 0", []),
        # A name is no line.
        ("x /a\vs:/e\x85/b\x85nfs4\x85rw,proto=rdma fuse rw 0 0", []),
    ],
)
def test_mounts_over_rdma(line: str, points: list[str]) -> None:
    text = f"proc /proc proc rw 0 0\n{line}\ns:/f /last nfs4 proto=rdma 0 0\n"
    assert rdma_mounts(text) == [*points, "/last"]


def test_no_mounts() -> None:
    assert rdma_mounts("") == []


# A container's view

ROOT = "21 1 254:0 / / rw - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/run/systemd/container": "docker\n"}, "docker, by /run/systemd/container"),
        (
            {"/proc/self/mountinfo": f"{ROOT}90 21 0:9 / /proc/stat rw - fuse.lxcfs lxcfs rw\n"},
            "fuse.lxcfs mounted on",
        ),
        (
            {"/proc/self/mountinfo": "90 21 0:9 / /proc/uptime rw shared:1 - fuse.lxcfs lxcfs rw\n"},
            "/proc/uptime",
        ),
        ({"/.dockerenv": ""}, "by /.dockerenv"),
        # One that sees all processes has its own mounts nevertheless.
        (
            {
                "/.dockerenv": "",
                "/proc/2/comm": "kthreadd\n",
                "/proc/self/mountinfo": "600 1 0:50 / / rw - overlay overlay rw\n",
            },
            "by /.dockerenv",
        ),
        (
            {"/.dockerenv": "", "/proc/2/comm": "bash\n", "/proc/self/mountinfo": ROOT},
            "by /.dockerenv",
        ),
        ({"/run/.containerenv": "engine=podman\n"}, "by /run/.containerenv"),
        (
            {"/proc/self/mountinfo": f"{ROOT}9 21 0:9 / /proc/kcore rw - tmpfs tmpfs rw,nosuid\n"},
            "tmpfs mounted on /proc/kcore",
        ),
        ({"/proc/1/cgroup": "0::/docker/0123\n"}, "docker, by /proc/1/cgroup"),
        ({"/proc/1/cgroup": "5:cpuset:/kubepods/burstable/x\n0::/x\n"}, "kubepods"),
        ({"/proc/1/cgroup": "0::/lxc.payload.web/init.scope\n"}, "lxc.payload"),
    ],
)
def test_containers_view(files: Changes, words: str) -> None:
    (risk,) = guest(files)
    assert risk.what.startswith("this is a container's view of the machine (")
    assert words in risk.what
    seen = changed(GUEST, files)
    assert own_cpus(seen, place(seen)) is None
    for one in advise(load(changed(GUEST, files), changed(GUEST, {**files, UPTIME: "1010.00 1\n"}))):
        assert not one.settings
        assert ("container's view" in one.reason) is (one.feature != "vtimer")
        assert all(isinstance(figure, Unknown) for figure in one.figures.values())


@pytest.mark.parametrize(
    "files",
    [
        {"/run/systemd/container": "\n"},
        # A machine whose root was made of a container's image.
        {"/.dockerenv": "", "/proc/2/comm": "kthreadd\n", "/proc/self/mountinfo": ROOT},
        {
            "/proc/self/mountinfo": f"{ROOT}22 21 0:5 / /proc rw - proc proc rw\n"
            "23 22 0:6 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n"
        },
        {"/proc/1/cgroup": "0::/init.scope\n"},
        {"/proc/1/cgroup": "0::/\n"},
        {"/proc/1/cgroup": "0::/user.slice/dockerish.slice\n"},
    ],
)
def test_machines_own_view(files: Changes) -> None:
    assert guest(files) == []


# Soft IPIs


def test_polling_guest_where_all_is_well() -> None:
    assert guest({IPI: "2\n"}) == []
    assert guest({IPI: "3\n", BOUND: "100\n"}) == []


def test_host_that_polls() -> None:
    (risk,) = host({IPI: "2\n"})
    assert "CPU 1 polls for IPIs on a host" in risk.what


def test_guest_that_polls_and_is_overcommitted() -> None:
    (risk,) = guest({IPI: "2\n", "/proc/stat": stat(steal=500)})
    assert "lose time to others (steal)" in risk.what
    assert guest({IPI: "0\n", "/proc/stat": stat(steal=500)}) == []


@pytest.mark.parametrize("bound", ["0\n", None])
def test_all_cpus_poll_without_a_bound(bound: str | None) -> None:
    (risk,) = guest({IPI: "3\n", BOUND: bound})
    assert "all 2 CPUs poll without a bound" in risk.what


def test_cpus_that_poll_and_are_offline() -> None:
    (risk,) = guest({IPI: "6\n", f"{CPUS}/possible": "0-3\n"})
    assert risk.what == "CPU 2 is to poll, and is offline"
    found = [risk.what for risk in guest({IPI: "7\n", f"{CPUS}/possible": "0-3\n"})]
    assert [what.split(" ")[0] for what in found] == ["all", "CPU"]


def test_online_cpus_that_are_not_known_are_not_all() -> None:
    unbounded, online = guest({IPI: "3\n", f"{CPUS}/online": "?\n"})
    # They are all that there can be.
    assert "all 2 CPUs poll without a bound" in unbounded.what
    assert f"which CPUs are online cannot be told: {CPUS}/online does not show it" in online.what


def test_cpus_that_poll_and_may_sleep_deeply() -> None:
    states = {f"{CPUS}/cpu1/cpuidle/state1/disable": "0\n", f"{CPUS}/cpu0/cpuidle/state1/disable": "0\n"}
    (risk,) = guest({IPI: "2\n", **states})
    assert "CPU 1 is to poll, and cpuidle may take it deeper than WFI" in risk.what


@pytest.mark.parametrize(
    ("path", "text", "deep"),
    [
        ("cpu1/cpuidle/state1/disable", "0\n", {1}),
        ("cpu1/cpuidle/state10/disable", "0", {1}),
        ("cpu1/cpuidle/state1/disable", "1\n", set()),
        ("cpu1/cpuidle/state0/disable", "0\n", set()),  # WFI
        ("cpu1/cpuidle/state1/name", "0\n", set()),
        ("cpu1/cpuidle/state1/disable", "", set()),
        ("cpu3/cpuidle/state1/disable", "0\n", set()),  # not asked for
        ("cpu999999/cpuidle/state1/disable", "0\n", set()),
    ],
)
def test_deep_idle(path: str, text: str, deep: set[int]) -> None:
    seen = Capture({f"{CPUS}/{path}": text, f"{CPUS}/cpu0/cpuidle/state0/disable": "0\n"})
    assert deep_idle(seen, CpuMask(frozenset({0, 1}))).cpus == deep


@pytest.mark.parametrize(
    ("line", "matters"),
    [
        *((line, True) for line in ("nohlt", "x nohlt y", "nohlt=1", "hlt nohlt", 'nohlt" "', "nohltx")),
        *(
            (line, False)
            for line in ("hlt", "nohlt hlt", "x -- nohlt", 'a="b nohlt"', "nohlt hlt=0", "x.nohlt")
        ),
    ],
)
def test_nohlt(line: str, matters: bool) -> None:
    assert bool(guest({IPI: "2\n", "/proc/cmdline": f"{line}\n"})) is matters
    kept = reduced(Capture({"/proc/cmdline": f"{line}\n"}))
    assert nohlt(kept) is matters
    assert guest({"/proc/cmdline": f"{line}\n"}) == []


# The poller


@pytest.mark.parametrize(
    ("cpu", "window", "matters"),
    [
        ("1", "0", True),
        ("0", "0", True),
        ("1", "1000", False),
        ("-1", "0", False),
        ("1", None, False),  # the kernel that has no window does as it does
    ],
)
def test_poller_that_never_sleeps(cpu: str, window: str | None, matters: bool) -> None:
    found = guest({CQ_POLL: f"{cpu}\n", WINDOW: window})
    assert [risk.what for risk in found] == [
        f"the poller on CPU {cpu} never sleeps while there is a queue"
    ] * matters


# Traps


def test_pinned_vcpus_may_go_untrapped() -> None:
    assert host({WFX: "3\n", **vm("1300-9", mask="0")}) == []


def test_vcpu_that_is_not_pinned_and_not_trapped() -> None:
    (risk,) = host({WFX: "1\n"})
    assert risk.what == (
        "WFx of vCPU 0 of VM of process 1300 is not trapped, and vCPU 0 is not pinned (CPUs 0-1): "
        "idle, it takes its CPU from others"
    )
    assert "guard" in risk.next_step


def test_vcpus_that_share_and_are_not_trapped() -> None:
    shared = thread(1200, 1204, "CPU 1/KVM", "2")
    (risk,) = host({**shared, **vm("1200-13", mask="3")})
    assert "vCPUs 0-1 of VM db" in risk.what
    assert "vCPU 0 shares CPU 2 with another vCPU" in risk.what
    (risk,) = host({**shared, **vm("1200-13", mask="2")})
    assert "WFx of vCPU 1 of VM db" in risk.what
    assert "vCPU 1 shares" in risk.what


def test_mask_of_its_own_counts_instead_of_the_systems() -> None:
    assert host({WFX: "0\n", **vm("1300-9", mask="1")}) != []
    assert host({WFX: "1\n", **vm("1300-9", mask="0")}) == []
    assert host({WFX: "0\n", **vm("1300-9", mask="2")}) == []


def test_guard_makes_up_for_it() -> None:
    assert host({WFX: "1\n", GUARD: "Y\n"}) == []
    assert len(host({WFX: "1\n", GUARD: None})) == 1


# Whose CPUs vCPUs have


def test_nobody_knows_where_steal_is_not_counted() -> None:
    """A hypervisor that does not tell shows 0, overcommitted or not."""
    for text in ("  0: offline\n", None):
        seen = changed(GUEST, {f"{CPUS}/hotplug/states": text})
        assert own_cpus(seen, place(seen)) is None


@pytest.mark.parametrize(
    ("steal", "own"),
    [(0, True), (int(1000 * MAX_STEAL), True), (int(1000 * MAX_STEAL) + 1, False), (1000, False)],
)
def test_steal_tells_of_a_guest(steal: int, own: bool) -> None:
    seen = changed(GUEST, {"/proc/stat": stat(steal)})
    assert own_cpus(seen, place(seen)) is own


def watched(then: str, now: str, seconds: int = 1) -> Capture:
    """The guest, looked at twice."""
    first = changed(GUEST, {"/proc/stat": then})
    later = changed(GUEST, {"/proc/stat": now, UPTIME: f"{1000 + seconds}.00 1\n"})
    return replace(later, earlier=first)


@pytest.mark.parametrize(
    ("then", "now", "own", "words"),
    [
        # 0.2 % since boot and 60 % now; or much of it long ago, and none now.
        (stat(200, 100000), stat(260, 100100), False, "CPU 1 lost 60.0% of its time to others (steal) in"),
        (stat(40000, 100000), stat(40000, 100100), True, "CPU 0 lost 0.0% of its time"),
        (stat(40000, 100000), stat(39000, 100100), None, "steal time of CPU 1 went backwards"),
        (stat(200, 100000), stat(200, 100000), None, "no time of CPU 0 was counted"),
        ("cpu0 0 0 0 1 0 0 0 0 0 0\n", stat(0), None, "a CPU has come meanwhile"),
        (stat(200, 100000), stat(260, 100100).splitlines()[0], None, "CPU 1: /proc/stat does not show it"),
        ("", "", None, "/proc/stat is empty"),
        # What is known to be too much settles it.
        (stat(200, 100000), stat(260, 100100).splitlines()[1], False, "CPU 1 lost 60.0%"),
    ],
)
def test_steal_now_tells_of_a_guest(then: str, now: str, own: bool | None, words: str) -> None:
    seen = watched(then, f"{now}\n")
    assert own_cpus(seen, place(seen)) is own
    told = str(stolen(seen, place(seen)))
    assert words in told
    assert "in the last 1.0 s" in told


def test_steal_since_boot_tells_where_no_time_has_passed() -> None:
    for seconds, earlier in ((0, None), (0, ""), (1, "x")):
        seen = watched(stat(0), stat(500), seconds)
        if earlier == "x":
            seen = replace(seen, earlier=None)
        assert "CPU 1 lost 50.0% of its time to others (steal) since boot" in str(stolen(seen, place(seen)))
        assert own_cpus(seen, place(seen)) is False


@pytest.mark.parametrize("text", [None, "", "cpu  1 2 3\n", "cpu0 1 2\n"])
def test_guest_that_does_not_tell(text: str | None) -> None:
    seen = changed(GUEST, {"/proc/stat": text})
    assert own_cpus(seen, place(seen)) is None
    (risk,) = guest({"/proc/stat": text, IPI: "2\n"})
    assert (
        "CPU 1 polls for IPIs, and what this guest's vCPUs lose to others (steal) cannot be told" in risk.what
    )
    assert "/proc/stat" in risk.what


def test_guest_that_has_just_begun() -> None:
    """No time was counted of which something could be lost."""
    seen = changed(GUEST, {"/proc/stat": stat(0, total=0)})
    assert own_cpus(seen, place(seen)) is None


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        ({}, False),
        (thread(1300, 1304, "CPU 0/KVM", "1"), True),
        (thread(1300, 1304, "CPU 0/KVM", "2"), False),
        # A VM whose vCPUs' threads cannot be told.
        ({"/proc/1300/task/1304/comm": "worker\n"}, None),
        ({"/proc/1300/task/1304/status": None}, None),
    ],
)
def test_pinning_tells_of_a_host(changes: Changes, own: bool | None) -> None:
    seen = changed(HOST, changes)
    assert own_cpus(seen, place(seen)) is own


def test_host_without_vms_does_not_tell() -> None:
    seen = Capture({path: text for path, text in HOST.items() if not path.startswith(KVM)})
    assert place(seen).role == "host"
    assert own_cpus(seen, place(seen)) is None


def test_machine_that_is_neither_does_not_tell() -> None:
    seen = changed(
        GUEST, {"/proc/device-tree/compatible": None, f"{CPUS}/hotplug/states": None, STAT: stat(0)}
    )
    assert place(seen).role == "machine"
    assert own_cpus(seen, place(seen)) is None


# Odd systems: whatever files hold, what is known of a machine can be told


@st.composite
def odd_texts(draw: st.DrawFn, text: str) -> str | None:
    """A file that is gone, empty or anything, or has lines or words that are gone, more or others."""
    lines = text.splitlines()
    kind = draw(st.sampled_from(["gone", "empty", "anything", "lines", "words"]))
    if kind == "gone":
        return None
    if kind == "empty":
        return ""
    if kind == "anything" or not lines:
        return draw(st.text())
    at = draw(st.integers(0, len(lines) - 1))
    if kind == "lines":
        lines[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([[], [lines[0]], [lines[at]] * 2, [""]])
        )
    else:
        words = re.split(r"( +|\t|:)", lines[at])
        word = draw(st.integers(0, len(words) - 1))
        words[word : word + draw(st.integers(0, 3))] = draw(
            st.lists(
                st.sampled_from([" ", ":", "-1", "x", "99999999999999999999", "(null)", "0x1"]), max_size=3
            )
        )
        lines[at] = "".join(words)
    return "".join(f"{line}\n" for line in lines)


@st.composite
def odd_machines(draw: st.DrawFn) -> tuple[Capture, Capture]:
    """Two captures, made oddly each in its way."""
    whole = draw(st.sampled_from([GUEST, HOST, VENDOR]))
    on = {IPI: "3\n", WFX: "3\n", CQ_POLL: whole.get(CQ_POLL, "0\n")}
    files = {**whole, **draw(st.sampled_from([{}, on]))}
    may_be_odd = sorted(files.keys() - {UPTIME, BOOT_ID})
    seen = []
    for uptime in ("1000.00 1\n", "1010.00 1\n"):
        paths = draw(st.lists(st.sampled_from(may_be_odd), max_size=4))
        odd = {path: draw(odd_texts(files[path])) for path in paths}
        unreadable = dict.fromkeys(draw(st.lists(st.sampled_from(may_be_odd), max_size=1)), errno.EACCES)
        found = changed(files, {**odd, UPTIME: uptime, **dict.fromkeys(unreadable)})
        seen.append(replace(found, unreadable=unreadable))
    return seen[0], seen[1]


@given(odd_machines())
def test_odd_machine(captures: tuple[Capture, Capture]) -> None:
    before, after = captures
    where = place(after)
    for risk in risks(after, where, features(after, where)):
        assert risk.what
        assert risk.next_step
    assert own_cpus(after, where) in (True, False, None)
    assert load(before, after).seconds == 10


@pytest.mark.parametrize("text", ["", "\n", "x", "\0", "-1\n", "a b c\n1 2\n", "a b\n1 2 3\n", "9" * 30])
def test_each_file_may_be_odd(text: str) -> None:
    for files in (GUEST, HOST):
        for path in sorted({*GUEST, *HOST}):
            seen = changed(files, {path: text})
            assert all(risk.next_step for risk in of(seen)), path
