# SPDX-License-Identifier: Apache-2.0
"""The experiment `vtimer` against a guest and a host whose counters count as those of the kernels would."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import LocalSystem
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.host import HaltPoll, Host
from cvmtune.experiments.rounds import RawRun
from cvmtune.features.soft_ipi import knob as soft_ipi
from cvmtune.features.vtimer.experiment import HW, ORDINARY, STATES, VtimerExperiment
from cvmtune.features.vtimer.knob import VtimerTravel
from cvmtune.features.vtimer.paths import VtimerPaths
from cvmtune.features.vtimer.site import VtimerScale
from cvmtune.lab.specs import MachineName
from cvmtune.tuning.contract import KnobError
from tests.fakes import machine as fake_machine
from tests.fakes.kernel import FakeKernel, When, os_error
from tests.fakes.machine import (
    CYCLICTEST_HEADER,
    FAULTS,
    PID,
    THREADS,
    Recorded,
    RecordedHost,
    Refused,
    fail_in_turn,
)

HALT_POLL, TRAVEL = HaltPoll.path, VtimerTravel.path
MODES = {state.name: state.mode for state in STATES.values() if state.mode}
SCALE = VtimerScale(timers=40, interval_us=500, ticks=125, sections=20, gap_us=700, round_trips=8)
FOLDER = f"/sys/kernel/debug/kvm/{PID}-13"
MODE = f"{FOLDER}/vtimer_mode"
RUN = "/sys/kernel/debug/cvmtune_timer/run"
READING = (
    f"set -e; cd {FOLDER.removesuffix('13')}*; cat wfx_trap_stats; echo; cat /proc/interrupts; echo; "
    "if [ -e vtimer_stats ]; then cat vtimer_stats; fi"
)
ENDING = "kill 77 && while kill -0 77 2>/dev/null; do sleep 0.05; done"
WORK = 100_000  # what takes as long as a section
# Of hypercalls, one of them with an interrupt in it. The median is what an exit and an entry take.
HYPERCALLS = (1310, 1290, 90_000, 1300, 1200)
EXIT_NS = 1300
SECTION_US = 130  # a hundred of them
DEFAULT_TRAVEL = 600
HYPERCALLS_RUN = "echo kind=exit_path src=0 dst=1 n=2000 gap_us=100 >/sys/kernel/debug/cvmtune_ipi/run"
# Exits for an expired timer whose interrupt the guest does not take at once, if it is not masked.
AGAIN = {"oneshot": 3, "tick": 2, "section": 150}


# A guest and its host


class FakeGuest(Recorded[set[int]], FakeKernel):
    """What runs in the guest. `wrong` is what the module finds wrong, `loses_at` a kind of run that loses a
    timer, `fails_at` one that fails otherwise. So many of the ticks that are awaited come."""

    machine: Machine

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, soft_ipi.PATH, width=2, possible="0-1")
        self.machine = machine
        self.parameters = {}
        self.wrong: dict[str, int] = {}
        self.loses_at = ""
        self.fails_at = ""
        self.ticks = SCALE.ticks
        self.loses = 0
        self.calibrations = [90_000, WORK, 70_000, 99_000, 20_000]
        self.runs: list[dict[str, str]] = []
        self.result: dict[str, int] = {}
        self.samples: list[int] = []

    def read_text(self, path: str) -> str:
        content: dict[str, Callable[[], str]] = {
            "/proc/interrupts": self.interrupts,
            "/sys/kernel/debug/cvmtune_timer/result": lambda: "".join(
                f"{name} {value}\n" for name, value in self.result.items()
            ),
            "/sys/kernel/debug/cvmtune_timer/samples": lambda: "".join(f"{ns}\n" for ns in self.samples),
        }
        if path == "/sys/kernel/debug/cvmtune_ipi/samples":
            assert self.machine.hypercalls_loaded
            content[path] = lambda: "".join(f"{ns}\n" for ns in self.machine.hypercalls)
        if path in content:
            self._make(path, content[path]())
        return super().read_text(path)

    def interrupts(self) -> str:
        counts = self.machine.guest_took
        return (
            "           CPU0       CPU1\n"
            f" 10: {counts[0]:10} {counts[1]:10}     GICv3  27 Level     arch_timer\n"
            f" 12: {7:10} {8:10}     GICv3  33 Level     uart-pl011\n"
            f"IPI4: {9:10} {9:10}       Timer broadcast interrupts\n"
            "Err:          0\n"
        )

    def _do(self, argv: list[str]) -> str:
        machine, scale = self.machine, self.machine.scale
        cpu, other = str(scale.cpu), str(scale.other)
        match argv:
            case ["insmod", "/tools/cvmtune_timer.ko"]:
                machine.loaded = True
            case ["rmmod", "cvmtune_timer"]:
                machine.loaded = False
            case ["insmod", "/tools/cvmtune_ipi.ko"]:
                machine.hypercalls_loaded = True
            case ["rmmod", "cvmtune_ipi"]:
                machine.hypercalls_loaded = False
            case ["sh", "-c", script] if script == HYPERCALLS_RUN:
                assert machine.hypercalls_loaded
                machine.disturb()
                machine.called.append(machine.state())
                if self.fails_at == "exit_path":
                    raise Refused(errno.EINTR, "write error: Interrupted system call")
            case ["taskset", "-c", where, "sh", "-c", script]:
                assert where == other
                found = re.fullmatch(rf"echo (.*) >{RUN}", script)
                assert found, script
                self._module(found[1])
            case ["taskset", "-c", where, "python3", "-I", "-S", "-c", _, "arch_timer", of, "125", "60"]:
                assert where == of == cpu
                return self._busy()
            case ["taskset", "-c", where, "true"]:
                assert where == cpu
                machine.follow()
            case ["cyclictest", "--threads=1", where, "--nsecs", "--verbose", interval, loops]:
                assert (where, interval, loops) == (f"--affinity={cpu}", "--interval=500", "--loops=40")
                machine.disturb()
                rows = (f"{0:8}:{n:8}:{80_000 + n:8}\n" for n in range(40 - self.loses))
                return CYCLICTEST_HEADER + "".join(rows)
            case ["/tools/pingpong", "futex" | "pipe", *cpus, "8"]:
                assert cpus == [other, cpu]
                machine.disturb()
                if machine.cold:
                    machine.cold = False
                    return "5000\n70000\n"
                return "29000\n31000\n" if machine.sections else machine.trips
            case ["sh", "-c", script] if script == ENDING:
                if not machine.sections:
                    raise Refused(errno.ESRCH, "kill: No such process")
                machine.sections = False
            case ["sh", "-c", script]:
                found = re.fullmatch(
                    rf"taskset -c {other} sh -c 'echo (.*) >{RUN}' >/dev/null 2>&1 & echo \$!", script
                )
                assert found, script
                keys = self._keys(found[1])
                # For as long as the round trips may take on the slowest of computers.
                assert int(keys["n"]) * int(keys["gap_us"]) >= 60_000_000
                machine.sections = self.fails_at != "background"
                return "77\n"
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return ""

    def _keys(self, line: str) -> dict[str, str]:
        """A line for the module, whose header comment says what there is."""
        assert self.machine.loaded
        assert not self.machine.sections, "EBUSY"
        keys = dict(word.split("=") for word in line.split())
        wanted = {"irqoff": {"off_us", "gap_us"}, "oneshot": {"interval_us"}}[keys["kind"]]
        assert keys.keys() - {"work"} == {"kind", "cpu", "n"} | wanted
        assert keys["cpu"] == str(self.machine.scale.cpu)
        assert int(keys["n"]) in range(1, 100_001)
        if keys["kind"] == "irqoff":
            assert (keys["off_us"], keys["gap_us"]) == (str(self.machine.section_us), "700")
            # Without it is calibration: nothing is measured in it.
            assert keys.get("work", str(WORK)) == str(WORK)
        else:
            assert keys["interval_us"] == "500"
        return keys

    def _module(self, line: str) -> None:
        keys = self._keys(line)
        self.runs.append(keys)
        kind, n = keys["kind"], int(keys["n"])
        if kind == self.fails_at:
            raise Refused(errno.ETIMEDOUT, "write error: Connection timed out")
        self.result = {"fired": n}
        if kind == "oneshot":
            self.machine.expire("oneshot", n)
            self.result["started"] = n
            self.samples = [5000 + 10 * at for at in reversed(range(n))]
        elif "work" in keys:
            self.machine.expire("section", n)
            # The further the guest gets between two interrupts, the fewer of them.
            more = 300_000 * EXIT_NS // self.machine.host.travels if self.machine.mode == "unmasked" else 0
            self.samples = [100_000 + more + at for at in range(n)]
            self.result |= {"sections": n, "work": WORK}
            # Half a second in all.
            self.result |= {"section_ns_total": 400_000_000, "wait_ns_total": 100_000_000}
        else:
            self.machine.disturb()
            self.samples = [1]
            self.result |= {"sections": n, "work": self.calibrations.pop(0)}
        self.result |= {"lost": 0, "early": 0, "twice": 0, "hung": 0, **self.wrong}
        if kind == self.loses_at:
            self.result |= {"lost": 1}
            raise Refused(errno.ETIMEDOUT, "write error: Connection timed out")
        if not self.calibrations:
            self.machine.after_calibration()

    def _busy(self) -> str:
        """Its ticks are 250 per s; starting and ending takes twenty more."""
        self.machine.expire("tick", 15)
        self.machine.expire("tick", self.ticks)
        self.machine.expire("tick", 5)
        return f"{self.ticks} 60000 0.5\n"


class FakeHost(RecordedHost[str]):
    """The host: of a confidential VM, whose file vtimer_mode this is, or of an ordinary one, without it.

    `travels` is how long the VM's interrupts do: as long as was written when its mode was set.
    """

    machine: Machine
    travels = DEFAULT_TRAVEL

    def __init__(self, machine: Machine, root: Path) -> None:
        super().__init__(root, MODE, "masked")
        self.machine = machine
        self.affinity = dict.fromkeys(THREADS.values(), "0,1")
        self.halt_poll_file = self._make(HALT_POLL, "500000\n")
        self.travel_file = self._make(TRAVEL, f"{DEFAULT_TRAVEL}\n")
        self.parameters = {
            HALT_POLL: (self.halt_poll_file, ("0\n", "500000\n")),
            TRAVEL: (self.travel_file, [f"{ns}\n" for ns in (DEFAULT_TRAVEL, EXIT_NS, 650, 2600)]),
        }
        self.folders = [FOLDER]

    @property
    def mode(self) -> str:
        return self._value

    def set(self, mode: str) -> None:
        self._enforce(mode)

    def write_text(self, path: str, text: str) -> None:
        super().write_text(path, text)
        self.machine.stale |= path == MODE

    @property
    def travel(self) -> int | None:
        """What is written; None without the model."""
        return int(self.travel_file.read_text()) if self.travel_file.exists() else None

    def _enforce(self, value: str) -> None:
        super()._enforce(value)
        if hasattr(self, "travel_file") and self.travel is not None:
            self.travels = self.travel

    def _parse(self, text: str) -> str:
        """As sysfs_streq(), in a buffer of 16."""
        mode = text.removesuffix("\n")
        if len(text) >= 16 or mode not in ("hw", "masked", "unmasked"):
            raise os_error(errno.EINVAL)
        return mode

    def _print(self, value: str) -> str:
        return f"{value}\n"

    def files(self) -> dict[str, str]:
        """What a reading reads, in its order."""
        machine = self.machine
        took = machine.host_took
        found = {
            f"{FOLDER}/wfx_trap_stats": "vcpu named entries untrapped guarded wfi_exits wfe_exits\n"
            + "".join(f"{vcpu} 0 {exits} 3 4 5 6\n" for vcpu, exits in machine.exits.items()),
            "/proc/interrupts": "           CPU0       CPU1\n"
            f" 11: {took[0]:10} {took[1]:10}     GICv3  27 Level     kvm guest vtimer\n"
            f" 12: {99:10} {98:10}     GICv3  26 Level     kvm vtimer travel\n"
            f" 14: {5:10} {5:10}     GICv3  30 Level     kvm guest ptimer\n"
            f"IPI0: {9:10} {9:10}       Rescheduling interrupts\n",
        }
        if machine.confidential:
            found[f"{FOLDER}/vtimer_stats"] = (
                "vcpu entries masked_entries timer_exits redundant_exits\n"
                + "".join(
                    f"{vcpu} 123456 1234 {machine.timer_exits[vcpu]} {machine.redundant[vcpu]}\n"
                    for vcpu in THREADS
                )
            )
        return found

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["sh", "-c", script] if script == READING:
                content = list(self.files().values())
                return "\n".join([*content, *([] if self.machine.confidential else [""])])
            case ["sh", "-c", script] if script == f"ls -d /sys/kernel/debug/kvm/{PID}-*":
                return "".join(f"{folder}\n" for folder in self.folders)
        return super()._do(argv)


class Machine(fake_machine.Machine):
    """A guest with two vCPUs on a host with two CPUs, and what is counted of them.

    Each expiry is a timer exit, and so is each for AGAIN if it is not masked. A deactivation is an exit where
    the monitor has the timer. Between four timers that are asked for there is one that is not. A vCPU that is
    not measured counts everything too, and so does each of them between what the experiment is to count.
    """

    def __init__(self, root: Path, confidential: bool = True) -> None:
        super().__init__()
        self.scale = SCALE
        self.confidential = confidential
        self.loaded = False
        self.hypercalls: tuple[int, ...] = HYPERCALLS
        self.hypercalls_loaded = False
        self.called: list[dict[str, object]] = []
        self.section_us = SECTION_US
        self.sections = False  # in the background
        self.after_calibration: Callable[[], object] = lambda: None
        self.late = False  # an exit whose interrupt is yet to come when the guest is read
        self.stale = False  # the measured vCPU has not been in its guest since the mode was set
        self.trips = "9000\n9500\n"
        self.cold = False  # the first round trips after a boot are others
        self.exits = {0: 9000, 1: 9001}
        self.timer_exits = {0: 700, 1: 701}
        self.redundant = {0: 80, 1: 81}
        self.guest_took = [1000, 1001]
        self.host_took = [2000, 2001]
        self.seen: list[dict[str, object]] = []
        self.guest = FakeGuest(self, root / "guest")
        self.host = FakeHost(self, root / "host")
        if not confidential:
            self.host.remove()
        self.first = self.state()

    @property
    def mode(self) -> str:
        return self.host.mode if self.confidential else "off"

    def systems(self) -> tuple[FakeGuest, FakeHost]:
        return self.guest, self.host

    def state(self) -> dict[str, object]:
        return {
            "mode": self.mode,
            "travel": self.host.travel,
            "module": self.loaded,
            "module for hypercalls": self.hypercalls_loaded,
            "sections": self.sections,
            "halt polling": self.host.halt_poll_file.read_text() != "0\n",
            "CPUs of vCPU 0": self.host.affinity[THREADS[0]],
            "CPUs of vCPU 1": self.host.affinity[THREADS[1]],
        }

    def expire(self, load: str, number: int) -> None:
        """Let so many timers expire on the measured CPU, under this load."""
        self.seen.append({**self.state(), "load": load, "travels": self.host.travels, "stale": self.stale})
        cpu, other = self.scale.cpu, self.scale.other
        more = 0 if load == "tick" else number // 4
        again = AGAIN[load] * number if self.mode == "unmasked" else 0
        expired = number + more
        self.guest_took[cpu] += expired - self.late
        self.exits[cpu] += expired + again + 10 * number
        if self.mode in ("masked", "unmasked"):
            self.exits[cpu] += expired
        else:
            self.host_took[cpu] += expired
        if self.confidential:
            self.timer_exits[cpu] += expired + again
            self.redundant[cpu] += again
        self._count(other, 1_000_003)

    def follow(self) -> None:
        """Have the measured vCPU in its guest."""
        self.stale = False

    def disturb(self) -> None:
        """Do what makes everything count that nobody should be counting now."""
        for vcpu in THREADS:
            self._count(vcpu, 10_000_019)

    def _count(self, vcpu: int, number: int) -> None:
        for counts in (self.exits, self.timer_exits, self.redundant):
            counts[vcpu] += number
        self.guest_took[vcpu] += number
        self.host_took[vcpu] += number


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def run(
    machine: Machine,
    states: Sequence[str] = ("off", "on", HW),
    rounds: int = 1,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    machine.first = machine.state()
    return runner.run(
        VtimerExperiment(machine.scale),
        bench(machine),
        Measurement("vtimer", MachineName.CVM, tuple(states), rounds),
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


@pytest.mark.parametrize(
    ("states", "rounds", "expected"),
    [
        (("off", "on"), 3, ["off", "on", "on", "off", "off", "on"]),
        (("off", "on", HW), 2, ["off", "on", HW, HW, "on", "off"]),
        ((HW,), 2, [HW, HW]),
    ],
)
def test_states_alternate_in_turned_order(
    machine: Machine, states: tuple[str, ...], rounds: int, expected: list[str]
) -> None:
    raw = run(machine, states, rounds)
    assert [one.state for one in raw.rounds] == expected
    assert [one.index for one in raw.rounds] == [n // len(states) for n in range(len(expected))]
    modes = {"off": "unmasked", "on": "masked", HW: "hw"}
    # One for timers, three for ticks, one for sections in each round.
    assert [seen["mode"] for seen in machine.seen] == [modes[state] for state in expected for _ in range(5)]
    for seen in machine.seen:
        assert (seen["CPUs of vCPU 0"], seen["CPUs of vCPU 1"]) == ("0", "1")
        assert seen["halt polling"]
        assert not seen["module for hypercalls"]
        # The vCPU takes the mode over when it is entered next: that was before.
        assert not seen["stale"]


FINDINGS = {"exit_and_entry_ns": EXIT_NS, "section_us": SECTION_US}


def test_says_what_it_is_and_what_comes(machine: Machine) -> None:
    notes: list[str] = []
    raw = run(machine, rounds=2, advance=notes.append)
    assert (raw.feature, raw.machine, raw.environment) == ("vtimer", "cvm", {"kernel": "6.12"})
    assert raw.findings == FINDINGS
    assert notes == [
        f"cvm, {state}, round {number} of 2"
        for state, number in (("off", 1), ("on", 1), (HW, 1), (HW, 2), ("on", 2), ("off", 2))
    ]


def test_without_a_host_it_is_wrong_usage(machine: Machine) -> None:
    with pytest.raises(UsageError, match="use cvm"):
        runner.run(
            VtimerExperiment(),
            Bench(machine.guest, None, MachineName.PLAIN, "/tools"),
            Measurement("vtimer", MachineName.PLAIN, ("off",), 1),
            environment={},
        )
    assert machine.trace == []


# The measure of all: an exit and an entry


def travel_writes(machine: Machine) -> list[str]:
    return [one for one in machine.host.operations if one == f"write {TRAVEL}"]


def test_hypercalls_are_timed_once_on_cpus_of_their_own_before_all_else(machine: Machine) -> None:
    run(machine, rounds=2)
    (called,) = machine.called
    assert (called["CPUs of vCPU 0"], called["CPUs of vCPU 1"]) == ("0", "1")
    assert (called["mode"], called["travel"], called["module"]) == ("masked", DEFAULT_TRAVEL, False)


def test_interrupts_travel_as_long_as_an_exit_and_an_entry_take(machine: Machine) -> None:
    """Which the VM learns when its mode is set, and not later."""
    run(machine, rounds=2)
    assert {seen["travels"] for seen in machine.seen} == {EXIT_NS}
    assert machine.host.travel == DEFAULT_TRAVEL
    # Once for all rounds, and back.
    assert len(travel_writes(machine)) == 2


@pytest.mark.parametrize("mode", ["hw", "masked", "unmasked"])
@pytest.mark.parametrize("experiment", ["rounds", "paths"])
def test_vm_has_its_own_travel_time_back_in_the_end(machine: Machine, mode: str, experiment: str) -> None:
    """It takes that over when its mode is set: that must be after the time has been put back."""
    machine.host.set(mode)
    run(machine) if experiment == "rounds" else paths(machine)
    assert (machine.host.mode, machine.host.travel) == (mode, DEFAULT_TRAVEL)
    assert machine.host.travels == DEFAULT_TRAVEL


def test_kernel_without_the_model_has_no_travel_time(machine: Machine) -> None:
    machine.host.travel_file.unlink()
    raw = run(machine, ("on", HW))
    assert [one.state for one in raw.rounds] == ["on", HW]
    assert travel_writes(machine) == []
    assert not machine.host.travel_file.exists()
    # Sections are as long as with it.
    assert raw.findings == FINDINGS
    assert machine.changed() == set()


def test_ordinary_vm_of_a_kernel_with_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    machine = Machine(tmp_path, confidential=False)
    raw = run(machine, (ORDINARY,))
    assert raw.findings == FINDINGS
    assert machine.host.written == []
    assert machine.changed() == set()


@pytest.mark.parametrize(
    ("hypercalls", "exit_ns", "section_us"),
    [
        ((14_000, 16_000, 500_000), 16_000, 1600),
        ((300, 312), 306, 31),  # between the two in the middle; 30.6 us
        ((3,), 3, 1),  # never 0: the module takes none such
    ],
)
def test_sections_are_a_hundred_exits_and_entries_long(
    machine: Machine, hypercalls: tuple[int, ...], exit_ns: int, section_us: int
) -> None:
    """The fake takes no other length."""
    machine.hypercalls, machine.section_us = hypercalls, section_us
    machine.host.parameters = {
        **machine.host.parameters,
        TRAVEL: (machine.host.travel_file, (f"{exit_ns}\n", f"{DEFAULT_TRAVEL}\n")),
    }
    raw = run(machine)
    assert raw.findings == {"exit_and_entry_ns": exit_ns, "section_us": section_us}
    assert {seen["travels"] for seen in machine.seen} == {exit_ns}
    lengths = {keys["off_us"] for keys in machine.guest.runs if keys["kind"] == "irqoff"}
    assert lengths == {str(section_us)}


def test_hypercalls_that_fail_are_an_error(machine: Machine) -> None:
    machine.guest.fails_at = "exit_path"
    with pytest.raises(CvmtuneError, match=r"kind=exit_path .*\n.*Interrupted"):
        run(machine)
    assert (travel_writes(machine), machine.seen) == ([], [])
    assert machine.changed() == set()


# Cleaning up


@pytest.mark.parametrize("mode", ["hw", "masked", "unmasked"])
def test_guest_and_host_are_left_as_they_were(machine: Machine, mode: str) -> None:
    machine.host.set(mode)
    machine.host.affinity[THREADS[0]] = "1"
    run(machine, rounds=2)
    assert machine.changed() == set()
    assert {seen["mode"] for seen in machine.seen} == {"hw", "masked", "unmasked"}


@FAULTS
def test_whatever_fails_all_is_left_as_it_was(scratch: Path, fault: BaseException, when: When) -> None:
    changed = fail_in_turn(
        lambda name: Machine(scratch / name),
        lambda machine: run(machine, ("off",)),
        fault,
        when,
        # Loaded or begun, but we never learned of it.
        unknown={"module", "module for hypercalls", "sections"},
    )
    assert changed == Machine(scratch / "other").state().keys() - {"halt polling"}


def test_state_that_is_none_is_an_error_that_leaves_nothing(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no state 'warp'"):
        run(machine, ("off", "warp"))
    assert machine.changed() == set()


@pytest.mark.parametrize("kind", ["oneshot", "irqoff"])
def test_run_of_the_module_that_fails_is_an_error(machine: Machine, kind: str) -> None:
    machine.guest.fails_at = kind
    with pytest.raises(CvmtuneError, match=f"kind={kind} .*\n.*timed out"):
        run(machine)
    assert machine.changed() == set()


@pytest.mark.parametrize("name", ["lost", "early", "twice"])
def test_timer_that_went_wrong_is_an_error_where_no_verdict_tells_it(machine: Machine, name: str) -> None:
    """In calibration, and where instructions are counted."""
    machine.guest.wrong = {name: 2}
    for measured in (run, paths):
        with pytest.raises(CvmtuneError, match=rf"timers of the guest failed: {{'{name}': 2}}.*kind=irqoff"):
            measured(machine)
        assert machine.changed() == set()


def test_sections_that_end_before_the_round_trips_are_an_error(machine: Machine) -> None:
    """Else it would measure wake-ups beside nothing, and call them beside sections."""
    machine.guest.fails_at = "background"
    with pytest.raises(CvmtuneError, match="No such process"):
        run(machine)
    assert machine.changed() == set()


def test_short_cyclictest_is_an_error(machine: Machine) -> None:
    machine.guest.loses = 1
    with pytest.raises(CvmtuneError, match="of 40 wake-ups it tells 39"):
        run(machine)
    assert machine.changed() == set()


@pytest.mark.parametrize("folders", [[], [FOLDER, f"/sys/kernel/debug/kvm/{PID}-14"]])
def test_folder_of_no_vm_or_of_two_is_an_error(machine: Machine, folders: list[str]) -> None:
    machine.host.folders = folders
    with pytest.raises(CvmtuneError, match=f"{len(folders)} such folders"):
        run(machine)
    assert machine.changed() == set()


def test_vm_that_is_not_confidential_has_no_modes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, confidential=False)
    with pytest.raises(KnobError, match="not confidential"):
        run(machine)
    assert machine.changed() == set()


# Timers that fail


@pytest.mark.parametrize(("name", "metric"), [("early", "timers_wrong"), ("twice", "timers_wrong")])
def test_timers_that_went_wrong_are_counted(machine: Machine, name: str, metric: str) -> None:
    """In each of a round's two runs of the module."""
    machine.after_calibration = lambda: machine.guest.wrong.update({name: 2})
    raw = run(machine)
    assert sample(raw, "on", metric) == 4
    assert sample(raw, "on", "timers_lost") == 0
    assert machine.changed() == set()


