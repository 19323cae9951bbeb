# SPDX-License-Identifier: Apache-2.0
"""The experiment `ipi` against a guest and a host whose counters count as real ones would."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.host import Host
from cvmtune.experiments.rounds import RawRun
from cvmtune.features.soft_ipi.experiment import IpiExperiment, IpiScale, soft_statistics
from cvmtune.features.soft_ipi.knob import PATH
from cvmtune.lab.specs import MachineName
from cvmtune.tuning.contract import KnobError
from tests.fakes.kernel import FakeKernel

STATS = """\
cpu sent reschedule call_function timer irq_work polls poll_ns fallbacks limit_ns
0 500 0 0 0 0 0 0 0 0
1 0 12 488 3 0 1024 1500000000 2 200000
"""
SCALE = IpiScale(ipis=100, gap_us=50, round_trips=10, hackbench_loops=3)
PID = 321
ALL_KINDS = ["notify", "sync", "many", "wake", "none", "none", "none"]


# Parsers


def test_statistics_by_cpu_and_column() -> None:
    found = soft_statistics(STATS)
    assert found.keys() == {0, 1}
    assert found[1]["poll_ns"] == 1_500_000_000
    assert found[1]["call_function"] == 488
    assert found[0]["sent"] == 500


def test_statistics_of_a_kernel_without_any() -> None:
    assert soft_statistics("") == {}


def test_statistics_with_a_column_too_few_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="shorter"):
        soft_statistics("cpu sent polls\n0 1\n")


columns = st.lists(
    st.from_regex(r"[a-z][a-z_]{0,15}", fullmatch=True).filter(lambda name: name != "cpu"), unique=True
)


@given(
    columns.flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.tuples(*[st.integers(0)] * len(names))))
    )
)
def test_statistics_of_any_columns(table: tuple[list[str], list[tuple[int, ...]]]) -> None:
    names, rows = table
    lines = [["cpu", *names], *([str(cpu), *map(str, row)] for cpu, row in enumerate(rows))]
    found = soft_statistics("".join(" ".join(line) + "\n" for line in lines))
    assert found == {cpu: {"cpu": cpu, **dict(zip(names, row, strict=True))} for cpu, row in enumerate(rows)}


# A guest and its host


class FakeGuest(FakeKernel):
    """CPUs 0 and 1; IPIs go to CPU 1, softly if it is in the mask. `seconds` is how long each kind takes."""

    def __init__(self, root: Path, host: FakeHost | None = None) -> None:
        super().__init__(root, PATH, width=2, possible="0-1")
        self.host = host
        self.loaded = False
        self.ran: list[str] = []
        self.masks: list[set[int]] = []
        self.seconds = {"notify": 1.0, "sync": 2.0, "many": 3.0, "wake": 5.0, "none": 4.0}
        self.fails_at = ""
        self.has_statistics = True
        self.hackbench_says = "Running in process mode...\nTime: 1.250\n"
        self._samples = ""
        self._hard = [17, 40]
        self._soft = 300
        self._idle = 1000
        self._poll_ns = 10**12
        self.files: dict[str, Callable[[], str]] = {
            "/sys/devices/system/cpu/online": lambda: "0-1\n",
            "/proc/interrupts": self._interrupts,
            "/proc/stat": lambda: (
                f"cpu  1 2 3 4\ncpu0 1 0 1 77 0\ncpu1 1 0 1 {self._idle} 0\ncpu10 1 0 1 9 0\n"
            ),
            "/sys/kernel/debug/cvmtune_ipi/samples": lambda: self._samples,
        }

    def _interrupts(self) -> str:
        return (
            "        CPU0       CPU1\n"
            f"IPI0: {self._hard[0]:10} {self._hard[1]:10}   Rescheduling interrupts\n"
            f"IPI1: {2 * self._hard[0]:10} {2 * self._hard[1]:10}   Function call interrupts\n"
            f"IPI2: {self._idle:10} {self._idle:10}   CPU stop interrupts\n"
            f"SIPI: {99:10} {self._soft:10}   Soft IPIs, taken from memory\nErr: 0\n"
        )

    def read_text(self, path: str) -> str:
        if path == "/sys/kernel/debug/soft_ipi_passthrough/stats":
            return f"cpu polls poll_ns\n0 0 5\n1 3 {self._poll_ns}\n"
        return self.files[path]() if path in self.files else super().read_text(path)

    def exists(self, path: str) -> bool:
        if path == "/sys/kernel/debug/soft_ipi_passthrough/stats":
            return self.has_statistics
        return super().exists(path)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        match list(argv):
            case ["insmod", "/tools/cvmtune_ipi.ko"]:
                assert not self.loaded
                self.loaded = True
            case ["rmmod", "cvmtune_ipi"]:
                assert self.loaded
                self.loaded = False
            case ["sh", "-c", script]:
                return self._measure(tuple(argv), script)
            case ["/tools/pingpong", "futex", "0", "1", "10"]:
                return Completed(tuple(argv), 0, "9000\n9500\n", "", 1.0)
            case ["hackbench", "--groups", "1", "--loops", "3"]:
                return Completed(tuple(argv), 0, self.hackbench_says, "", 1.0)
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return Completed(tuple(argv), 0, "", "", 0.1)

    def _measure(self, argv: tuple[str, ...], script: str) -> Completed:
        assert self.loaded
        form = r"echo kind=(\w+) src=0 dst=1 n=(\d+) gap_us=50 >/sys/kernel/debug/cvmtune_ipi/run"
        found = re.fullmatch(form, script)
        assert found, script
        kind, ipis = found[1], int(found[2])
        # The span without IPIs may be of another length.
        assert ipis == 100 or kind == "none"
        self.ran.append(kind)
        self.masks.append(self.cpus)
        if kind == self.fails_at:
            return Completed(argv, 1, "", "sh: write error: Connection timed out", 1.0)
        seconds = self.seconds[kind]
        soft = 1 in self.cpus
        ipis = 0 if kind == "none" else ipis
        self._soft += ipis if soft else 0
        # IPI1 counts twice what IPI0 does: three hardware SGIs for each two IPIs asked for, and background.
        self._hard[1] += 0 if soft else ipis // 2
        self._hard[0] += 5
        self._idle += int(100 * seconds * 0.75)
        self._poll_ns += int(seconds * 1e9) // 4 if soft else 0
        self._samples = "".join(f"{1000 + n}\n" for n in range(3))
        if self.host:
            self.host.pass_time(seconds, exits=0 if soft else 7 * ipis)
        return Completed(argv, 0, "", "", seconds)


class FakeHost:
    """Counts exits and processor time: 1000 exits a second in the background, one and a half CPUs."""

    def __init__(self) -> None:
        self.exits = 123_456
        self.ticks = 5000

    def pass_time(self, seconds: float, exits: int) -> None:
        self.exits += exits + int(1000 * seconds)
        self.ticks += int(150 * seconds)

    def read_text(self, path: str) -> str:
        if path == f"/proc/{PID}/stat":
            user = self.ticks // 3
            # The name of a process may hold anything.
            return (
                f"{PID} (qemu) S 7 (x) R 1 1 1 0 -1 4194560 9 8 7 6 {user} {self.ticks - user} 3 4 20 0 6 0\n"
            )
        assert path == "/sys/kernel/debug/kvm/exits"
        return f"{self.exits}\n"

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError("the host is only looked at")

    def exists(self, path: str) -> bool:
        return True

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise AssertionError("the host is only looked at")


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def guest(tmp_path: Path, host: FakeHost) -> FakeGuest:
    return FakeGuest(tmp_path, host)


def run(
    guest: FakeGuest,
    states: Sequence[str] = ("off", "on"),
    rounds: int = 1,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    host = Host(guest.host, PID) if guest.host else None
    return runner.run(
        IpiExperiment(SCALE),
        Bench(guest, host, MachineName.CVM, "/tools"),
        Measurement("ipi", MachineName.CVM, tuple(states), rounds),
        environment={"kernel": "6.12"},
        advance=advance,
    )


def sample(raw: RawRun, state: str, name: str) -> float:
    (found,) = [
        series for one in raw.rounds if one.state == state for series in one.series if series.name == name
    ]
    (only,) = found.samples
    return only


# Order and cleaning up


@pytest.mark.parametrize(
    ("states", "rounds", "expected"),
    [
        (("off", "on"), 3, ["off", "on", "on", "off", "off", "on"]),
        (("off", "on", "nohlt"), 2, ["off", "on", "nohlt", "nohlt", "on", "off"]),
        (("nohlt",), 2, ["nohlt", "nohlt"]),
    ],
)
def test_states_alternate_in_turned_order(
    guest: FakeGuest, states: tuple[str, ...], rounds: int, expected: list[str]
) -> None:
    raw = run(guest, states, rounds)
    assert [one.state for one in raw.rounds] == expected
    assert [one.index for one in raw.rounds] == [n // len(states) for n in range(len(expected))]
    assert guest.ran == ALL_KINDS * len(expected)
    masks = [{0, 1} if state == "on" else set() for state in expected]
    assert guest.masks == [mask for mask in masks for _ in ALL_KINDS]


def test_says_what_it_is_and_what_comes(guest: FakeGuest) -> None:
    notes: list[str] = []
    raw = run(guest, rounds=2, advance=notes.append)
    assert (raw.feature, raw.machine, raw.environment) == ("ipi", "cvm", {"kernel": "6.12"})
    assert notes == [
        "cvm, off, round 1 of 2",
        "cvm, on, round 1 of 2",
        "cvm, on, round 2 of 2",
        "cvm, off, round 2 of 2",
    ]


@pytest.mark.parametrize("before", [set[int](), {0}, {0, 1}])
def test_guest_is_left_as_it_was(guest: FakeGuest, before: set[int]) -> None:
    guest.cpus = before
    raw = run(guest)
    assert guest.cpus == before
    assert not guest.loaded
    assert guest.masks == [mask for mask in (set[int](), {0, 1}) for _ in ALL_KINDS]
    assert len(raw.rounds) == 2


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_failing_round_leaves_the_guest_as_it_was(guest: FakeGuest, kind: str) -> None:
    guest.cpus = {0}
    guest.fails_at = kind
    with pytest.raises(CvmtuneError, match=f"kind={kind} .* ended with status 1"):
        run(guest, ("on",))
    assert guest.masks[-1] == {0, 1}
    assert guest.cpus == {0}
    assert not guest.loaded


def test_interrupted_round_leaves_the_guest_as_it_was(guest: FakeGuest) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    guest.files["/sys/kernel/debug/cvmtune_ipi/samples"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(guest, ("on",))
    assert guest.written == ["3\n", "0\n"]
    assert not guest.loaded


def test_knob_that_does_not_hold_is_an_error(guest: FakeGuest) -> None:
    guest.take_instead("1")
    with pytest.raises(KnobError, match="shows 1"):
        run(guest, ("on",))
    assert guest.ran == []
    assert guest.cpus == set()
    assert not guest.loaded


# Figures


def test_metrics_of_a_round(guest: FakeGuest) -> None:
    off, on = run(guest).rounds
    names = [series.name for series in off.series]
    assert names == [series.name for series in on.series]
    assert {
        *("notify", "call_sync", "call_many", "wake", "wakeup_rtt", "hackbench"),
        *("sgi_per_ipi", "sgi_per_call_sync", "injected_per_ipi", "exits_per_ipi"),
        *("idle_cpu_share", "poll_share", "vcpu_cpu_use"),
    } == set(names)
    units = {series.name: (series.unit, series.kind, series.better) for series in off.series}
    assert units["notify"] == ("ns", "time", "lower")
    assert units["hackbench"] == ("s", "time", "lower")
    assert units["sgi_per_ipi"] == ("per IPI", "count", "lower")
    assert units["injected_per_ipi"] == ("per IPI", "count", "higher")
    samples = {series.name: series.samples for series in off.series}
    assert samples["call_many"] == (1000.0, 1001.0, 1002.0)
    assert samples["wakeup_rtt"] == (9000.0, 9500.0)
    assert samples["hackbench"] == (1.25,)


def test_interrupts_are_counted_on_the_target_alone(guest: FakeGuest) -> None:
    raw = run(guest)
    # IPI0 and IPI1 together: 50 and twice 50 for 100 IPIs. CPU stop interrupts are none of these.
    assert sample(raw, "off", "sgi_per_ipi") == 1.5
    assert sample(raw, "off", "sgi_per_call_sync") == 1.5
    assert sample(raw, "off", "injected_per_ipi") == 0
    assert sample(raw, "on", "sgi_per_ipi") == 0
    assert sample(raw, "on", "injected_per_ipi") == 1


@pytest.mark.parametrize("span", [0.5, 4.0, 40.0])
def test_exits_of_the_background_are_taken_off(guest: FakeGuest, span: float) -> None:
    """The IPIs take six seconds; the span without them gives the background's rate, however long it is."""
    guest.seconds["none"] = span
    raw = run(guest)
    assert sample(raw, "off", "exits_per_ipi") == pytest.approx(7)
    assert sample(raw, "on", "exits_per_ipi") == pytest.approx(0)


