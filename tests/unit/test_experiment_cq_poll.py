# SPDX-License-Identifier: Apache-2.0
"""The experiment `cq-poll` against a guest and a host whose counters count as real ones would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import Completed
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.host import Host
from cvmtune.experiments.rounds import RawRun
from cvmtune.features.cq_poll import knob as cq_poll_knob
from cvmtune.features.cq_poll.experiment import CqPollExperiment, CqPollScale
from cvmtune.features.cq_poll.paths import CqPollPaths
from cvmtune.features.soft_ipi import knob as soft_ipi_knob
from cvmtune.features.soft_ipi.switch import SoftIpiSwitch
from cvmtune.lab.specs import MachineName
from cvmtune.tuning.contract import KnobError
from cvmtune.workloads.nfs_rdma import PROVIDERS
from tests.fakes.kernel import CqPollKernel, FakeKernel

# What its header names (kernel/modules/cvmtune_cq.c).
VIOLATIONS = (
    *("lost", "duplicates", "out_of_order", "wrong_payload", "errors", "early_flushes", "post_errors"),
    *("concurrent", "wrong_context", "hung", "stranded"),
)
SCALE = CqPollScale(
    rate=50, writes=100, depths=((1, 10), (4, 20)), messages=40, gap_us=250, idle_s=2.0, poll_cpu=1
)
OTHERS = (SoftIpiSwitch(),)
ALL_STATES = tuple(CqPollExperiment(others=OTHERS).states)
PID = 321  # of the VMM
MODULES = ("ib_core_cq_poll", "cvmtune_cq")


# A guest and its host


@dataclass(frozen=True)
class Cost:
    """What a write makes the machine do."""

    wakeups: int
    works: int
    ipis: int
    interrupts: int
    switches: int
    exits: int


POLLED, UNPOLLED = Cost(0, 5, 6, 8, 12, 11), Cost(4, 9, 3, 20, 30, 50)


@dataclass(frozen=True)
class Seen:
    """How things were when the module was told to send messages."""

    device: str
    cpu: int
    idle_us: str
    owners: str
    mask: frozenset[int]


class FakeGuest:
    """Two CPUs, NFS over RDMA, and what the kernel counts of it; a write costs what Cost says.

    Between what the experiment is to count, everything counts too. `fails` is the number of the command that
    fails; `interrupt` may raise before a command.
    """

    def __init__(self, root: Path, host: FakeHost | None = None) -> None:
        self.root = root
        self.host = host
        (root / "soft").mkdir()
        self.soft = FakeKernel(root / "soft", soft_ipi_knob.PATH, width=2, possible="0-1")
        self.cq: CqPollKernel | None = None  # there while its module is
        self.there: list[str] = []
        self.tracefs = False
        self.commands: list[list[str]] = []
        self.fails: int | None = None
        self.interrupt: Callable[[list[str]], None] = lambda argv: None
        self.unwritable = ""
        self.seen: list[Seen] = []
        self.loads: list[str] = []
        self.parameters: dict[str, str] = {}
        self.written: list[tuple[str, str]] = []
        self.books: dict[str, int] = {}
        self.verified = {"rxe": 256, "siw": 256}
        self.damaged = ""  # the provider that damages data
        self.poller_shares = (0.75, 0.125)  # under load and without, of a CPU
        self._ran_ns = 10**12
        self._uptime = 1000.0
        self._counts = dict.fromkeys(("ipis", "interrupts", "switches"), 10_000)
        self._events = {"rdma_core/cq_schedule": 0, "workqueue/workqueue_execute_start": 0}
        self._instances: dict[str, set[str]] = {}
        self._ops = self._rtt_ms = self._execute_ms = 0
        self._has_file = False
        self._log = ""
        self._result = ""
        self.event_paths: list[tuple[bool, str]] = []  # polled or not, of whom
        self.has_poller = True  # among the tools

    @property
    def polled(self) -> bool:
        return self.cq is not None and self.cq.cpu != -1

    @property
    def left(self) -> list[str]:
        """What is there that was not at first."""
        return [*self.there, *self._instances]

    # Files

    def read_text(self, path: str) -> str:
        if path == cq_poll_knob.PATH and self.cq:
            return self.cq.read_text(path)
        if path.startswith(("/sys/kernel/soft_ipi", "/sys/devices/system/cpu/possible")):
            return self.soft.read_text(path)
        directory, _, name = path.rpartition("/")
        if directory == "/sys/module/ib_core_cq_poll/parameters" and self.cq and name in self.parameters:
            return f"{self.parameters[name]}\n"
        match path:
            case "/sys/devices/system/cpu/online":
                return "0-1\n"
            case "/proc/interrupts":
                ipis = self._counts["ipis"]
                return (
                    "        CPU0       CPU1\n"
                    f" 10: {7 * ipis} {8 * ipis} GICv3 27 Level arch_timer\n"
                    f"IPI0: {ipis // 3} {ipis // 4} Rescheduling interrupts\n"
                    f"IPI1: {ipis - ipis // 3 - ipis // 4} 77 Function call interrupts\n"
                    f"IPI2: {5 * ipis} {6 * ipis} CPU stop interrupts\n"
                    f"IPI4: 1 2 Timer broadcast interrupts\nIPI5: 3 4 IRQ work interrupts\nErr: {ipis}\n"
                )
            case "/proc/stat":
                counts = self._counts
                return (
                    f"cpu0 1 0 2 3\nintr {counts['interrupts']} 1 2 3\nctxt {counts['switches']}\nbtime 1\n"
                )
            case "/proc/uptime":
                return f"{self._uptime:.2f} 12.34\n"
            case "/proc/90/schedstat":
                assert self.polled
                return f"{self._ran_ns} 123456789 4321\n"
            case "/proc/mounts":
                mounts = (thing.removeprefix("mount ") for thing in self.there if thing.startswith("mount "))
                return "".join(f"x {path} x rw 0 0\n" for path in mounts)
            case "/proc/self/mountstats":
                return (
                    "device 192.0.2.1:/ mounted on /mnt with fstype nfs4 statvers=1.1\n\tper-op statistics\n"
                    f"\t       WRITE: {self._ops} {self._ops} 0 1 2 3 {self._rtt_ms} {self._execute_ms} 0\n"
                )
            case "/tmp/logs/write_lat.1.log":
                return self._log
            case "/sys/kernel/debug/cvmtune_cq/result":
                assert "module cvmtune_cq" in self.there
                return self._result
            case "/sys/kernel/debug/cvmtune_cq/samples":
                assert "module cvmtune_cq" in self.there
                return "".join(f"{5000 + n}\n" for n in range(SCALE.messages))
        raise FileNotFoundError(2, "No such file or directory", path)

    def write_text(self, path: str, text: str) -> None:
        self.written.append((path, text))
        if self.unwritable and self.unwritable in path:
            raise OSError(22, "Invalid argument", path)
        if path == soft_ipi_knob.PATH:
            return self.soft.write_text(path, text)
        if path == cq_poll_knob.PATH and self.cq:
            return self.cq.write_text(path, text)
        directory, _, name = path.rpartition("/")
        if directory == "/sys/module/ib_core_cq_poll/parameters" and name in self.parameters:
            self.parameters[name] = text.strip()
        elif name == "enable":
            instance, _, event = directory.partition("/events/")
            assert text == "1\n"
            self._instances[instance].add(event)
        else:
            assert (path, text) == ("/proc/fs/nfsd/portlist", "rdma 20049\n")
        return None

    def exists(self, path: str) -> bool:
        if path.startswith("/sys/class/infiniband/"):
            return f"rdma {path.rpartition('/')[2]}" in self.there
        if path.startswith("/mnt/"):
            return self._has_file
        if path == soft_ipi_knob.PATH:
            return self.soft.exists(path)
        if path.endswith("/ib_core_cq_poll.ko"):
            return self.has_poller
        assert path == "/sys/kernel/tracing/events"
        return self.tracefs

    # Commands

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        argv = list(argv)
        self.interrupt(argv)
        self.commands.append(argv)
        if len(self.commands) - 1 == self.fails:
            return Completed(tuple(argv), 1, "", "refused", 0.1)
        if argv == ["pgrep", "^ib_cq_poll/"]:
            return Completed(tuple(argv), int(not self.polled), "90\n" if self.polled else "", "", 0.1)
        if "--name=verify" in argv and f"rdma {self.damaged}0" in self.there:
            # fio 3.33, of a block whose header is not that of its place.
            says = "verify: bad header rand_seed 1, wanted 2 at file /mnt/verify.0.0 offset 0, length 4096\n"
            return Completed(tuple(argv), 1, "", says, 0.1)
        return Completed(tuple(argv), 0, self._do(argv), "", 0.1)

    def _do(self, argv: list[str]) -> str:
        match argv:
            case ["insmod", path]:
                self._insert(path)
            case ["rmmod", name]:
                self.there.remove(f"module {name}")
                if name == MODULES[0]:
                    self.cq = None
            case ["ip", "link", "add", name, *_]:
                self.there.append(f"ip {name}")
            case ["ip", "link", "delete", name]:
                self.there.remove(f"ip {name}")
            case ["rdma", "link", "add", name, *_]:
                self.there.append(f"rdma {name}")
            case ["rdma", "link", "delete", name]:
                self.there.remove(f"rdma {name}")
            case ["mount", "-t", "tracefs", *_]:
                self.tracefs = True
            case ["mount", "-t", _, _, path] | ["mount.nfs4", _, path, *_]:
                self.there.append(f"mount {path}")
            case ["umount", "/sys/kernel/tracing"]:
                self.tracefs = False
            case ["umount", path] | ["timeout", _, "umount", *_, path]:
                self.there.remove(f"mount {path}")
                self._has_file = self._has_file and path != "/export"
            case ["exportfs", "-o", *_]:
                self.there.append("export")
            case ["exportfs", "-u", _]:
                self.there.remove("export")
            case ["rpc.nfsd", "0"]:
                self.there.remove("nfsd")
            case ["rpc.nfsd", *_]:
                self.there.append("nfsd")
            case ["nfsdcld"] | ["rpc.mountd", *_]:
                self.there.append(argv[0])
            case ["pkill", "-x", name]:
                self.there.remove(name)
            case ["mkdir", path]:
                assert path not in self._instances
                self._instances[path] = set()
            case ["rmdir", path]:
                del self._instances[path]
            case ["mktemp", "-d"]:
                self.there.append("/tmp/logs")
                return "/tmp/logs\n"
            case ["rm", "-r", path]:
                self.there.remove(path)
            case ["dd", *_]:
                self._has_file = True
                self._disturb()
            case ["sleep", seconds]:
                self._pass(float(seconds), self.poller_shares[1])
            case ["fio", *options]:
                return self._fio(dict(option.lstrip("-").partition("=")[::2] for option in options))
            case ["sh", "-c", script] if script.startswith("cat "):
                return self._stats(script)
            case ["sh", "-c", script]:
                self._ping(script)
            case ["mkdir" | "ip" | "pidwait", *_]:
                pass
            case _:
                pytest.fail(f"no such command in a guest: {argv}")
        return ""

    def _insert(self, path: str) -> None:
        directory, _, name = path.removesuffix(".ko").rpartition("/")
        assert (directory, name in MODULES) == ("/tools", True)
        assert f"module {name}" not in self.there
        self.there.append(f"module {name}")
        if name == MODULES[0]:
            root = self.root / f"boot{len(self.commands)}"
            root.mkdir()
            self.cq = CqPollKernel(root, cq_poll_knob.PATH, vendor=False)
            self.parameters = {"owners": "rpcrdma", "idle_us": "1000"}

    def _stats(self, script: str) -> str:
        instance = script.removeprefix("cat ").removesuffix("/per_cpu/cpu*/stats")
        (event,) = self._instances[instance]
        return "".join(
            f"entries: {number}\noverrun: 0\ncommit overrun: 0\nbytes: 1\ndropped events: 0\nread events: 0\n"
            for number in (self._events[event], 1000)
        )

    def _ping(self, script: str) -> None:
        found = re.fullmatch(r"echo ([^>]+) >/sys/kernel/debug/cvmtune_cq/run", script)
        assert found, script
        load = dict(word.split("=") for word in found[1].split())
        device = load.pop("dev")
        if load["kind"] == "event_path":
            assert load == {"kind": "event_path", "addr": "192.0.2.1", "n": "20", "cpu": "0"}
            self.event_paths.append((self.polled, self.parameters.get("owners", "")))
            return
        assert load == {"kind": "pingpong", "addr": "192.0.2.1", "n": "40", "gap_us": "250"}
        assert f"rdma {device}" in self.there
        assert self.cq
        idle_us, owners = self.parameters["idle_us"], self.parameters["owners"]
        self.seen.append(Seen(device, self.cq.cpu, idle_us, owners, frozenset(self.soft.cpus)))
        books = dict.fromkeys(("posted_send", "posted_recv", "handled_send", "handled_recv"), 40)
        books |= dict.fromkeys(VIOLATIONS, 0) | {"handled_by_poller": 80, "max_ns": 1} | self.books
        self._result = "".join(f"{name} {value}\n" for name, value in books.items())
        self._disturb()

    def _fio(self, options: dict[str, str]) -> str:
        assert options["directory"] == "/mnt"
        assert "mount /mnt" in self.there
        if options["name"] == "verify":
            (device,) = (thing for thing in self.there if thing.startswith("rdma "))
            blocks = self.verified[device.removeprefix("rdma ").removesuffix("0")]
            assert options["size"] == "1m"
            self._disturb()
            return self._report(blocks, blocks)
        writes, depth = int(options["io_size"]) // 4096, int(options["iodepth"])
        rate = options.get("rate_iops")
        self.loads.append(f"{writes} at {rate} a second" if rate else f"{writes} by {depth}")
        cost = POLLED if self.polled else UNPOLLED
        self._counts["ipis"] += 0 if self.soft.cpus else writes * cost.ipis
        self._counts["interrupts"] += writes * cost.interrupts
        self._counts["switches"] += writes * cost.switches
        self._events["rdma_core/cq_schedule"] += writes * cost.wakeups
        self._events["workqueue/workqueue_execute_start"] += writes * cost.works
        if self.host:
            self.host.exits += writes * cost.exits
        self._ops += writes
        self._rtt_ms += 2 * writes
        self._execute_ms += 3 * writes
        self._pass(writes / int(rate or 1000), self.poller_shares[0])
        self._log = "".join(f"{n}, {1000 * depth + n}, 1, 4096, 0\n" for n in range(writes))
        return self._report(0, writes)

    @staticmethod
    def _report(reads: int, writes: int) -> str:
        job = {"read": {"total_ios": reads}, "write": {"total_ios": writes, "iops": 50.0}}
        return json.dumps({"jobs": [job]}, indent=1)

    def _pass(self, seconds: float, share: float) -> None:
        self._uptime += seconds
        self._ran_ns += int(share * seconds * 1e9) if self.polled else 0
        if self.host:
            self.host.ticks += int(150 * seconds)

    def _disturb(self) -> None:
        """Do what makes everything count that nobody should be counting now."""
        for counts in (self._counts, self._events):
            counts.update({name: value + 10_000_019 for name, value in counts.items()})
        self._ops += 256
        self._rtt_ms += 99_999
        self._execute_ms += 99_999
        if self.host:
            self.host.exits += 10**9
        self._pass(1000.0, 1.0)


class FakeHost:
    """Counts exits and processor time: one and a half CPUs of each second."""

    def __init__(self) -> None:
        self.exits = 123_456
        self.ticks = 5000

    def read_text(self, path: str) -> str:
        if path == f"/proc/{PID}/stat":
            return f"{PID} (qemu) S 1 1 1 0 -1 4194560 9 8 7 6 {self.ticks - 9} 9 3 4 20 0 6 0\n"
        assert path == "/sys/kernel/debug/kvm/exits"
        return f"{self.exits}\n"

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError("the host is only looked at")

    def exists(self, path: str) -> bool:
        raise AssertionError("the host is only looked at")

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise AssertionError("the host is only looked at")


@pytest.fixture
def guest(tmp_path: Path) -> FakeGuest:
    return FakeGuest(tmp_path, FakeHost())


def run(
    guest: FakeGuest,
    states: Sequence[str] = ("off", "on"),
    rounds: int = 1,
    advance: Callable[[str], None] = lambda note: None,
    scale: CqPollScale = SCALE,
) -> RawRun:
    return runner.run(
        CqPollExperiment(scale, OTHERS),
        bench(guest),
        Measurement("cq-poll", MachineName.CVM, tuple(states), rounds, parts=PROVIDERS),
        environment={"kernel": "6.12"},
        advance=advance,
    )


def bench(guest: FakeGuest) -> Bench:
    host = Host(guest.host, PID) if guest.host else None
    return Bench(guest, host, MachineName.CVM, "/tools")


def samples(raw: RawRun, state: str, name: str, index: int = 0) -> tuple[float, ...]:
    (one,) = (one for one in raw.rounds if (one.state, one.index) == (state, index))
    (found,) = (series for series in one.series if series.name == name)
    return found.samples


def sample(raw: RawRun, state: str, name: str) -> float:
    (only,) = samples(raw, state, name)
    return only


# States, order, cleaning up

NOWHERE, EVERYWHERE = frozenset[int](), frozenset({0, 1})
# The CPU, what the parameter says, the mask.
IN_FORCE = {
    "off": (-1, None, NOWHERE),
    "on": (1, "0", NOWHERE),
    "on, sleeping after 1 ms": (1, "1000", NOWHERE),
    "soft IPIs alone": (-1, None, EVERYWHERE),
    "on, with soft IPIs": (1, "0", EVERYWHERE),
}


@pytest.mark.parametrize(
    ("states", "rounds", "expected"),
    [
        (("off", "on"), 3, ["off", "on", "on", "off", "off", "on"]),
        (("off",), 2, ["off", "off"]),
        (ALL_STATES, 2, [*ALL_STATES, *reversed(ALL_STATES)]),
    ],
)
def test_states_alternate_in_turned_order_with_each_provider(
    guest: FakeGuest, states: tuple[str, ...], rounds: int, expected: list[str]
) -> None:
    raw = run(guest, states, rounds)
    assert [one.state for one in raw.rounds] == expected
    assert [one.index for one in raw.rounds] == [n // len(states) for n in range(len(expected))]
    assert [seen.device for seen in guest.seen] == ["rxe0"] * len(expected) + ["siw0"] * len(expected)
    for state, seen in zip(expected * 2, guest.seen, strict=True):
        cpu, idle_us, mask = IN_FORCE[state]
        assert (seen.cpu, seen.mask) == (cpu, mask), state
        assert idle_us in (None, seen.idle_us), state


def test_every_state_is_one_of_these() -> None:
    assert set(ALL_STATES) == IN_FORCE.keys()


def test_state_that_is_none_is_an_error_that_leaves_nothing(guest: FakeGuest) -> None:
    with pytest.raises(UsageError, match="no state 'warp'"):
        run(guest, ("off", "warp"))
    assert guest.left == []


def test_says_what_it_is_and_what_comes(guest: FakeGuest) -> None:
    notes: list[str] = []
    raw = run(guest, rounds=2, advance=notes.append)
    assert (raw.feature, raw.machine, raw.environment) == ("cq-poll", "cvm", {"kernel": "6.12"})
    assert notes == [
        f"cvm, {provider}, {state}, round {number} of 2"
        for provider in ("rxe", "siw")
        for state, number in (("off", 1), ("on", 1), ("on", 2), ("off", 2))
    ]


def test_our_own_queues_are_polled_too(guest: FakeGuest) -> None:
    run(guest)
    assert [seen.owners for seen in guest.seen] == ["rpcrdma,cvmtune_cq"] * 4
    assert guest.written[0] == ("/sys/module/ib_core_cq_poll/parameters/owners", "rpcrdma,cvmtune_cq\n")


def test_how_long_the_poller_looks_is_set_before_it_starts(guest: FakeGuest) -> None:
    run(guest, ("on",))
    controls = ("/sys/module/ib_core_cq_poll/parameters/idle_us", "/sys/kernel/ib_core_poll_cpu")
    written = [(path, text) for path, text in guest.written if path in controls]
    assert (
        written
        == [*((controls[0], "0\n"), (controls[1], "1\n"), (controls[1], "-1\n"), (controls[0], "1000\n"))] * 2
    )


def test_off_is_off_whatever_the_guest_came_with(guest: FakeGuest) -> None:
    guest.soft.cpus = {1}
    run(guest, ("off",))
    controls = [(path, text) for path, text in guest.written if path == soft_ipi_knob.PATH]
    assert controls == [(soft_ipi_knob.PATH, "0\n"), (soft_ipi_knob.PATH, "2\n")] * 2


def test_the_poller_is_where_the_scale_says(guest: FakeGuest) -> None:
    run(guest, ("on",), scale=CqPollScale(SCALE.rate, 10, (), SCALE.messages, SCALE.gap_us, 1.0, poll_cpu=0))
    assert [seen.cpu for seen in guest.seen] == [0, 0]


@pytest.mark.parametrize("before", [NOWHERE, frozenset({0}), EVERYWHERE])
def test_guest_is_left_as_it_was(guest: FakeGuest, before: frozenset[int]) -> None:
    guest.soft.cpus = set(before)
    run(guest, ALL_STATES, 2)
    assert guest.soft.cpus == before
    assert guest.left == []


def test_modules_are_loaded_once_and_ours_goes_first(guest: FakeGuest) -> None:
    run(guest, rounds=2)
    moved = [argv for argv in guest.commands if argv[0] in ("insmod", "rmmod")]
    assert moved == [
        ["insmod", "/tools/ib_core_cq_poll.ko"],
        ["insmod", "/tools/cvmtune_cq.ko"],
        ["rmmod", "cvmtune_cq"],
        ["rmmod", "ib_core_cq_poll"],
    ]
    assert guest.commands[0] == moved[0]
    assert guest.commands[-1] == moved[-1]


# Commands that take something down; what fails to go stays.
UNDO = re.compile(
    r"rmmod|ip link delete|rdma link delete|umount|exportfs -u|rpc\.nfsd 0|pkill|rm -r|rmdir|timeout"
)
# Commands that may find nothing, which is no error.
MAY_FAIL = ("pgrep", "pidwait", "timeout")


def test_whichever_command_fails_the_guest_is_left_as_it_was(tmp_path: Path) -> None:
    def fresh(name: str) -> FakeGuest:
        (tmp_path / name).mkdir()
        found = FakeGuest(tmp_path / name, FakeHost())
        found.soft.cpus = {0}
        return found

    whole = fresh("whole")
    run(whole, ("on, with soft IPIs",))
    assert len(whole.commands) > 100
    for number, argv in enumerate(whole.commands):
        guest = fresh(str(number))
        guest.fails = number
        if argv[0] in MAY_FAIL:
            run(guest, ("on, with soft IPIs",))
        else:
            with pytest.raises(CvmtuneError, match="refused") as caught:
                run(guest, ("on, with soft IPIs",))
            assert argv[0] in str(caught.value), argv
        assert guest.soft.cpus == {0}, argv
        assert len(guest.left) <= bool(UNDO.match(" ".join(argv))), (argv, guest.left)
        # It is gone with its module. Had polling not ended first, it would have gone with the poller running.
        polling = [text for path, text in guest.written if path == cq_poll_knob.PATH]
        assert polling in ([], ["1\n", "-1\n"], ["1\n", "-1\n"] * 2), argv


@pytest.mark.parametrize("word", ["kind=pingpong", "--name=verify", "--rate_iops=50", "--iodepth=4", "sleep"])
@pytest.mark.parametrize("state", ["on", "soft IPIs alone", "on, with soft IPIs"])
def test_interrupted_round_leaves_the_guest_as_it_was(guest: FakeGuest, word: str, state: str) -> None:
    met: list[tuple[bool, frozenset[int]]] = []

    def interrupt(argv: list[str]) -> None:
        if word in " ".join(argv):
            met.append((guest.polled, frozenset(guest.soft.cpus)))
            raise KeyboardInterrupt

    guest.interrupt = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(guest, (state,))
    cpu, _, mask = IN_FORCE[state]
    assert met == [(cpu != -1, mask)]
    assert guest.soft.cpus == set()
    assert guest.left == []


@pytest.mark.parametrize(
    "path", ["parameters/owners", "parameters/idle_us", "events/workqueue/workqueue_execute_start/enable"]
)
def test_file_that_cannot_be_written_is_an_error_that_leaves_nothing(guest: FakeGuest, path: str) -> None:
    guest.unwritable = path
    with pytest.raises((OSError, KnobError), match="Invalid argument"):
        run(guest, ("on, with soft IPIs",))
    assert guest.soft.cpus == set()
    assert guest.left == []


def test_polling_that_cannot_be_turned_on_leaves_no_soft_ipis(guest: FakeGuest) -> None:
    guest.unwritable = cq_poll_knob.PATH
    with pytest.raises(KnobError, match="cannot write polling CPU 1"):
        run(guest, ("on, with soft IPIs",))
    assert [text for path, text in guest.written if path == soft_ipi_knob.PATH] == ["3\n", "0\n"]
    assert guest.seen == []
    assert guest.left == []


def test_soft_ipis_that_do_not_hold_are_an_error(guest: FakeGuest) -> None:
    guest.soft.take_instead("1")
    with pytest.raises(KnobError, match="shows 1"):
        run(guest, ("soft IPIs alone",))
    assert guest.seen == []
    assert guest.soft.cpus == set()
    assert guest.left == []


def test_kernel_without_soft_ipis_is_measured_without(guest: FakeGuest) -> None:
    guest.soft.remove()
    assert len(run(guest).rounds) == 2
    with pytest.raises(KnobError, match="no soft IPI passthrough"):
        run(guest, ("soft IPIs alone",))
    assert guest.left == []


# Figures

COUNTS = {
    *("handled_per_posted", "violations", "verified", "poller_use", "poller_idle_use", "write_cpu_use"),
    *(f"{what}_per_write" for what in ("wakeups", "works", "ipis", "interrupts", "switches", "exits")),
}
TIMES = {"completion", "write", "write_rtt", "write_exe"}
DEPTHS = {"write_depth_1", "write_depth_4"}  # of one provider alone


def test_metrics_of_a_round(guest: FakeGuest) -> None:
    for one in run(guest, ALL_STATES).rounds:
        names = [series.name for series in one.series]
        assert len(names) == len(set(names))
        assert set(names) == COUNTS | TIMES | DEPTHS | {f"siw_{name}" for name in COUNTS | TIMES}


def test_units_and_what_is_better(guest: FakeGuest) -> None:
    (off, _) = run(guest).rounds
    found = {series.name: (series.unit, series.kind, series.better) for series in off.series}
    assert {found[name] for name in TIMES | DEPTHS} == {("ns", "time", "lower")}
    assert {found[name][1] for name in COUNTS} == {"count"}
    assert found["handled_per_posted"] == found["verified"] == ("share", "count", "higher")
    assert found["violations"] == ("completions", "count", "lower")
    assert found["wakeups_per_write"] == ("per write", "count", "lower")
    assert found["poller_use"] == found["write_cpu_use"] == ("CPUs", "count", "lower")
    assert all(found[f"siw_{name}"] == found[name] for name in COUNTS | TIMES)


def test_titles_tell_the_provider(guest: FakeGuest) -> None:
    for series in run(guest).rounds[0].series:
        provider = PROVIDERS[1 if series.name.startswith("siw_") else 0]
        assert series.title.endswith(f", over {provider}")
        assert "{" not in series.title


@pytest.mark.parametrize("provider", ["", "siw_"])
@pytest.mark.parametrize(
    ("state", "cost"), [("off", UNPOLLED), ("on", POLLED), ("on, sleeping after 1 ms", POLLED)]
)
def test_what_a_write_takes(guest: FakeGuest, provider: str, state: str, cost: Cost) -> None:
    """What verification, the module's messages and the other loads count is none of it."""
    raw = run(guest, (state,))
    for name in ("wakeups", "works", "ipis", "interrupts", "switches", "exits"):
        assert sample(raw, state, f"{provider}{name}_per_write") == getattr(cost, name), name