@pytest.mark.parametrize(("kind", "load"), [("oneshot", "oneshot"), ("irqoff", "section")])
def test_lost_timer_is_counted_and_of_its_load_nothing_else(machine: Machine, kind: str, load: str) -> None:
    machine.after_calibration = lambda: setattr(machine.guest, "loses_at", kind)
    (on,) = run(machine, ("on",)).rounds
    found = {series.name: series.samples for series in on.series}
    assert found["timers_lost"] == (1,)
    assert found["timers_wrong"] == (0,)
    lacking = {name for name in UNITS if name.endswith(load)}
    lacking |= {"oneshot_late"} if load == "oneshot" else {"storm", "section"}
    assert UNITS.keys() - found.keys() == lacking - {"cyclictest"}
    assert machine.changed() == set()


def test_lost_timer_of_a_thread_that_hangs_is_an_error(machine: Machine) -> None:
    def lose() -> None:
        machine.guest.loses_at, machine.guest.wrong = "oneshot", {"hung": 1}

    machine.after_calibration = lose
    with pytest.raises(CvmtuneError, match="kind=oneshot"):
        run(machine)
    assert machine.changed() == set()


@pytest.mark.parametrize(("ticks", "share"), [(0, 0), (50, 0.4), (125, 1), (127, 1)])
def test_ticks_are_told_by_how_many_of_those_awaited_came(machine: Machine, ticks: int, share: float) -> None:
    machine.guest.ticks = ticks
    assert sample(run(machine), "on", "ticks_taken") == share


