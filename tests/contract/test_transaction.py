# SPDX-License-Identifier: Apache-2.0
"""Many knobs changed as one, on a fake machine with all controls; kills are in test_kill.py."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmtune import __version__
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.tuning.applied import Change
from cvmtune.tuning.contract import KnobError, Plan
from cvmtune.tuning.journal import Entry, Journal
from cvmtune.tuning.outcome import Check, NotSet, PartlyApplied, Restored, Verification
from tests.fakes.bound import KNOBS, MASKS, apply, plan, rollback, verify
from tests.fakes.controls import (
    BOOT_ID,
    CQ_IDLE_US,
    CQ_POLL,
    FIRST_BOOT,
    IPI,
    IPI_POLL_US,
    NEXT_BOOT,
    RELEASE,
    WFX,
    WFX_GUARD,
    Controls,
)
from tests.fakes.kernel import Crash, When, os_error
from tests.fakes.os_calls import traced, watched

# In the order in which they must be applied; what each control shows at first, and what it is then set to.
PATHS = {
    "ipi-poll-us": IPI_POLL_US,
    "ipi": IPI,
    "cq-idle-us": CQ_IDLE_US,
    "cq-poll": CQ_POLL,
    "wfx-guard": WFX_GUARD,
    "wfx": WFX,
}
SHOWN = {
    **{IPI_POLL_US: "0\n", IPI: "0\n", CQ_IDLE_US: "1000\n", CQ_POLL: "-1\n"},
    **{WFX_GUARD: "N\n", WFX: "00000000\n"},
}
FIRST = {"ipi-poll-us": "0", "ipi": "0", "cq-idle-us": "1000", "cq-poll": "-1", "wfx-guard": "N", "wfx": "0"}
ALL = {"ipi-poll-us": "50", "ipi": "c", "cq-idle-us": "200", "cq-poll": "3", "wfx-guard": "Y", "wfx": "3"}
SOME = {"ipi-poll-us": "50", "ipi": "c", "cq-poll": "3"}
OTHER = {"ipi": "e", "cq-poll": "2", "wfx": "1,00000000"}

FAULTS: dict[str, BaseException] = {
    "EIO": os_error(errno.EIO),
    "EPERM": os_error(errno.EPERM),
    "ENOENT": os_error(errno.ENOENT),
    "error": RuntimeError("a mistake"),
    "interrupt": KeyboardInterrupt(),
    "crash": Crash(),
}

# Each input makes files, which takes what a busy computer leaves; and the inputs are the same on every run.
steady = settings(deadline=None, derandomize=True)


@pytest.fixture
def controls(tmp_path: Path) -> Controls:
    return Controls(tmp_path / "machine")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def make(memory: Path) -> tuple[Controls, Journal]:
    """Return a fresh machine and its journal."""
    directory = Path(mkdtemp(dir=memory))
    return Controls(directory / "machine"), Journal(directory / "journal")


def change(controls: Controls, journal: Journal, wanted: Mapping[str, str], source: str = "a test") -> None:
    apply(controls, journal, plan(controls, wanted), source)


def now(controls: Controls) -> dict[str, str | None]:
    return {name: knob.read(controls).value for name, knob in KNOBS.items()}


def files(journal: Journal) -> dict[str, bytes]:
    if not journal.directory.exists():
        return {}
    return {path.name: path.read_bytes() for path in journal.directory.iterdir()}


def lines(journal: Journal, number: int = 1) -> list[dict[str, Any]]:
    text = (journal.directory / f"{number:04}.journal").read_text()
    return [json.loads(line) for line in text.splitlines()]


# the catalogue


def test_every_setting_has_its_file_and_its_place(controls: Controls) -> None:
    """A bound or guard comes before what it is for."""
    paths = {name: knob.plan(controls, FIRST[name]).path for name, knob in KNOBS.items()}
    assert list(paths.items()) == list(PATHS.items())
    assert set(MASKS) == {"ipi", "wfx"}


# plan


def test_plan_is_in_the_order_of_the_catalogue_and_writes_nothing(controls: Controls) -> None:
    changes = plan(controls, dict(reversed(ALL.items())))
    assert changes == [Change(name, Plan(PATHS[name], FIRST[name], ALL[name])) for name in PATHS]
    assert all(change.changes for change in changes)
    assert controls.written == []


def test_plan_tells_what_changes_nothing(controls: Controls) -> None:
    changes = plan(controls, {"ipi": "00", "cq-poll": "2"})
    assert [(change.name, change.changes) for change in changes] == [("ipi", False), ("cq-poll", True)]


@pytest.mark.parametrize("name", ["soft_ipi", "IPI", "", "ipi "])
def test_plan_refuses_a_name_that_is_none(controls: Controls, name: str) -> None:
    with pytest.raises(UsageError, match="there is no setting") as caught:
        plan(controls, {"ipi": "c", name: "1"})
    assert "ipi-poll-us, ipi, cq-idle-us, cq-poll, wfx-guard, wfx" in caught.value.next_step


def test_plan_names_the_setting_that_cannot_be(controls: Controls) -> None:
    with pytest.raises(KnobError, match=r"wfx: mask .* names vCPUs"):
        plan(controls, {"ipi": "c", "wfx": "1" + ",00000000" * 16})
    controls.files[CQ_POLL].remove()
    with pytest.raises(KnobError, match="cq-poll: ib_core_cq_poll is not loaded") as caught:
        plan(controls, ALL)
    assert caught.value.next_step == "modprobe ib_core_cq_poll"


# apply


def test_apply_sets_all_in_order(controls: Controls, journal: Journal) -> None:
    change(controls, journal, ALL)
    assert controls.written == [(PATHS[name], f"{ALL[name]}\n") for name in PATHS]
    assert now(controls) == ALL


def test_apply_records_what_it_does(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"wfx": "3", "ipi": "c", "cq-poll": "-1"}, "profile database")
    record, *marks = lines(journal)
    time = record.pop("time")
    assert time.endswith("+00:00")
    assert record == {
        "schema": 1,
        "version": __version__,
        "boot_id": FIRST_BOOT,
        "kernel": "6.12.0",
        "source": "profile database",
        "changes": [
            {"name": "ipi", "path": IPI, "before": "0", "after": "c"},
            {"name": "cq-poll", "path": CQ_POLL, "before": "-1", "after": "-1"},
            {"name": "wfx", "path": WFX, "before": "0", "after": "3"},
        ],
    }
    assert marks == [{"begin": 0}, {"done": 0}, {"begin": 2}, {"done": 2}, {"complete": True}]


def test_journal_is_on_the_disk_before_each_write(
    controls: Controls, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = plan(controls, {"ipi": "c", "cq-poll": "2", "wfx-guard": "off", "wfx": "3"})
    real_read, real_write = controls.read_text, controls.write_text

    def read(path: str) -> str:
        if path in (IPI, CQ_POLL, WFX) and (not calls or calls[-1] != f"read {path}"):
            calls.append(f"read {path}")
        return real_read(path)

    def write(path: str, text: str) -> None:
        calls.append(f"set {path}")
        real_write(path, text)

    monkeypatch.setattr(controls, "read_text", read)
    monkeypatch.setattr(controls, "write_text", write)
    with traced() as calls:
        apply(controls, journal, changes, "a test")

    def mark(text: str) -> list[str]:
        return ["ftruncate 0001.journal", f"write 0001.journal {text}", "fsync 0001.journal"]

    def step(index: int, path: str) -> list[str]:
        begin, done = mark(f'{{"begin": {index}}}'), mark(f'{{"done": {index}}}')
        return [*begin, f"read {path}", f"set {path}", f"read {path}", *done]

    record = next(call for call in calls if call.startswith("write new"))
    begun = calls.index("unlink new")
    assert not any(call.startswith("set") for call in calls[:begun])
    assert calls[begun:] == [
        *["unlink new", record, "fsync new", "rename new", "fsync journal"],
        *step(0, IPI),
        *step(1, CQ_POLL),
        *step(3, WFX),
        *mark('{"complete": true}'),
    ]


def test_what_is_so_already_is_recorded_once(controls: Controls, journal: Journal) -> None:
    for _ in range(3):
        change(controls, journal, FIRST)
    assert [name for name in files(journal) if name != "lock"] == ["0001.journal"]
    assert lines(journal)[1:] == [{"complete": True}]
    assert controls.written == []
    assert verify(controls, journal).applied


@pytest.mark.parametrize(
    "again", [{"ipi": "c"}, {"ipi": "c", "cq-poll": "3", "wfx": "0"}, {"ipi": "e", "cq-poll": "3"}]
)
def test_what_others_want_is_another_entry(
    controls: Controls, journal: Journal, again: Mapping[str, str]
) -> None:
    change(controls, journal, {"ipi": "c", "cq-poll": "3"})
    change(controls, journal, again)
    assert len(journal.entries()) == 2


def test_what_somebody_has_undone_is_another_entry(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"ipi": "c"})
    controls.files[IPI].write_text(IPI, "0\n")
    change(controls, journal, {"ipi": "c"})
    assert len(journal.entries()) == 2
    rollback(controls, journal)
    assert controls.show() == SHOWN


def test_apply_refuses_what_is_not_as_planned(controls: Controls, journal: Journal) -> None:
    changes = plan(controls, SOME)
    controls.files[CQ_POLL].write_text(CQ_POLL, "1\n")
    before = controls.show()
    with pytest.raises(CvmtuneError, match="no longer as planned: cq-poll") as caught:
        apply(controls, journal, changes, "a test")
    assert "who else sets it" in caught.value.next_step
    assert (controls.show(), controls.written, journal.entries()) == (before, [], [])


def test_apply_after_an_interrupted_one_is_refused(controls: Controls, journal: Journal) -> None:
    kill(controls, journal, ALL, at=WFX)
    before, kept = controls.show(), files(journal)
    with pytest.raises(CvmtuneError, match="an earlier change was interrupted") as caught:
        change(controls, journal, {"ipi": "1"})
    assert (caught.value.next_step, caught.value.exit_code) == ("cvmtune rollback", 3)
    assert (controls.show(), files(journal)) == (before, kept)
    rollback(controls, journal)
    change(controls, journal, {"ipi": "1"})
    assert now(controls) == FIRST | {"ipi": "1"}


def kill(controls: Controls, journal: Journal, wanted: Mapping[str, str], at: str) -> None:
    """Apply, and die having just written a control."""
    changes = plan(controls, wanted)
    real_write = controls.write_text

    def write(path: str, text: str) -> None:
        real_write(path, text)
        if path == at:
            raise Crash

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(controls, "write_text", write)
        with pytest.raises(Crash):
            apply(controls, journal, changes, "a test")


def test_entries_of_an_earlier_boot_are_dropped(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"ipi": "c"})
    kill(controls, journal, {"wfx": "1"}, at=WFX)
    controls.restart(NEXT_BOOT)
    change(controls, journal, {"cq-poll": "3"})
    assert [entry.record["boot_id"] for entry in journal.entries()] == [NEXT_BOOT]
    assert [one.name for one in rollback(controls, journal)] == ["cq-poll"]


def test_same_again_after_a_restart_is_another_entry(controls: Controls, journal: Journal) -> None:
    change(controls, journal, FIRST)
    controls.restart(NEXT_BOOT)
    change(controls, journal, FIRST)
    assert [entry.record["boot_id"] for entry in journal.entries()] == [NEXT_BOOT]


def test_apply_while_another_is_at_work_is_refused(controls: Controls, journal: Journal) -> None:
    with journal.locked(), pytest.raises(CvmtuneError, match="another cvmtune"):
        change(controls, journal, ALL)
    assert (controls.written, journal.entries()) == ([], [])


# apply that fails


def test_failed_setting_takes_the_others_back(controls: Controls, journal: Journal) -> None:
    changes = plan(controls, ALL)
    controls.files[CQ_POLL].take_instead("1")
    with pytest.raises(CvmtuneError) as caught:
        apply(controls, journal, changes, "a test")
    assert type(caught.value) is NotSet
    assert caught.value.setting == "cq-poll"
    assert "cannot set cq-poll: the kernel took polling CPU 3 but shows 1" in caught.value.what
    assert "all settings are as before" in caught.value.what
    assert caught.value.where == CQ_POLL
    assert controls.show() == SHOWN
    assert journal.entries() == []
    # What was set last is undone first.
    assert [path for path, _ in controls.written] == [
        *[IPI_POLL_US, IPI, CQ_IDLE_US, CQ_POLL],
        *[CQ_POLL, CQ_IDLE_US, IPI, IPI_POLL_US],
    ]


def test_failed_apply_leaves_the_one_before_it(controls: Controls, journal: Journal) -> None:
    change(controls, journal, SOME)
    changes = plan(controls, OTHER)
    controls.files[WFX].take_instead("1")
    with pytest.raises(CvmtuneError, match="all settings are as before"):
        apply(controls, journal, changes, "a test")
    assert now(controls) == FIRST | SOME
    assert len(journal.entries()) == 1
    rollback(controls, journal)
    assert controls.show() == SHOWN


def test_setting_that_cannot_be_put_back(controls: Controls, journal: Journal) -> None:
    changes = plan(controls, SOME)
    broken(controls, {(CQ_POLL, "3"): "after", (IPI, "0"): "before"})
    with pytest.raises(PartlyApplied) as caught:
        apply(controls, journal, changes, "a test")
    assert (caught.value.exit_code, caught.value.next_step) == (4, "cvmtune rollback")
    assert "cannot set cq-poll: cannot write polling CPU 3: Input/output error" in caught.value.what
    assert "still in force: ipi is c, not 0 as before: cannot write mask 0" in caught.value.what
    assert now(controls) == FIRST | {"ipi": "c"}
    assert verify(controls, journal).interrupted
    # The next attempt finds the control working again.
    assert [one.name for one in rollback(controls, journal)] == ["cq-poll", "ipi", "ipi-poll-us"]
    assert controls.show() == SHOWN
    assert journal.entries() == []


def broken(
    controls: Controls, writes: dict[tuple[str, str], When], error: BaseException = FAULTS["EIO"]
) -> None:
    """Let writes fail, each once, before or after it has taken effect."""
    real_write = controls.write_text

    def write(path: str, text: str) -> None:
        when = writes.pop((path, text.strip()), None)
        if when != "before":
            real_write(path, text)
        if when is not None:
            raise error

    controls.write_text = write  # type: ignore[method-assign]


def test_module_that_is_unloaded_meanwhile_takes_its_setting_with_it(
    controls: Controls, journal: Journal
) -> None:
    changes = plan(controls, SOME)
    real_write = controls.write_text

    def write(path: str, text: str) -> None:
        real_write(path, text)
        if path == CQ_POLL:
            controls.files[path].remove()

    controls.write_text = write  # type: ignore[method-assign]
    with pytest.raises(CvmtuneError, match=r"cannot set cq-poll: .*not loaded.*all settings are as before"):
        apply(controls, journal, changes, "a test")
    assert controls.show() == {path: text for path, text in SHOWN.items() if path != CQ_POLL}
    assert journal.entries() == []


@pytest.mark.parametrize("second", [None, KeyboardInterrupt()])
def test_interrupt_goes_on_once_all_is_put_back(
    controls: Controls, journal: Journal, second: BaseException | None
) -> None:
    changes = plan(controls, SOME)
    real_write = controls.write_text
    due: list[BaseException | None] = [None, None, KeyboardInterrupt(), second]

    def write(path: str, text: str) -> None:
        real_write(path, text)
        if due and (error := due.pop(0)):
            raise error

    controls.write_text = write  # type: ignore[method-assign]
    if second is None:
        with pytest.raises(KeyboardInterrupt):
            apply(controls, journal, changes, "a test")
        assert journal.entries() == []
    else:
        with pytest.raises(PartlyApplied, match="still in force: cq-poll"):
            apply(controls, journal, changes, "a test")
        assert now(controls) == FIRST  # for the second came after the write
        rollback(controls, journal)
    assert controls.show() == SHOWN


# Each kind of fault, each span, and before and after an operation; EIO in full, which is handled as most are.
@pytest.mark.parametrize(
    ("name", "when", "lasting", "stacked"),
    [
        *(("EIO", when, lasting, False) for when in ("before", "after") for lasting in (1, 2, 20)),
        *(("EIO", "before", 2, True), ("EIO", "after", 20, True)),
        *(("EPERM", "before", 1, False), ("ENOENT", "before", 1, False), ("ENOENT", "after", 20, True)),
        *(("error", "before", 2, True), ("error", "after", 1, False), ("error", "after", 20, False)),
        *(("interrupt", "before", 1, False), ("interrupt", "after", 1, True)),
        *(("interrupt", "before", 20, True), ("interrupt", "after", 2, False)),
        *(("crash", "before", 1, False), ("crash", "after", 1, True)),
    ],
)
def test_fault_at_any_operation_of_apply(
    memory: Path, name: str, when: When, lasting: int, stacked: bool
) -> None:
    """Let each operation in turn, and those just after it, fail."""
    fault = FAULTS[name]
    outcomes: list[type[BaseException] | None] = []
    for operation in itertools.count():
        controls, journal = make(memory)
        if stacked:
            change(controls, journal, OTHER)
        before, kept = controls.show(), len(journal.entries())
        changes = plan(controls, SOME)
        start = controls.operations
        for number in range(lasting):
            controls.fail(start + operation + number, fault, when)
        try:
            apply(controls, journal, changes, "a test")
        except (CvmtuneError, type(fault)) as error:
            outcomes.append(type(error))
        else:
            if controls.operations <= start + operation:
                break
            outcomes.append(None)  # what could not be read decides nothing
        controls.faults.clear()
        if outcomes[-1] not in (PartlyApplied, Crash, None):
            assert controls.show() == before, f"operation {operation}"
            assert len(journal.entries()) == kept, f"operation {operation}"
            change(controls, journal, SOME)
        rollback(controls, journal)
        assert controls.show() == SHOWN, f"operation {operation}"
        assert journal.entries() == []
    # For each of three changes at least: look whether it is as planned, read, write, read back.
    assert operation >= 3 * 4
    assert PartlyApplied in outcomes or lasting < 20 or isinstance(fault, Crash)


JOURNAL_FAULTS = [
    *(("EIO", when, lasting) for when in ("before", "after") for lasting in (1, 100)),
    *(("interrupt", "before", 1), ("interrupt", "after", 100), ("crash", "before", 1), ("crash", "after", 1)),
]


@pytest.mark.parametrize(("fault", "when", "lasting"), [*JOURNAL_FAULTS, ("EPERM", "before", 1)])
def test_fault_of_the_journal_at_any_call_of_apply(
    memory: Path, fault: str, when: When, lasting: int
) -> None:
    """Let each system call of the journal in turn, or all from it on, fail."""
    for call in itertools.count():
        controls, journal = make(memory)
        changes = plan(controls, SOME)
        faults = failing_calls(call, lasting, FAULTS[fault], when)
        with faults as calls, suppress(CvmtuneError, KeyboardInterrupt, Crash):
            apply(controls, journal, changes, "a test")
        if len(calls) <= call:
            break
        if fault != "crash":
            assert controls.show() == SHOWN, f"call {call}"
        rollback(controls, journal)
        assert controls.show() == SHOWN, f"call {call}"
        assert journal.entries() == []
    # At least the record's write and sync, and those of two marks for each change, and one at the end.
    assert call >= 2 + 3 * 2 * 2 + 2
    assert now(controls) == FIRST | SOME


@contextmanager
def failing_calls(first: int, lasting: int, error: BaseException, due: When) -> Iterator[list[str]]:
    """Let so many system calls of this process fail, from the given one on; give the list of those made."""
    calls: list[str] = []

    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if when == due:
            calls.append(name)
            if first < len(calls) <= first + lasting:
                raise error

    with watched(fail):
        yield calls


# verify


def test_verify_before_anything_was_applied(controls: Controls, journal: Journal) -> None:
    assert verify(controls, journal) == Verification(
        applied=False, interrupted=False, restarted=False, source="", kernel="", running="6.12.0", checks=()
    )
    assert not journal.directory.exists()


def test_verify_tells_what_holds(controls: Controls, journal: Journal) -> None:
    change(controls, journal, ALL, "profile database")
    before = files(journal)
    found = verify(controls, journal)
    assert (found.applied, found.interrupted, found.restarted) == (True, False, False)
    assert (found.source, found.kernel, found.running) == ("profile database", "6.12.0", "6.12.0")
    assert found.checks == tuple(Check(name, PATHS[name], ALL[name], ALL[name], None) for name in PATHS)
    assert all(check.holds for check in found.checks)
    assert files(journal) == before


def test_verify_tells_what_does_not_hold(controls: Controls, journal: Journal) -> None:
    change(controls, journal, ALL)
    controls.files[IPI].show("f\n")
    controls.files[CQ_POLL].remove()
    controls.files[WFX].show("00000000,00000003\n")  # the same mask
    checks = {check.name: check for check in verify(controls, journal).checks}
    assert {name for name, check in checks.items() if not check.holds} == {"ipi", "cq-poll"}
    assert checks["ipi"] == Check("ipi", IPI, "c", "f", None)
    assert checks["cq-poll"].present is None
    assert "is not loaded" in str(checks["cq-poll"].problem)


def test_verify_asks_for_what_was_wanted_last(controls: Controls, journal: Journal) -> None:
    change(controls, journal, ALL, "profile database")
    change(controls, journal, OTHER, "the command line")
    found = verify(controls, journal)
    assert found.source == "the command line"
    assert {check.name: check.wanted for check in found.checks} == ALL | OTHER
    assert all(check.holds for check in found.checks)


def test_verify_tells_of_an_interrupted_apply(controls: Controls, journal: Journal) -> None:
    kill(controls, journal, ALL, at=CQ_POLL)
    found = verify(controls, journal)
    assert (found.applied, found.interrupted) == (True, True)
    assert [check.name for check in found.checks if not check.holds] == ["wfx-guard", "wfx"]


def test_verify_tells_of_an_interrupted_rollback(controls: Controls, journal: Journal) -> None:
    change(controls, journal, ALL)
    stop(controls, journal, CQ_POLL)
    assert verify(controls, journal).interrupted


def stop(controls: Controls, journal: Journal, at: str) -> None:
    """Roll back, and die when about to write a control."""

    def write(path: str, text: str) -> None:
        if path == at:
            raise Crash
        controls.files[path].write_text(path, text)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(controls, "write_text", write)
        with pytest.raises(Crash):
            rollback(controls, journal)


def test_verify_after_a_restart(controls: Controls, journal: Journal) -> None:
    kill(controls, journal, ALL, at=CQ_POLL)
    controls.restart(NEXT_BOOT, "6.12.1")
    found = verify(controls, journal)
    assert (found.applied, found.interrupted, found.restarted) == (True, False, True)
    assert (found.kernel, found.running) == ("6.12.0", "6.12.1")


@pytest.mark.parametrize("text", [None, "", "\n", "b0000000-0000-4000-8000", "\ufffd\x00"])
def test_machine_that_does_not_say_which_boot_this_is(
    controls: Controls, journal: Journal, text: str | None
) -> None:
    """An entry of this boot must not be taken for another's, and dropped."""
    change(controls, journal, SOME)
    changes = plan(controls, ALL)
    written = list(controls.written)
    file = controls.root / BOOT_ID.lstrip("/")
    file.unlink() if text is None else file.write_text(text)
    for act in (
        lambda: apply(controls, journal, changes, "a test"),
        lambda: verify(controls, journal),
        lambda: rollback(controls, journal),
    ):
        with pytest.raises(CvmtuneError, match="which boot this is") as caught:
            act()
        assert caught.value.where == BOOT_ID
    assert controls.written == written
    assert len(journal.entries()) == 1


