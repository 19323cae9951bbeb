# SPDX-License-Identifier: Apache-2.0
"""The system that a command looks at or changes, and where the tool keeps what it must remember of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.system import LocalSystem
from cvmtune.features import REGISTRY
from cvmtune.features.registry import Registry
from cvmtune.observe.capture import Capture, reread
from cvmtune.observe.cpus import own_cpus, stolen
from cvmtune.observe.platform import Platform
from cvmtune.observe.timer import INTERRUPTS, Timers, Visitor, Visits, timers
from cvmtune.observe.vms import doubt
from cvmtune.tuning.journal import Journal
from cvmtune.tuning.profile_files import Profiles
from cvmtune.tuning.setting import Facts

_STATE = "var/lib/cvmtune"
_CONFIGURATION = "etc/cvmtune"
# How long a guest is watched to see what it loses to others, in s: of a CPU's time that shows one percent.
WATCH_S = 1.0


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class _OwnAffinity:
    """Where this thread may run."""

    def get(self) -> frozenset[int]:
        return frozenset(os.sched_getaffinity(0))

    def set(self, cpus: Iterable[int]) -> None:
        os.sched_setaffinity(0, cpus)


@dataclass(frozen=True)
class Site:
    """A system below `root`, with its journal, its profiles and its configuration, and the features to
    have. `visitor` runs on its CPUs, where that can be: on this machine."""

    system: LocalSystem
    root: Path = Path("/")
    registry: Registry = REGISTRY
    sleep: Callable[[float], None] = _sleep
    visitor: Visitor | None = None

    @property
    def journal(self) -> Journal:
        return Journal(self.root / _STATE)

    @property
    def configuration(self) -> Path:
        return self.root / _CONFIGURATION

    @property
    def persisted(self) -> Path:
        """The profile that is applied at each boot, if one is."""
        return self.configuration / "persisted.toml"

    @property
    def profiles(self) -> Profiles:
        """The user's profiles, then the shipped ones."""
        return self.registry.profiles(self.configuration / "profiles")

    def look(self, *, load: bool = False) -> tuple[Capture, Platform]:
        """Read the system; `load` as capture() has it."""
        seen = self.registry.capture(self.system, load=load)
        return seen, self.registry.platform(seen)

    def watch(self) -> tuple[Capture, Platform]:
        """Read the system; a guest twice, some time apart, so that it shows what it loses now."""
        seen, where = self.look()
        return (self._later(seen) if where.role == "guest" else seen), where

    def watch_timers(self) -> tuple[Capture, Platform, Timers | None]:
        """The same, and tell of a guest whether its timers' interrupts arrive."""
        seen, where = self.look()
        if where.role != "guest":
            return seen, where, None
        if not self.visitor or INTERRUPTS not in seen.files:
            later = self._later(seen)
            return later, where, timers(later, where, Visits())
        # CPUs that are kept for something are left alone.
        visits = self.visitor.visit(where.online - where.isolated, lambda: self.system.read_text(INTERRUPTS))
        with self.visitor.kept_on(visits.arrived):
            later = self._later(seen)
        return later, where, timers(later, where, visits)

    def _later(self, seen: Capture) -> Capture:
        self.sleep(WATCH_S)
        return reread(self.system, seen)

    def facts(self, *, watch: bool) -> Facts:
        """Tell what decides which settings fit; without `watch` at once, by what a guest lost since boot."""
        seen, where = self.watch() if watch else self.look()
        present = self.registry.present(seen)
        why = doubt(seen) if where.role == "host" else ""
        if where.role == "guest":
            why = str(stolen(seen, where))
        return Facts(where.role, where.online, where.possible, present, own_cpus(seen, where), why)


def local() -> Site:
    """This machine."""
    return Site(LocalSystem(), visitor=Visitor(_OwnAffinity()))