# Figures

EACH = ("each", "count", "lower")
NS = ("ns", "time", "lower")
UNITS = {
    **{
        f"{kind}_{load}": EACH
        for load in ("oneshot", "tick", "section")
        for kind in (*("timer_exits_per", "redundant_per", "interrupts_per", "exits_per"),)
    },
    **{f"timer_exits_beyond_{load}": ("exits", "count", "lower") for load in ("oneshot", "tick", "section")},
    **dict.fromkeys(("timers_lost", "timers_wrong"), ("timers", "count", "lower")),
    "ticks_taken": ("share", "count", "higher"),
    **dict.fromkeys(("oneshot_late", "cyclictest", "section"), NS),
    **dict.fromkeys(("cross_futex_rtt", "cross_pipe_rtt", "section_rtt"), NS),
    "ticks_per_s": ("per s", "time", "higher"),
    "busy_work": ("per s", "time", "higher"),
    "storm": ("per s", "time", "lower"),
}


def test_metrics_of_a_round(machine: Machine, tmp_path: Path) -> None:
    ordinary = Machine(tmp_path / "ordinary", confidential=False)
    for one in (*run(machine).rounds, *run(ordinary, (ORDINARY,)).rounds):
        assert {series.name: (series.unit, series.kind, series.better) for series in one.series} == UNITS


