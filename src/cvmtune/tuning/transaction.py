# SPDX-License-Identifier: Apache-2.0
"""Many knobs changed as one: all of them or none, and undone by whoever comes later, after a kill too.

Each apply() has an entry in a journal (applied.py has the format). Entries stack until rollback() has put
back what was before the oldest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.system import System
from cvmtune.tuning.applied import Applied, Change, Step, by_setting, load, record
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.journal import Entry, Journal
from cvmtune.tuning.outcome import Check, NotSet, PartlyApplied, Restored, Verification
from cvmtune.tuning.setting import Settings

BOOT_ID = "/proc/sys/kernel/random/boot_id"
RELEASE = "/proc/sys/kernel/osrelease"

# As the kernel prints it (drivers/char/random.c, proc_do_uuid()).
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_ROLLBACK = "cvmtune rollback"


@dataclass(frozen=True)
class Transactions:
    """What can be done with these settings as a whole."""

    settings: Settings

    def plan(self, system: System, wanted: Mapping[str, Any]) -> list[Change]:
        """Check that the settings can be made, values or texts in canonical form by name; return them in
        order. Writes nothing.

        Raises UsageError for a name that is none, KnobError for what cannot be set.
        """
        for name in wanted:
            if name not in self.settings:
                choice = f"choose from {', '.join(self.settings)}"
                raise UsageError(f"there is no setting {name!r}", next_step=choice)
        return [self._plan(system, name, wanted[name]) for name in self.settings if name in wanted]

    def apply(
        self,
        system: System,
        journal: Journal,
        changes: Sequence[Change],
        source: str,
        *,
        dry_run: bool = False,
    ) -> None:
        """Make the changes that plan() returned, or none of them; `source` says for whom, as "profile
        database".

        What is wanted is journalled even if all is so already, unless the newest entry says the same. With
        `dry_run` all is checked that its user may read, and nothing written.

        Raises CvmtuneError if nothing is changed: the settings are not as planned any more, or an earlier
        apply or rollback was interrupted, or one setting failed and the others were put back (NotSet, if
        its knob did). PartlyApplied if they could not be. KeyboardInterrupt goes on once all is put back.
        """
        boot = present_boot(system)
        with nullcontext() if dry_run else journal.locked():
            applied = self._readable(journal) if dry_run else load(journal, self.settings)
            for one in applied:
                if one.boot == boot and not one.finished:
                    raise CvmtuneError(
                        "an earlier change was interrupted, and not taken back since",
                        str(one.entry.path),
                        _ROLLBACK,
                    )
            self._check_still_planned(system, changes)
            if dry_run:
                return
            for one in applied:
                if one.boot != boot:
                    one.entry.remove()
            is_newest = bool(applied) and applied[-1].boot == boot and applied[-1].wants(changes)
            if is_newest and not any(change.changes for change in changes):
                return
            entry = journal.begin(record(boot, _release(system), changes, source))
            self._make(system, entry, changes)

    def verify(self, system: System, journal: Journal) -> Verification:
        """Compare what was applied with what is; writes nothing, and makes no journal where there is none.

        Raises CvmtuneError if the journal cannot be read.
        """
        applied = load(journal, self.settings)
        boot = present_boot(system)
        newest = applied[-1] if applied else None
        wanted = {change.name: change for one in applied for change in one.changes}
        return Verification(
            applied=newest is not None,
            interrupted=any(one.boot == boot and not one.finished for one in applied),
            restarted=newest is not None and newest.boot != boot,
            source=newest.source if newest else "",
            kernel=newest.kernel if newest else "",
            running=_release(system),
            checks=tuple(self.check(system, wanted[name]) for name in self.settings if name in wanted),
        )

    def rollback(self, system: System, journal: Journal, *, dry_run: bool = False) -> list[Restored]:
        """Put each setting back to what it was before the first apply; a second time there is nothing to do.

        Each is set once, straight to that value: what was applied in between may not be possible any more, a
        CPU having gone offline. With `dry_run` nothing is written; what would be done is returned.

        Raises PartlyApplied if some settings could not be put back: the others are, and another rollback()
        tries again. CvmtuneError if the journal cannot be read or written.
        """
        if not journal.entries():
            return []
        with nullcontext() if dry_run else journal.locked():
            applied = load(journal, self.settings)
            boot = present_boot(system)
            ended = [one for one in applied if one.boot != boot]
            restored = [self._look(system, steps, restarted=True) for steps in self._by_setting(ended)]
            ours = [one for one in applied if one.boot == boot]
            if dry_run:
                return restored + [self._look(system, steps) for steps in self._by_setting(ours)]
            for one in ended:
                one.entry.remove()
            return restored + self._restore(system, ours)

    # apply

    def _readable(self, journal: Journal) -> list[Applied]:
        """What the journal has; nothing if only root may read it."""
        try:
            return load(journal, self.settings)
        except CvmtuneError as error:
            if isinstance(error.__cause__, PermissionError):
                return []
            raise

    def _plan(self, system: System, name: str, want: Any) -> Change:
        try:
            return Change(name, self.settings[name].knob.plan(system, want))
        except KnobError as error:
            raise type(error)(f"{name}: {error.what}", error.where, error.next_step) from error

    def _check_still_planned(self, system: System, changes: Sequence[Change]) -> None:
        # Undoing a change that a knob refused, another having set it since it was planned, would overwrite
        # what that other wants.
        again = self.plan(system, {change.name: change.plan.after for change in changes})
        if again != list(changes):
            changed = [new.name for new in again if new not in changes]
            raise CvmtuneError(
                f"no longer as planned: {', '.join(changed)}",
                next_step="find out who else sets it, then try again",
            )

    def _make(self, system: System, entry: Entry, changes: Sequence[Change]) -> None:
        """Make the changes of an entry; if anything fails undo those begun, drop the entry and raise."""
        begun: list[Change] = []
        doing = ""
        try:
            for index, change in enumerate(changes):
                if change.changes:
                    doing = f"set {change.name}"
                    entry.mark(begin=index)
                    begun.append(change)
                    self.settings[change.name].knob.apply(system, change.plan)
                    entry.mark(done=index)
            doing = "finish the journal's entry"
            entry.mark(complete=True)
        except (Exception, KeyboardInterrupt) as failure:
            told = _told(failure)
            self._take_back(system, entry, begun, f"cannot {doing}: {told.what}")
            if isinstance(failure, KeyboardInterrupt):
                raise
            if isinstance(failure, KnobError):
                raise NotSet(begun[-1].name, failure) from failure
            raise CvmtuneError(
                f"cannot {doing}: {told.what}; all settings are as before", told.where, told.next_step
            ) from failure

    def _take_back(self, system: System, entry: Entry, begun: Sequence[Change], why: str) -> None:
        stuck: list[tuple[Change, BaseException]] = []
        for change in reversed(begun):
            try:
                if system.exists(change.plan.path):
                    self.settings[change.name].knob.undo(system, change.plan)
            # Nor may an impatient second Ctrl-C leave the settings before this one as they are.
            except (Exception, KeyboardInterrupt) as error:
                stuck.append((change, error))
        if stuck:
            raise PartlyApplied(f"{why}; {self._in_force(system, stuck)}", str(entry.path), _ROLLBACK)
        _drop([entry], f"{why}; all settings are as before")

    # verify

    def check(self, system: System, change: Change) -> Check:
        """Compare what a change was to set with what is."""
        knob = self.settings[change.name].knob
        state = knob.read(system)
        problem = state.problem
        try:
            if state.value == change.plan.after and not knob.verify(system, change.plan):
                problem = "the control shows it, but its CPU is not online"
        except KnobError as error:
            problem = str(error)
        return Check(change.name, change.plan.path, change.plan.after, state.value, problem)

    # rollback

    def _by_setting(self, applied: Sequence[Applied]) -> list[list[Step]]:
        return by_setting(applied, self.settings)

    def _look(self, system: System, steps: Sequence[Step], *, restarted: bool = False) -> Restored:
        oldest = steps[-1].change
        found = self.settings[oldest.name].knob.read(system).value
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

    def _restore(self, system: System, applied: Sequence[Applied]) -> list[Restored]:
        # A full disk must not keep settings in force. So marks that cannot be written are done without: then
        # a later rollback puts back again what is so already.
        for one in reversed(applied):
            if one.finished:
                with suppress(CvmtuneError):
                    one.entry.mark(rollback=True)
        restored: list[Restored] = []
        stuck: list[tuple[Change, BaseException]] = []
        for steps in self._by_setting(applied):
            oldest = steps[-1].change
            try:
                look = self._look(system, steps)
                if not look.gone:
                    self.settings[oldest.name].knob.undo(system, oldest.plan)
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
            next_step = f"remove the cause, then {_ROLLBACK}"
            raise PartlyApplied(self._in_force(system, stuck), next_step=next_step)
        _drop([one.entry for one in reversed(applied)], "all settings are as before")
        return restored

    def _in_force(self, system: System, stuck: Sequence[tuple[Change, BaseException]]) -> str:
        """Say what has become of settings that could not be put back, and why."""
        found = []
        for change, error in stuck:
            present = None
            # If the machine is lost, it may raise more than a knob's read() looks for.
            with suppress(Exception, KeyboardInterrupt):
                present = self.settings[change.name].knob.read(system).value
            told = _told(error).what
            found.append(
                f"{change.name} is {present or 'unreadable'}, not {change.plan.before} as before: {told}"
            )
        return f"still in force: {'; '.join(found)}"


def present_boot(system: System) -> str:
    """Return what names the present boot; CvmtuneError if it cannot be told.

    Entries of another boot are dropped, with what they would put back. So what is no name is not taken for
    that of another.
    """
    try:
        boot = system.read_text(BOOT_ID).strip()
    except OSError as error:
        raise CvmtuneError(f"cannot read which boot this is: {error.strerror}", BOOT_ID) from error
    if not _UUID.fullmatch(boot):
        raise CvmtuneError("which boot this is cannot be told: this is no id of one", BOOT_ID)
    return boot


def _release(system: System) -> str:
    # It is for people to read alone.
    with suppress(OSError):
        return system.read_text(RELEASE).strip() or "unknown"
    return "unknown"


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
