# SPDX-License-Identifier: Apache-2.0
"""`cvmtune rollback`: have all as it was before the first apply."""

from __future__ import annotations

import json
from dataclasses import asdict

from cvmtune.commands.site import Site
from cvmtune.core.text import columns
from cvmtune.features.registry import Registry
from cvmtune.tuning.outcome import Restored


def main(site: Site, *, dry_run: bool, as_json: bool) -> int:
    """Put back what was before, or with `dry_run` show what would be; return 0, also if there is nothing.

    PartlyApplied if something could not be put back: all else is, and it may be tried again.
    """
    restored = site.registry.transactions.rollback(site.system, site.journal, dry_run=dry_run)
    if as_json:
        content = {"schema": 1, "rolled_back": not dry_run, "settings": [asdict(one) for one in restored]}
        print(json.dumps(content, indent=2))
        return 0
    if not restored:
        print("Nothing to roll back.")
        return 0
    print("would put back:" if dry_run else "has put back:")
    print(
        columns(
            [("SETTING", "WAS", "NOW", ""), *(_row(site.registry, one) for one in restored)], indent="  "
        ),
        end="",
    )
    return 0


def _row(registry: Registry, one: Restored) -> tuple[str, str, str, str]:
    found = "?" if one.found is None else registry.shown(one.name, one.found)
    if one.restarted:
        return one.name, found, found, "left: a restart has ended what was applied"
    if one.gone:
        return one.name, found, found, f"left: {one.path} has gone, and the setting with it"
    note = "somebody else had changed it since" if one.foreign else ""
    return one.name, found, registry.shown(one.name, one.value), note
