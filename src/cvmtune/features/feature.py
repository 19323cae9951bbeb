# SPDX-License-Identifier: Apache-2.0
"""What a feature is to everything else: one object with all that is its own. The registry lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure
from cvmtune.core.system import System
from cvmtune.observe.capture import Capture
from cvmtune.observe.load import Load
from cvmtune.observe.platform import Platform
from cvmtune.tuning.setting import Facts, Setting

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial

NOBODY = CpuMask(frozenset())
Status = Literal["on", "off", "absent", "elsewhere", "unknown"]


@dataclass(frozen=True)
class FeatureStatus:
    """A feature on a machine. `settings` are values by setting; `did` is in words, `statistics` the figures.

    "elsewhere": it is not this side's, guest's or host's. "unknown": its control is there and cannot be read,
    or what has the control may be there.
    """

    name: str
    status: Status
    settings: Mapping[str, Any] = field(default_factory=dict)
    did: str = ""
    statistics: Mapping[str, Figure] = field(default_factory=dict)
    problem: str = ""

    @property
    def there(self) -> bool:
        """Tell whether this machine has the feature's control."""
        return self.status in ("on", "off", "unknown")


@dataclass(frozen=True)
class Advice:
    """What to do about a feature. Without `settings`: leave it as it is, `reason` says why.

    `settings` are values by setting; `figures` what the reason rests on, by name. `polling` are the CPUs
    whose idle time the settings take: no other feature should count on it.
    """

    feature: str
    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    gain: str = ""
    cost: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    polling: CpuMask = NOBODY


@dataclass(frozen=True)
class Risk:
    """Something wrong or risky, and what to do about it."""

    what: str
    next_step: str


def _no_risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    return iter(())


def _no_costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    return iter(())


@dataclass(frozen=True)
class Feature:
    """A feature, by the `name` that users give it; it is its experiment's too.

    - `settings`, in the order in which they are applied; one has the feature's name, if any may be set;
    - `files` that tell what it does, as patterns of observe/capture.py, besides its settings' controls;
      `patched` are the controls that only our patches make, `on_host` tells that the control is a host's;
    - `status`, `risks`, `vendors_risks` (of another's kernel) and `advise` understand a machine; `advise`
      gets the advice on the features before it;
    - `costs` says what settings cost, by their new values, where the feature is among them;
    - `profiles` is a directory of profiles that are made for it;
    - `trial` loads its experiment, which takes packages and a lab that a target has not.
    """

    name: str
    status: Callable[[Capture, Platform], FeatureStatus]
    advise: Callable[[Load, Sequence[Advice]], Advice]
    settings: tuple[Setting[Any], ...] = ()
    files: tuple[str, ...] = ()
    patched: frozenset[str] = frozenset()
    on_host: bool = False
    risks: Callable[[Capture, Platform, FeatureStatus], Iterator[Risk]] = _no_risks
    vendors_risks: Callable[[Capture, Platform, FeatureStatus], Iterator[Risk]] = _no_risks
    costs: Callable[[Mapping[str, Any], System, Facts], Iterator[str]] = _no_costs
    profiles: Path | None = None
    trial: Callable[[], Trial] | None = None

    @property
    def main(self) -> Setting[Any] | None:
        """The setting that switches it, None where there is nothing to set."""
        return next((one for one in self.settings if one.name == self.name), None)
