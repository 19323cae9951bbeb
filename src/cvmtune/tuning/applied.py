# SPDX-License-Identifier: Apache-2.0
"""What the journal says of settings that were applied: its entries, understood.

Each apply has an entry, there before the first knob is touched:

- its record: when, on which boot, by which version, for whom, and each change with the value before it;
- marks `begin` and `done` with a change's index, around its write, and at the end `complete`;
- marks `rollback`, when that has begun, and `undone` with the index of each change put back since.

What an entry says counts for its own boot: a control forgets what it was set to when its kernel ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cvmtune import __version__
from cvmtune.core.errors import CvmtuneError
from cvmtune.tuning.contract import Plan
from cvmtune.tuning.journal import Entry, Journal

_SCHEMA = 1


@dataclass(frozen=True)
class Change:
    """A change of one setting, by its name."""

    name: str
    plan: Plan

    @property
    def changes(self) -> bool:
        """Tell whether there is anything to do."""
        return self.plan.before != self.plan.after


@dataclass(frozen=True)
class Applied:
    """One apply. `kernel` is a release, `source` says for whom, as "profile database"."""

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

    def wants(self, changes: Sequence[Change]) -> bool:
        """Tell whether it was to reach the same values as these changes."""
        return [(c.name, c.plan.after) for c in self.changes] == [(c.name, c.plan.after) for c in changes]


@dataclass(frozen=True)
class Step:
    """A change that an apply has begun."""

    entry: Entry
    index: int
    change: Change
    undone: bool


def record(boot: str, kernel: str, changes: Sequence[Change], source: str) -> dict[str, object]:
    """Return the record of a new entry."""
    return {
        "schema": _SCHEMA,
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "boot_id": boot,
        "kernel": kernel,
        "source": source,
        "changes": [{"name": change.name, **asdict(change.plan)} for change in changes],
    }


def load(journal: Journal, known: Collection[str]) -> list[Applied]:
    """Return what the journal has, oldest first; CvmtuneError for an entry that has a setting not `known`, or
    cannot be understood otherwise."""
    return [_decode(entry, known) for entry in journal.entries()]


def by_setting(applied: Sequence[Applied], order: Iterable[str]) -> list[list[Step]]:
    """Return the changes of each setting that is to be put back, newest first; last set, first undone."""
    steps: dict[str, list[Step]] = {name: [] for name in reversed(list(order))}
    for one in reversed(applied):
        undone = one.marked("undone")
        for index in sorted(one.marked("begin"), reverse=True):
            change = one.changes[index]
            steps[change.name].append(Step(one.entry, index, change, index in undone))
    return [found for found in steps.values() if not all(step.undone for step in found)]


def _decode(entry: Entry, known: Collection[str]) -> Applied:
    match entry.record:
        case {
            "schema": int(schema),
            "boot_id": str(boot),
            "kernel": str(kernel),
            "source": str(source),
            "changes": list(items),
        } if schema == _SCHEMA:
            changes = tuple(_decode_change(entry, item, known) for item in items)
            one = Applied(entry, boot, kernel, source, changes)
            if (one.marked("begin") | one.marked("undone")) <= set(range(len(changes))):
                return one
    raise _not_understood(entry)


def _decode_change(entry: Entry, item: object, known: Collection[str]) -> Change:
    match item:
        case {"name": str(name), "path": str(path), "before": str(before), "after": str(after)} if (
            name in known
        ):
            return Change(name, Plan(path, before, after))
    raise _not_understood(entry)


def _not_understood(entry: Entry) -> CvmtuneError:
    return CvmtuneError(
        f"this cvmtune cannot read an entry of the journal, made by version {entry.record.get('version')}",
        str(entry.path),
        "use the version that made it; or restart the machine, then remove the file",
    )
