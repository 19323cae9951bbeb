# SPDX-License-Identifier: Apache-2.0
"""The system that a command looks at or changes, and where the tool keeps what it must remember of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.system import LocalSystem
from cvmtune.features.risks import own_cpus
from cvmtune.features.status import present
from cvmtune.observe.capture import Capture, capture
from cvmtune.observe.platform import Place, place
from cvmtune.tuning.journal import Journal
from cvmtune.tuning.profiles import SHIPPED, Facts

_STATE = "var/lib/cvmtune"
_CONFIGURATION = "etc/cvmtune"


@dataclass(frozen=True)
class Site:
    """A system below `root`, with its journal, its profiles and its configuration."""

    system: LocalSystem
    root: Path = Path("/")

    @property
    def journal(self) -> Journal:
        return Journal(self.root / _STATE)

    @property
    def configuration(self) -> Path:
        return self.root / _CONFIGURATION

    @property
    def profiles(self) -> Sequence[Path]:
        """Where profiles are looked up: the user's, then the shipped ones."""
        return (self.configuration / "profiles", SHIPPED)

    def look(self, *, load: bool = False) -> tuple[Capture, Place]:
        """Read the system; `load` as capture() has it."""
        seen = capture(self.system, load=load)
        return seen, place(seen)

    def facts(self) -> Facts:
        """Tell what decides which settings fit."""
        seen, where = self.look()
        return Facts(where.role, where.online, where.possible, present(seen), own_cpus(seen, where))


def local() -> Site:
    """This machine."""
    return Site(LocalSystem())
