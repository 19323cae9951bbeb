# SPDX-License-Identifier: Apache-2.0
"""The system that a command looks at or changes, and where the tool keeps what it must remember of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.system import LocalSystem
from cvmtune.features import REGISTRY
from cvmtune.features.registry import Registry
from cvmtune.observe.capture import Capture
from cvmtune.observe.cpus import own_cpus
from cvmtune.observe.platform import Platform
from cvmtune.observe.vms import doubt
from cvmtune.tuning.journal import Journal
from cvmtune.tuning.profile_files import Profiles
from cvmtune.tuning.setting import Facts

_STATE = "var/lib/cvmtune"
_CONFIGURATION = "etc/cvmtune"


@dataclass(frozen=True)
class Site:
    """A system below `root`, with its journal, its profiles and its configuration, and the features to
    have."""

    system: LocalSystem
    root: Path = Path("/")
    registry: Registry = REGISTRY

    @property
    def journal(self) -> Journal:
        return Journal(self.root / _STATE)

    @property
    def configuration(self) -> Path:
        return self.root / _CONFIGURATION

    @property
    def profiles(self) -> Profiles:
        """The user's profiles, then the shipped ones."""
        return self.registry.profiles(self.configuration / "profiles")

    def look(self, *, load: bool = False) -> tuple[Capture, Platform]:
        """Read the system; `load` as capture() has it."""
        seen = self.registry.capture(self.system, load=load)
        return seen, self.registry.platform(seen)

    def facts(self) -> Facts:
        """Tell what decides which settings fit."""
        seen, where = self.look()
        present = self.registry.present(seen)
        why = doubt(seen) if where.role == "host" else ""
        return Facts(where.role, where.online, where.possible, present, own_cpus(seen, where), why)


def local() -> Site:
    """This machine."""
    return Site(LocalSystem())
