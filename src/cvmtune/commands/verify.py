# SPDX-License-Identifier: Apache-2.0
"""`cvmtune verify`: is what was applied, and what is to be applied at each boot, in force?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from cvmtune.commands.persisted import Persisted, look
from cvmtune.commands.site import Site
from cvmtune.core.text import columns
from cvmtune.features.registry import Registry
from cvmtune.tuning.outcome import Check, Verification


def main(site: Site, *, as_json: bool) -> int:
    """Print a comparison of what was applied, and persisted, with what is; return 0 if it is in force, else
    1.

    Where nothing was applied, and nothing is to be at each boot, that is in force.
    """
    found = site.registry.transactions.verify(site.system, site.journal)
    persisted = look(site)
    fault = "; ".join([*_faults(found), *_faults_of_boot(found, persisted)])
    if as_json:
        content = {"schema": 1, "in_force": not fault, "why": fault, **asdict(found)}
        content["checks"] = _checks(found.checks)
        content["persisted"] = {**asdict(persisted), "checks": _checks(persisted.checks)}
        print(json.dumps(content, indent=2))
    else:
        _print(site.registry, found, persisted, fault)
    return 1 if fault else 0


def _faults(found: Verification) -> Iterator[str]:
    """What of the applied is not as it should be."""
    if found.interrupted:
        yield "a change was interrupted, or is at work: if none is, run cvmtune rollback"
        return
    if found.restarted:
        kernel = (
            f"; its kernel was {found.kernel}, this is {found.running}"
            if found.kernel != found.running
            else ""
        )
        yield f"the machine was restarted since, which ended it{kernel}"
        return
    if broken := [one.name for one in found.checks if not one.holds]:
        yield f"changed since: {', '.join(broken)}"


def _faults_of_boot(found: Verification, persisted: Persisted) -> Iterator[str]:
    """What of that which is to be applied at each boot is not as it should be."""
    if persisted.problem:
        yield f"at each boot nothing can be applied: {persisted.problem}"
        return
    if not persisted.broken:
        return
    names = ", ".join(persisted.broken)
    if found.applied and not found.restarted:
        yield f"not as persisted: {names}"
        return
    unmet = f" ({'; '.join(persisted.unmet)})" if persisted.unmet else ""
    yield f"what is to be applied at each boot has not been: {names}{unmet}: systemctl status cvmtune"


def _print(registry: Registry, found: Verification, persisted: Persisted, fault: str) -> None:
    if found.applied:
        print(f"applied: {found.source}")
        rows = [("SETTING", "APPLIED", "NOW", ""), *(_row(registry, one) for one in found.checks)]
        print(columns(rows, indent="  "), end="")
    else:
        print("Nothing has been applied, or all was rolled back.")
    if persisted.at_boot:
        print(f"at each boot: {persisted.source}")
        if broken := [one for one in persisted.checks if not one.holds]:
            rows = [("SETTING", "PERSISTED", "NOW", ""), *(_row(registry, one) for one in broken)]
            print(columns(rows, indent="  "), end="")
        shown = {one.name for one in persisted.checks}
        for name, why in persisted.left_out.items():
            if name not in shown:
                print(f"left out: {name}, {why}")
    if persisted.note:
        print(persisted.note)
    if fault:
        print(f"NOT in force: {fault}")
    elif found.applied:
        print("All in force.")


def _checks(checks: Iterable[Check]) -> list[dict[str, object]]:
    return [{**asdict(one), "holds": one.holds} for one in checks]


def _row(registry: Registry, one: Check) -> tuple[str, str, str, str]:
    present = registry.shown(one.name, one.present) if one.present is not None else "?"
    note = "" if one.holds else (one.problem or "differs").replace("\n", ";")
    return one.name, registry.shown(one.name, one.wanted), present, note