def test_machine_that_does_not_say_its_release(controls: Controls, journal: Journal) -> None:
    """It is shown, and decides nothing."""
    (controls.root / RELEASE.lstrip("/")).unlink()
    change(controls, journal, SOME)
    assert verify(controls, journal).running == "unknown"
    rollback(controls, journal)
    assert controls.show() == SHOWN


# rollback


def test_rollback_puts_all_back_in_reverse_order_and_a_second_one_nothing(
    controls: Controls, journal: Journal
) -> None:
    change(controls, journal, ALL)
    controls.written.clear()
    restored = rollback(controls, journal)
    assert restored == [
        Restored(name, PATHS[name], ALL[name], FIRST[name], foreign=False, gone=False, restarted=False)
        for name in reversed(PATHS)
    ]
    assert controls.written == [(PATHS[name], f"{FIRST[name]}\n") for name in reversed(PATHS)]
    assert controls.show() == SHOWN
    assert set(files(journal)) == {"lock"}
    assert rollback(controls, journal) == []
    assert controls.show() == SHOWN


def test_rollback_with_no_journal_makes_none(controls: Controls, journal: Journal) -> None:
    assert rollback(controls, journal) == []
    assert not journal.directory.exists()


def test_rollback_leaves_alone_what_was_not_changed(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"ipi": "0", "cq-poll": "2"})
    controls.files[IPI].write_text(IPI, "5\n")
    assert [one.name for one in rollback(controls, journal)] == ["cq-poll"]
    assert controls.show() == SHOWN | {IPI: "5\n"}


