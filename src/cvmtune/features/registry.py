# SPDX-License-Identifier: Apache-2.0
"""A list of features, and what the engines need of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvmtune.core.figure import Unknown
from cvmtune.core.system import Readable
from cvmtune.features import risks
from cvmtune.features.feature import Advice, Feature, FeatureStatus, Risk
from cvmtune.observe import capture as capturing
from cvmtune.observe import load as loads
from cvmtune.observe.capture import Capture
from cvmtune.observe.container import view
from cvmtune.observe.load import Load
from cvmtune.observe.platform import Platform, Signs
from cvmtune.observe.platform import platform as platform_of
from cvmtune.tuning.profile_files import Profiles
from cvmtune.tuning.setting import Settings, by_name
from cvmtune.tuning.transaction import Transactions

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial
    from cvmtune.report.rule import Rules

# Profiles that are of no one feature.
_PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True, eq=False)
class Registry:
    """The features, in the order in which they are shown.

    `workloads` are experiments that use features: what makes their trials of those of the features, by name.
    """

    features: tuple[Feature, ...]
    workloads: Mapping[str, Callable[[Sequence[Trial]], Trial]] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """All settings by name, in the order in which they are applied."""
        return by_name([one for feature in self.features for one in feature.settings])

    @cached_property
    def transactions(self) -> Transactions:
        return Transactions(self.settings)

    @cached_property
    def trials(self) -> Mapping[str, Callable[[], Trial]]:
        """What loads each experiment, by its name."""
        own = {one.name: partial(self._trial, one, one.trial) for one in self.features if one.trial}

        def using_all(make: Callable[[Sequence[Trial]], Trial]) -> Callable[[], Trial]:
            return lambda: make([load() for load in own.values()])

        return {**own, **{name: using_all(make) for name, make in self.workloads.items()}}

    def _trial(self, feature: Feature, load: Callable[[], Trial]) -> Trial:
        """A feature's experiment, with the states in which others' features are on beside its own."""
        from cvmtune.features.trial import switches_of, with_others

        others = (one.trial() for one in self.features if one is not feature and one.trial)
        return with_others(load(), switches_of(others))

    def rules(self) -> Rules:
        """The rules of all experiments, by their names."""
        return {name: load().rule for name, load in self.trials.items()}

    @cached_property
    def signs(self) -> Signs:
        mains = [(feature, feature.main) for feature in self.features]
        return Signs(
            ours=frozenset().union(*(feature.patched for feature in self.features)),
            features=frozenset(one.knob.path for _, one in mains if one),
            host=frozenset(one.knob.path for feature, one in mains if one and feature.on_host),
        )

    @cached_property
    def shipped(self) -> tuple[Path, ...]:
        """The directories of the profiles that come with the package."""
        own = (feature.profiles for feature in self.features)
        return (*(path for path in own if path is not None), _PROFILES)

    def profiles(self, users: Path) -> Profiles:
        """Return the profiles of a directory of the user's, and then the shipped ones."""
        return Profiles((users, *self.shipped), self.shipped, self.settings)

    def capture(self, tree: Readable, *, load: bool = True) -> Capture:
        """Read a machine's files, as observe.capture does, with those of the features."""
        controls = (one.knob.path for one in self.settings.values())
        files = (path for feature in self.features for path in feature.files)
        return capturing.capture(tree, (*controls, *files), load=load)

    def platform(self, capture: Capture) -> Platform:
        return platform_of(capture, self.signs)

    def load(self, before: Capture, after: Capture) -> Load:
        """Compare two captures, as observe.load does."""
        return loads.load(before, after, self.platform(after))

    def present(self, capture: Capture) -> frozenset[str]:
        """The names of the settings whose controls are there, whether or not they can be read."""
        return frozenset(name for name, one in self.settings.items() if capture.has(one.knob.path))

    def status(self, capture: Capture, where: Platform) -> list[FeatureStatus]:
        return [feature.status(capture, where) for feature in self.features]

    def risks(self, capture: Capture, where: Platform, known: Sequence[FeatureStatus]) -> list[Risk]:
        """What is wrong or risky, the features' own problems included."""
        return list(self._risks(capture, where, known))

    def _risks(self, capture: Capture, where: Platform, known: Sequence[FeatureStatus]) -> Iterator[Risk]:
        yield from risks.unknown(capture, known)
        if where.flavour == "vendor":
            main = {feature.name: feature.main for feature in self.features}
            masks = [one.name for one in known if one.there and (of := main[one.name]) and of.is_mask]
            yield from risks.masks_of_a_vendor(masks)
            for feature, status in zip(self.features, known, strict=True):
                yield from feature.vendors_risks(capture, where, status)
        for feature, status in zip(self.features, known, strict=True):
            yield from feature.risks(capture, where, status)

    def advise(self, load: Load) -> list[Advice]:
        """Return one advice for each feature; of a machine that is seen in part only, nothing to set."""
        advice: list[Advice] = []
        for feature in self.features:
            advice.append(feature.advise(load, advice))
        if not (why := view(load.now)):
            return advice
        reason = f"{why}: what its files count is not all the machine's, or another's; run it on the machine"
        return [
            Advice(one.feature, reason, figures=dict.fromkeys(one.figures, Unknown(why)))
            if feature.settings
            else one
            for feature, one in zip(self.features, advice, strict=True)
        ]

    def encode(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return values by setting as texts in canonical form, in the order of settings."""
        return {name: one.knob.encode(values[name]) for name, one in self.settings.items() if name in values}

    def shown(self, name: str, text: str) -> str:
        """Show a value that is in canonical form as people want to see it."""
        return self.settings[name].shown(text)
