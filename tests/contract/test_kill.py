# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at every step of an apply and of a rollback: the next rollback puts all back, every time.

The processes (killed_apply.py) are real, and so are the files, the journal and the signal. All values of a
control have one length, for plain files are not truncated as those of sysfs are.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from cvmtune.core.system import LocalSystem
from tests.fakes import killed_apply
from tests.fakes.bound import transaction
from tests.fakes.killed_apply import Answer, Request, journal_of
from tests.fakes.os_calls import CHANGING, in_memory

# The controls' files, and what each is at first.
CONTROLS = {
    "ipi-poll-us": ("/sys/module/soft_ipi/parameters/poll_us", "0"),
    "ipi": ("/sys/kernel/soft_ipi_passthrough", "1"),
    "cq-idle-us": ("/sys/module/ib_core_cq_poll/parameters/idle_us", "1000"),
    "cq-poll": ("/sys/kernel/ib_core_poll_cpu", "2"),
    "wfx-guard": ("/sys/module/kvm/parameters/wfx_guard", "N"),
    "wfx": ("/sys/kernel/cvm_wfx_trap_config", "3"),
}
AT_FIRST = {name: value for name, (_, value) in CONTROLS.items()}
OTHER_FILES = {
    "/sys/devices/system/cpu/possible": "0-3\n",
    "/sys/devices/system/cpu/online": "0-3\n",
    "/proc/mounts": "",
    "/proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
    "/proc/sys/kernel/osrelease": "6.12.0\n",
}

