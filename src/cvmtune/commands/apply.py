# SPDX-License-Identifier: Apache-2.0
"""`cvmtune apply`: plan, check, set, and remember what was before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Wanted, check, wanted
from cvmtune.core.text import columns
from cvmtune.features.registry import Registry
from cvmtune.tuning.applied import Change
from cvmtune.tuning.profile import Resolved, resolve


def main(site: Site, what: str | None, flags: Mapping[str, str], *, dry_run: bool, as_json: bool) -> int:
    """Apply, or with `dry_run` show what would be; return 0.

    Raises UsageError, Unmet if the system is not as required, CvmtuneError if nothing could be set, and
    PartlyApplied if something is set that could not be taken back.
    """
    one = wanted(site, what, flags)
    facts = site.facts(watch=one.profile.require.own_cpus)
    check(site, one, facts)
    registry = site.registry
    resolved = resolve(one.profile, facts, registry.settings)
    changes = registry.transactions.plan(site.system, resolved.settings)
    registry.transactions.apply(site.system, site.journal, changes, one.source, dry_run=dry_run)
    costs = [
        cost for feature in registry.features for cost in feature.costs(resolved.settings, site.system, facts)
    ]
    if as_json:
        print(json.dumps(_content(registry, one, changes, resolved, costs, dry_run=dry_run), indent=2))
    else:
        _print(registry, one, changes, resolved, costs, dry_run=dry_run)
    return 0


def _content(
    registry: Registry,
    one: Wanted,
    changes: Sequence[Change],
    resolved: Resolved,
    costs: Sequence[str],
    *,
    dry_run: bool,
) -> dict[str, object]:
    return {
        "schema": 1,
        "source": one.source,
        "applied": not dry_run,
        "changes": [
            {
                "name": change.name,
                "path": change.plan.path,
                "before": change.plan.before,
                "after": change.plan.after,
                "shown": registry.shown(change.name, change.plan.after),
            }
            for change in changes
        ],
        "left_out": dict(resolved.left_out),
        "costs": list(costs),
    }


def _print(
    registry: Registry,
    one: Wanted,
    changes: Sequence[Change],
    resolved: Resolved,
    costs: Sequence[str],
    *,
    dry_run: bool,
) -> None:
    shown = registry.shown
    verb = "would set" if dry_run else "has set"
    print(f"{one.source} {verb}:" if changes else f"{one.source}: nothing to set here")
    rows = [("SETTING", "BEFORE", "AFTER", "FILE")] if changes else []
    for change in changes:
        plan = change.plan
        after = shown(change.name, plan.after) if change.changes else "as it is"
        rows.append((change.name, shown(change.name, plan.before), after, plan.path))
    print(columns(rows, indent="  "), end="")
    for name, why in resolved.left_out.items():
        print(f"left out: {name}, {why}")
    for cost in costs:
        print(f"cost: {cost}")
    if not dry_run and changes:
        print("To take it back: cvmtune rollback")
