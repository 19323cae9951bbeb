# SPDX-License-Identifier: Apache-2.0
"""What a machine does between two captures, also where counters, CPUs, mounts or VMs came and went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.figure import Unknown, known
from cvmtune.features.soft_ipi.advice import taken
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.wfx.vms import exits, exits_of, waits
from cvmtune.observe.capture import CPUS, KVM, Capture
from cvmtune.observe.load import CpuLoad, Load, NfsLoad
from tests.fakes.bound import load
from tests.fakes.capture import BOOT_ID, GUEST, HOST, MOUNTSTATS, RDMA_PORT, changed, thread, vm

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


def softly(cpu: CpuLoad) -> float:
    return cpu.rows.get(ROW, 0)


QUIET = CpuLoad(
    ipis={"reschedule": 0, "call function": 0, "timer broadcast": 0, "irq work": 0},
    rows={},
    interrupts=0,
    softirqs=0,
    busy=0,
    idle=0,
    steal=0,
)


# When


def test_time_between() -> None:
    found = guest({UPTIME: "1012.50 2000.00\n"})
    assert found.seconds == 12.5
    assert found.now.files[UPTIME] == "1012.50 2000.00\n"
    assert (found.place.role, found.place.flavour) == ("guest", "ours")


@pytest.mark.parametrize(
    "uptime", ["1000.00 1\n", "999.99 1\n", "3.10 1\n", "", "\n", "nan 1\n", "x\n", "inf 1\n", None]
)
def test_capture_that_is_no_later_one_is_an_error(uptime: str | None) -> None:
    with pytest.raises(ValueError, match="not a later one of the same machine"):
        guest({UPTIME: uptime})


@pytest.mark.parametrize("uptime", ["", "x\n", "nan 1\n", "-1.00 1\n", None])
def test_capture_of_an_unknown_time_is_an_error(uptime: str | None) -> None:
    """Rates since boot would look like rates."""
    with pytest.raises(ValueError, match="not a later one of the same machine"):
        guest({}, {UPTIME: uptime})


@pytest.mark.parametrize("boot", ["5f2e3f9c-4f4c-4c43-9d0d-5d2f1f6a3a01\n", "", None])
def test_restart_between_is_an_error(boot: str | None) -> None:
    """Also when the machine has been up for longer since."""
    with pytest.raises(ValueError, match="not a later one of the same machine"):
        guest({BOOT_ID: boot})


def test_capture_after_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a later one"):
        load(Capture(GUEST), Capture(GUEST))
    with pytest.raises(ValueError, match="not a later one"):
        load(Capture({}), Capture({}))


def test_nothing_but_the_time() -> None:
    found = load(Capture({UPTIME: "1.00 1\n"}), Capture({UPTIME: "2.00 1\n"}))
    assert (found.seconds, found.cpus, found.mounts, found.rdma, found.vms) == (1, {}, [], {}, [])
    assert (found.context_switches, found.server_rpcs, found.server_over_rdma) == (0, 0, False)


# CPUs


def test_nothing_happened() -> None:
    found = guest({})
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
    assert sum(cpus[1].ipis.values()) == 0


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
        found = guest(before=files[1], after={**files[0], INTERRUPTS: every.replace("3000", "9000")})
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
    assert (taken(cpu), cpu.interrupts, cpu.softirqs) == (0, 0, 0)


def test_interrupt_that_came_meanwhile_counts_from_nothing() -> None:
    before, after = rows((0, 1), _10=(5, 5)), rows((0, 1), _10=(5, 5), _47=(0, 80), SIPI=(90, 0))
    cpus = guest({INTERRUPTS: after}, {INTERRUPTS: before}).cpus
    assert (cpus[0].interrupts, cpus[1].interrupts, softly(cpus[0])) == (0, 8, 9)


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
    # Of the ticks that were counted, all were busy.
    assert (found.cpus[0].busy, found.cpus[0].idle, found.cpus[0].steal) == (1, 0, 0)
    assert (found.cpus[1].busy, found.cpus[1].idle, found.cpus[1].steal) == (0, 0, 0)
    assert [taken(one) for one in found.cpus.values()] == [0, 10]
    assert [one.interrupts for one in found.cpus.values()] == [0, 0]
    assert [one.softirqs for one in found.cpus.values()] == [0, 0]
    assert found.context_switches == 0


ticks = st.tuples(*[st.integers(0, 5000)] * 8)


@given(st.lists(ticks, min_size=2, max_size=2), st.lists(ticks, min_size=2, max_size=2))
def test_shares_are_shares(before: list[tuple[int, ...]], after: list[tuple[int, ...]]) -> None:
    for cpu in guest({STAT: stat(*after)}, {STAT: stat(*before)}).cpus.values():
        assert min(cpu.busy, cpu.idle, cpu.steal) >= 0
        assert cpu.busy + cpu.idle + cpu.steal <= 1 + 1e-9


# NFS


def mount(point: str, *operations: str, transport: str = "rdma") -> str:
    lines = (f"\t        {line}\n" for line in (*operations, "", f"xprt: {transport} 0 0 1"))
    return f"device 10.0.0.1:/export mounted on {point} with fstype nfs4 statvers=1.1\n{''.join(lines)}"


def op(name: str, ops: int, rtt_ms: int) -> str:
    return f"{name}: {ops} {ops} 0 7 7 {rtt_ms * 3} {rtt_ms} {rtt_ms * 5} 0"


def test_rpcs_of_a_mount() -> None:
    before = mount("/mnt", op("READ", 100, 50), op("WRITE", 1000, 400), op("NULL", 1, 0))
    after = mount("/mnt", op("READ", 120, 60), op("WRITE", 1180, 490), op("NULL", 1, 0))
    found = guest({MOUNTSTATS: after}, {MOUNTSTATS: before})
    assert found.mounts == [NfsLoad("/mnt", "rdma", rpcs=20.0, rtt_ms=0.5)]


def test_idle_mount() -> None:
    assert guest({}).mounts == [NfsLoad("/mnt", "rdma", rpcs=0.0, rtt_ms=0.0)]


def test_several_mounts() -> None:
    before = mount("/a", op("READ", 10, 10)) + mount("/b", op("READ", 500, 10), transport="tcp")
    after = mount("/b", op("READ", 600, 210), transport="tcp") + mount("/a", op("READ", 20, 20))
    found = guest({MOUNTSTATS: after}, {MOUNTSTATS: before})
    assert found.mounts == [NfsLoad("/b", "tcp", 10.0, 2.0), NfsLoad("/a", "rdma", 1.0, 1.0)]


@pytest.mark.parametrize("before", [None, "", mount("/other", op("READ", 5, 5))])
def test_mount_that_came_meanwhile(before: str | None) -> None:
    """All that it counts is of this time."""
    found = guest({MOUNTSTATS: mount("/mnt", op("READ", 50, 100))}, {MOUNTSTATS: before})
    assert found.mounts == [NfsLoad("/mnt", "rdma", 5.0, 2.0)]


def test_mount_that_was_made_anew_meanwhile() -> None:
    before = mount("/mnt", op("READ", 1000, 10), op("WRITE", 10, 10))
    after = mount("/mnt", op("READ", 40, 80), op("WRITE", 60, 120))
    assert guest({MOUNTSTATS: after}, {MOUNTSTATS: before}).mounts == [NfsLoad("/mnt", "rdma", 10.0, 2.0)]


def test_mount_that_went_meanwhile() -> None:
    assert guest({MOUNTSTATS: ""}).mounts == []


def test_operation_that_came_meanwhile() -> None:
    before = mount("/mnt", op("READ", 10, 10))
    after = mount("/mnt", op("READ", 10, 10), op("WRITE", 100, 25))
    assert guest({MOUNTSTATS: after}, {MOUNTSTATS: before}).mounts == [NfsLoad("/mnt", "rdma", 10.0, 0.25)]


def test_of_mounts_in_one_place_the_last_counts() -> None:
    hidden = mount("/mnt", op("READ", 90000, 90000), transport="tcp")
    before = hidden + mount("/mnt", op("READ", 10, 10))
    after = hidden + mount("/mnt", op("READ", 110, 60))
    assert guest({MOUNTSTATS: after}, {MOUNTSTATS: before}).mounts == [NfsLoad("/mnt", "rdma", 10.0, 0.5)]


def test_times_that_went_backwards_are_none() -> None:
    before, after = mount("/mnt", op("READ", 10, 100)), mount("/mnt", op("READ", 20, 10))
    assert guest({MOUNTSTATS: after}, {MOUNTSTATS: before}).mounts == [NfsLoad("/mnt", "rdma", 1.0, 0.0)]


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ("rpc 100 0 0\n", "rpc 300 0 0\n", 20),
        ("rpc 100 0 0\n", "rpc 10 0 0\n", 0),
        ("", "rpc 50\n", 5),
        ("x\n", "y", 0),
    ],
)
def test_rpcs_of_the_server(before: str, after: str, rate: float) -> None:
    path = "/proc/net/rpc/nfsd"
    assert guest({path: f"rc 0 9\n{after}"}, {path: before}).server_rpcs == rate


@pytest.mark.parametrize(
    ("text", "over_rdma"),
    [("rdma 20049\ntcp 2049\n", True), ("tcp 2049\n", False), ("", False), (None, False)],
)
def test_transport_of_the_server(text: str | None, over_rdma: bool) -> None:
    assert guest({"/proc/fs/nfsd/portlist": text}).server_over_rdma is over_rdma


# RDMA


def test_counters_of_ports_that_moved() -> None:
    files = {
        f"{RDMA_PORT}/hw_counters/rcvd_pkts": ("5000\n", "6000\n"),
        f"{RDMA_PORT}/hw_counters/still": ("7\n", "7\n"),
        f"{RDMA_PORT}/hw_counters/back": ("9\n", "7\n"),
        f"{RDMA_PORT}/hw_counters/odd": ("N/A (no PMA)\n", "70\n"),
        f"{RDMA_PORT}/hw_counters/odder": ("7\n", "N/A (no PMA)\n"),
        "/sys/class/infiniband/mlx5_0/ports/2/counters/port_xmit_packets": ("10\n", "15\n"),
    }
    found = guest(
        {**{path: after for path, (_, after) in files.items()}, f"{RDMA_PORT}/hw_counters/came": "9\n"},
        {path: before for path, (before, _) in files.items()},
    )
    assert found.rdma == {
        "rxe0/ports/1/hw_counters/rcvd_pkts": 100.0,
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
    assert (idle.now.pinned_to, idle.beside) == (3, Unknown("its CPU was not seen all the time"))
    assert (other.vcpus[0].now.pinned_to, other.vcpus[0].beside) == (None, None)


def test_vcpu_that_had_its_cpu_alone() -> None:
    """What it ran itself is not beside it, though ticks are coarser than ns."""
    found = host({**thread(1200, 1203, "CPU 0/KVM", "2", ran=6 * 10**9 + 10**6)})
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
    found = host({**later, **thread(1200, 1203, "CPU 0/KVM", "2", ran=0, waited=0)}).vms[0]
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
        assert min(taken(cpu), cpu.interrupts, cpu.softirqs, cpu.busy, cpu.idle, cpu.steal) >= 0
    for one in found.mounts:
        assert min(one.rpcs, one.rtt_ms) >= 0
    for machine in found.vms:
        for figure in (exits(machine, SECONDS), *exits_of(machine, SECONDS).values()):
            assert (known(figure) or 0) >= 0
        for figure in waits(machine, SECONDS, 100, exits_of(machine, SECONDS)).values():
            assert (known(figure) or 0) >= 0
        for vcpu in machine.vcpus:
            for share in (vcpu.ran, vcpu.waited, vcpu.sleeps, vcpu.beside or 0):
                assert (known(share) or 0) >= 0