# Of four timers asked for there are five, and 15 + 125 + 5 ticks; each is an exit, if not masked AGAIN.
COUNTED = {
    "timer_exits_per_oneshot": (1.25 + 3, 1.25, 1.25),
    "redundant_per_oneshot": (3, 0, 0),
    "timer_exits_beyond_oneshot": (40 * 3, 0, 0),
    "interrupts_per_oneshot": (1.25, 1.25, 1.25),
    "exits_per_oneshot": (1.25 + 3 + 10 + 1.25, 1.25 + 10 + 1.25, 1.25 + 10),
    "timer_exits_per_tick": (1 + 2, 1, 1),
    "redundant_per_tick": (2, 0, 0),
    "timer_exits_beyond_tick": (145 * 2, 0, 0),
    "ticks_taken": (1, 1, 1),
    "interrupts_per_tick": (1, 1, 1),
    "exits_per_tick": (1 + 2 + 10 + 1, 1 + 10 + 1, 1 + 10),
    "ticks_per_s": (250, 250, 250),
    "busy_work": (120_000, 120_000, 120_000),
    "timer_exits_per_section": (1.25 + 150, 1.25, 1.25),
    "redundant_per_section": (150, 0, 0),
    "timer_exits_beyond_section": (20 * 150, 0, 0),
    "timers_lost": (0, 0, 0),
    "timers_wrong": (0, 0, 0),
    "interrupts_per_section": (1.25, 1.25, 1.25),
    "exits_per_section": (1.25 + 150 + 10 + 1.25, 1.25 + 10 + 1.25, 1.25 + 10),
    # In half a second.
    "storm": (2 * 20 * (1.25 + 150), 2 * 20 * 1.25, 2 * 20 * 1.25),
}


