# SPDX-License-Identifier: Apache-2.0
"""The experiment `wfx` against a guest and a host whose counters count as real ones would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import sched_getaffinity
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import LocalSystem
from cvmtune.experiments import guest, runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.host import HaltPoll, Host
from cvmtune.experiments.rounds import RawRun
from cvmtune.features.soft_ipi import knob as soft_ipi
from cvmtune.features.soft_ipi.switch import SoftIpiSwitch
from cvmtune.features.wfx import knob as wfx_knob
from cvmtune.features.wfx import site
from cvmtune.features.wfx.experiment import BOOT_POLICY, WfxExperiment
from cvmtune.features.wfx.knob import GUARD
from cvmtune.features.wfx.paths import WfxPaths
from cvmtune.features.wfx.site import WfxScale
from cvmtune.lab.specs import MachineName
from cvmtune.tuning.contract import KnobError
from tests.fakes import machine as fake_machine
from tests.fakes.kernel import FakeKernel, WfxKernel, When
from tests.fakes.machine import CYCLICTEST_HEADER, FAULTS, PID, THREADS, Recorded, RecordedHost, fail_in_turn

SCALE = WfxScale(
    timers=160,
    idle_s=2.0,
    wakeups=40,
    interval_us=500,
    round_trips=8,
    hackbench_loops=3,
    neighbour_s=0.5,
)
HALT_POLL = HaltPoll.path
OTHERS = (SoftIpiSwitch(),)
ALL_STATES = tuple(WfxExperiment(others=OTHERS).states)
STATISTICS = f"/sys/kernel/debug/kvm/{PID}-13/wfx_trap_stats"
TIMERS = "cyclictest --smp --relative --interval=500 --distance=0 --quiet >/dev/null 2>&1 & echo $!"
READING = (
    f"cat /proc/uptime; cd /proc/{PID}/task || exit; cat 102/schedstat 101/schedstat; "
    f"cat /sys/kernel/debug/kvm/{PID}-*/wfx_trap_stats"
)

# A guest and its host


class FakeGuest(Recorded[set[int]], FakeKernel):
    """What runs in the guest; `loses` is how many wake-ups cyclictest does not tell."""

    machine: Machine

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, soft_ipi.PATH, width=2, possible="0-1")
        self.machine = machine
        self.parameters = {}
        self._make("/sys/devices/system/cpu/online", "0-1\n")
        self.hackbench_says = "Running in process mode...\nTime: 1.250\n"
        self.loses = 0

    def read_text(self, path: str) -> str:
        if path == "/proc/interrupts":
            took = self.machine.took
            self._make(
                path,
                "           CPU0       CPU1\n"
                f" 10: {took[0]:10} {took[1]:10}     GICv3  27 Level     arch_timer\n"
                f"IPI4: {9:10} {9:10}       Timer broadcast interrupts\n",
            )
        return super().read_text(path)

    def _do(self, argv: list[str]) -> str:
        machine, scale = self.machine, self.machine.scale
        match argv:
            case ["sh", "-c", script] if script == TIMERS:
                machine.timers = True
                # A program takes a while to start.
                machine.starts = 0.25
                return "77\n"
            case ["kill", "77"]:
                machine.timers = False
                machine.disturb()
            case ["cyclictest", "--threads=1", cpu, "--nsecs", "--verbose", "--interval=500", "--loops=40"]:
                assert cpu == f"--affinity={scale.named}"
                machine.work(0.5, {scale.named: 40, scale.other: 8})
                return CYCLICTEST_HEADER + "".join(
                    f"{0:8}:{n:8}:{80_000 + n:8}\n" for n in range(40 - self.loses)
                )
            case ["/tools/pingpong", "futex" | "pipe" as method, *cpus, "8"]:
                assert cpus == [str(scale.other), str(scale.named)]
                machine.work(0.5, dict.fromkeys(THREADS, 8 if method == "futex" else 16))
                return "9000\n9500\n"
            case ["hackbench", "--groups", "1", "--loops", "3"]:
                machine.seen.append(machine.state())
                machine.pass_time(2.0)
                return self.hackbench_says
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return ""


class FakeHost(RecordedHost[set[int]], WfxKernel):
    """The CPUs of the vCPUs' threads, and what is counted of the vCPUs."""

    machine: Machine

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, wfx_knob.PATH, width=2, possible="0-1")
        self.machine = machine
        self.affinity = dict.fromkeys(THREADS.values(), "0,1")
        self.halt_poll_file = self._make(HALT_POLL, "500000\n")
        self.parameters = {
            GUARD: (self.guard_file, ("Y\n", "N\n")),
            HALT_POLL: (self.halt_poll_file, ("0\n", "500000\n")),
        }

    def write_text(self, path: str, text: str) -> None:
        is_mask = path not in self.parameters
        if is_mask:
            # What was counted until the mask is in force is not the experiment's.
            self.machine.disturb()
        super().write_text(path, text)
        if is_mask:
            self.machine.named_at = self.machine.uptime

    def files(self) -> dict[str, str]:
        """What a reading reads, in its order."""
        machine = self.machine
        rows = [
            f"{vcpu} {int(vcpu in self.cpus)} {counts['entries']} 3 4 {counts['wfi']} {counts['wfe']}\n"
            for vcpu, counts in machine.counts.items()
        ]
        return {
            "/proc/uptime": f"{machine.uptime:.2f} 12.34\n",
            **{
                f"/proc/{PID}/task/{thread}/schedstat": f"{machine.nanoseconds[vcpu]} 123456789 4321\n"
                for vcpu, thread in THREADS.items()
            },
            STATISTICS: "vcpu named entries untrapped guarded wfi_exits wfe_exits\n" + "".join(rows),
        }

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["sh", "-c", script] if script == READING:
                return "".join(self.files().values())
            case ["python3", "-I", "-S", "-c", _, cpu, "0.5"]:
                guarded = self.guard_file.read_text() == "Y\n"
                here = {vcpu for vcpu, thread in THREADS.items() if self.affinity[thread] == cpu}
                assert here
                return f"{1.0 if guarded else 1 / (1 + len(here & self.cpus))}\n"
        return super()._do(argv)


