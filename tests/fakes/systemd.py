# SPDX-License-Identifier: Apache-2.0
"""The systemd that persist speaks to, below a root: it notes what it is asked for, and fails as arranged."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cvmtune.core import command
from cvmtune.core.command import Completed
from cvmtune.core.errors import CvmtuneError

UNIT = "usr/local/lib/systemd/system/cvmtune.service"
# Where earlier versions have put it.
OLD_UNIT = "etc/systemd/system/cvmtune.service"

needs_systemctl = pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl is missing")
needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing"
)

_really = command.run


@dataclass
class FakeSystemd:
    """`version` is what it says it is; `faults` what systemd-analyze finds; None: there is no such program.

    `status` is that of systemctl, by what it is asked for; `events` happen instead.
    """

    version: str | None = "systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n"
    faults: str | None = ""
    status: dict[str, int] = field(default_factory=dict)
    events: dict[str, Callable[[], None]] = field(default_factory=dict)
    changed: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        match list(argv):
            case [sys.executable, *words]:
                assert (words, cwd, env) == (["-I", "-m", "cvmtune", "--version"], Path("/"), {})
                return Completed(tuple(argv), 0, "", "", 0.0)
            case ["systemctl", "--version"]:
                return self._answer(argv, self.version, self.status.get("--version", 0))
            case ["systemd-analyze", "--man=no", "verify", unit]:
                assert Path(unit).is_file()
                return self._answer(argv, self.faults, 1 if self.faults else 0)
            case ["systemctl", at, verb, "cvmtune.service"] if at.startswith("--root=/"):
                self.changed.append(list(argv))
                return self._systemctl(argv, Path(at.removeprefix("--root=")), verb)
        pytest.fail(f"ran {argv}")

    def _answer(self, argv: Sequence[str], text: str | None, status: int) -> Completed:
        if text is None:
            raise CvmtuneError(f"cannot start {argv[0]}: No such file or directory")
        return Completed(tuple(argv), status, "" if status else text, text if status else "", 0.0)

    def _systemctl(self, argv: Sequence[str], root: Path, verb: str) -> Completed:
        self.events.pop(verb, lambda: None)()
        if self.version is None:
            return self._answer(argv, None, 0)
        if status := self.status.get(verb):
            return self._answer(argv, "Failed to enable unit: it is so\n", status)
        if shutil.which("systemctl"):
            return _really(argv, timeout=60)
        link = root / "etc/systemd/system/multi-user.target.wants/cvmtune.service"
        link.unlink(missing_ok=True)
        if verb == "enable":
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"/{UNIT}")
        return Completed(tuple(argv), 0, "", "", 0.0)