@pytest.mark.parametrize("cpu", [0, 1])
def test_what_is_counted(tmp_path: Path, cpu: int) -> None:
    """On the measured CPU alone, and nothing of what runs before, between and after."""
    for confidential in (True, False):
        machine = Machine(tmp_path / str(confidential), confidential)
        machine.scale = replace(SCALE, cpu=cpu, other=1 - cpu)
        states = ("off", "on", HW) if confidential else (ORDINARY,)
        raw = run(machine, states)
        for name, values in COUNTED.items():
            for state, value in zip(states, values if confidential else values[-1:], strict=True):
                assert sample(raw, state, name) == pytest.approx(value), (name, state)


def test_times(machine: Machine) -> None:
    raw = run(machine)
    assert sorted(samples(raw, "on", "oneshot_late")) == [5000 + 10 * n for n in range(40)]
    assert samples(raw, "on", "cyclictest") == tuple(80_000 + n for n in range(40))
    assert samples(raw, "off", "section") == tuple(400_000 + n for n in range(20))
    assert samples(raw, HW, "section") == tuple(100_000 + n for n in range(20))
    assert samples(raw, "on", "cross_futex_rtt") == samples(raw, "off", "cross_pipe_rtt") == (9000, 9500)
    # There are sections meanwhile.
    assert samples(raw, "on", "section_rtt") == (29000, 31000)