def test_soft_ipis_are_no_hardware_ipis(guest: FakeGuest) -> None:
    raw = run(guest, ("soft IPIs alone", "on, with soft IPIs"))
    assert sample(raw, "soft IPIs alone", "ipis_per_write") == 0
    assert sample(raw, "soft IPIs alone", "wakeups_per_write") == UNPOLLED.wakeups
    assert sample(raw, "on, with soft IPIs", "ipis_per_write") == 0
    assert sample(raw, "on, with soft IPIs", "wakeups_per_write") == 0


def test_loads_of_a_round(guest: FakeGuest) -> None:
    run(guest, ("off",))
    both = ["8 by 1", "100 by 1", "100 at 50 a second"]  # the first lays the file out, before all rounds
    assert guest.loads == [*both, "10 by 1", "20 by 4", *both]


def test_times_of_writes(guest: FakeGuest) -> None:
    raw = run(guest)
    # The fake's latencies begin at 1000 ns for each one that is on its way.
    assert samples(raw, "off", "write") == tuple(8000.0 + n for n in range(100))
    assert samples(raw, "on", "write_depth_1") == tuple(1000.0 + n for n in range(10))
    assert samples(raw, "on", "write_depth_4") == tuple(4000.0 + n for n in range(20))
    assert sample(raw, "on", "write_rtt") == pytest.approx(2e6)
    assert sample(raw, "on", "siw_write_exe") == pytest.approx(3e6)
    assert samples(raw, "on", "completion") == tuple(5000.0 + n for n in range(40))