def test_rollback_of_several_sets_each_once_to_what_it_was_at_first(
    controls: Controls, journal: Journal
) -> None:
    for wanted in (SOME, OTHER, {"ipi": "8"}):
        change(controls, journal, wanted)
    controls.written.clear()
    restored = rollback(controls, journal)
    assert not any(one.foreign for one in restored)
    assert {one.name: (one.found, one.value) for one in restored} == {
        "wfx": ("1,00000000", "0"),
        "cq-poll": ("2", "-1"),
        "ipi": ("8", "0"),
        "ipi-poll-us": ("50", "0"),
    }
    assert [path for path, _ in controls.written] == [WFX, CQ_POLL, IPI, IPI_POLL_US]
    assert controls.show() == SHOWN
    assert journal.entries() == []


def test_rollback_does_not_go_by_a_value_that_cannot_be_any_more(
    controls: Controls, journal: Journal
) -> None:
    change(controls, journal, {"cq-poll": "2"})
    change(controls, journal, {"cq-poll": "3"})
    kernel: Any = controls.files[CQ_POLL]
    kernel.take_offline(2)
    rollback(controls, journal)
    assert controls.show() == SHOWN


def test_rollback_says_what_somebody_else_has_changed_since(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"ipi": "c", "cq-poll": "2", "wfx": "3"})
    change(controls, journal, {"cq-poll": "3"})
    controls.files[IPI].write_text(IPI, "f\n")
    controls.files[CQ_POLL].write_text(CQ_POLL, "2\n")  # one that it has been
    found = {one.name: (one.found, one.foreign) for one in rollback(controls, journal)}
    assert found == {"wfx": ("3", False), "cq-poll": ("2", False), "ipi": ("f", True)}
    assert controls.show() == SHOWN