def test_work_of_a_section_is_calibrated_once_for_all_rounds(machine: Machine) -> None:
    """And is the most of what several calibrations find; the fake takes no other."""
    run(machine, rounds=2)
    sections = [keys for keys in machine.guest.runs if keys["kind"] == "irqoff"]
    assert [keys["n"] for keys in sections if "work" not in keys] == ["1"] * 5
    assert [keys["n"] for keys in sections if "work" in keys] == ["20"] * 6
    assert all("work" not in keys for keys in sections[:5])


# What runs in shells, on this computer


@pytest.mark.parametrize("confidential", [True, False])
def test_shell_reads_what_the_fake_says(tmp_path: Path, confidential: bool) -> None:
    machine = Machine(tmp_path / "machine", confidential)
    content = machine.host.files()
    files = {path: tmp_path / path.lstrip("/") for path in content}
    for path, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content[path])
    script = re.sub(r"/(?=(proc|sys)/)", f"{tmp_path}/", READING)
    assert LocalSystem().run(["sh", "-c", script]).check().stdout == machine.host._do(["sh", "-c", READING])
    files[f"{FOLDER}/wfx_trap_stats"].unlink()
    assert LocalSystem().run(["sh", "-c", script]).status != 0


@pytest.mark.parametrize(("stands_still", "ticks"), [(False, 20), (True, 0)])
def test_busy_loop_computes_until_its_ticks_have_come(
    machine: Machine, tmp_path: Path, stands_still: bool, ticks: int
) -> None:
    run(machine, ("off",))
    (argv,) = (shlex.split(one)[1:] for one in machine.guest.operations if "python3" in one)
    *argv, script, row, cpu, _, _ = argv[3:]
    interrupts = tmp_path / "interrupts"
    interrupts.write_text(machine.guest.interrupts())
    assert "'/proc/interrupts'" in script or '"/proc/interrupts"' in script
    # Each look is a tick, as of a CPU that is slow.
    hook = f"""
import builtins
real = builtins.open
def looked(path):
    counts = [int(word) for word in real(path).readlines()[1].split()[1:3]]
    if {not stands_still}:
        text = real(path).read()
        real(path, "w").write(text.replace(f"{{counts[1]:10}} ", f"{{counts[1] + 1:10}} "))
    return real(path)
builtins.open = looked
"""
    script = hook + script.replace("/proc/interrupts", str(interrupts))
    # On whatever CPU is free here.
    said = LocalSystem().run([*argv, script, row, cpu, "20", "1" if stands_still else "600"]).check().stdout
    found, turns, seconds = map(float, said.split())
    assert found == ticks
    assert turns >= 5000 * ticks
    assert seconds > 0