@pytest.mark.parametrize("shares", [(0.75, 0.125), (1.0, 1.0), (0.25, 0.0)])
def test_processor_time_of_the_poller(guest: FakeGuest, shares: tuple[float, float]) -> None:
    guest.poller_shares = shares
    raw = run(guest)
    for name, share in zip(("poller_use", "poller_idle_use"), shares, strict=True):
        assert sample(raw, "off", name) == 0
        assert sample(raw, "on", name) == pytest.approx(share)
        assert sample(raw, "on", f"siw_{name}") == pytest.approx(share)


def test_processor_time_of_the_guest(guest: FakeGuest) -> None:
    assert sample(run(guest), "off", "write_cpu_use") == pytest.approx(1.5)


def test_without_a_host_nothing_is_said_of_exits(tmp_path: Path) -> None:
    for one in run(FakeGuest(tmp_path)).rounds:
        names = {series.name for series in one.series}
        expected = (COUNTS | TIMES) - {"exits_per_write", "write_cpu_use"}
        assert names == expected | DEPTHS | {f"siw_{name}" for name in expected}


# Books


def test_all_in_order(guest: FakeGuest) -> None:
    raw = run(guest)
    for name, value in {"handled_per_posted": 1, "violations": 0, "verified": 1}.items():
        assert sample(raw, "off", name) == sample(raw, "on", f"siw_{name}") == value


