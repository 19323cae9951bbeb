# SPDX-License-Identifier: Apache-2.0
"""`cvmtune status`: where we are, what is on, what it did, what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict

from cvmtune import __version__
from cvmtune.commands.site import Site
from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.figure import known, reasons
from cvmtune.core.text import columns
from cvmtune.features import risks
from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.features.registry import Registry
from cvmtune.features.words import named_cpus
from cvmtune.observe.monitor import SILENT
from cvmtune.observe.platform import Platform
from cvmtune.observe.timer import Timers
from cvmtune.tuning.outcome import Verification

_FLAVOURS = {
    "ours": "with cvmtune's patches",
    "vendor": "a vendor's, with the features but not by cvmtune's patches",
    "neither": "without the features",
}


def main(site: Site, *, as_json: bool) -> int:
    """Print the state of the system; return 0. A guest is watched for a moment."""
    seen, where, timers = site.watch_timers()
    registry = site.registry
    features = registry.status(seen, where)
    applied, problem = _applied(site)
    found = registry.risks(seen, where, features)
    if timers:
        found += risks.timers(timers)
    if problem:
        found.append(Risk(problem.what, problem.next_step))
    elif applied and applied.interrupted:
        found.append(Risk("a change of settings was interrupted, or is at work", "cvmtune rollback"))
    elif applied and applied.restarted:
        what = f"what was applied ({applied.source}) ended with an earlier boot"
        found.append(Risk(what, "apply it again; cvmtune persist has it applied at each boot"))
    elif applied and not all(check.holds for check in applied.checks):
        found.append(Risk("not all that was applied is in force", "cvmtune verify"))
    if as_json:
        print(json.dumps(_content(registry, where, timers, features, applied, found), indent=2))
    else:
        _print(registry, where, timers, features, applied, found)
    return 0


def _applied(site: Site) -> tuple[Verification | None, CvmtuneError | None]:
    # What was applied is root's to know. That must not keep anybody from the rest.
    try:
        return site.registry.transactions.verify(site.system, site.journal), None
    except CvmtuneError as error:
        return None, error


def _content(
    registry: Registry,
    where: Platform,
    timers: Timers | None,
    features: list[FeatureStatus],
    applied: Verification | None,
    found: list[Risk],
) -> dict[str, object]:
    return {
        "schema": 1,
        "version": __version__,
        "role": where.role,
        "confidential": where.confidential,
        "monitor": where.monitor,
        "kernel": {"release": where.release, "flavour": where.flavour},
        "cpus": {
            "online": where.online.to_list() or None,
            "possible": where.possible.to_list() or None,
            "unknown": where.untold,
        },
        "timer": _timer(timers) if timers else None,
        "features": [_feature(registry, one) for one in features],
        "applied": asdict(applied) if applied and applied.applied else None,
        "risks": [asdict(risk) for risk in found],
    }


def _timer(timers: Timers) -> dict[str, object]:
    unknown = {str(cpu): why for cpu, why in timers.unknown.items()}
    return {"arrives": timers.arrives.to_list(), "silent": timers.silent.to_list(), "unknown": unknown}


def _feature(registry: Registry, one: FeatureStatus) -> dict[str, object]:
    """A feature; a figure that is not known is null, and `unknown` says why."""
    return {
        "name": one.name,
        "status": one.status,
        "settings": _texts(registry, one),
        "did": one.did,
        "statistics": {name: known(figure) for name, figure in one.statistics.items()},
        "unknown": reasons(one.statistics),
        "problem": one.problem,
    }


def _print(
    registry: Registry,
    where: Platform,
    timers: Timers | None,
    features: list[FeatureStatus],
    applied: Verification | None,
    found: list[Risk],
) -> None:
    rows = [
        ("role", _role(where)),
        ("kernel", f"{where.release}, {_FLAVOURS[where.flavour]}"),
        ("CPUs", _online(where)),
        *([("timer", _timer_words(timers))] if timers else []),
        ("applied", _applied_words(registry, applied)),
    ]
    print(columns(rows), end="\n")
    table = [("FEATURE", "STATE", "SETTINGS", "SINCE BOOT")]
    for feature in features:
        settings = ", ".join(
            registry.shown(name, text) if name == feature.name else f"{name} {text}"
            for name, text in _texts(registry, feature).items()
        )
        table.append((feature.name, feature.status, settings or "-", feature.did or feature.problem))
    print(columns([tuple(cell.replace("\n", ";") for cell in row) for row in table]), end="\n")
    print("Risks:" if found else "No risks seen.")
    print(columns([("-", f"{risk.what}. Next: {risk.next_step}") for risk in found], indent="  "), end="")


def _texts(registry: Registry, feature: FeatureStatus) -> dict[str, str]:
    """A feature's settings in canonical form, its main one first."""
    return {name: registry.settings[name].knob.encode(value) for name, value in feature.settings.items()}


def _role(where: Platform) -> str:
    claimed = (
        f"started as one ({where.claim}), but the monitor does not answer: not confidential"
        if where.claim
        else ""
    )
    if where.role == "machine":
        role = "a machine without KVM, or whose KVM is not in use"
        return f"{role}; an image of a confidential guest, {claimed}" if claimed else role
    if where.role == "host":
        kind = f"behind {where.monitor}" if where.confidential else "without a monitor for confidential VMs"
        return f"host, {kind}"
    if where.confidential:
        return f"guest, confidential: behind {where.monitor}"
    if claimed:
        return f"guest, of a confidential guest's image: {claimed}"
    if where.monitor != SILENT:
        return f"guest; its monitor is {where.monitor}"
    return "guest; not confidential, or behind a monitor that does not show itself, as pKVM"


def _online(where: Platform) -> str:
    why = where.untold.get("online")
    return f"which are online cannot be told: {why}" if why else f"{where.online.to_list()} online"


def _timer_words(timers: Timers) -> str:
    said = []
    if timers.arrives:
        said.append(f"its interrupt arrives on {named_cpus(timers.arrives)}")
    if timers.silent:
        said.append(f"its interrupt does not arrive on {named_cpus(timers.silent)}")
    for why in dict.fromkeys(timers.unknown.values()):
        cpus = CpuMask(frozenset(cpu for cpu, one in timers.unknown.items() if one == why))
        each = "each of " if len(cpus) > 1 else ""
        said.append(f"whether its interrupt arrives cannot be told for {each}{named_cpus(cpus)}: {why}")
    return "; ".join(said) or "not known"


def _applied_words(registry: Registry, applied: Verification | None) -> str:
    if applied is None:
        return "not known"
    if not applied.applied:
        return "nothing by cvmtune"
    settings = (f"{one.name} {registry.shown(one.name, one.wanted)}" for one in applied.checks)
    return f"{applied.source}: {', '.join(settings)}"
