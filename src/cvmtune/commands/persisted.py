# SPDX-License-Identifier: Apache-2.0
"""What is to be applied at each boot, compared with what is."""

from __future__ import annotations

from dataclasses import dataclass, field

from cvmtune.commands import unit_files
from cvmtune.commands.site import Site
from cvmtune.core.errors import CvmtuneError
from cvmtune.tuning.applied import Change
from cvmtune.tuning.contract import Plan
from cvmtune.tuning.outcome import Check
from cvmtune.tuning.profile import resolve, unmet


@dataclass(frozen=True)
class Persisted:
    """What is to be applied at each boot.

    `note` says why nothing is, though there are files for it, or what else is worth to be told; `problem` why
    nothing can be. `checks` are of the settings that this system can be asked for, `left_out` the others, and
    why. `unmet` are the preconditions that do not hold now.
    """

    at_boot: bool
    source: str = ""
    note: str = ""
    problem: str = ""
    checks: tuple[Check, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    unmet: tuple[str, ...] = ()

    @property
    def broken(self) -> list[str]:
        """The settings that are not as they are to be."""
        return [one.name for one in self.checks if not one.holds]


def look(site: Site) -> Persisted:
    """Compare what is to be applied at each boot with what is; writes nothing and never raises for files."""
    found = unit_files.find(site)
    if found.kind == "masked":
        return Persisted(False, note=f"not persisted: cvmtune.service is masked ({found.path})")
    if found.kind == "foreign":
        return Persisted(False, note=f"not persisted: cvmtune persist has not made {found.path}")
    if found.kind == "none":
        left = "a persist was interrupted: try it again, or cvmtune unpersist"
        return Persisted(False, note=f"not persisted: {left}" if site.persisted.exists() else "")
    if not found.links:
        disabled = "cvmtune.service is not enabled: systemctl enable cvmtune, or cvmtune unpersist"
        return Persisted(False, note=f"not persisted: {disabled}")
    note = unit_files.changed_by(found)
    try:
        profile = site.profiles.load(str(site.persisted))
    except CvmtuneError as error:
        problem = f"{error.what} ({error.where or site.persisted})"
        return Persisted(True, note=note, problem=f"{problem}: persist it again, or cvmtune unpersist")
    facts = site.facts(watch=profile.require.own_cpus)
    settings = site.registry.settings
    checks = []
    resolved = resolve(profile, facts, settings)
    values = site.registry.encode(resolved.settings)
    for name, setting in settings.items():
        if name in values:
            after = values[name]
        elif name in profile.retry:
            after = {**profile.settings, **profile.optional}.get(name, "")
        else:
            continue
        plan = Plan(setting.knob.path, after, after)
        checks.append(_check(site, Change(name, plan), is_there=name in values))
    clauses = tuple(unmet(profile, facts, settings))
    return Persisted(True, profile.description, note, "", tuple(checks), dict(resolved.left_out), clauses)


def _check(site: Site, change: Change, *, is_there: bool) -> Check:
    if is_there:
        return site.registry.transactions.check(site.system, change)
    knob = site.registry.settings[change.name].knob
    return Check(change.name, change.plan.path, change.plan.after, None, knob.read(site.system).problem)