def test_interrupt_that_is_yet_to_come_is_one_exit_beyond(machine: Machine) -> None:
    """The guest is read first and last, so that it is never more."""
    machine.late = True
    raw = run(machine, ("on",))
    assert sample(raw, "on", "timer_exits_beyond_oneshot") == 1
    reads = [
        "guest" if of is machine.guest else "host"
        for of, _, operation, _ in machine.trace
        if operation in ("read /proc/interrupts", f"run {shlex.join(['sh', '-c', READING])}")
    ]
    assert reads == ["guest", "host", "host", "guest"] * 3


def test_sections_in_the_background_end_when_told_to(machine: Machine, tmp_path: Path) -> None:
    """A write that does not return, as of the module's file: here to a pipe that nobody reads."""
    run(machine, ("off",))
    (line,) = (shlex.split(one)[-1] for one in machine.guest.operations if "echo $!" in one)
    pipe = tmp_path / "pipe"
    LocalSystem().run(["mkfifo", str(pipe)]).check()
    script = line.replace(RUN, str(pipe)).replace("taskset -c 0", "env")
    # It does not wait for the write's end, else it would not end within its time.
    pid = LocalSystem().run(["sh", "-c", script], timeout=20).check().stdout.strip()
    ending = ENDING.replace("77", pid)
    LocalSystem().run(["sh", "-c", ending], timeout=20).check()
    assert LocalSystem().run(["sh", "-c", ending], timeout=20).status != 0


