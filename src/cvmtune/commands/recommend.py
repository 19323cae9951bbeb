# SPDX-License-Identifier: Apache-2.0
"""`cvmtune recommend`: watch the system for a while, say what to set and why."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cvmtune import __version__
from cvmtune.commands.site import Site
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.core.figure import known, reasons
from cvmtune.core.files import write_whole
from cvmtune.core.text import columns
from cvmtune.features.feature import Advice, FeatureStatus
from cvmtune.features.registry import Registry
from cvmtune.features.words import count
from cvmtune.observe import recording
from cvmtune.observe.capture import Capture
from cvmtune.observe.cpus import steal_untold
from cvmtune.observe.load import Load

# What `apply` knows a recommendation by.
KIND = "recommendation"
SCHEMA = 1


def main(
    site: Site,
    seconds: float,
    *,
    record: Path | None,
    counters: Path | None,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Print what is recommended; return 0.

    `counters` is a recording to go by instead of this system, `record` is where to make one. UsageError if
    the recording is none; CvmtuneError if the system was not there all the time.
    """
    if record:
        _check_place(record)
    if counters:
        # What cannot be decoded is no recording either, which it is for the parser to say.
        text = counters.read_text(encoding="utf-8", errors="replace")
        before, after = recording.parse(text, str(counters))
    else:
        before, after = _watch(site, seconds, sleep)
    # The advice is had even if the recording cannot be, and that even if there is none to give.
    lost = _save(record, before, after) if record else None
    try:
        seen = site.registry.load(before, after)
    except ValueError as error:
        raise (UsageError if counters else CvmtuneError)(str(error), str(counters or "")) from error
    advice = site.registry.advise(seen)
    if as_json:
        print(json.dumps(content(site.registry, seen, advice), indent=2))
    else:
        _print(site.registry, seen, advice)
    if lost:
        raise lost
    return 0


def content(registry: Registry, seen: Load, advice: Sequence[Advice]) -> dict[str, object]:
    """Return the recommendation as `apply` takes it."""
    wanted = {name: value for one in advice for name, value in one.settings.items()}
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "version": __version__,
        "role": seen.place.role,
        "kernel": {"release": seen.place.release, "flavour": seen.place.flavour},
        # Null, and no condition of applying it, where it is not known.
        "cpus": seen.place.possible.to_list() or None,
        "unknown": {"cpus": seen.place.untold["possible"]} if "possible" in seen.place.untold else {},
        # A mask for vCPUs that own their CPUs is not to be applied once they do not, where that shows.
        "own_cpus": seen.place.role == "guest" and not steal_untold(seen.now),
        "seconds": seen.seconds,
        "settings": registry.encode(wanted),
        "advice": [_advice(registry, one) for one in advice],
    }


def _advice(registry: Registry, one: Advice) -> dict[str, object]:
    return {
        "feature": one.feature,
        "reason": one.reason,
        "settings": registry.encode(one.settings),
        "gain": one.gain,
        "cost": one.cost,
        "figures": {name: known(figure) for name, figure in one.figures.items()},
        "unknown": reasons(one.figures),
    }


def _watch(site: Site, seconds: float, sleep: Callable[[float], None]) -> tuple[Capture, Capture]:
    before = site.registry.capture(site.system)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if sys.stderr.isatty():
            print(f"\rwatching, {left:3.0f} s left ", end="", file=sys.stderr, flush=True)
        sleep(min(left, 1.0))
    if sys.stderr.isatty():
        print(f"\r{'':24}\r", end="", file=sys.stderr, flush=True)
    return before, site.registry.capture(site.system)


def _check_place(path: Path) -> None:
    """Raise unless a recording may be made there."""
    if path.exists() and not path.is_file():
        raise UsageError("no regular file", str(path), "--record takes the name of a file to make")
    if not path.parent.is_dir():
        raise CvmtuneError("no such directory", str(path.parent), "--record takes the name of a file to make")


def _save(path: Path, before: Capture, after: Capture) -> CvmtuneError | None:
    """Keep both captures, and say what is in them; return what kept us from it."""
    try:
        # Not all that is in it is for everybody.
        write_whole(path, recording.dump(before, after), mode=0o600)
    except OSError as error:
        return CvmtuneError(f"cannot keep the counters: {error.strerror}", str(path))
    print(f"{path} holds, of two moments:", file=sys.stderr)
    print(columns(recording.contents(after), indent="  "), end="", file=sys.stderr)
    return None


def _print(registry: Registry, seen: Load, advice: Sequence[Advice]) -> None:
    settings = registry.settings
    present = {one.name: one for one in registry.status(seen.now, seen.place)}
    print(f"{seen.place.role}, {count(len(seen.cpus), 'CPU')}, watched for {seen.seconds:.1f} s\n")
    for one in advice:
        wanted = ", ".join(
            f"{'' if name == one.feature else f'{name} '}{settings[name].show(one.settings[name])}"
            for name in sorted(one.settings, key=lambda name: name != one.feature)
        )
        print(f"{one.feature}: {wanted or _instead(registry, present[one.feature])}")
        rows = [("reason", one.reason), ("gain", one.gain), ("cost", one.cost)]
        print(columns([row for row in rows if row[1]], indent="  "))
    if any(one.settings for one in advice):
        print(
            "To apply all of it: cvmtune recommend --json > FILE.json; cvmtune apply FILE.json --dry-run; "
            "cvmtune apply FILE.json"
        )


def _instead(registry: Registry, feature: FeatureStatus) -> str:
    """What to do about a feature for which no setting is recommended."""
    if feature.name not in registry.settings:
        return "nothing to set"
    if feature.status != "on":
        return "leave it off"
    now = registry.settings[feature.name].show(feature.settings[feature.name])
    return f"not recommended (it is on now: {now})"