@pytest.mark.parametrize(
    ("books", "share"),
    [({"handled_recv": 39}, 79 / 80), ({"handled_send": 42}, 82 / 80), ({"posted_send": 120}, 80 / 160)],
)
def test_requests_that_were_not_handled_once(guest: FakeGuest, books: dict[str, int], share: float) -> None:
    guest.books = books
    assert sample(run(guest), "on", "handled_per_posted") == share


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_violation_counts(guest: FakeGuest, name: str) -> None:
    guest.books = {name: 3}
    assert sample(run(guest), "on", "siw_violations") == 3


def test_violations_add_up_and_nothing_else_does(guest: FakeGuest) -> None:
    guest.books = {"lost": 1, "duplicates": 2, "flushed": 9, "slept": 9, "switches": 9, "max_ns": 99}
    assert sample(run(guest), "on", "violations") == 3


@pytest.mark.parametrize("provider", PROVIDERS)
def test_blocks_that_were_not_read_back(guest: FakeGuest, provider: str) -> None:
    guest.verified[provider] = 255
    raw = run(guest)
    rxe, siw = sample(raw, "on", "verified"), sample(raw, "on", "siw_verified")
    assert (rxe, siw) == ((255 / 256, 1) if provider == "rxe" else (1, 255 / 256))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_damaged_block_is_counted_and_the_round_goes_on(guest: FakeGuest, provider: str) -> None:
    guest.damaged = provider
    raw = run(guest)
    rxe, siw = sample(raw, "on", "verified"), sample(raw, "on", "siw_verified")
    assert (rxe, siw) == ((0, 1) if provider == "rxe" else (1, 0))
    assert sample(raw, "on", "siw_wakeups_per_write") == POLLED.wakeups
    assert guest.left == []


def test_what_the_module_refuses_is_an_error(guest: FakeGuest) -> None:
    def refuse(argv: list[str]) -> None:
        if "kind=pingpong" in argv[-1]:
            guest.fails = len(guest.commands)

    guest.interrupt = refuse
    with pytest.raises(CvmtuneError, match=r"kind=pingpong .* ended with status 1"):
        run(guest)
    assert guest.seen == []
    assert guest.left == []


# The length of an event's path


@pytest.mark.parametrize(
    ("has_poller", "polled", "seen"),
    [(False, False, (False, "")), (True, False, (False, "cvmtune_cq")), (True, True, (True, "cvmtune_cq"))],
)
def test_length_of_an_events_path(
    guest: FakeGuest, has_poller: bool, polled: bool, seen: tuple[bool, str]
) -> None:
    guest.has_poller = has_poller
    (found,) = CqPollPaths().measure(bench(guest), "a state", on=polled)
    (series,) = found.series
    # Of 1000 events a sample, and the least of the samples.
    assert (found.state, series.name, series.samples) == ("a state", "event_path", (5.0,))
    assert guest.event_paths == [seen]
    assert guest.left == []
