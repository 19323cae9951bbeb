# SPDX-License-Identifier: Apache-2.0
"""What a machine does between two captures, also where counters, CPUs, mounts or VMs came and went."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.figure import Figure, Unknown, known, total
from cvmtune.features.soft_ipi.advice import taken
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.wfx.vms import exits, exits_of, waits
from cvmtune.observe.capture import CPUS, KVM, Capture
from cvmtune.observe.load import CpuLoad, Load
from tests.fakes.bound import load
from tests.fakes.capture import BOOT_ID, GUEST, HOST, RDMA_PORT, changed, thread, vm

Changes = Mapping[str, str | None]
SECONDS = 10
UPTIME, STAT, INTERRUPTS, SOFTIRQS = "/proc/uptime", "/proc/stat", "/proc/interrupts", "/proc/softirqs"
# The host without its VM `db`.
NO_DB = dict.fromkeys(path for path in HOST if "/1200-13/" in path or path.startswith("/proc/1200/"))


def guest(after: Changes, before: Changes | None = None) -> Load:
    """What the guest did over ten seconds, with files that are others before or after."""
    return load(changed(GUEST, before or {}), changed(GUEST, {UPTIME: "1010.00 2000.00\n", **after}))


def host(after: Changes, before: Changes | None = None) -> Load:
    return load(changed(HOST, before or {}), changed(HOST, {UPTIME: "1010.00 3540.00\n", **after}))


def stat(*cpus: tuple[int, ...], first: int = 0, ctxt: int = 0) -> str:
    """/proc/stat of CPUs from the first on: user nice system idle iowait irq softirq steal."""
    lines = (f"cpu{first + n} {' '.join(map(str, one))} 0 0\n" for n, one in enumerate(cpus))
    return f"cpu  0 0 0 0 0 0 0 0 0 0\n{''.join(lines)}intr 1 2 3\nctxt {ctxt}\n"


# What the kernel's IPIs are, by the names that they have in most.
IPIS = {
    "IPI0": "Rescheduling interrupts",
    "IPI1": "Function call interrupts",
    "IPI2": "CPU stop interrupts",
    "IPI4": "Timer broadcast interrupts",
    "IPI5": "IRQ work interrupts",
    "SIPI": ROW,
}


def rows(cpus: tuple[int, ...], **counts: tuple[int, ...]) -> str:
    """/proc/interrupts or /proc/softirqs of these CPUs."""
    header = " ".join(f"CPU{cpu}" for cpu in cpus)
    lines = (
        f"{name.lstrip('_')}: {' '.join(map(str, one))}  {IPIS.get(name, 'x 1 y')}\n"
        for name, one in counts.items()
    )
    return f"      {header}\n{''.join(lines)}Err: 0\n"


def softly(cpu: CpuLoad) -> Figure:
    return cpu.rows.get("SIPI", 0)


def why(figure: Figure) -> str:
    """Why a figure is unknown."""
    assert isinstance(figure, Unknown)
    return figure.why


# Both CPUs, in later readings, idled all the time.
IDLED = GUEST[STAT].replace(" 99000 ", " 100000 ").replace(" 98000 ", " 99000 ")
QUIET = CpuLoad(
    ipis={"reschedule": 0, "call function": 0, "timer broadcast": 0, "irq work": 0},
    rows={},
    interrupts=0,
    softirqs=0,
    busy=0,
    idle=1,
    steal=0,
)


# When


def test_time_between() -> None:
    found = guest({UPTIME: "1012.50 2000.00\n"})
    assert found.seconds == 12.5
    assert found.now.files[UPTIME] == "1012.50 2000.00\n"
    assert (found.place.role, found.place.flavour) == ("guest", "ours")


@pytest.mark.parametrize("uptime", ["1000.00 1\n", "999.99 1\n", "3.10 1\n"])
def test_capture_that_is_no_later_one_is_an_error(uptime: str | None) -> None:
    with pytest.raises(ValueError, match="not a later one of the same machine"):
        guest({UPTIME: uptime})


@pytest.mark.parametrize("text", ["", "\n", "x\n", "nan 1\n", "inf 1\n", "-1.00 1\n", None])
def test_capture_of_an_unknown_time_is_an_error(text: str | None) -> None:
    """Rates since boot would look like rates."""
    for after, before in (({UPTIME: text}, GUEST), ({}, {UPTIME: text})):
        with pytest.raises(ValueError, match="how much time has passed cannot be told: /proc/uptime"):
            guest(after, before)


@pytest.mark.parametrize("boot", ["5f2e3f9c-4f4c-4c43-9d0d-5d2f1f6a3a01\n", "", None])
def test_restart_between_is_an_error(boot: str | None) -> None:
    """Also when the machine has been up for longer since."""
    with pytest.raises(ValueError, match="not a later one of the same machine"):
        guest({BOOT_ID: boot})


def test_capture_after_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a later one"):
        load(Capture(GUEST), Capture(GUEST))


def test_nothing_but_the_time() -> None:
    found = load(Capture({UPTIME: "1.00 1\n"}), Capture({UPTIME: "2.00 1\n"}))
    assert (found.seconds, found.cpus, found.rdma, found.vms) == (1, {}, {}, [])
    assert (found.server_rpcs, found.server_over_rdma) == (0, False)
    # What the kernel always shows and is not there is not known.
    (mounts,) = found.mounts
    assert "mountstats is empty or not there" in why(mounts.over_rdma)
    assert "/proc/stat is empty or not there" in why(found.context_switches)


# CPUs


def test_nothing_happened() -> None:
    found = guest({STAT: IDLED})
    assert {cpu: replace(one, rows={}) for cpu, one in found.cpus.items()} == {0: QUIET, 1: QUIET}
    assert not any(rate for one in found.cpus.values() for rate in one.rows.values())
    assert found.context_switches == 0


def test_interrupts_of_a_cpu() -> None:
    zero = (0, 0)
    before = rows(
        (0, 1), _10=(5, 5), _46=zero, IPI0=(60, 78), IPI1=zero, IPI2=zero, IPI4=zero, IPI5=zero, SIPI=(0, 9)
    )
    after = rows(
        *((0, 1),),
        _10=(25, 5),
        _46=(30, 0),
        IPI0=(160, 78),
        IPI1=(200, 0),
        IPI2=(7000, 7000),
        IPI4=(300, 0),
        IPI5=(400, 0),
        SIPI=(0, 509),
    )
    cpus = guest({INTERRUPTS: after}, {INTERRUPTS: before}).cpus
    assert cpus[0].ipis == {"reschedule": 10, "call function": 20, "timer broadcast": 30, "irq work": 40}
    assert (softly(cpus[0]), softly(cpus[1])) == (0, 50)
    # Those that stop a CPU are of no load, and devices have numbers.
    assert cpus[0].interrupts == 5
    assert (taken(cpus[0]), taken(cpus[1])) == (100, 50)
    assert total(cpus[1].ipis.values()) == 0


def test_softirqs_of_a_cpu() -> None:
    cpus = guest({SOFTIRQS: rows((0, 1), TIMER=(200, 200), RCU=(70, 60))}).cpus
    assert (cpus[0].softirqs, cpus[1].softirqs) == (12, 0)


def test_shares_of_a_cpu() -> None:
    """Busy are user, nice, system, irq and softirq; waiting for I/O is idle."""
    before = stat((100,) * 8, (0,) * 8)
    after = stat((110, 120, 130, 300, 200, 140, 150, 250), (0, 0, 0, 1000, 0, 0, 0, 0))
    cpus = guest({STAT: after}, {STAT: before}).cpus
    assert (cpus[0].busy, cpus[0].idle, cpus[0].steal) == (0.25, 0.5, 0.25)
    assert (cpus[1].busy, cpus[1].idle, cpus[1].steal) == (0, 1, 0)


def test_context_switches() -> None:
    assert guest({STAT: stat(ctxt=1250)}, {STAT: stat(ctxt=250)}).context_switches == 100


@pytest.mark.parametrize("gone", ["before", "after"])
def test_cpu_that_was_offline_at_one_time_is_left_out(gone: str) -> None:
    """And the columns of the others are theirs, though their places differ."""
    all_times = stat((0,) * 8, (0,) * 8, (0,) * 8)
    two_times = "\n".join(line for line in all_times.splitlines() if not line.startswith("cpu1 "))
    every = rows((0, 1, 2), _10=(100, 100, 100), IPI0=(1000, 2000, 3000))
    two = rows((0, 2), _10=(200, 200), IPI0=(2000, 4000))
    files: list[Changes] = [{STAT: all_times, INTERRUPTS: every}, {STAT: two_times, INTERRUPTS: two}]
    if gone == "before":
        later = every.replace("1000", "2000").replace("3000", "9000")
        found = guest(before=files[1], after={**files[0], INTERRUPTS: later})
        rates = {0: 0.0, 2: 500.0}
    else:
        found = guest(before=files[0], after=files[1])
        rates = {0: 100.0, 2: 100.0}
    assert {cpu: one.ipis["reschedule"] for cpu, one in found.cpus.items()} == rates


@pytest.mark.parametrize("path", [INTERRUPTS, SOFTIRQS])
@pytest.mark.parametrize("before", [None, "", rows((0,), IPI0=(60,), RCU=(60,), _10=(60,)), "IPI0: 60 78\n"])
def test_counts_since_boot_are_no_storm(path: str, before: str | None) -> None:
    """A CPU that came between the reading of two files, or a file that could not be read at first."""
    cpu = guest({}, {path: before}).cpus[1]
    for figure in (taken(cpu), cpu.interrupts) if path == INTERRUPTS else (cpu.softirqs,):
        assert f"CPU 1: {path} " in why(figure)


def test_device_that_came_meanwhile_counts_from_nothing() -> None:
    before, after = rows((0, 1), _10=(5, 5)), rows((0, 1), _10=(5, 5), _47=(0, 80), SIPI=(90, 0))
    cpus = guest({INTERRUPTS: after}, {INTERRUPTS: before}).cpus
    assert (cpus[0].interrupts, cpus[1].interrupts) == (0, 8)
    # The kernel's own rows are there from boot: the first text was cut.
    assert "row SIPI" in why(softly(cpus[0]))


def test_rows_of_ipis_that_are_not_shown_are_not_known() -> None:
    cut = GUEST[INTERRUPTS].partition("IPI4")[0]
    for before, after in ((GUEST[INTERRUPTS], cut), (cut, GUEST[INTERRUPTS]), (cut, cut)):
        cpu = guest({INTERRUPTS: after}, {INTERRUPTS: before}).cpus[0]
        assert cpu.ipis["reschedule"] == 0
        assert "row Timer broadcast interrupts" in why(cpu.ipis["timer broadcast"])
        assert isinstance(taken(cpu), Unknown)


@pytest.mark.parametrize(("before", "after", "rate"), [(2**32 - 60, 40, 10), (3 * 10**9, 40, None)])
def test_counts_of_32_bits_wrap_and_a_reset_is_no_wrap(before: int, after: int, rate: float | None) -> None:
    files = [
        {INTERRUPTS: GUEST[INTERRUPTS].replace(" 60 ", f" {one} "), SOFTIRQS: rows((0, 1), RCU=(one, 0))}
        for one in (before, after)
    ]
    cpu = guest(files[1], files[0]).cpus[0]
    for figure in (cpu.ipis["reschedule"], cpu.softirqs):
        assert (None if isinstance(figure, Unknown) else figure) == rate
    assert isinstance(taken(cpu), Unknown) is (rate is None)


@pytest.mark.parametrize("path", [STAT, INTERRUPTS])
def test_file_that_cannot_be_read_is_not_idleness(path: str) -> None:
    before = changed(GUEST, {})
    after = changed(GUEST, {UPTIME: "1010.00 2000.00\n", STAT: IDLED, path: None})
    found = load(before, Capture(after.files, {path: errno.EACCES}))
    for cpu in found.cpus.values():
        steal, ipis = cpu.steal, taken(cpu)
        assert "cannot be read (Permission denied)" in why(steal if path == STAT else ipis)
        assert (ipis if path == STAT else steal) == 0


def test_counters_that_went_backwards_are_no_rates() -> None:
    """Interrupts of a driver loaded anew; idle time, as the kernel lets it go back at times."""
    found = guest(
        {
            STAT: stat((200, 0, 0, 900, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0), ctxt=1),
            INTERRUPTS: rows((0, 1), _10=(1, 1), IPI0=(0, 178)),
            SOFTIRQS: rows((0, 1), RCU=(1, 1)),
        },
        {STAT: stat((100, 0, 0, 950, 0, 0, 0, 0), (5, 5, 5, 5, 5, 5, 5, 5), ctxt=9)},
    )
    one, other = found.cpus.values()
    assert "idle time of CPU 0 went backwards" in why(one.steal)
    assert "busy time of CPU 1 went backwards" in why(other.busy)
    assert "row 10 of /proc/interrupts went backwards" in why(one.interrupts)
    assert "row Rescheduling interrupts" in why(one.ipis["reschedule"])
    assert other.ipis["reschedule"] == 10
    assert "row RCU of /proc/softirqs went backwards" in why(one.softirqs)
    assert "ctxt in /proc/stat went backwards" in why(found.context_switches)


def test_cpu_whose_time_stands_still_is_not_known_to_idle() -> None:
    assert why(guest({}).cpus[0].idle) == "no time of CPU 0 was counted"


ticks = st.tuples(*[st.integers(0, 5000)] * 8)


@given(st.lists(ticks, min_size=2, max_size=2), st.lists(ticks, min_size=2, max_size=2))
def test_shares_are_shares(before: list[tuple[int, ...]], after: list[tuple[int, ...]]) -> None:
    for cpu in guest({STAT: stat(*after)}, {STAT: stat(*before)}).cpus.values():
        shares = [known(one) for one in (cpu.busy, cpu.idle, cpu.steal)]
        if shares != [None, None, None]:
            assert min(one for one in shares if one is not None) >= 0
            assert sum(one for one in shares if one is not None) == pytest.approx(1)


# RDMA


def test_counters_of_ports_that_moved() -> None:
    files = {
        f"{RDMA_PORT}/hw_counters/rcvd_pkts": ("5000\n", "6000\n"),
        f"{RDMA_PORT}/hw_counters/still": ("7\n", "7\n"),
        f"{RDMA_PORT}/hw_counters/back": ("9\n", "7\n"),
        f"{RDMA_PORT}/hw_counters/wrapped": (f"{2**32 - 4}\n", "6\n"),
        f"{RDMA_PORT}/hw_counters/odd": ("N/A (no PMA)\n", "70\n"),
        f"{RDMA_PORT}/hw_counters/odder": ("7\n", "N/A (no PMA)\n"),
        "/sys/class/infiniband/mlx5_0/ports/2/counters/port_xmit_packets": ("10\n", "15\n"),
    }
    found = guest(
        {**{path: after for path, (_, after) in files.items()}, f"{RDMA_PORT}/hw_counters/came": "9\n"},
        {path: before for path, (before, _) in files.items()},
    )
    back = found.rdma["rxe0/ports/1/hw_counters/back"]
    assert "went backwards" in why(back)
    assert found.rdma == {
        "rxe0/ports/1/hw_counters/rcvd_pkts": 100.0,
        "rxe0/ports/1/hw_counters/back": back,
        "rxe0/ports/1/hw_counters/wrapped": 1.0,
        "mlx5_0/ports/2/counters/port_xmit_packets": 0.5,
    }


# VMs


def test_vm_at_work() -> None:
    found = host(
        {
            **vm("1200-13", wfi=(3000, 50)),
            f"{KVM}/1200-13/exits": "9000\n",
            **thread(1200, 1203, "CPU 0/KVM", "2", ran=6 * 10**9, waited=2 * 10**9 + 10**6),
            "/proc/1200/task/1203/status": "Cpus_allowed_list:\t2\nvoluntary_ctxt_switches:\t540\n",
            STAT: stat(*[(50000, 0, 0, 50000, 0, 0, 0, 0)] * 2, (50600, 0, 0, 50400, 0, 0, 0, 0), ctxt=5000),
        }
    )
    db, other = found.vms
    assert (db.now.name, exits(db, SECONDS), exits_of(db, SECONDS)) == ("db", 300, {0: 300, 1: 0})
    busy, idle = db.vcpus
    assert (busy.ran, busy.waited, busy.sleeps) == (0.5, 0.2, 50)
    # Its CPU was busy for 0.6 of the time.
    assert busy.beside == pytest.approx(0.1)
    assert (idle.ran, idle.waited, idle.sleeps) == (0, 0, 0)
    # One that may run on several CPUs has nothing beside it; of one whose CPU is not seen it is not known.
    assert (idle.now.pinned_to, idle.beside) == (3, Unknown("CPU 3: /proc/stat does not show it"))
    assert (other.vcpus[0].now.pinned_to, other.vcpus[0].beside) == (None, None)


def test_vcpu_that_had_its_cpu_alone() -> None:
    """What it ran itself is not beside it, though ticks are coarser than ns."""
    found = host(
        {
            **thread(1200, 1203, "CPU 0/KVM", "2", ran=6 * 10**9 + 10**6),
            STAT: stat(*[(50000, 0, 0, 50000, 0, 0, 0, 0)] * 2, (50500, 0, 0, 50500, 0, 0, 0, 0)),
        }
    )
    assert found.vms[0].vcpus[0].beside == 0


@pytest.mark.parametrize(
    ("files", "reserved"),
    [
        ({}, False),
        ({f"{CPUS}/isolated": "2\n"}, True),
        ({f"{CPUS}/nohz_full": "1-2\n"}, True),
        ({f"{CPUS}/isolated": "3\n"}, False),
        (
            {
                "/proc/1200/task/1203/cgroup": "0::/m\n",
                "/sys/fs/cgroup/m/cpuset.cpus.partition": "isolated\n",
            },
            True,
        ),
    ],
)
def test_cpus_that_are_kept_from_others(files: Changes, reserved: bool) -> None:
    assert host(files).vms[0].vcpus[0].reserved is reserved
    # One that may run anywhere has no CPU kept for it, whichever is isolated.
    assert host({f"{CPUS}/isolated": "0-3\n"}).vms[1].vcpus[0].reserved is False


def test_vm_that_came_meanwhile() -> None:
    """It is told where its vCPUs may run; what it counts is of no known time."""
    db, other = host({}, NO_DB).vms
    assert [vcpu.now.pinned_to for vcpu in db.vcpus] == [2, 3]
    assert exits(db, SECONDS) == Unknown("the VM came meanwhile")
    came = Unknown("its thread came meanwhile")
    assert exits_of(db, SECONDS) == {0: came, 1: came}
    assert [(vcpu.ran, vcpu.waited, vcpu.sleeps) for vcpu in db.vcpus] == [(came, came, came)] * 2
    assert other.now.folder == "1300-9"


def test_vcpu_whose_thread_came_meanwhile_has_no_exits_of_a_known_time() -> None:
    before = dict.fromkeys(path for path in HOST if path.startswith("/proc/1200/task/1203/"))
    db, _ = host(vm("1200-13", wfi=(3000, 50)), before).vms
    assert exits_of(db, SECONDS) == {0: Unknown("its thread came meanwhile"), 1: 0}


def test_vm_that_went_meanwhile() -> None:
    assert [one.now.folder for one in host(NO_DB).vms] == ["1300-9"]


def test_vcpu_that_came_meanwhile() -> None:
    found = host(thread(1200, 1205, "CPU 2/KVM", "1", ran=10**12))
    (*_, new) = found.vms[0].vcpus
    came = Unknown("its thread came meanwhile")
    assert (new.now.vcpu, new.ran, new.sleeps) == (2, came, came)


def test_counters_of_a_vm_that_went_backwards_are_not_known() -> None:
    later = vm("1200-13", wfi=(10, 10))
    found = host({**later, **thread(1200, 1203, "CPU 0/KVM", "2", ran=1, waited=1)}).vms[0]
    back = Unknown("its count of WFx exits went backwards")
    assert (exits(found, SECONDS), exits_of(found, SECONDS)) == (back, {0: back, 1: back})
    (vcpu, _) = found.vcpus
    assert vcpu.ran == Unknown("its thread's time went backwards")
    assert vcpu.waited == Unknown("its thread's time of waiting went backwards")
    assert vcpu.beside == vcpu.ran


@pytest.mark.parametrize("file", ["wfi_exit_stat", "wfe_exit_stat"])
@pytest.mark.parametrize("text", [None, "", "x\n"])
def test_exits_of_a_vm_that_are_not_all_counted_are_not_known(file: str, text: str | None) -> None:
    for before, after in (({f"{KVM}/1200-13/{file}": text}, {}), ({}, {f"{KVM}/1200-13/{file}": text})):
        assert isinstance(exits(host(after, before).vms[0], SECONDS), Unknown)


def test_times_that_stand_still_while_a_thread_sleeps_are_not_known() -> None:
    status = "Cpus_allowed_list:\t2\nvoluntary_ctxt_switches:\t{}\n"
    for sleeps, told in ((40, True), (4000, False)):
        (vcpu, _) = host({"/proc/1200/task/1203/status": status.format(sleeps)}).vms[0].vcpus
        assert [not isinstance(one, Unknown) for one in (vcpu.ran, vcpu.waited)] == [told] * 2


def test_thread_whose_times_are_gone_has_no_rates() -> None:
    found = host(
        {"/proc/1200/task/1203/schedstat": None, "/proc/1200/task/1203/status": "Cpus_allowed_list:\t2\n"}
    )
    (vcpu, _) = found.vms[0].vcpus
    gone = Unknown("there is no schedstat of its thread")
    assert (vcpu.ran, vcpu.waited, vcpu.beside) == (gone, gone, gone)
    assert vcpu.sleeps == Unknown("its thread's count of sleeps is missing")


@pytest.mark.parametrize("when", ["before", "after", "always"])
def test_exits_that_are_counted_for_the_whole_vm_only(when: str) -> None:
    without: Changes = {f"{KVM}/1200-13/wfx_trap_stats": None}
    with_: Changes = {}
    before, after = (without if when in (one, "always") else with_ for one in ("before", "after"))
    found = host({**after, f"{KVM}/1200-13/wfi_exit_stat": "2050\n"}, before).vms[0]
    assert exits_of(found, SECONDS) == {}
    assert exits(found, SECONDS) == 100


# Anything


@given(
    st.sampled_from([GUEST, HOST]),
    st.dictionaries(st.sampled_from([*GUEST, *HOST]), st.text() | st.none(), max_size=4),
    st.dictionaries(st.sampled_from([*GUEST, *HOST]), st.text() | st.none(), max_size=4),
)
def test_any_texts(
    files: Mapping[str, str], before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    same = {UPTIME: "1010.00 1\n", BOOT_ID: files[BOOT_ID]}
    found = load(
        changed(files, {**before, UPTIME: files[UPTIME], BOOT_ID: files[BOOT_ID]}),
        changed(files, {**after, **same}),
    )
    assert found.seconds == 10
    for cpu in found.cpus.values():
        for figure in (taken(cpu), cpu.interrupts, cpu.softirqs, cpu.busy, cpu.idle, cpu.steal):
            assert isinstance(figure, Unknown) or figure >= 0
    for one in found.mounts:
        for figure in (one.rpcs, one.rtt_ms, one.over_rdma):
            assert isinstance(figure, Unknown) or figure >= 0
    for machine in found.vms:
        for figure in (exits(machine, SECONDS), *exits_of(machine, SECONDS).values()):
            assert (known(figure) or 0) >= 0
        for figure in waits(machine, SECONDS, 100, exits_of(machine, SECONDS)).values():
            assert (known(figure) or 0) >= 0
        for vcpu in machine.vcpus:
            for share in (vcpu.ran, vcpu.waited, vcpu.sleeps, vcpu.beside or 0):
                assert (known(share) or 0) >= 0
