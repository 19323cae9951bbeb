# SPDX-License-Identifier: Apache-2.0
"""Settings applied as far as they can be had: what may be left out does not keep the others from being set.

[set-if-present] may be left out, and what a profile names under `retry`; all else is had, or nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Wanted
from cvmtune.core.errors import CvmtuneError
from cvmtune.tuning.applied import Change, load
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.outcome import NotSet
from cvmtune.tuning.profile import resolve
from cvmtune.tuning.setting import Facts, is_off
from cvmtune.tuning.transaction import present_boot


@dataclass
class Attempt:
    """Settings on one system: `values` are those to have, by name, in order; `changes` are what it takes.

    `left_out` are the others, and why; `left_alone` what others have applied since the last attempt.
    """

    site: Site
    one: Wanted
    values: dict[str, Any]
    left_out: dict[str, str]
    left_alone: Mapping[str, str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    @property
    def again(self) -> list[str]:
        """What is left out and may be had later."""
        return [name for name in self.left_out if name in self.one.profile.retry]

    def plan(self) -> None:
        """Check what can be set, and leave out what cannot; KnobError for what must not be left out."""
        self.changes = []
        for name in list(self.values):
            # One that is switched on by another's help may have gone with that.
            if name in self.values:
                self._plan(name)
        self.changes = [change for change in self.changes if change.name in self.values]

    def make(self, *, dry_run: bool = False) -> None:
        """Make the planned changes, and without those that fail, if they may be left out; `dry_run` and
        errors as with Transactions.apply()."""
        for _ in range(len(self.values) + 1):
            if not self.changes and self.one.profile.retry:
                return  # an attempt that sets nothing is not worth an entry in the journal each time
            try:
                self.site.registry.transactions.apply(
                    self.site.system, self.site.journal, self.changes, self.one.source, dry_run=dry_run
                )
            except NotSet as error:
                if not self._may_lack(error.setting):
                    raise
                self.leave_out(error.setting, error.why)
                self.plan()
            except KnobError:
                # It was refused between plan() and now: that plan() says which, and whether it may be.
                self.plan()
            else:
                return
        raise CvmtuneError("the settings change all the time", next_step="find out who else sets them")

    def leave_out(self, name: str, why: CvmtuneError | str) -> None:
        """Do without a setting, and so without what [set] switches on only together with it."""
        if isinstance(why, CvmtuneError):
            reason = why.what.removeprefix(f"{name}: ")
            why = f"{reason}; next: {why.next_step}" if why.next_step else reason
        self.values.pop(name, None)
        self.left_out[name] = why
        main = next(one.main for one in self.site.registry.features if name in {s.name for s in one.settings})
        if main is None or name not in self.one.profile.settings or main.name not in self.values:
            return
        if self._may_lack(main.name) and not is_off(main, main.knob.encode(self.values[main.name])):
            self.values.pop(main.name)
            self.left_out[main.name] = f"it is not switched on without {name}"

    def _may_lack(self, name: str) -> bool:
        return name in self.one.profile.optional or name in self.one.profile.retry

    def _plan(self, name: str) -> None:
        try:
            self.changes += self.site.registry.transactions.plan(self.site.system, {name: self.values[name]})
        except KnobError as error:
            if not self._may_lack(name):
                raise
            self.leave_out(name, error)


def attempt(site: Site, one: Wanted, facts: Facts) -> Attempt:
    """Plan settings on a system that meets their preconditions."""
    resolved = resolve(one.profile, facts, site.registry.settings)
    values = dict(resolved.settings)
    left_alone = {}
    for name, source in _applied_since(site, one).items():
        if name in values:
            left_alone[name] = f"since then applied: {source}"
            del values[name]
    found = Attempt(site, one, values, {}, left_alone)
    for name, why in resolved.left_out.items():
        found.leave_out(name, why)
    found.plan()
    return found


def _applied_since(site: Site, one: Wanted) -> Mapping[str, str]:
    """What somebody else has applied on this boot since these settings were, by name, and by which source.

    What is tried again every half minute must not overwrite it each time.
    """
    if not one.profile.retry:
        return {}
    boot = present_boot(site.system)
    since: dict[str, str] = {}
    ours = False
    for entry in load(site.journal, site.registry.settings):
        if entry.boot != boot:
            continue
        names = [change.name for change in entry.changes]
        if entry.source == one.source:
            ours, since = True, {name: source for name, source in since.items() if name not in names}
        elif ours:
            since |= dict.fromkeys(names, entry.source)
    return since
