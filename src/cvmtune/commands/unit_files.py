# SPDX-License-Identifier: Apache-2.0
"""Where cvmtune.service lies, who made what is there, and whether it is enabled or masked.

systemctl masks a unit by a link to /dev/null in /etc/systemd/system, so a unit that may be masked lies
elsewhere. Earlier versions put it there; what they made is ours too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cvmtune.commands.site import Site
from cvmtune.commands.unit import MADE_BY, UNIT
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.files import aside_of

_ADMINS = "etc/systemd/system"
_HOME = "usr/local/lib/systemd/system"
# Where systemd looks for units; the first that has one counts (systemd.unit(5), UNIT FILE LOAD PATH).
_PATH = (_ADMINS, "run/systemd/system", _HOME, "usr/lib/systemd/system", "lib/systemd/system")

Kind = Literal["none", "ours", "masked", "foreign"]


@dataclass(frozen=True)
class Found:
    """The units of this name: `kind` is that of the one that counts, at `path`; `ours` are all of ours.

    `links` have it started at boot. `drop_ins` change what it does (systemd.unit(5)).
    """

    kind: Kind
    path: Path | None
    ours: tuple[Path, ...]
    links: tuple[Path, ...]
    drop_ins: tuple[Path, ...] = ()


def find(site: Site) -> Found:
    """Look for the unit below a root."""
    paths = [site.root / directory / UNIT for directory in _PATH]
    kinds = {path: kind for path in paths if (kind := _kind(path)) != "none"}
    path = next(iter(kinds), None)
    # /lib is /usr/lib on most systems.
    ours = tuple(one for one, kind in kinds.items() if kind == "ours" and _is_first(one, kinds))
    enabled = (folder / UNIT for folder in (site.root / _ADMINS).glob("*.target.*"))
    # One that leads nowhere is left of a unit that was removed.
    links = tuple(sorted(link for link in enabled if os.path.lexists(link)))
    drop_ins = {
        os.path.realpath(one): one
        for directory in reversed(_PATH)
        for one in sorted((site.root / directory / f"{UNIT}.d").glob("*.conf"))
    }
    return Found(kinds[path] if path else "none", path, ours, links, tuple(drop_ins.values()))


def changed_by(found: Found) -> str:
    """Say which drop-ins change what the unit does; "" if none does."""
    paths = ", ".join(map(str, found.drop_ins))
    return f"what cvmtune.service does is changed by {paths}" if paths else ""


def stale(site: Site) -> list[Path]:
    """Return what is left of files that a process was about to write when it was killed."""
    targets = (*(site.root / directory / UNIT for directory in (_HOME, _ADMINS)), site.persisted)
    return [aside for one in targets if os.path.lexists(aside := aside_of(one))]


def place(site: Site) -> Path:
    """Return where to put the unit: where it can be masked, if systemd can read and we can write that."""
    home = site.root / _HOME
    there = next(path for path in (home, *home.parents) if path.is_dir())
    # systemd reads units before it mounts anything but these two.
    early = {os.stat(site.root).st_dev, *(one.stat().st_dev for one in [site.root / "usr"] if one.is_dir())}
    is_writable = not os.statvfs(there).f_flag & os.ST_RDONLY
    return (home if is_writable and _device(there) in early else site.root / _ADMINS) / UNIT


def check_free(site: Site, unit: Path) -> Found:
    """Return what is there; CvmtuneError if an administrator has masked the unit, or it is another's."""
    found = find(site)
    if found.kind == "masked":
        raise CvmtuneError(
            f"{UNIT} is masked", str(found.path), f"systemctl unmask {UNIT}, if it is to run; then try again"
        )
    for path in (found.path, unit):
        if path and _kind(path) not in ("none", "ours"):
            raise CvmtuneError(
                f"there is a {UNIT} that cvmtune persist has not made",
                str(path),
                "find out whose it is, and rename or remove it",
            )
    return found


def _kind(path: Path) -> Kind:
    if not os.path.lexists(path):
        return "none"
    try:
        # As systemd has it (null_or_empty_path() in src/basic/stat-util.c).
        if os.path.realpath(path) == os.devnull or (path.is_file() and path.stat().st_size == 0):
            return "masked"
        with path.open(encoding="utf-8", errors="replace") as file:
            return "ours" if file.readline().rstrip("\n") == MADE_BY else "foreign"
    except OSError:
        return "foreign"


def _is_first(path: Path, among: Iterable[Path]) -> bool:
    return next(one for one in among if os.path.realpath(one) == os.path.realpath(path)) == path


def _device(path: Path) -> int:
    return path.stat().st_dev
