# SPDX-License-Identifier: Apache-2.0
"""`cvmtune persist` and `unpersist`: have settings applied at each boot, by a systemd unit.

The settings are a profile of their own, with the preconditions of what they come from. While these do not
hold, `apply` ends with Unmet's status and systemd tries again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cvmtune
from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Wanted, wanted
from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.files import read_trusted, write_whole
from cvmtune.tuning.profile import Profile, Requirements, resolve, unmet
from cvmtune.tuning.profile_files import to_toml
from cvmtune.tuning.transaction import PartlyApplied

UNIT = "cvmtune.service"
_UNITS = "etc/systemd/system"
_PROFILE = "persisted.toml"
_RETRY_S = 30
_MADE_BY = "Made by cvmtune persist: what cvmtune.service applies at each boot."

_UNIT_TEXT = """\
# Made by cvmtune persist; cvmtune unpersist removes it.
[Unit]
Description=Settings of performance features for confidential VMs
After=systemd-modules-load.service
# A vendor's kernel polls only what is mounted afterwards.
Before=remote-fs-pre.target
Wants=remote-fs-pre.target
# It may take any time until the settings' preconditions hold.
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
{modprobe}ExecStart={apply}
ExecStop={rollback}
# A control whose kernel hangs must not keep a machine from booting.
TimeoutStartSec=60
TimeoutStopSec=30
Restart=on-failure
RestartSec={retry}
# Only preconditions that do not hold yet are tried again; 203 is a program that cannot be run.
RestartPreventExitStatus=1 2 {failed} {partly} 203

[Install]
WantedBy=multi-user.target
"""


def persist(site: Site, what: str | None, flags: Mapping[str, str], *, dry_run: bool, as_json: bool) -> int:
    """Write the settings and the unit and enable it; without any settings, those that are applied now.

    Settings that this system could not have are refused, unless their preconditions are still to come.
    """
    one = wanted(site, what, flags) if what or flags else _applied(site)
    facts = site.facts()
    registry = site.registry
    if not unmet(one.profile, facts, registry.settings):
        values = resolve(one.profile, facts, registry.settings).settings
        registry.transactions.plan(site.system, values)
    profile, unit = site.configuration / _PROFILE, site.root / _UNITS / UNIT
    files = {profile: to_toml(one.profile, _MADE_BY, one.source), unit: _unit(site, one.profile)}
    commands = list(_systemctl(site, "daemon-reload", "enable"))
    if not dry_run:
        _check_program()
        _write(profile, files[profile])
        # What will be read at the next boot is read now: it must be what was meant, and trusted.
        site.profiles.load(str(profile))
        _write(unit, files[unit])
        for argv in commands:
            command.run(argv, timeout=60).check()
    _tell(files, commands, f"{one.source} is applied at each boot", dry_run=dry_run, as_json=as_json)
    return 0


def unpersist(site: Site, *, dry_run: bool, as_json: bool) -> int:
    """Disable and remove the unit and its settings, if there are any; what is in force stays so."""
    files = [path for path in (site.root / _UNITS / UNIT, site.configuration / _PROFILE) if path.exists()]
    commands = list(_systemctl(site, "disable", "daemon-reload")) if files else []
    if not dry_run and files:
        command.run(commands[0], timeout=60)
        for path in files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CvmtuneError(f"cannot remove it: {error.strerror}", str(path), "run as root") from error
        for argv in commands[1:]:
            command.run(argv, timeout=60).check()
    done = "nothing is applied at boot any more" if files else "nothing was to be applied at boot"
    _tell(dict.fromkeys(files, ""), commands, done, dry_run=dry_run, as_json=as_json)
    return 0


def persisted(site: Site) -> bool:
    """Tell whether settings are to be applied at each boot."""
    return (site.root / _UNITS / UNIT).exists()


def _applied(site: Site) -> Wanted:
    found = site.registry.transactions.verify(site.system, site.journal)
    if found.interrupted:
        raise CvmtuneError("a change was interrupted, or is at work", next_step="cvmtune rollback")
    settings = {one.name: one.wanted for one in found.checks}
    if not settings or found.restarted:
        raise UsageError("nothing is applied that could be persisted", next_step="name a profile or settings")
    # What this system is like now is what they were good for.
    facts = site.facts()
    require = Requirements(
        role=facts.role, own_cpus=facts.own_cpus is True, possible=facts.possible.to_list()
    )
    return Wanted(Profile("applied", "", (), require, settings, {}), found.source)


def _ours() -> list[str]:
    # Not what PATH finds: the interpreter that runs us has the package, and -I keeps the environment out.
    return [sys.executable, "-I", "-m", "cvmtune"]


def _check_program() -> None:
    """Raise CvmtuneError unless what the unit runs is this tool, and only root or we may change it."""
    read_trusted(Path(cvmtune.__file__))
    # As systemd does: from /, with hardly an environment.
    command.run([*_ours(), "--version"], cwd=Path("/"), env={}, timeout=60).check()


def _unit(site: Site, profile: Profile) -> str:
    return _UNIT_TEXT.format(
        modprobe="".join(f"ExecStartPre=-/usr/sbin/modprobe {name}\n" for name in _modules(site, profile)),
        apply=_quoted([*_ours(), "apply", f"/{(site.configuration / _PROFILE).relative_to(site.root)}"]),
        rollback=_quoted([*_ours(), "rollback"]),
        retry=_RETRY_S,
        failed=CvmtuneError.exit_code,
        partly=PartlyApplied.exit_code,
    )


def _modules(site: Site, profile: Profile) -> Iterator[str]:
    """The modules without which settings that switch something on have no control."""
    for name, text in profile.settings.items():
        setting = site.registry.settings[name]
        off = () if setting.off is None else ("off", setting.knob.encode(setting.off))
        if setting.knob.module and off and text not in off:
            yield setting.knob.module


def _quoted(argv: Sequence[str]) -> str:
    """Words as a unit file takes them (systemd.service(5), COMMAND LINES)."""
    return " ".join(f'"{word}"' if " " in word else word for word in argv).replace("%", "%%")


def _systemctl(site: Site, *verbs: str) -> Iterator[list[str]]:
    """The commands for the unit; below another root there is no systemd at work to be told."""
    at = [] if site.root == Path("/") else [f"--root={site.root}"]
    for verb in verbs:
        if verb != "daemon-reload":
            yield ["systemctl", *at, verb, UNIT]
        elif not at:
            yield ["systemctl", "daemon-reload"]


def _write(path: Path, text: str) -> None:
    """Put a file in place, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_whole(path, text, mode=0o644, sync=True)
    except OSError as error:
        raise CvmtuneError(f"cannot write it: {error.strerror}", str(path), "run as root") from error


def _tell(
    files: Mapping[Path, str], commands: Sequence[Sequence[str]], done: str, *, dry_run: bool, as_json: bool
) -> None:
    lines = [command.format_command(argv) for argv in commands]
    if as_json:
        content = {
            "schema": 1,
            "done": not dry_run,
            "files": {str(path): text for path, text in files.items()},
        }
        print(json.dumps({**content, "commands": lines}, indent=2))
    elif dry_run:
        for path, text in files.items():
            print(f"# {path}\n{text}" if text else f"rm {path}")
        print("\n".join(lines))
    else:
        print(done)
