# SPDX-License-Identifier: Apache-2.0
"""The commands on machines that have any one file damaged: missing, empty, hidden, of other bytes, or cut.

Whatever it is, no command has a traceback, ends with a status that is not so, or writes what was not planned.
"""

from __future__ import annotations

import errno
import functools
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune.observe.capture import CPUS
from tests.fakes.tree import MACHINES, Machine, Outcome

# What is applied where, so that there is something to plan.
_ASKED = {
    "guest": ["apply", "--ipi", "2-3", "--cq-poll", "1"],
    "host": ["apply", "--wfx", "0-1", "--wfx-guard", "on"],
    "machine": ["apply", "--cq-poll", "1"],
    "profile": ["apply", "database"],
    "host's profile": ["apply", "latency-host"],
    "off": ["apply", "off"],
}
# Done; verdict; usage; failed and nothing is changed; partly applied; not what the settings are for.
_STATUSES = {
    "status": {0},
    "recommend": {0, 3},
    "apply": {0, 3, 5},
    "verify": {0, 1, 3},
    "rollback": {0, 3, 4},
}
_ERRORS = (errno.EACCES, errno.EPERM, errno.EIO, errno.EINVAL, errno.ENODEV)
_BINARY = (
    "".join(map(chr, range(32))) + "\ufffd\ufffd9\ufffd:\x85\u2028\t0x\u0663 -1\n18446744073709551616 nan\n"
)


@dataclass(frozen=True)
class Damage:
    """What is done to one file."""

    path: str
    kind: str
    """missing, empty, unreadable, binary, cut."""
    where: int

    def do(self, machine: Machine) -> None:
        file = machine.file(self.path)
        if not file.is_file():
            return
        match self.kind:
            case "missing":
                file.unlink()
            case "empty":
                file.write_text("")
            case "binary":
                file.write_text(_BINARY)
            case "cut":
                text = file.read_text()
                file.write_text(text[: self.where % (len(text) + 1)])
            case "cut at a line":
                lines = file.read_text().splitlines(keepends=True)
                file.write_text("".join(lines[: self.where % (len(lines) + 1)]))
            case "unreadable":
                machine.system.break_("read", self.path, _ERRORS[self.where % len(_ERRORS)])


KINDS = ("missing", "empty", "unreadable", "binary", "cut", "cut at a line")


@functools.cache
def files(kind: str) -> tuple[str, ...]:
    """All files of the machine, by their paths, those of a journal among them."""
    with_journal = ("/var/lib/cvmtune/0001.journal", "/var/lib/cvmtune/lock")
    root = Path(mkdtemp())
    try:
        MACHINES[kind](root)
        found = (f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file())
        return (*sorted(found), *with_journal)
    finally:
        shutil.rmtree(root)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Damage, str, bool]:
    kind = draw(st.sampled_from(sorted(MACHINES)))
    damage = Damage(
        draw(st.sampled_from(files(kind))), draw(st.sampled_from(KINDS)), draw(st.integers(0, 4000))
    )
    return kind, damage, draw(st.sampled_from(sorted(_ASKED))), draw(st.booleans())


@dataclass
class Watched:
    """A machine whose damage is done again as often as time passes on it."""

    machine: Machine
    damage: Damage

    def __post_init__(self) -> None:
        go_on = self.machine.go_on

        def and_damage(seconds: int = 0) -> None:
            go_on(seconds)
            self.damage.do(self.machine)

        self.machine.go_on = and_damage  # type: ignore[method-assign]
        self.damage.do(self.machine)

    def run(self, *argv: str) -> Outcome:
        """Run it as text and as JSON, which must end alike unless it changes something."""
        run = self.machine.watch if argv[0] == "recommend" else self.machine.run
        arguments = argv[1:] if argv[0] == "recommend" else argv
        outcome = run(*arguments)
        assert outcome.status in _STATUSES[argv[0]], (argv, outcome)
        assert (outcome.status in (2, 3, 4, 5)) == ("cvmtune: " in outcome.err), (argv, outcome)
        return outcome

    def in_force(self) -> dict[str, str]:
        return self.machine.settings()


def survives(root: Path, kind: str, damage: Damage, asked: str, applied_before: bool) -> None:
    machine = MACHINES[kind](root)
    first = machine.settings()
    argv = _ASKED[asked]
    if applied_before:
        machine.run(*argv)
    watched = Watched(machine, damage)
    before = machine.snapshot()
    written = set(machine.system.written)

    for looking in (
        ["status"],
        ["status", "--json"],
        ["verify"],
        ["verify", "--json"],
        [*argv, "--dry-run"],
        ["rollback", "--dry-run"],
    ):
        watched.run(*looking)
    assert machine.snapshot() == before
    assert machine.system.written == written
    for looking in (["recommend"], ["recommend", "--json"]):
        watched.run(*looking)
    assert machine.system.written == written

    there = watched.in_force()
    planned = watched.run(*argv, "--dry-run", "--json")
    changes = planned.json["changes"] if planned.status == 0 else []
    outcome = watched.run(*argv)
    now = watched.in_force()
    assert outcome.status == planned.status
    assert machine.system.written - written <= {change["path"] for change in changes}
    if outcome.status == 0:
        settings = machine.registry.settings
        for change in changes:
            assert settings[change["name"]].knob.read(machine.system).value == change["after"]
        # What an earlier apply has set may be gone since.
        gone = applied_before and damage.path in (*first, f"{CPUS}/online")
        assert watched.run("verify").status == 0 or gone
    else:
        assert now == there, outcome
    back = watched.run("rollback")
    # A control that is damaged does not show what it is; a journal that is, not what was before.
    if back.status == 0 and damage.path not in first and not damage.path.startswith("/var/lib/cvmtune"):
        now = watched.in_force()
        assert now == {path: value for path, value in first.items() if path in now}
    if back.status == 4:
        # What it could not put back is not forgotten.
        assert machine.journal.entries()


@settings(max_examples=200)
@given(damaged())
def test_any_one_file_damaged(scratch_root: Callable[[], Path], case: tuple[str, Damage, str, bool]) -> None:
    survives(scratch_root(), *case)


@pytest.mark.stress
@pytest.mark.long
@settings(max_examples=10_000)
@given(damaged())
def test_any_one_file_damaged_often(
    scratch_root: Callable[[], Path], case: tuple[str, Damage, str, bool]
) -> None:
    survives(scratch_root(), *case)


@pytest.fixture(scope="module")
def scratch_root(memory: Path) -> Callable[[], Path]:
    """Return what makes an empty directory, and removes the last."""
    serial = itertools.count()
    last: list[Path] = []

    def make() -> Path:
        for path in last:
            shutil.rmtree(path)
        last[:] = [memory / f"tree{next(serial)}"]
        last[0].mkdir()
        return last[0]

    return make
