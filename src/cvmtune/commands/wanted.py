# SPDX-License-Identifier: Apache-2.0
"""What a command line asks to have set: a profile or a recommendation, with flags on top, or flags alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from cvmtune.commands.recommend import KIND, SCHEMA
from cvmtune.commands.site import Site
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.files import read_trusted
from cvmtune.tuning.profile import Profile, Requirements, unmet
from cvmtune.tuning.setting import Facts, find


class Unmet(CvmtuneError):
    """The system is not what the settings are for; nothing was changed. It may become so."""

    exit_code: ClassVar[int] = 5


@dataclass(frozen=True)
class Wanted:
    """Settings to have; `source` is where they are from, in words."""

    profile: Profile
    source: str


def wanted(site: Site, what: str | None, flags: Mapping[str, str]) -> Wanted:
    """Understand a command line: `what` is a profile or a recommendation's file, `flags` settings by name.

    UsageError if there is neither, or if something is wrong with one.
    """
    if what is None and not flags:
        names = ", ".join(one.name for one in site.profiles.available() if isinstance(one, Profile))
        option = next(feature.name for feature in site.registry.features if feature.settings)
        raise UsageError(
            "nothing to apply", next_step=f"name a profile ({names}), a recommendation's file, or --{option}"
        )
    for name, text in flags.items():
        # Whether it is a value at all, before anything is looked at.
        find(site.registry.settings, name).check(text)
    asked = " ".join(f"--{name} {text}" for name, text in flags.items())
    if what is None:
        return Wanted(Profile("flags", "", (), Requirements(), dict(flags), {}), asked)
    found = _recommended(site, Path(what)) if what.endswith(".json") else _profile(site, what)
    left = {name: text for name, text in found.profile.optional.items() if name not in flags}
    # What is asked for here is to be had now.
    retry = tuple(name for name in found.profile.retry if name not in flags)
    settings = {**found.profile.settings, **flags}
    profile = replace(found.profile, settings=settings, optional=left, retry=retry)
    return replace(found, profile=profile, source=f"{found.source} {asked}".strip())


def check(site: Site, one: Wanted, facts: Facts) -> None:
    """Raise Unmet unless the system is what the settings are for."""
    if faults := unmet(one.profile, facts, site.registry.settings):
        raise Unmet(
            f"{one.source} does not fit this system: {'; '.join(faults)}",
            next_step="choose other settings, or see to that",
        )


def _profile(site: Site, name: str) -> Wanted:
    return Wanted(site.profiles.load(name), f"profile {name}")


def _recommended(site: Site, path: Path) -> Wanted:
    """Read what `recommend --json` has printed."""
    text = read_trusted(path)
    try:
        content: Any = json.loads(text)
        if content["kind"] != KIND or content["schema"] != SCHEMA:
            raise ValueError(f"kind {content['kind']!r}, schema {content['schema']!r}")
        settings = dict(content["settings"])
        require = Requirements(
            role=str(content["role"]),
            own_cpus=content["own_cpus"] is True,
            # Null where it was not known for which CPUs it is.
            possible=None if content["cpus"] is None else str(content["cpus"]),
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(
            f"not a recommendation: {error}", str(path), "recommend --json prints one"
        ) from error
    settings = {name: find(site.registry.settings, name).check(value) for name, value in settings.items()}
    if not settings:
        raise UsageError("this recommendation is to set nothing", str(path), "read its advice")
    return Wanted(Profile(path.stem, "", (str(path),), require, settings, {}), f"recommendation {path}")