def test_shares_are_of_the_span_without_ipis(guest: FakeGuest) -> None:
    raw = run(guest)
    assert sample(raw, "off", "vcpu_cpu_use") == pytest.approx(1.5)
    assert sample(raw, "off", "idle_cpu_share") == pytest.approx(0.75)
    assert sample(raw, "off", "poll_share") == 0
    assert sample(raw, "on", "poll_share") == pytest.approx(0.25)


def test_without_a_host_nothing_is_said_of_exits(tmp_path: Path) -> None:
    for one in run(FakeGuest(tmp_path)).rounds:
        names = {series.name for series in one.series}
        assert not {"exits_per_ipi", "vcpu_cpu_use"} & names
        assert "sgi_per_ipi" in names


def test_kernel_without_statistics_polls_nothing(guest: FakeGuest) -> None:
    guest.has_statistics = False
    assert sample(run(guest), "on", "poll_share") == 0


def test_kernel_without_a_row_for_soft_ipis_counts_none(guest: FakeGuest) -> None:
    rows = guest.files["/proc/interrupts"]
    guest.files["/proc/interrupts"] = lambda: re.sub("SIPI.*\n", "", rows())
    assert sample(run(guest), "on", "injected_per_ipi") == 0


@pytest.mark.parametrize("says", ["", "Running\n", "Time: 1\nTime: 2\n"])
def test_hackbench_without_its_time_is_an_error(guest: FakeGuest, says: str) -> None:
    guest.hackbench_says = says
    with pytest.raises(CvmtuneError, match="hackbench printed no time"):
        run(guest)
    assert not guest.loaded


def test_cpu_that_is_not_there_is_an_error(guest: FakeGuest) -> None:
    guest.files["/proc/stat"] = lambda: "cpu  1 2 3 4\ncpu0 1 0 1 77 0\n"
    with pytest.raises(CvmtuneError, match="no line for CPU 1"):
        run(guest)
