# SPDX-License-Identifier: Apache-2.0
"""What is asked of systemd: whether it is there, whether it takes the unit, that it reads and enables it."""

from __future__ import annotations

import re
from pathlib import Path

from cvmtune.commands.site import Site
from cvmtune.commands.unit import UNIT
from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError

_TIMEOUT_S = 60
# The first that takes Restart= with Type=oneshot (its NEWS); older ones say so at the boot only.
_OLDEST = 244
# Where systemd is PID 1 it makes this (sd_booted(3)).
_RUNS = Path("/run/systemd/system")
# It also warns, of keys that this systemd does not know ("ignoring"), and of other units.
_REFUSES = re.compile(
    r"Refusing|bad unit file|bad-setting|ordering cycle|Found dependency|not executable|Failed to"
)


def run(argv: list[str]) -> None:
    """Run a command of systemctl's; CvmtuneError if it fails."""
    command.run(argv, timeout=_TIMEOUT_S).check()


def is_running() -> bool:
    """Tell whether systemd is PID 1."""
    return _RUNS.is_dir()


def check_runs(site: Site) -> None:
    """Raise CvmtuneError unless systemd is what starts services, and new enough to try again what failed."""
    next_step = "have what starts services here run cvmtune apply at each boot"
    if site.root == Path("/") and not is_running():
        raise CvmtuneError(
            "systemd is not PID 1 here, and only systemd applies settings at each boot; nothing is changed",
            str(_RUNS),
            next_step,
        )
    try:
        done = command.run(["systemctl", "--version"], timeout=_TIMEOUT_S).check()
    except CvmtuneError as error:
        raise CvmtuneError(
            f"systemctl does not work, and only systemd applies settings at each boot; nothing is changed: "
            f"{error.what}",
            error.where,
            next_step,
        ) from error
    version = re.match(r"systemd (\d+)", done.stdout)
    if version and int(version[1]) < _OLDEST:
        raise CvmtuneError(
            f"systemd {version[1]} is too old: it refuses a oneshot unit that is tried again, which takes "
            f"systemd {_OLDEST}; nothing is changed",
            "systemctl --version",
            next_step,
        )


def check_takes(unit: Path) -> None:
    """Raise CvmtuneError if systemd would refuse the unit at the boot; what cannot be asked is no reason."""
    argv = ["systemd-analyze", "--man=no", "verify", str(unit)]
    try:
        done = command.run(argv, timeout=_TIMEOUT_S)
    except CvmtuneError:
        return
    lines = (line for text in (done.stderr, done.stdout) for line in text.splitlines())
    # Its exit status speaks of all units that it has read.
    if faults := [one for one in lines if UNIT in one and _REFUSES.search(one) and "ignoring" not in one]:
        raise CvmtuneError(
            f"systemd refuses the unit: {'; '.join(faults)}", str(unit), command.format_command(argv)
        )
