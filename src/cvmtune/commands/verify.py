# SPDX-License-Identifier: Apache-2.0
"""`cvmtune verify`: is what was applied still in force?"""

from __future__ import annotations

import json
from dataclasses import asdict

from cvmtune.commands.persist import persisted
from cvmtune.commands.site import Site
from cvmtune.core.text import columns
from cvmtune.features.registry import Registry
from cvmtune.tuning.transaction import Check, Verification


def main(site: Site, *, as_json: bool) -> int:
    """Print a comparison of what was applied with what is; return 0 if it is in force, else 1.

    Where nothing was applied, that is in force, unless something is to be applied at each boot.
    """
    found = site.registry.transactions.verify(site.system, site.journal)
    fault = _fault(site, found)
    if as_json:
        content = {"schema": 1, "in_force": not fault, "why": fault, **asdict(found)}
        content["checks"] = [{**asdict(one), "holds": one.holds} for one in found.checks]
        print(json.dumps(content, indent=2))
    else:
        _print(site.registry, found, fault)
    return 1 if fault else 0


def _fault(site: Site, found: Verification) -> str:
    """What is not as it should be; nothing if all is."""
    if found.interrupted:
        return "a change was interrupted, or is at work: if none is, run cvmtune rollback"
    if found.restarted:
        kernel = (
            f"; its kernel was {found.kernel}, this is {found.running}"
            if found.kernel != found.running
            else ""
        )
        return f"the machine was restarted since, which ended it{kernel}"
    if not found.applied and persisted(site):
        return "what is to be applied at each boot has not been: systemctl status cvmtune"
    broken = [one.name for one in found.checks if not one.holds]
    return f"changed since: {', '.join(broken)}" if broken else ""


def _print(registry: Registry, found: Verification, fault: str) -> None:
    if found.applied:
        print(f"applied: {found.source}")
        rows = [("SETTING", "APPLIED", "NOW", ""), *(_row(registry, one) for one in found.checks)]
        print(columns(rows, indent="  "), end="")
    else:
        print("Nothing has been applied, or all was rolled back.")
    if fault:
        print(f"NOT in force: {fault}")
    elif found.applied:
        print("All in force.")


def _row(registry: Registry, one: Check) -> tuple[str, str, str, str]:
    present = registry.shown(one.name, one.present) if one.present is not None else "?"
    note = "" if one.holds else (one.problem or "differs").replace("\n", ";")
    return one.name, registry.shown(one.name, one.wanted), present, note