ONE = {"ipi-poll-us": "7", "ipi": "c", "wfx": "c"}
# Some of the same, some others, one as it is already.
TWO = {"ipi-poll-us": "8", "ipi": "c", "cq-poll": "3", "wfx-guard": "Y", "wfx": "e"}

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Machine:
    """A tree of files with all controls, and the server of processes that act on it."""

    root: Path
    server: subprocess.Popen[str]

    def reset(self) -> None:
        """Make the tree as at first, with no journal."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "var/lib").mkdir(parents=True)
        for path, text in OTHER_FILES.items() | {(path, f"{value}\n") for path, value in CONTROLS.values()}:
            file = self.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def run(self, request: Request) -> Answer:
        """Have a process of its own serve the request."""
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(asdict(replace(request, root=str(self.root)))), file=self.server.stdin, flush=True)
        return Answer(**json.loads(self.server.stdout.readline()))

    def values(self) -> dict[str, str]:
        """Return what each control is."""
        return {
            name: (self.root / path.lstrip("/")).read_text().removesuffix("\n")
            for name, (path, _) in CONTROLS.items()
        }

    def files(self) -> dict[Path, tuple[str, int]]:
        """Return the content of each file, the journal's included, and when it was written."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {path: (path.read_text(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with (
        in_memory() as directory,
        subprocess.Popen(
            [sys.executable, "-m", killed_apply.__name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        yield Machine(directory / "root", server)


@dataclass(frozen=True)
class Case:
    """What is done before; who is killed; what its end is if it is not; at least how often it calls what."""

    before: tuple[Request, ...]
    victim: Request
    error: str
    values: dict[str, str]
    least: dict[str, int]


APPLY_ONE, APPLY_TWO, ROLLBACK = Request(ONE), Request(TWO), Request()
BOTH = AT_FIRST | ONE | TWO


def writing(name: str, value: str) -> tuple[str, str]:
    return CONTROLS[name][0], f"{value}\n"


# An apply writes its record, begin, done and the control for each change, and complete: all but the controls
# are synced, and so are the directories in which the journal and its entry are made. A rollback marks its
# beginning in each entry, each control and mark, and removes each entry.
CASES = {
    "apply": Case((), APPLY_ONE, "", AT_FIRST | ONE, {"write": 1 + 3 * 3 + 1, "fsync": 1 + 2 + 3 * 2 + 1}),
    "second apply": Case((APPLY_ONE,), APPLY_TWO, "", BOTH, {"write": 1 + 4 * 3 + 1, "fsync": 2 + 4 * 2 + 1}),
    "failing apply": Case(
        (),
        replace(APPLY_ONE, broken=(writing("wfx", "c"),)),
        "NotSet",
        AT_FIRST,
        # The failing change has no `done`, and there is no `complete`; all three are put back.
        {"write": 1 + 3 * 3 - 1 + 3, "unlink": 1, "fsync": 1 + 2 + 3 * 2 - 1 + 1},
    ),
    "failing second apply": Case(
        (APPLY_ONE,),
        replace(APPLY_TWO, broken=(writing("wfx", "e"),)),
        "NotSet",
        AT_FIRST | ONE,
        {"write": 1 + 4 * 3 - 1 + 4, "unlink": 1, "fsync": 2 + 4 * 2 - 1 + 1},
    ),
    # The others are put back all the same.
    "apply that cannot be undone": Case(
        (),
        replace(APPLY_ONE, broken=(writing("wfx", "c"),), refused=(writing("ipi", "1"),)),
        "PartlyApplied",
        AT_FIRST | {"ipi": "c"},
        {"write": 1 + 3 * 3 - 1 + 2, "fsync": 1 + 2 + 3 * 2 - 1},
    ),
    "rollback": Case(
        (APPLY_ONE,), ROLLBACK, "", AT_FIRST, {"write": 1 + 3 * 2, "unlink": 1, "fsync": 1 + 3 + 1}
    ),
    "rollback of two": Case(
        (APPLY_ONE, APPLY_TWO), ROLLBACK, "", AT_FIRST, {"write": 2 + 5 + 6, "unlink": 2, "fsync": 2 + 6 + 2}
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_killed_at_any_step(machine: Machine, case: Case) -> None:
    killed = 0
    while (answer := start(machine, case, killed)).status == KILLED:
        after_a_kill(machine, case)
        killed += 1
    # This one has reached its end.
    assert (answer.status, answer.error) == (0, case.error), answer.message
    assert machine.values() == case.values
    assert len(answer.steps) == killed
    for call, count in case.least.items():
        for when in ("before", "after"):
            assert answer.steps.count(f"{when} {call}") >= count, (when, call)
    after_a_kill(machine, case)


def start(machine: Machine, case: Case, kill: int) -> Answer:
    machine.reset()
    for request in case.before:
        assert machine.run(request).error == ""
    return machine.run(replace(case.victim, kill=kill))


def after_a_kill(machine: Machine, case: Case) -> None:
    for name, value in machine.values().items():
        assert value in (AT_FIRST[name], ONE.get(name), TWO.get(name)), name
    roll_back(machine)
    done = machine.files()
    again = machine.run(ROLLBACK)
    assert (again.status, again.error) == (0, "")
    assert machine.files() == done


def roll_back(machine: Machine) -> None:
    answer = machine.run(ROLLBACK)
    assert (answer.status, answer.error) == (0, ""), answer.message
    assert machine.values() == AT_FIRST
    assert journal_of(machine.root).entries() == []


def test_killed_again_at_any_step_of_the_rollback(machine: Machine) -> None:
    """Die before each call of an apply that changes a file, and for each before each such of the rollback."""
    apply = Request({"ipi": "c", "wfx": "c"}, calls=CHANGING)
    first, pairs = 0, 0
    while True:
        second = 0
        while True:
            machine.reset()
            ended = machine.run(replace(apply, kill=first)).status == 0
            if machine.run(Request(calls=CHANGING, kill=second)).status == 0:
                break
            roll_back(machine)
            pairs += 1
            second += 2
        assert machine.values() == AT_FIRST
        if ended:
            break
        first += 2
    # Each apply and each rollback makes its dozen, of which the first of an apply leave nothing to roll back.
    assert first >= 2 * (3 + 4 + 2 * 7 + 3)
    assert second >= 2 * (3 + 2 * 4 + 2)
    assert pairs > first / 2 * 3


@pytest.mark.parametrize("kill_rollback", [False, True])
def test_next_apply_is_refused_until_a_rollback(machine: Machine, kill_rollback: bool) -> None:
    """Wherever the process died, an apply either sees nothing of it, or its whole, or asks for a rollback."""
    refused = 0
    kill = 0
    while True:
        machine.reset()
        if kill_rollback:
            machine.run(APPLY_ONE)
        victim = machine.run(replace(ROLLBACK if kill_rollback else APPLY_ONE, kill=kill, calls=CHANGING))
        found = machine.values()
        answer = machine.run(APPLY_TWO)
        if answer.error:
            refused += 1
            assert "cvmtune rollback" in answer.message
            assert machine.values() == found
        else:
            assert found in (AT_FIRST, AT_FIRST | ONE)
            assert machine.values() == found | TWO
        roll_back(machine)
        if victim.status == 0:
            break
        kill += 1
    assert refused > kill / 3
    assert not answer.error


def test_values_are_those_of_the_knobs(machine: Machine) -> None:
    machine.reset()
    checks = transaction.plan(LocalSystem(machine.root), AT_FIRST)
    assert {change.name: (change.plan.path, change.plan.before) for change in checks} == CONTROLS