class Machine(fake_machine.Machine):
    """A guest with two vCPUs on a host with two CPUs, and what is counted of them.

    A vCPU waits for a timer 20 times a second; with timers everywhere that of the scale's named one 1000
    times, the other 800. A wait that is trapped is an exit for WFI, each fourth one for WFE besides; then the
    vCPU is on a CPU for a quarter of the time, else for all of it. 50 other exits a second come to each.
    Between what the experiment is to count, everything counts too. `speed` is that of its clock.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.scale = SCALE
        self.uptime = 1000.0
        self.counts = {vcpu: {"entries": 9000, "wfi": 700 + vcpu, "wfe": 80 + vcpu} for vcpu in THREADS}
        self.nanoseconds = dict.fromkeys(THREADS, 10**12)
        self.lag_s = 0.0  # until a mask is in force
        self.named_at = 0.0
        self.timers = False
        self.starts = 0.0  # the time until they do
        self.took = {vcpu: 5000 + vcpu for vcpu in THREADS}
        self.speed = 1.0
        self.sleep = self.pass_time
        self.seen: list[dict[str, object]] = []
        self.guest = FakeGuest(self, root / "guest")
        self.host = FakeHost(self, root / "host")
        self.first = self.state()

    def systems(self) -> tuple[FakeGuest, FakeHost]:
        return self.guest, self.host

    def state(self) -> dict[str, object]:
        return {
            "mask": frozenset(self.host.cpus),
            "guard": self.host.guard_file.read_text().strip(),
            "halt polling": self.host.halt_poll_file.read_text() != "0\n",
            "soft IPIs": frozenset(self.guest.cpus),
            "CPUs of vCPU 0": self.host.affinity[THREADS[0]],
            "CPUs of vCPU 1": self.host.affinity[THREADS[1]],
            "timers": self.timers,
        }

    def work(self, seconds: float, waits: Mapping[int, int]) -> None:
        """Let time pass in which each vCPU waits so often."""
        late = min(seconds, max(0.0, self.named_at + self.lag_s - self.uptime))
        for vcpu, number in waits.items():
            trapped = late / seconds if vcpu in self.host.cpus else 1.0
            counts, wfi = self.counts[vcpu], round(trapped * number)
            counts["wfi"] += wfi
            counts["wfe"] += wfi // 4
            counts["entries"] += wfi + wfi // 4 + round(50 * seconds)
            self.nanoseconds[vcpu] += round((1 - 0.75 * trapped) * seconds * 1e9)
            self.took[vcpu] += number
        self.uptime += seconds

    def pass_time(self, seconds: float) -> None:
        named, other = (1000, 800) if self.timers and self.starts <= 0 else (20, 20)
        self.starts -= seconds
        done = seconds * self.speed
        self.work(seconds, {self.scale.named: round(named * done), self.scale.other: round(other * done)})

    def disturb(self) -> None:
        """Do what makes everything count that nobody should be counting now."""
        for counts in self.counts.values():
            counts.update({name: value + 10_000_019 for name, value in counts.items()})
        self.nanoseconds.update({vcpu: value + 10**15 for vcpu, value in self.nanoseconds.items()})
        self.took.update({vcpu: value + 30_011 for vcpu, value in self.took.items()})
        self.uptime += 10_000.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def fresh(root: Path) -> Machine:
    """A machine that comes with all of it set to something; the state "on, with soft IPIs" changes all."""
    machine = Machine(root)
    machine.host.cpus, machine.guest.cpus = {5}, {0}
    machine.host.guard_file.write_text("Y\n")
    return machine


def run(
    machine: Machine,
    states: Sequence[str] = ("off", "on"),
    rounds: int = 1,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    machine.first = machine.state()
    with pytest.MonkeyPatch.context() as patch:
        for module in (site, guest):
            patch.setattr(module, "time", SimpleNamespace(sleep=machine.sleep))
        return runner.run(
            WfxExperiment(machine.scale, OTHERS),
            bench(machine),
            Measurement("wfx", MachineName.CVM, tuple(states), rounds),
            environment={"kernel": "6.12"},
            advance=advance,
        )


def bench(machine: Machine) -> Bench:
    return Bench(machine.guest, Host(machine.host, PID), MachineName.CVM, "/tools")


def samples(raw: RawRun, state: str, name: str) -> tuple[float, ...]:
    (one,) = (one for one in raw.rounds if one.state == state)
    (found,) = (series for series in one.series if series.name == name)
    return found.samples


def sample(raw: RawRun, state: str, name: str) -> float:
    (only,) = samples(raw, state, name)
    return only


# States and order

NOBODY, EVERYONE = frozenset[int](), frozenset({0, 1})
# The mask of vCPUs, the guard, the mask of soft IPIs, whether all are on CPU 0.
IN_FORCE = {
    "off": (NOBODY, "N", NOBODY, False),
    "off, no halt polling": (NOBODY, "N", NOBODY, False),
    "on": (EVERYONE, "N", NOBODY, False),
    "on, guarded": (EVERYONE, "Y", NOBODY, False),
    "soft IPIs and no WFx untrapped": (NOBODY, "N", EVERYONE, False),
    "on, with soft IPIs": (EVERYONE, "N", EVERYONE, False),
    "two vCPUs on one CPU, off": (NOBODY, "N", NOBODY, True),
    "two vCPUs on one CPU, on": (EVERYONE, "N", NOBODY, True),
    "two vCPUs on one CPU, on, guarded": (EVERYONE, "Y", NOBODY, True),
    BOOT_POLICY: (NOBODY, "N", NOBODY, False),
}


def test_every_state_is_one_of_these() -> None:
    assert set(ALL_STATES) == IN_FORCE.keys()


@pytest.mark.parametrize(
    ("states", "rounds", "expected"),
    [
        (("off", "on"), 3, ["off", "on", "on", "off", "off", "on"]),
        ((BOOT_POLICY,), 2, [BOOT_POLICY, BOOT_POLICY]),
        (ALL_STATES, 2, [*ALL_STATES, *reversed(ALL_STATES)]),
    ],
)
def test_states_alternate_in_turned_order(
    tmp_path: Path, states: tuple[str, ...], rounds: int, expected: list[str]
) -> None:
    machine = fresh(tmp_path / "other")
    raw = run(machine, states, rounds)
    assert [one.state for one in raw.rounds] == expected
    assert [one.index for one in raw.rounds] == [n // len(states) for n in range(len(expected))]
    for state, seen in zip(expected, machine.seen, strict=True):
        mask, guard, soft, shared = IN_FORCE[state]
        assert seen == {
            **{"mask": mask, "guard": guard, "soft IPIs": soft, "timers": True},
            **{"CPUs of vCPU 0": "0", "CPUs of vCPU 1": "0" if shared else "1"},
            "halt polling": "no halt polling" not in state,
        }, state


def test_says_what_it_is_and_what_comes(machine: Machine) -> None:
    notes: list[str] = []
    raw = run(machine, rounds=2, advance=notes.append)
    assert (raw.feature, raw.machine, raw.environment) == ("wfx", "cvm", {"kernel": "6.12"})
    assert notes == [
        f"cvm, {state}, round {number} of 2"
        for state, number in (("off", 1), ("on", 1), ("on", 2), ("off", 2))
    ]


@pytest.mark.parametrize(
    ("state", "written"),
    [
        # One vCPU named, then both.
        ("on", ["2\n", "20\n", "3\n", "20\n"]),
        *(
            (state, ["0\n", "20\n"] * 2)
            for state in ("off", BOOT_POLICY, "two vCPUs on one CPU, off", "soft IPIs and no WFx untrapped")
        ),
    ],
)
def test_masks_are_what_the_state_says_whatever_the_host_came_with(
    machine: Machine, state: str, written: list[str]
) -> None:
    machine.host.cpus = {5}
    run(machine, (state,))
    assert machine.host.written == written


def test_without_a_host_it_is_wrong_usage(machine: Machine) -> None:
    with pytest.raises(UsageError, match="use vm or cvm"):
        runner.run(
            WfxExperiment(),
            Bench(machine.guest, None, MachineName.PLAIN, "/tools"),
            Measurement("wfx", MachineName.PLAIN, ("off",), 1),
            environment={},
        )
    assert machine.trace == []


# Cleaning up


@pytest.mark.parametrize(
    ("guard", "mask", "soft"), [("N", set[int](), set[int]()), ("Y", {5, 300}, {0}), ("Y", {0, 1}, {0, 1})]
)
def test_guest_and_host_are_left_as_they_were(
    machine: Machine, guard: str, mask: set[int], soft: set[int]
) -> None:
    machine.host.guard_file.write_text(f"{guard}\n")
    machine.host.cpus, machine.guest.cpus = mask, soft
    machine.host.affinity[THREADS[0]] = "1"
    run(machine, ALL_STATES, 2)
    assert machine.changed() == set()


@FAULTS
def test_whatever_fails_all_is_left_as_it_was(scratch: Path, fault: BaseException, when: When) -> None:
    changed = fail_in_turn(
        lambda name: fresh(scratch / name),
        lambda machine: run(machine, ("on, with soft IPIs",)),
        fault,
        when,
        # Whose number we never learned.
        unknown={"timers"},
    )
    assert changed == fresh(scratch / "other").state().keys() - {"halt polling"}


STARTS = 4  # looks at timers until they are running


@pytest.mark.parametrize("number", [0, STARTS, STARTS + 2, STARTS + 2 + 2])
def test_interrupted_sleep_leaves_all_as_it_was(tmp_path: Path, number: int) -> None:
    machine = fresh(tmp_path / "interrupted")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        machine.pass_time(seconds)
        if len(slept) > number:
            raise KeyboardInterrupt

    machine.sleep = sleep
    with pytest.raises(KeyboardInterrupt):
        run(machine, ("on, with soft IPIs",))
    # While timers start, while one vCPU is named, then no longer, and in an idle guest.
    assert slept == ([0.1] * (STARTS + 2 + 2) + [2.0])[: number + 1]
    assert machine.changed() == set()


def test_state_that_is_none_is_an_error_that_leaves_nothing(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no state 'warp'"):
        run(machine, ("off", "warp"))
    assert machine.changed() == set()


def test_mask_that_does_not_hold_is_an_error(machine: Machine) -> None:
    machine.host.take_instead("1")
    with pytest.raises(KnobError, match="took mask 2 but shows 1"):
        run(machine, ("on",))
    assert machine.changed() == set()


def test_host_without_the_feature_is_an_error(machine: Machine) -> None:
    machine.host.remove()
    with pytest.raises(KnobError, match="no control of WFx traps"):
        run(machine)
    assert machine.changed() == set()


def test_guest_without_soft_ipis_is_measured_without(machine: Machine) -> None:
    machine.guest.remove()
    assert len(run(machine).rounds) == 2
    with pytest.raises(KnobError, match="no soft IPI passthrough"):
        run(machine, ("on, with soft IPIs",))
    assert machine.changed() == set()


# Figures

NS = ("ns", "time", "lower")
PER_TIMER, CPUS = ("per timer interrupt", "count", "lower"), ("CPUs", "count", "lower")
EXITS = ("exits", "count", "lower")
UNITS = {
    "timers_taken": ("each", "count", "higher"),
    **dict.fromkeys(("wfx_exits_named", "wfx_exits_other", "exits_named"), PER_TIMER),
    "wfx_exits_back": ("per timer interrupt", "count", "higher"),
    **{"idle_wfx_exits": EXITS, "idle_exits": ("per s", "time", "lower"), "idle_cpu_use": CPUS},
    **{"timer_wake": NS, "wfx_per_timer": ("per wake-up", "count", "lower"), "timer_cpu_use": CPUS},
    **{"futex_rtt": NS, "wfx_per_futex_rtt": ("per round trip", "count", "lower")},
    **{"pipe_rtt": NS, "wfx_per_pipe_rtt": ("per round trip", "count", "lower")},
    **{"mixed_time": ("s", "time", "lower"), "mixed_wfx_exits": EXITS},
    "neighbour_share": ("share", "count", "higher"),
}


def test_metrics_of_a_round(machine: Machine) -> None:
    for one in run(machine, ALL_STATES).rounds:
        assert {series.name: (series.unit, series.kind, series.better) for series in one.series} == UNITS


# A wait that is trapped is 1.25 exits, as WFI and WFE both count.
COUNTED = {
    "timers_taken": (160, 160),
    "wfx_exits_named": (1.25, 0),
    "wfx_exits_other": (1.25, 1.25),
    "exits_named": (1.25 + 0.05, 0.05),
    "wfx_exits_back": (1.25, 1.25),
    "idle_wfx_exits": (2 * 2 * 25, 0),
    "idle_exits": (2 * (25 + 50), 2 * 50),
    "idle_cpu_use": (2 * 0.25, 2),
    "wfx_per_timer": ((50 + 10) / 40, 0),
    "timer_cpu_use": (2 * 0.25, 2),
    "wfx_per_futex_rtt": (2 * 1.25, 0),
    "wfx_per_pipe_rtt": (2 * 2.5, 0),
    "mixed_time": (1.25, 1.25),
    "mixed_wfx_exits": (2 * (1250 + 1000), 0),
    "neighbour_share": (1, 1 / 2),
}


@pytest.mark.parametrize("named", [0, 1])
def test_what_is_counted(machine: Machine, named: int) -> None:
    """What was counted before the mask was written, and while things start and end, is none of it."""
    machine.scale = replace(SCALE, named=named, other=1 - named)
    raw = run(machine)
    for name, (off, on) in COUNTED.items():
        assert sample(raw, "off", name) == pytest.approx(off), name
        assert sample(raw, "on", name) == pytest.approx(on), name


def test_times(machine: Machine) -> None:
    raw = run(machine)
    assert samples(raw, "on", "timer_wake") == tuple(80_000.0 + n for n in range(40))
    assert samples(raw, "on", "futex_rtt") == samples(raw, "off", "pipe_rtt") == (9000.0, 9500.0)


def test_mask_that_is_late_in_force_is_told(machine: Machine) -> None:
    """From the write on: a quarter of the time in which its timers were counted, 0.2 s."""
    machine.lag_s = 0.05
    assert sample(run(machine), "on", "wfx_exits_named") == pytest.approx(1.25 / 4, rel=0.02)


@pytest.mark.parametrize("speed", [0.1, 0.5, 3.0])
def test_what_is_counted_per_timer_hangs_on_no_speed(machine: Machine, speed: float) -> None:
    machine.speed = speed
    raw = run(machine)
    for name in ("wfx_exits_named", "wfx_exits_other", "wfx_exits_back"):
        assert sample(raw, "off", name) == pytest.approx(1.25, rel=0.05), name
    assert sample(raw, "off", "timers_taken") >= 160


def test_timers_that_hardly_come_are_not_awaited_without_an_end(machine: Machine) -> None:
    """And are told: a minute of looking at them."""
    machine.speed = 0.001
    looks = machine.pass_time
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        looks(seconds)

    machine.sleep = sleep
    raw = run(machine, ("off",))
    assert sample(raw, "off", "timers_taken") < 160
    assert slept.count(0.1) <= 4 * 600


@pytest.mark.parametrize(
    ("state", "share"),
    [
        ("on, guarded", 1),
        ("two vCPUs on one CPU, off", 1),
        ("two vCPUs on one CPU, on", 1 / 3),
        ("two vCPUs on one CPU, on, guarded", 1),
    ],
)
def test_neighbour_is_beside_those_that_are_named(machine: Machine, state: str, share: float) -> None:
    assert sample(run(machine, (state,)), state, "neighbour_share") == pytest.approx(share)


@pytest.mark.parametrize("loses", [1, 40])
def test_short_cyclictest_is_an_error(machine: Machine, loses: int) -> None:
    machine.guest.loses = loses
    with pytest.raises(CvmtuneError, match=f"of 40 wake-ups it tells {40 - loses}.*--loops=40"):
        run(machine, ("on",))
    assert machine.changed() == set()


@pytest.mark.parametrize("says", ["", "Running\n", "Time: 1\nTime: 2\n"])
def test_hackbench_without_its_time_is_an_error(machine: Machine, says: str) -> None:
    machine.guest.hackbench_says = says
    with pytest.raises(CvmtuneError, match="hackbench printed no time"):
        run(machine, ("on",))
    assert machine.changed() == set()


# What runs on the host, on this computer


def test_shell_reads_what_the_fake_says(machine: Machine, tmp_path: Path) -> None:
    content = machine.host.files()
    files = {path: tmp_path / path.lstrip("/") for path in content}
    for path, file in files.items():
        file.parent.mkdir(parents=True)
        file.write_text(content[path])
    script = re.sub(r"/(?=(proc|sys)/)", f"{tmp_path}/", READING)
    assert LocalSystem().run(["sh", "-c", script]).check().stdout == "".join(content.values())
    files[STATISTICS].unlink()
    assert LocalSystem().run(["sh", "-c", script]).status != 0


@pytest.mark.parametrize(
    ("named", "state", "cpu"), [(0, "on", "0"), (1, "on", "1"), (1, "two vCPUs on one CPU, on", "0")]
)
def test_neighbour_is_on_the_cpu_of_the_named_vcpu_and_tells_its_share(
    machine: Machine, named: int, state: str, cpu: str
) -> None:
    machine.scale = replace(SCALE, named=named, other=1 - named)
    run(machine, (state,))
    (argv,) = (shlex.split(one)[1:] for one in machine.host.operations if one.startswith("run python3"))
    assert argv[-2:] == [cpu, "0.5"]
    argv[-2:] = [str(min(sched_getaffinity(0))), "0.05"]
    assert 0 < float(LocalSystem().run(argv).check().stdout) <= 1.01


# Wake-ups in instructions


def test_instructions_with_and_without_halt_polling(machine: Machine) -> None:
    found = tuple(WfxPaths(SCALE).wakes(bench(machine), on=True))
    names = [f"{what}_path{how}" for how in ("", "_no_halt_poll") for what in ("futex", "pipe", "timer")]
    assert [(one.name, one.unit) for one in found] == [(name, "instructions") for name in names]
    assert found[0].samples == (9000.0, 9500.0)
    assert len(found[2].samples) == 40
    written = [operation for _, _, operation, _ in machine.trace if operation.startswith("write")]
    assert written == [f"write {path}" for path in (wfx_knob.PATH, HALT_POLL, HALT_POLL, wfx_knob.PATH)]
    assert machine.changed() == set()


def test_instructions_of_a_host_without_the_feature(machine: Machine) -> None:
    machine.host.remove()
    assert len(tuple(WfxPaths(SCALE).wakes(bench(machine), on=False))) == 6
    assert machine.changed() <= {"mask"}
