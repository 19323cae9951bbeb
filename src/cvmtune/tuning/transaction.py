# SPDX-License-Identifier: Apache-2.0
"""Many knobs changed as one: all of them or none, and undone by whoever comes later, after a kill too.

Each apply() has an entry in a journal (core/journal.py), there before the first knob is touched:

- its record: when, on which boot, by which version, for whom, and each change with the value before it;
- marks `begin` and `done` with a change's index, around its write, and at the end `complete`;
- marks `rollback`, when that has begun, and `undone` with the index of each change put back since.

Entries stack until rollback() has put back what was before the oldest. What an entry says counts for its own
boot: a control forgets what it was set to when its kernel ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import ClassVar

from cvmtune import __version__
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import System
from cvmtune.features.catalogue import KNOBS
from cvmtune.tuning.contract import KnobError, Plan
from cvmtune.tuning.journal import Entry, Journal

BOOT_ID = "/proc/sys/kernel/random/boot_id"
RELEASE = "/proc/sys/kernel/osrelease"

_SCHEMA = 1
_ROLLBACK = "cvmtune rollback"


class PartlyApplied(CvmtuneError):
    """Some settings could not be put back and are in force still; the journal has what rollback() needs."""

    exit_code: ClassVar[int] = 4


@dataclass(frozen=True)
class Change:
    """A change of one setting, by its name in the catalogue."""

    name: str
    plan: Plan

    @property
    def changes(self) -> bool:
        """Tell whether there is anything to do."""
        return self.plan.before != self.plan.after


@dataclass(frozen=True)
class Check:
    """What a setting was last set to, and what it is; values are canonical.

    `present` is None if the control cannot be read; `problem` says why, or why what it shows is not in force.
    """

    name: str
    path: str
    wanted: str
    present: str | None
    problem: str | None

    @property
    def holds(self) -> bool:
        """Tell whether the setting is as it was set."""
        return self.present == self.wanted and self.problem is None


@dataclass(frozen=True)
class Verification:
    """What has been applied and not been rolled back, and whether it is in force.

    `interrupted`: an apply or a rollback of this boot has not come to its end; it may be at work just now.
    `restarted`: the machine has been restarted since, which ended all settings. `source` and `kernel`, a
    release, are those of the newest apply, "" if there is none; `running` is the present kernel's.
    """

    applied: bool
    interrupted: bool
    restarted: bool
    source: str
    kernel: str
    running: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Restored:
    """A setting that rollback() has put back to `value`, what it was before the first apply.

    `found` is what it was until then, None if it could not be read; `foreign`: that is no value that cvmtune
    has found or set, so somebody else has changed it since. Nothing was written if it was `gone`, its control
    having vanished and the setting with it, or if the machine was `restarted` since, which ended it too.
    """

    name: str
    path: str
    found: str | None
    value: str
    foreign: bool
    gone: bool
    restarted: bool


def plan(system: System, settings: Mapping[str, str]) -> list[Change]:
    """Check that the settings, values by name, can be made; return them in order. Writes nothing.

    Raises UsageError for a name that is none, KnobError for what cannot be set.
    """
    for name in settings:
        if name not in KNOBS:
            raise UsageError(f"there is no setting {name!r}", next_step=f"choose from {', '.join(KNOBS)}")
    return [Change(name, _plan(system, name, settings[name])) for name in KNOBS if name in settings]


def apply(system: System, journal: Journal, changes: Sequence[Change], source: str) -> None:
    """Make the changes that plan() returned, or none of them; `source` says for whom, as "profile database".

    What is wanted is journalled even if all is so already, unless the newest entry says the same.

    Raises CvmtuneError if nothing is changed: the settings are not as planned any more, or an earlier apply
    or rollback was interrupted, or one setting failed and the others were put back. PartlyApplied if they
    could not be. KeyboardInterrupt goes on once all is put back.
    """
    with journal.locked():
        applied = _load(journal)
        boot = _line(system, BOOT_ID)
        for one in applied:
            if one.boot == boot and not one.finished:
                raise CvmtuneError(
                    "an earlier change was interrupted, and not taken back since",
                    str(one.entry.path),
                    _ROLLBACK,
                )
        _check_still_planned(system, changes)
        for one in applied:
            if one.boot != boot:
                one.entry.remove()
        if _is_newest(applied, boot, changes) and not any(change.changes for change in changes):
            return
        entry = journal.begin(_record(system, boot, changes, source))
        _make(system, entry, changes)


def verify(system: System, journal: Journal) -> Verification:
    """Compare what was applied with what is; writes nothing, and makes no journal where there is none.

    Raises CvmtuneError if the journal cannot be read.
    """
    applied = _load(journal)
    boot = _line(system, BOOT_ID)
    newest = applied[-1] if applied else None
    wanted = {change.name: change for one in applied for change in one.changes}
    return Verification(
        applied=newest is not None,
        interrupted=any(one.boot == boot and not one.finished for one in applied),
        restarted=newest is not None and newest.boot != boot,
        source=newest.source if newest else "",
        kernel=newest.kernel if newest else "",
        running=_line(system, RELEASE),
        checks=tuple(_check(system, wanted[name]) for name in KNOBS if name in wanted),
    )


def rollback(system: System, journal: Journal, *, dry_run: bool = False) -> list[Restored]:
    """Put each setting back to what it was before the first apply; a second time there is nothing to do.

    Each is set once, straight to that value: what was applied in between may not be possible any more, a CPU
    having gone offline. With `dry_run` nothing is written; what would be done is returned.

    Raises PartlyApplied if some settings could not be put back: the others are, and another rollback() tries
    again. CvmtuneError if the journal cannot be read or written.
    """
    if not journal.entries():
        return []
    with nullcontext() if dry_run else journal.locked():
        applied = _load(journal)
        boot = _line(system, BOOT_ID)
        ended = [one for one in applied if one.boot != boot]
        restored = [_look(system, steps, restarted=True) for steps in _by_setting(ended)]
        ours = [one for one in applied if one.boot == boot]
        if dry_run:
            return restored + [_look(system, steps) for steps in _by_setting(ours)]
        for one in ended:
            one.entry.remove()
        return restored + _restore(system, ours)


@dataclass(frozen=True)
class _Applied:
    """A journal's entry, understood."""

    entry: Entry
    boot: str
    kernel: str
    source: str
    changes: tuple[Change, ...]

    @property
    def finished(self) -> bool:
        """Tell whether the apply came to its end, and no rollback has begun since."""
        marks = {key for mark in self.entry.marks for key in mark}
        return "complete" in marks and "rollback" not in marks

    def marked(self, key: str) -> set[int]:
        """Return the indices of the changes that have this mark."""
        return {index for mark in self.entry.marks if isinstance(index := mark.get(key), int)}