# In instructions


TRAVELS = {"section_path_half", "section_path_double"}


def paths(machine: Machine) -> dict[str, dict[str, tuple[float, ...]]]:
    machine.first = machine.state()
    machine.trips = "9000\n50000\n9100\n8000\n9200\n9300\n70000\n8500\n"
    rounds = list(VtimerPaths(machine.scale).in_each_mode(bench(machine), "instructions"))
    assert {(series.unit, series.kind) for one in rounds for series in one.series} == {
        ("instructions", "count")
    }
    return {one.state: {series.name: series.samples for series in one.series} for one in rounds}


def test_instructions_in_each_mode_without_halt_polling(machine: Machine) -> None:
    found = paths(machine)
    assert list(found) == [f"instructions, {mode}" for mode in MODES.values()]
    for state, series in found.items():
        assert series.keys() - TRAVELS == {"section_path", "oneshot_path", "cross_futex_path"}
        # The least, as the other CPUs' instructions are in the rest.
        shortest = 400_000 if state.endswith("unmasked") else 100_000
        assert series["section_path"] == tuple(shortest + n for n in range(11))
        assert series["oneshot_path"] == tuple(5000 + 10 * n for n in range(20))
        # Without the extremes: beside other work round trips are longer or shorter.
        assert series["cross_futex_path"] == (9000, 9100, 9200, 9300)
    assert not any(seen["halt polling"] for seen in machine.seen)
    assert not any(called["halt polling"] for called in machine.called)
    others = [seen for seen in machine.seen if seen["travels"] == EXIT_NS]
    assert [seen["mode"] for seen in others] == [mode for mode in MODES.values() for _ in range(2)]
    assert machine.changed() == set()


def test_sections_that_are_not_masked_with_half_and_double_the_travel_time(machine: Machine) -> None:
    found = paths(machine)
    assert {state: series.keys() & TRAVELS for state, series in found.items()} == {
        "instructions, unmasked": TRAVELS,
        "instructions, masked": set(),
        "instructions, hw": set(),
    }
    series = found["instructions, unmasked"]
    # 300000 more than masked, twice of it and half of it.
    assert series["section_path_half"] == tuple(700_000 + n for n in range(11))
    assert series["section_path_double"] == tuple(250_000 + n for n in range(11))
    # What comes after them has the usual time again.
    assert [(seen["load"], seen["travels"]) for seen in machine.seen if seen["mode"] == "unmasked"] == [
        ("section", EXIT_NS),
        ("section", EXIT_NS // 2),
        ("section", EXIT_NS * 2),
        ("oneshot", EXIT_NS),
    ]
    assert {seen["travels"] for seen in machine.seen if seen["mode"] != "unmasked"} == {EXIT_NS}


def test_first_round_trips_after_a_boot_are_not_told(machine: Machine) -> None:
    machine.cold = True
    for series in paths(machine).values():
        assert series["cross_futex_path"] == (9000, 9100, 9200, 9300)
    assert not machine.cold


@FAULTS
def test_whatever_fails_in_counting_instructions_all_is_left_as_it_was(
    scratch: Path, fault: BaseException, when: When
) -> None:
    changed = fail_in_turn(
        lambda name: Machine(scratch / name), paths, fault, when, unknown={"module", "module for hypercalls"}
    )
    assert changed == Machine(scratch / "other").state().keys() - {"sections"}
