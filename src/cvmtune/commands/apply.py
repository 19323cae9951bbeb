# SPDX-License-Identifier: Apache-2.0
"""`cvmtune apply`: plan, check, set, and remember what was before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cvmtune.commands.attempt import Attempt, attempt
from cvmtune.commands.site import Site
from cvmtune.commands.wanted import check, wanted
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.text import columns
from cvmtune.tuning.setting import Facts

# Not all of what a profile says may wait could be had: the rest is set, and it is to be tried again.
INCOMPLETE = 6


def main(site: Site, what: str | None, flags: Mapping[str, str], *, dry_run: bool, as_json: bool) -> int:
    """Apply, or with `dry_run` show what would be; return 0, or INCOMPLETE.

    Raises UsageError, Unmet if the system is not as required, CvmtuneError if nothing could be set, and
    PartlyApplied if something is set that could not be taken back.
    """
    one = wanted(site, what, flags)
    facts = site.facts(watch=one.profile.require.own_cpus)
    check(site, one, facts)
    found = attempt(site, one, facts)
    found.make(dry_run=dry_run)
    costs = _costs(found, facts)
    if as_json:
        print(json.dumps(_content(found, costs, dry_run=dry_run), indent=2))
    else:
        _print(found, costs, dry_run=dry_run)
    return INCOMPLETE if found.again else 0


def _costs(found: Attempt, facts: Facts) -> list[str]:
    """What the settings cost. By now they are in force, so that it cannot be told is no failure."""
    told: list[str] = []
    for feature in found.site.registry.features:
        try:
            told += feature.costs(found.values, found.site.system, facts)
        except (CvmtuneError, OSError) as error:
            told.append(f"that of {feature.name} cannot be told: {str(error).splitlines()[0]}")
    return told


def _content(found: Attempt, costs: Sequence[str], *, dry_run: bool) -> dict[str, object]:
    return {
        "schema": 1,
        "source": found.one.source,
        "applied": not dry_run,
        "changes": [
            {
                "name": change.name,
                "path": change.plan.path,
                "before": change.plan.before,
                "after": change.plan.after,
                "shown": found.site.registry.shown(change.name, change.plan.after),
            }
            for change in found.changes
        ],
        "left_out": found.left_out,
        "left_alone": dict(found.left_alone),
        "try_again": found.again,
        "costs": list(costs),
    }


def _print(found: Attempt, costs: Sequence[str], *, dry_run: bool) -> None:
    shown = found.site.registry.shown
    source, changes = found.one.source, found.changes
    verb = "would set" if dry_run else "has set"
    print(f"{source} {verb}:" if changes else f"{source}: nothing to set here")
    rows = [("SETTING", "BEFORE", "AFTER", "FILE")] if changes else []
    for change in changes:
        plan = change.plan
        after = shown(change.name, plan.after) if change.changes else "as it is"
        rows.append((change.name, shown(change.name, plan.before), after, plan.path))
    print(columns(rows, indent="  "), end="")
    for name, why in found.left_out.items():
        print(f"left out: {name}, {why}")
    for name, why in found.left_alone.items():
        print(f"left alone: {name}, {why}")
    for cost in costs:
        print(f"cost: {cost}")
    if found.again:
        print(f"not complete: apply it again for {', '.join(found.again)}")
    if not dry_run and changes:
        print("To take it back: cvmtune rollback")