@dataclass(frozen=True)
class _Step:
    """A change that an apply has begun."""

    entry: Entry
    index: int
    change: Change
    undone: bool


def _plan(system: System, name: str, want: str) -> Plan:
    try:
        return KNOBS[name].plan(system, want)
    except KnobError as error:
        raise KnobError(f"{name}: {error.what}", error.where, error.next_step) from error


def _line(system: System, path: str) -> str:
    try:
        return system.read_text(path).strip()
    except OSError as error:
        raise CvmtuneError(f"cannot read: {error.strerror}", path) from error


# apply


def _is_newest(applied: Sequence[_Applied], boot: str, changes: Sequence[Change]) -> bool:
    """Tell whether the newest entry of this boot wants the same values."""
    if not applied or applied[-1].boot != boot:
        return False
    newest = applied[-1].changes
    return [(c.name, c.plan.after) for c in newest] == [(c.name, c.plan.after) for c in changes]


def _check_still_planned(system: System, changes: Sequence[Change]) -> None:
    # Undoing a change that a knob refused, another having set it since it was planned, would overwrite what
    # that other wants.
    again = plan(system, {change.name: change.plan.after for change in changes})
    if again != list(changes):
        changed = [new.name for new in again if new not in changes]
        raise CvmtuneError(
            f"no longer as planned: {', '.join(changed)}",
            next_step="find out who else sets it, then try again",
        )


def _record(system: System, boot: str, changes: Sequence[Change], source: str) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "boot_id": boot,
        "kernel": _line(system, RELEASE),
        "source": source,
        "changes": [{"name": change.name, **asdict(change.plan)} for change in changes],
    }


def _make(system: System, entry: Entry, changes: Sequence[Change]) -> None:
    """Make the changes of an entry; if anything fails undo those begun, drop the entry and raise."""
    begun: list[Change] = []
    doing = ""
    try:
        for index, change in enumerate(changes):
            if change.changes:
                doing = f"set {change.name}"
                entry.mark(begin=index)
                begun.append(change)
                KNOBS[change.name].apply(system, change.plan)
                entry.mark(done=index)
        doing = "finish the journal's entry"
        entry.mark(complete=True)
    except (Exception, KeyboardInterrupt) as failure:
        told = _told(failure)
        _take_back(system, entry, begun, f"cannot {doing}: {told.what}")
        if isinstance(failure, KeyboardInterrupt):
            raise
        raise CvmtuneError(
            f"cannot {doing}: {told.what}; all settings are as before", told.where, told.next_step
        ) from failure


def _take_back(system: System, entry: Entry, begun: Sequence[Change], why: str) -> None:
    stuck: list[tuple[Change, BaseException]] = []
    for change in reversed(begun):
        try:
            if system.exists(change.plan.path):
                KNOBS[change.name].undo(system, change.plan)
        # Nor may an impatient second Ctrl-C leave the settings before this one as they are.
        except (Exception, KeyboardInterrupt) as error:
            stuck.append((change, error))
    if stuck:
        raise PartlyApplied(f"{why}; {_in_force(system, stuck)}", str(entry.path), _ROLLBACK)
    _drop([entry], f"{why}; all settings are as before")


