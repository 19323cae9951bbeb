# SPDX-License-Identifier: Apache-2.0
"""Profiles: settings that belong together, with what a machine must be like for them to do good.

A profile is a TOML file, NAME.toml in one of several directories, of which the first that has it counts.

    description = "..."
    extends = "database"      # its keys hold where this file has none; the own name: the next directory's
    retry = ["A-MASK"]        # where one of these cannot be set now, the others are; it is tried again later
    [require]
    role = "guest"            # or "host", or "machine", which is neither
    cpus = 2                  # so many online at least
    features = ["A-MASK"]     # settings that the kernel must offer
    own_cpus = true           # as Facts.own_cpus
    possible = "0-7"          # the CPUs that it can have, no more and no fewer
    [set]                     # by the names of settings
    A-MASK = "all-but-first"
    [set-if-present]          # left out where the kernel does not offer it
    A-NUMBER = 200
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.files import read_trusted
from cvmtune.tuning.profile import Profile, Requirements
from cvmtune.tuning.setting import TYPES, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYS: Mapping[str, type] = {
    "description": str,
    "extends": str,
    "retry": list,
    "require": dict,
    "set": dict,
    "set-if-present": dict,
}
_REQUIRE: Mapping[str, type] = {
    "role": str,
    "cpus": int,
    "features": list,
    "own_cpus": bool,
    "possible": str,
}
_ROLES = ("guest", "host", "machine")


@dataclass(frozen=True)
class _File:
    description: str | None = None
    extends: str | None = None
    require: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    retry: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Profiles:
    """The profiles in `directories`, the first of which counts. Files of `shipped` ones belong to this
    package, and need not be checked for who may change them: who can can change this code too."""

    directories: tuple[Path, ...]
    shipped: tuple[Path, ...]
    settings: Settings

    def load(self, name: str) -> Profile:
        """Return the profile of a name, or of a path: with a "/" in it, or ".toml" at its end.

        Raises UsageError if there is none of this name or a file is wrong; CvmtuneError if one cannot be
        read, or is not to be trusted (read_trusted).
        """
        is_path = "/" in name or name.endswith(".toml")
        first = Path(name).absolute() if is_path else _find(name, self.directories)
        files: dict[Path, _File] = {}
        path: Path | None = first
        while path:
            if path in files:
                circle = " -> ".join(str(file) for file in (*files, path))
                raise UsageError("extends itself", circle, "take one of these `extends` away")
            files[path] = self._read(path)
            path = _parent(path, files[path].extends, self.directories)
        return _merged(first.stem, files)

    def available(self) -> list[Profile | CvmtuneError]:
        """Return all profiles, sorted by name; in place of one that cannot be loaded, why."""
        profiles: list[Profile | CvmtuneError] = []
        for name in _names(self.directories):
            try:
                profiles.append(self.load(name))
            except CvmtuneError as error:
                profiles.append(error)
        return profiles

    def _read(self, path: Path) -> _File:
        is_shipped = path.parent in self.shipped and path.is_file()
        text = path.read_text(encoding="utf-8") if is_shipped else read_trusted(path)
        try:
            return _check(tomllib.loads(text), self.settings)
        # tomllib's own error is a ValueError, and so is that of a number with too many digits.
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not TOML: {error}", str(path), "correct the file") from error
        except UsageError as error:
            raise UsageError(error.what, str(path), error.next_step) from error


def _merged(name: str, files: Mapping[Path, _File]) -> Profile:
    """Return the profile of these files, each of which extends the next."""
    description = ""
    require: dict[str, Any] = {}
    settings: dict[str, str] = {}
    optional: dict[str, str] = {}
    retry: tuple[str, ...] = ()
    for file in reversed(list(files.values())):
        description = file.description or description
        require |= file.require
        settings = _without(settings, file.optional) | dict(file.settings)
        optional = _without(optional, file.settings) | dict(file.optional)
        retry = retry if file.retry is None else file.retry
    sources = tuple(map(str, files))
    return Profile(name, description, sources, Requirements(**require), settings, optional, retry)


def _find(name: str, directories: Sequence[Path]) -> Path:
    if _NAME.fullmatch(name):
        for directory in directories:
            path = directory / f"{name}.toml"
            try:
                # A link to nowhere is there, and an error: it was meant to hide what is below.
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise CvmtuneError(
                    f"cannot look for profiles: {error.strerror}", str(directory), "run as root"
                ) from error
            return path
    where = ", ".join(map(str, directories))
    raise UsageError(f"no profile {name!r}", where, f"choose from {', '.join(_names(directories))}")


def _names(directories: Sequence[Path]) -> list[str]:
    stems = {path.stem for directory in directories for path in directory.glob("*.toml")}
    return sorted(filter(_NAME.fullmatch, stems))


def _parent(path: Path, extends: str | None, directories: Sequence[Path]) -> Path | None:
    if extends is None:
        return None
    if extends == path.stem and path.parent in directories:
        directories = directories[directories.index(path.parent) + 1 :]
    try:
        return _find(extends, directories)
    except UsageError as error:
        raise UsageError(f"extends: {error.what} in {error.where}", str(path), error.next_step) from error


def _without(table: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in table.items() if name not in names}


def _check(content: dict[str, Any], known: Settings) -> _File:
    """Return the content of a file; UsageError, without the file, if there is something wrong with it."""
    _check_keys("", content, _KEYS)
    require = content.get("require", {})
    _check_keys("[require] ", require, _REQUIRE)
    if "role" in require and require["role"] not in _ROLES:
        raise UsageError(f"[require] role: {require['role']!r}", next_step=f"give {' or '.join(_ROLES)}")
    if require.get("cpus", 1) < 1:
        raise UsageError(f"[require] cpus: {require['cpus']}", next_step="give 1 or more")
    if "features" in require:
        require = require | {"features": _check_names("[require] features", require["features"], known)}
    retry = _check_names("retry", content["retry"], known) if "retry" in content else None
    settings = _check_settings("set", content, known)
    optional = _check_settings("set-if-present", content, known)
    if twice := settings.keys() & optional.keys():
        raise UsageError(
            f"{min(twice)} is in [set] and in [set-if-present]", next_step="take it out of one of them"
        )
    return _File(content.get("description"), content.get("extends"), require, settings, optional, retry)


def _check_keys(place: str, table: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for key, value in table.items():
        if key not in types:
            raise UsageError(f"{place}{key}: unknown key", next_step=f"choose from {', '.join(types)}")
        if type(value) is not types[key]:
            raise UsageError(f"{place}{key}: {value!r}", next_step=f"give {TYPES[types[key]]}")


def _check_names(place: str, names: Sequence[Any], known: Settings) -> tuple[str, ...]:
    # Compared with a tuple: what is in the list may not even be hashable.
    if not all(name in tuple(known) for name in names):
        raise UsageError(f"{place}: {list(names)!r}", next_step=f"choose from {', '.join(known)}")
    return tuple(names)


def _check_settings(table: str, content: Mapping[str, Any], known: Settings) -> dict[str, str]:
    settings = {}
    for name, value in content.get(table, {}).items():
        if name not in known:
            raise UsageError(f"[{table}] {name}: unknown", next_step=f"choose from {', '.join(known)}")
        try:
            settings[name] = known[name].check(value)
        except UsageError as error:
            raise UsageError(f"[{table}] {error.what}", next_step=error.next_step) from error
    return settings


def to_toml(profile: Profile, comment: str, description: str) -> str:
    """Return a file that is read as this profile, with a description of its own."""
    # In ASCII, as a file's name may be anything: JSON's halves of a character are none in TOML. Else JSON's
    # strings, numbers, booleans and lists are TOML's as well.
    told = description.encode("ascii", "backslashreplace").decode()
    require = {name: value for name, value in asdict(profile.require).items() if value not in (None, "")}
    tables = {"require": require, "set": profile.settings, "set-if-present": profile.optional}
    lines = [f"# {comment}", f"description = {json.dumps(told)}"]
    if profile.retry:
        lines.append(f"retry = {json.dumps(profile.retry)}")
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"
