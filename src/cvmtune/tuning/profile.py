# SPDX-License-Identifier: Apache-2.0
"""What a profile is, and what becomes of it on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cvmtune.tuning.setting import Facts, Settings

# Where to look when it is not so, or cannot be told.
_OWN_CPUS = {
    "guest": (
        "vCPUs that lose no time to others",
        "steal, the eighth number of line cpu in /proc/stat; where the hypervisor does not report it, on the "
        "host at the second number of /proc/PID/task/TID/schedstat of each vCPU's thread",
    ),
    "host": (
        "each vCPU's thread pinned to a CPU of its own",
        "Cpus_allowed_list in /proc/PID/task/TID/status of each vCPU's thread, while the VMs run",
    ),
    "machine": ("vCPUs that have physical CPUs of their own", "what this is: cvmtune status"),
}


@dataclass(frozen=True)
class Requirements:
    """What a machine must be like; `cpus` is how many are online at least, `possible` which it can have."""

    role: str | None = None
    cpus: int = 1
    features: tuple[str, ...] = ()
    own_cpus: bool = False
    possible: str | None = None


@dataclass(frozen=True)
class Profile:
    """A profile with all that it extends; `sources` are the files, its own first.

    `settings` and `optional`, [set] and [set-if-present], have checked values as people write them. `retry`
    are those of them that may have to wait: where one cannot be set now, it is left out and the others are.
    """

    name: str
    description: str
    sources: tuple[str, ...]
    require: Requirements
    settings: Mapping[str, str]
    optional: Mapping[str, str]
    retry: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A profile on one machine: values by setting, in the order of settings; what is left out, and why."""

    settings: Mapping[str, Any]
    left_out: Mapping[str, str]


def unmet(profile: Profile, facts: Facts, settings: Settings) -> list[str]:
    """Return each precondition of the profile that the machine does not meet, as a clause; also [set]'s,
    except for what may wait."""
    require = profile.require
    clauses = []
    fits_role = require.role in (None, facts.role)
    if not fits_role:
        clauses.append(f"wants a {require.role}, and this is a {facts.role}")
    if require.cpus > 1 and not facts.online:
        clauses.append(f"wants {require.cpus} CPUs online, and how many are cannot be told")
    elif facts.online and len(facts.online) < require.cpus:
        clauses.append(f"wants {require.cpus} CPUs online, and this machine has {len(facts.online)}")
    if require.possible is not None and not facts.possible:
        clauses.append(f"it is for CPUs {require.possible}, and which this machine can have cannot be told")
    elif require.possible not in (None, facts.possible.to_list()):
        clauses.append(f"it is for CPUs {require.possible}, and this machine has {facts.possible.to_list()}")
    wanted_now = {*require.features, *(profile.settings.keys() - {*profile.retry})}
    for name, setting in settings.items():
        if name in wanted_now - facts.present:
            module = setting.knob.module
            loaded = f", or {module} is not loaded: modprobe it" if module else ""
            clauses.append(f"wants the control {name}, and this kernel has none{loaded}")
    # It means one thing in a guest and another on a host.
    if fits_role and require.own_cpus and not facts.own_cpus:
        wanted, place = _OWN_CPUS[facts.role]
        finding = "whether it is so cannot be told" if facts.own_cpus is None else "it is not so"
        why = f" ({facts.why})" if facts.why else ""
        clauses.append(f"wants {wanted}, and {finding}{why}: look at {place}")
    return clauses


def resolve(profile: Profile, facts: Facts, settings: Settings) -> Resolved:
    """Return what the profile means on a machine, whether or not that meets its preconditions."""
    left_out = {
        name: "this kernel has no such control"
        for name in settings
        if name in {*profile.optional, *profile.retry} - facts.present
    }
    chosen = {**profile.settings, **profile.optional}
    values = {
        name: setting.resolve(chosen[name], facts)
        for name, setting in settings.items()
        if name in chosen and name not in left_out
    }
    return Resolved(values, {name: why for name, why in left_out.items() if name in chosen})