# verify


def _check(system: System, change: Change) -> Check:
    knob = KNOBS[change.name]
    state = knob.read(system)
    problem = state.problem
    try:
        if state.value == change.plan.after and not knob.verify(system, change.plan):
            problem = "the control shows it, but its CPU is not online"
    except KnobError as error:
        problem = str(error)
    return Check(change.name, change.plan.path, change.plan.after, state.value, problem)


# rollback


def _by_setting(applied: Sequence[_Applied]) -> list[list[_Step]]:
    """Return the changes of each setting that is to be put back, newest first; last set, first undone."""
    steps: dict[str, list[_Step]] = {name: [] for name in reversed(list(KNOBS))}
    for one in reversed(applied):
        undone = one.marked("undone")
        for index in sorted(one.marked("begin"), reverse=True):
            change = one.changes[index]
            steps[change.name].append(_Step(one.entry, index, change, index in undone))
    return [found for found in steps.values() if not all(step.undone for step in found)]


def _look(system: System, steps: Sequence[_Step], *, restarted: bool = False) -> Restored:
    oldest = steps[-1].change
    found = KNOBS[oldest.name].read(system).value
    known = {value for step in steps for value in (step.change.plan.before, step.change.plan.after)}
    return Restored(
        name=oldest.name,
        path=oldest.plan.path,
        found=found,
        value=oldest.plan.before,
        foreign=found is not None and found not in known and not restarted,
        gone=not system.exists(oldest.plan.path),
        restarted=restarted,
    )


def _restore(system: System, applied: Sequence[_Applied]) -> list[Restored]:
    # A full disk must not keep settings in force. So marks that cannot be written are done without: then a
    # later rollback puts back again what is so already.
    for one in reversed(applied):
        if one.finished:
            with suppress(CvmtuneError):
                one.entry.mark(rollback=True)
    restored: list[Restored] = []
    stuck: list[tuple[Change, BaseException]] = []
    for steps in _by_setting(applied):
        oldest = steps[-1].change
        try:
            look = _look(system, steps)
            if not look.gone:
                KNOBS[oldest.name].undo(system, oldest.plan)
        except Exception as error:
            stuck.append((oldest, error))
            continue
        restored.append(look)
        with suppress(CvmtuneError):
            for step in steps:
                if not step.undone:
                    step.entry.mark(undone=step.index)
    if stuck:
        # No entry goes before all can: the oldest of a setting's changes tells what to put back.
        raise PartlyApplied(_in_force(system, stuck), next_step=f"remove the cause, then {_ROLLBACK}")
    _drop([one.entry for one in reversed(applied)], "all settings are as before")
    return restored


# what both have in common


def _in_force(system: System, stuck: Sequence[tuple[Change, BaseException]]) -> str:
    """Say what has become of settings that could not be put back, and why."""
    found = []
    for change, error in stuck:
        present = None
        # If the machine is lost, it may raise more than a knob's read() looks for.
        with suppress(Exception, KeyboardInterrupt):
            present = KNOBS[change.name].read(system).value
        told = _told(error).what
        found.append(
            f"{change.name} is {present or 'unreadable'}, not {change.plan.before} as before: {told}"
        )
    return f"still in force: {'; '.join(found)}"


def _told(error: BaseException) -> CvmtuneError:
    """Return the error as one to tell users."""
    return error if isinstance(error, CvmtuneError) else CvmtuneError(repr(error))


def _drop(entries: Sequence[Entry], said: str) -> None:
    for entry in entries:
        try:
            entry.remove()
        except CvmtuneError as error:
            raise CvmtuneError(
                f"{said}, but the journal still has an entry: {error.what}", error.where, _ROLLBACK
            ) from error


# the journal


def _load(journal: Journal) -> list[_Applied]:
    return [_decode(entry) for entry in journal.entries()]


def _decode(entry: Entry) -> _Applied:
    match entry.record:
        case {
            "schema": int(schema),
            "boot_id": str(boot),
            "kernel": str(kernel),
            "source": str(source),
            "changes": list(changes),
        } if schema == _SCHEMA:
            one = _Applied(
                entry, boot, kernel, source, tuple(_decode_change(entry, item) for item in changes)
            )
            if (one.marked("begin") | one.marked("undone")) <= set(range(len(changes))):
                return one
    raise _not_understood(entry)


def _decode_change(entry: Entry, item: object) -> Change:
    match item:
        case {"name": str(name), "path": str(path), "before": str(before), "after": str(after)} if (
            name in KNOBS
        ):
            return Change(name, Plan(path, before, after))
    raise _not_understood(entry)


def _not_understood(entry: Entry) -> CvmtuneError:
    return CvmtuneError(
        f"this cvmtune cannot read an entry of the journal, made by version {entry.record.get('version')}",
        str(entry.path),
        "use the version that made it; or restart the machine, then remove the file",
    )
