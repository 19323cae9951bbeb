# SPDX-License-Identifier: Apache-2.0
"""`cvmtune apply`: plan, check, set, and remember what was before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Wanted, check, wanted
from cvmtune.core.cpumask import CpuMask
from cvmtune.core.text import columns
from cvmtune.features.catalogue import KNOBS
from cvmtune.features.status import shown
from cvmtune.tuning import transaction
from cvmtune.tuning.profiles import Facts, Resolved, resolve
from cvmtune.tuning.transaction import Change


def main(site: Site, what: str | None, flags: Mapping[str, str], *, dry_run: bool, as_json: bool) -> int:
    """Apply, or with `dry_run` show what would be; return 0.

    Raises UsageError, Unmet if the system is not as required, CvmtuneError if nothing could be set, and
    PartlyApplied if something is set that could not be taken back.
    """
    one = wanted(site, what, flags)
    facts = site.facts()
    check(one, facts)
    resolved = resolve(one.profile, facts)
    changes = transaction.plan(site.system, resolved.settings)
    if not dry_run:
        transaction.apply(site.system, site.journal, changes, one.source)
    costs = list(_costs(changes, facts, KNOBS["ipi-poll-us"].read(site.system).value or "0"))
    if as_json:
        print(json.dumps(_content(one, changes, resolved, costs, dry_run=dry_run), indent=2))
    else:
        _print(one, changes, resolved, costs, dry_run=dry_run)
    return 0


def _content(
    one: Wanted, changes: Sequence[Change], resolved: Resolved, costs: Sequence[str], *, dry_run: bool
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
                "shown": shown(change.name, change.plan.after),
            }
            for change in changes
        ],
        "left_out": dict(resolved.left_out),
        "costs": list(costs),
    }


def _print(
    one: Wanted, changes: Sequence[Change], resolved: Resolved, costs: Sequence[str], *, dry_run: bool
) -> None:
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


def _costs(changes: Sequence[Change], facts: Facts, bound: str) -> Iterator[str]:
    """What is paid for these changes; `bound` is that of polling if they have none."""
    after = {change.name: change.plan.after for change in changes}
    soft = CpuMask.from_hex(after.get("ipi", "0"))
    if soft:
        every = f" - ALL of this machine's {len(soft)}" if soft >= facts.online else ""
        bound = after.get("ipi-poll-us", bound)
        limit = (
            f"; each idle vCPU polls {bound} us at most" if bound != "0" else ", also when nothing is done"
        )
        yield f"up to {len(soft)} physical CPUs kept busy by polling vCPUs{every}{limit}"
    if after.get("cq-poll", "-1") != "-1":
        yield f"up to 1 CPU, number {after['cq-poll']}, busy while completions come"
    if CpuMask.from_hex(after.get("wfx", "0")):
        ids = len(CpuMask.from_hex(after["wfx"]))
        yield f"up to {ids} physical CPUs for each VM show as busy, always, and go no deeper than WFI"
