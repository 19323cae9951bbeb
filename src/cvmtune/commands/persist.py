# SPDX-License-Identifier: Apache-2.0
"""`cvmtune persist` and `unpersist`: have settings applied at each boot, by a systemd unit.

The settings are a profile of their own, with the preconditions of what they come from. While these do not
hold, or something cannot be had yet, `apply` ends with a status for which systemd tries again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cvmtune
from cvmtune.commands import systemd, unit, unit_files
from cvmtune.commands.putting_back import put_back_on_failure, remove, write
from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Wanted, wanted
from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.files import read_trusted
from cvmtune.tuning.contract import KnobError, NotNow
from cvmtune.tuning.profile import Profile, Requirements, resolve, unmet
from cvmtune.tuning.profile_files import to_toml
from cvmtune.tuning.setting import Facts, Settings, is_off

_MADE_BY = "Made by cvmtune persist: what cvmtune.service applies at each boot."
_LINK = f"etc/systemd/system/multi-user.target.wants/{unit.UNIT}"


def persist(site: Site, what: str | None, flags: Mapping[str, str], *, dry_run: bool, as_json: bool) -> int:
    """Write the settings and the unit and enable it; without any settings, those that are applied now.

    Settings that this system could not have are refused, unless they, or their preconditions, may come. A
    unit that an administrator has masked, or somebody else has written, is left alone: CvmtuneError. When
    something fails all files are as before.
    """
    one = wanted(site, what, flags) if what or flags else _applied(site)
    facts = site.facts(watch=one.profile.require.own_cpus)
    _check(site, one.profile, facts)
    place = unit_files.place(site)
    found = unit_files.check_free(site, place)
    if late := unit.mounted_late(site):
        raise CvmtuneError(
            f"the unit would be too early: {late}", next_step="install cvmtune on a local file system"
        )
    kept, modules = _kept(one.profile, facts, site.registry.settings)
    files = {site.persisted: to_toml(kept, _MADE_BY, one.source), place: unit.text(site, modules)}
    commands = list(_systemctl(site, "daemon-reload", "enable"))
    if not dry_run:
        systemd.check_runs(site)
        _check_program()
        _put_in_place(site, files, place, found, commands)
    done = f"{one.source} is applied at each boot"
    if note := unit_files.changed_by(found):
        done = f"{done}; but {note}"
    _tell(files, commands, found.drop_ins, done, dry_run=dry_run, as_json=as_json)
    return 0


def unpersist(site: Site, *, dry_run: bool, as_json: bool) -> int:
    """Disable and remove the unit and its settings, if there are any; what is in force stays so.

    What others have made, a mask too, stays as well.
    """
    found = unit_files.find(site)
    ours = [*found.ours, *([site.persisted] if site.persisted.exists() else [])]
    # Else the links may be those of another's unit.
    links = [] if found.kind == "foreign" else list(found.links)
    verbs = ["disable", "daemon-reload"] if found.kind == "ours" else ["daemon-reload"]
    commands = list(_systemctl(site, *verbs)) if ours or links else []
    if not dry_run:
        if found.kind == "ours":
            # It does no more than to remove the links, and where it does not work we do.
            with suppress(CvmtuneError):
                for argv in _systemctl(site, "disable"):
                    systemd.run(argv)
        for path in (*links, *ours, *unit_files.stale(site)):
            remove(path)
        if ours or links:
            _reload(site)
    done = "nothing is applied at boot any more" if ours else "nothing was to be applied at boot"
    if found.kind in ("masked", "foreign"):
        whose = "masked" if found.kind == "masked" else "not made by cvmtune persist"
        done = f"{done}\nleft: {found.path}, {whose}"
    for path in found.drop_ins:
        done = f"{done}\nleft: {path}, a drop-in"
    _tell(dict.fromkeys(ours, ""), commands, found.drop_ins, done, dry_run=dry_run, as_json=as_json)
    return 0


def _applied(site: Site) -> Wanted:
    found = site.registry.transactions.verify(site.system, site.journal)
    if found.interrupted:
        raise CvmtuneError("a change was interrupted, or is at work", next_step="cvmtune rollback")
    settings = {one.name: one.wanted for one in found.checks}
    if not settings or found.restarted:
        raise UsageError("nothing is applied that could be persisted", next_step="name a profile or settings")
    # What this system is like now is what they were good for.
    facts = site.facts(watch=True)
    require = Requirements(
        role=facts.role, own_cpus=facts.own_cpus is True, possible=facts.possible.to_list() or None
    )
    return Wanted(Profile("applied", "", (), require, settings, {}), found.source)


def _check(site: Site, profile: Profile, facts: Facts) -> None:
    """Raise KnobError for [set] that this system could never have, if its preconditions hold."""
    registry = site.registry
    if unmet(profile, facts, registry.settings):
        return
    for name, value in resolve(profile, facts, registry.settings).settings.items():
        try:
            registry.transactions.plan(site.system, {name: value})
        except NotNow:
            continue
        except KnobError:
            if name in profile.settings:
                raise


def _kept(profile: Profile, facts: Facts, settings: Settings) -> tuple[Profile, list[str]]:
    """Return the profile to keep, and the modules to load for it.

    It may wait for all that is in [set], and for what of [set-if-present] has its control now: at the boot
    that may be missing, as others load a module later. What a module does that nothing switches on is as good
    as done without it.
    """
    asked = {**profile.settings, **profile.optional}
    there = {name: text for name, text in asked.items() if name in profile.settings or name in facts.present}
    modules: list[str] = []
    idle: set[str] = set()
    for module in dict.fromkeys(settings[name].knob.module for name in there):
        members = {name for name in there if settings[name].knob.module == module}
        switches = [name for name in members if settings[name].off is not None]
        if module and switches and all(is_off(settings[name], there[name]) for name in switches):
            idle |= members
        elif module:
            modules.append(module)
    kept = replace(
        profile,
        settings={name: text for name, text in profile.settings.items() if name not in idle},
        optional={name: text for name, text in asked.items() if name in {*profile.optional, *idle}},
        retry=tuple(name for name in settings if name in there.keys() - idle),
    )
    return kept, modules


def _check_program() -> None:
    """Raise CvmtuneError unless what the unit runs is this tool, and only root or we may change it."""
    read_trusted(Path(cvmtune.__file__))
    # As systemd does: from /, with hardly an environment.
    command.run([*unit.program(), "--version"], cwd=Path("/"), env={}, timeout=60).check()


def _systemctl(site: Site, *verbs: str) -> Iterator[list[str]]:
    """The commands for the unit; below another root there is no systemd at work to be told."""
    at = [] if site.root == Path("/") else [f"--root={site.root}"]
    for verb in verbs:
        if verb != "daemon-reload":
            yield ["systemctl", *at, verb, unit.UNIT]
        elif not at:
            yield ["systemctl", "daemon-reload"]


def _put_in_place(
    site: Site,
    files: Mapping[Path, str],
    place: Path,
    found: unit_files.Found,
    commands: Sequence[list[str]],
) -> None:
    """Write the files and have systemd take them, or leave all as it was."""
    older = [path for path in found.ours if path != place]
    try:
        with put_back_on_failure([*files, *older, *found.links, site.root / _LINK]):
            write(site.root, site.persisted, files[site.persisted])
            # What will be read at the next boot is read now: it must be what was meant, and trusted.
            site.profiles.load(str(site.persisted))
            write(site.root, place, files[place])
            systemd.check_takes(place)
            # systemctl does not replace a link that leads elsewhere.
            for path in (*older, *(found.links if older else ())):
                remove(path)
            for argv in commands:
                systemd.run(argv)
    except BaseException:
        with suppress(CvmtuneError):
            _reload(site)
        raise


def _reload(site: Site) -> None:
    if systemd.is_running():
        for argv in _systemctl(site, "daemon-reload"):
            systemd.run(argv)


def _tell(
    files: Mapping[Path, str],
    commands: Sequence[Sequence[str]],
    drop_ins: Sequence[Path],
    done: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    lines = [command.format_command(argv) for argv in commands]
    if as_json:
        content = {
            "schema": 1,
            "done": not dry_run,
            "drop_ins": [str(path) for path in drop_ins],
            "files": {str(path): text for path, text in files.items()},
        }
        print(json.dumps({**content, "commands": lines}, indent=2))
    elif dry_run:
        for path, text in files.items():
            print(f"# {path}\n{text}" if text else f"rm {path}")
        print("\n".join(lines))
    else:
        print(done)