def test_rollback_of_a_control_that_has_gone(controls: Controls, journal: Journal) -> None:
    change(controls, journal, SOME)
    controls.files[CQ_POLL].remove()
    controls.written.clear()
    found = {one.name: (one.found, one.gone) for one in rollback(controls, journal)}
    assert found == {"cq-poll": (None, True), "ipi": ("c", False), "ipi-poll-us": ("50", False)}
    assert [path for path, _ in controls.written] == [IPI, IPI_POLL_US]
    assert journal.entries() == []


def test_rollback_after_a_restart_writes_nothing(controls: Controls, journal: Journal) -> None:
    kill(controls, journal, {"ipi": "c", "cq-poll": "3"}, at=IPI)
    controls.files[IPI].write_text(IPI, "5\n")
    before = controls.show()
    controls.restart(NEXT_BOOT)
    controls.written.clear()
    assert rollback(controls, journal) == [
        # Whoever set it since the restart has not changed what cvmtune set.
        Restored("ipi", IPI, "5", "0", foreign=False, gone=False, restarted=True)
    ]
    assert (controls.written, controls.show()) == ([], before)
    assert journal.entries() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_dry_run_tells_the_same_and_writes_nothing(
    controls: Controls, journal: Journal, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    change(controls, journal, SOME)
    kill(controls, journal, OTHER, at=WFX)
    controls.files[IPI].write_text(IPI, "5\n")
    controls.files[CQ_POLL].remove()
    (journal.directory / "lock").unlink()
    if restarted:
        controls.restart(NEXT_BOOT)
    controls.written.clear()
    before = controls.show(), files(journal)
    with traced() as calls:
        would = rollback(controls, journal, dry_run=True)
    assert (calls, controls.written, (controls.show(), files(journal))) == ([], [], before)
    assert {one.name for one in would} == {"ipi-poll-us", "ipi", "cq-poll", "wfx"}
    assert rollback(controls, journal) == would


def test_rollback_while_another_is_at_work_is_refused(controls: Controls, journal: Journal) -> None:
    change(controls, journal, SOME)
    with journal.locked(), pytest.raises(CvmtuneError, match="another cvmtune"):
        rollback(controls, journal)
    assert now(controls) == FIRST | SOME


@pytest.mark.parametrize(
    ("fault", "why"), [("EIO", "cannot write mask 0: Input/output error"), ("error", "RuntimeError")]
)
def test_what_cannot_be_undone_does_not_keep_the_others(
    controls: Controls, journal: Journal, fault: str, why: str
) -> None:
    change(controls, journal, SOME)
    change(controls, journal, OTHER)
    broken(controls, {(IPI, "0"): "before"}, FAULTS[fault])
    with pytest.raises(PartlyApplied) as caught:
        rollback(controls, journal)
    assert caught.value.exit_code == 4
    assert f"still in force: ipi is e, not 0 as before: {why}" in caught.value.what
    assert "cvmtune rollback" in caught.value.next_step
    assert controls.show() == SHOWN | {IPI: "e\n"}
    with pytest.raises(CvmtuneError, match="an earlier change was interrupted"):
        change(controls, journal, {"ipi": "1"})
    # Another sets what is back already; that is theirs now.
    controls.files[WFX].write_text(WFX, "8\n")
    assert [one.name for one in rollback(controls, journal)] == ["ipi"]
    assert controls.show() == SHOWN | {WFX: "00000008\n"}
    assert journal.entries() == []


def test_rollback_that_was_interrupted_is_finished_by_the_next(controls: Controls, journal: Journal) -> None:
    change(controls, journal, SOME)
    change(controls, journal, OTHER)
    stop(controls, journal, IPI)
    assert [one.name for one in rollback(controls, journal)] == ["ipi", "ipi-poll-us"]
    assert controls.show() == SHOWN


@pytest.mark.parametrize("stuck", [False, True])
def test_full_disk_does_not_keep_settings_in_force(
    controls: Controls, journal: Journal, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    change(controls, journal, SOME)
    change(controls, journal, OTHER)

    def full(file: int, data: bytes) -> int:
        raise os_error(errno.ENOSPC)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        if stuck:
            broken(controls, {(IPI, "0"): "before"})
            with pytest.raises(PartlyApplied):
                rollback(controls, journal)
        rollback(controls, journal)
    assert controls.show() == SHOWN
    assert journal.entries() == []


def test_journal_that_cannot_be_emptied(controls: Controls, journal: Journal) -> None:
    change(controls, journal, SOME)

    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name) == ("before", "unlink"):
            raise os_error(errno.EROFS)

    with (
        watched(fail),
        pytest.raises(CvmtuneError, match="all settings are as before, but the journal") as caught,
    ):
        rollback(controls, journal)
    assert caught.value.next_step == "cvmtune rollback"
    assert controls.show() == SHOWN
    assert rollback(controls, journal) == []
    assert journal.entries() == []


def test_journal_of_a_full_disk_that_can_be_emptied_only_in_part(
    controls: Controls, journal: Journal
) -> None:
    """The entry that tells what was at first goes last: what is left tells no later value."""
    change(controls, journal, SOME)
    change(controls, journal, OTHER)
    removed: list[str] = []

    def fail(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name) == ("before", "write"):
            raise os_error(errno.ENOSPC)
        if (when, name) == ("before", "unlink") and removed:
            raise os_error(errno.EROFS)
        if (when, name) == ("after", "unlink"):
            removed.append(args[0])

    with watched(fail), pytest.raises(CvmtuneError, match="the journal still has an entry"):
        rollback(controls, journal)
    assert controls.show() == SHOWN
    rollback(controls, journal)
    assert controls.show() == SHOWN
    assert journal.entries() == []


@pytest.mark.parametrize(
    ("name", "when", "lasting"),
    [
        *(("EIO", when, lasting) for when in ("before", "after") for lasting in (1, 3)),
        *(("EPERM", "after", 1), ("ENOENT", "before", 1), ("error", "before", 3), ("error", "after", 1)),
        *(
            ("interrupt", "before", 3),
            ("interrupt", "after", 1),
            ("crash", "before", 1),
            ("crash", "after", 1),
        ),
    ],
)
def test_fault_at_any_operation_of_rollback(memory: Path, name: str, when: When, lasting: int) -> None:
    fault = FAULTS[name]
    for operation in itertools.count():
        controls, journal = make(memory)
        change(controls, journal, SOME)
        change(controls, journal, OTHER)
        start = controls.operations
        for number in range(lasting):
            controls.fail(start + operation + number, fault, when)
        with suppress(CvmtuneError, type(fault)):
            rollback(controls, journal)
        ended = (start + operation, when) in controls.faults
        controls.faults.clear()
        assert journal.entries() or controls.show() == SHOWN, f"operation {operation}"
        rollback(controls, journal)
        assert controls.show() == SHOWN, f"operation {operation}"
        assert journal.entries() == []
        if ended:
            break
    # For each of four controls at least: read, write, read back.
    assert operation >= 4 * 3


@pytest.mark.parametrize(("fault", "when", "lasting"), JOURNAL_FAULTS)
def test_fault_of_the_journal_at_any_call_of_rollback(
    memory: Path, fault: str, when: When, lasting: int
) -> None:
    for call in itertools.count():
        controls, journal = make(memory)
        change(controls, journal, SOME)
        change(controls, journal, OTHER)
        faults = failing_calls(call, lasting, FAULTS[fault], when)
        with faults as calls, suppress(CvmtuneError, KeyboardInterrupt, Crash):
            rollback(controls, journal)
        rollback(controls, journal)
        assert controls.show() == SHOWN, f"call {call}"
        assert journal.entries() == []
        if len(calls) <= call:
            break
    # At least a mark in each of two entries and one for each of five changes, and the removals.
    assert call >= 2 * (2 + 5) + 4


# journals that are not as they should be


@pytest.mark.parametrize("rolled_back", [False, True])
def test_newest_entry_cut_at_any_byte(
    memory: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: bool
) -> None:
    """Each write to a control had its mark on the disk before, so what has no mark has not been written."""
    controls, journal = make(memory)
    change(controls, journal, FIRST if rolled_back else SOME)
    first = now(controls)
    change(controls, journal, OTHER)
    if rolled_back:
        with monkeypatch.context() as patched:
            patched.setattr(Entry, "remove", lambda entry: None)
            rollback(controls, journal)
    kept = {name: text for name, text in files(journal).items() if name != "lock"}
    text = kept["0002.journal"]
    record = json.loads(text.splitlines()[0])
    for length in range(len(text) + 1):
        for name, content in kept.items():
            (journal.directory / name).write_bytes(content[:length] if name == "0002.journal" else content)
        marks = [json.loads(line) for line in text[:length].split(b"\n")[1:-1]]
        put(controls, first)
        for index, one in enumerate(record["changes"]):
            if {"begin": index} in marks:
                put(controls, {one["name"]: one["after"]})
            if {"undone": index} in marks:
                put(controls, {one["name"]: one["before"]})
        before = controls.show()
        controls.written.clear()
        if length <= text.index(b"\n"):
            with pytest.raises(CvmtuneError, match="the journal is damaged: the record has no end") as caught:
                rollback(controls, journal)
            assert "0002.journal, line 1" in caught.value.where
            assert (controls.written, controls.show()) == ([], before)
        else:
            rollback(controls, journal)
            assert controls.show() == SHOWN, length
            assert [name for name in files(journal) if name != "lock"] == []


def put(controls: Controls, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        controls.files[PATHS[name]].write_text(PATHS[name], f"{value}\n")


GOOD = {"name": "ipi", "path": IPI, "before": "0", "after": "c"}


@pytest.mark.parametrize(
    ("fields", "mark"),
    [
        ({"schema": 2}, {}),
        ({"schema": "1"}, {}),
        ({"boot_id": None}, {}),
        ({"changes": None}, {}),
        ({"changes": [3]}, {}),
        ({"changes": [GOOD | {"name": "soft_ipi"}]}, {}),
        ({"changes": [GOOD | {"before": 0}]}, {}),
        ({"changes": [{"name": "ipi"}]}, {}),
        ({}, {"begin": 1}),
        ({}, {"begin": -1}),
        ({}, {"undone": 7}),
    ],
)
def test_entry_of_another_version_is_left_alone(
    controls: Controls, journal: Journal, fields: dict[str, object], mark: dict[str, object]
) -> None:
    change(controls, journal, {"ipi": "c"})
    record, *marks = lines(journal)
    text = "".join(json.dumps(line) + "\n" for line in [record | {"version": "9.9"} | fields, *marks, mark])
    (journal.directory / "0001.journal").write_text(text)
    changes = plan(controls, {"wfx": "1"})
    controls.written.clear()
    acts: list[Callable[[], object]] = [
        lambda: rollback(controls, journal),
        lambda: rollback(controls, journal, dry_run=True),
        lambda: apply(controls, journal, changes, "a test"),
        lambda: verify(controls, journal),
    ]
    for act in acts:
        with pytest.raises(CvmtuneError, match=r"cannot read an entry.* made by version 9\.9") as caught:
            act()
        assert caught.value.where == str(journal.directory / "0001.journal")
    assert controls.written == []
    assert (journal.directory / "0001.journal").read_text() == text


def test_bad_value_in_a_journal_is_never_written(controls: Controls, journal: Journal) -> None:
    change(controls, journal, {"ipi": "c", "cq-poll": "2"})
    file = journal.directory / "0001.journal"
    file.write_text(file.read_text().replace('"before": "0"', '"before": "ff"'))
    controls.written.clear()
    with pytest.raises(PartlyApplied, match=r"still in force: ipi is c.*names CPUs that this machine cannot"):
        rollback(controls, journal)
    assert controls.written == [(CQ_POLL, "-1\n")]


# any sequence

MASK = st.integers(0, 15).map("{:x}".format)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "ipi-poll-us": st.integers(0, 200).map(str),
        "ipi": MASK,
        "cq-idle-us": st.integers(0, (1 << 32) - 1).map(str),
        "cq-poll": st.integers(-1, 3).map(str),
        "wfx-guard": st.sampled_from(["Y", "n", "on", "0"]),
        "wfx": MASK | st.just("1,00000000"),
    },
)
VALUES = {"n": "N", "on": "Y", "0": "N"}


@steady
@given(st.lists(SETTINGS | st.none(), max_size=8))
def test_any_sequence_of_applies_is_undone_by_a_rollback(
    memory: Path, sequence: list[dict[str, str] | None]
) -> None:
    """None stands for a rollback in between."""
    controls, journal = make(memory)
    expected: dict[str, str] = {}
    for wanted in sequence:
        if wanted is None:
            rollback(controls, journal)
            expected = {}
            assert controls.show() == SHOWN
            continue
        change(controls, journal, wanted)
        expected |= {
            name: VALUES.get(value, value) if name == "wfx-guard" else value for name, value in wanted.items()
        }
        assert now(controls) == FIRST | expected
        found = verify(controls, journal)
        assert {check.name: check.wanted for check in found.checks} == expected
        assert all(check.holds for check in found.checks)
        assert not found.interrupted
    rollback(controls, journal)
    assert controls.show() == SHOWN
    assert journal.entries() == []
