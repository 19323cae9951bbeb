# SPDX-License-Identifier: Apache-2.0
"""The engines bound to the registry of features, as functions for tests: values are in canonical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.errors import CvmtuneError
from cvmtune.features import REGISTRY, cq_poll, soft_ipi, vtimer, wfx
from cvmtune.features.feature import Advice, FeatureStatus, Risk
from cvmtune.features.trial import switches_of
from cvmtune.observe.capture import Capture
from cvmtune.observe.load import Load
from cvmtune.observe.platform import Platform
from cvmtune.report.rule import Factors
from cvmtune.tuning import profile as profiles
from cvmtune.tuning.profile import Profile, Resolved
from cvmtune.tuning.profile_files import Profiles
from cvmtune.tuning.setting import Facts, find

SETTINGS = REGISTRY.settings
KNOBS = {name: one.knob for name, one in SETTINGS.items()}
MASKS = frozenset(name for name, one in SETTINGS.items() if one.is_mask)

transaction = REGISTRY.transactions
plan = transaction.plan
apply = transaction.apply
verify = transaction.verify
rollback = transaction.rollback

capture = REGISTRY.capture
place = REGISTRY.platform
load = REGISTRY.load
present = REGISTRY.present
shown = REGISTRY.shown


def features(seen: Capture, where: Platform) -> list[FeatureStatus]:
    return [replace(one, settings=REGISTRY.encode(one.settings)) for one in REGISTRY.status(seen, where)]


def risks(seen: Capture, where: Platform, known: Sequence[FeatureStatus]) -> list[Risk]:
    decoded = [
        replace(one, settings={name: KNOBS[name].decode(text) for name, text in one.settings.items()})
        for one in known
    ]
    return REGISTRY.risks(seen, where, decoded)


def _encoded(advice: Advice) -> Advice:
    return replace(advice, settings=REGISTRY.encode(advice.settings), polling=CpuMask(frozenset()))


def advise(seen: Load) -> list[Advice]:
    return [_encoded(one) for one in REGISTRY.advise(seen)]


def advise_ipi(seen: Load) -> Advice:
    return _encoded(soft_ipi.advice.advise(seen, ()))


def advise_vtimer(seen: Load) -> Advice:
    return vtimer.advice.advise(seen, ())


def advise_cq_poll(seen: Load, soft: CpuMask) -> Advice:
    return _encoded(cq_poll.advice.advise(seen, [Advice("another", "", polling=soft)]))


def advise_wfx(seen: Load) -> Advice:
    return _encoded(wfx.advice.advise(seen, ()))


# Profiles

SHIPPED = REGISTRY.shipped


def _profiles(directories: Sequence[Path | tuple[Path, ...]]) -> Profiles:
    """The profiles of directories, or of several at once, as SHIPPED is."""
    flat = [each for one in directories for each in (one if isinstance(one, tuple) else (one,))]
    return Profiles(tuple(flat), SHIPPED, SETTINGS)


def load_profile(name: str, directories: Sequence[Path | tuple[Path, ...]]) -> Profile:
    return _profiles(directories).load(name)


def available(directories: Sequence[Path | tuple[Path, ...]]) -> list[Profile | CvmtuneError]:
    return _profiles(directories).available()


def unmet(profile: Profile, facts: Facts) -> list[str]:
    return profiles.unmet(profile, facts, SETTINGS)


def resolve(profile: Profile, facts: Facts) -> Resolved:
    found = profiles.resolve(profile, facts, SETTINGS)
    return replace(found, settings=REGISTRY.encode(found.settings))


def check_value(name: str, value: object) -> str:
    return find(SETTINGS, name).check(value)


def resolve_setting(name: str, text: str, facts: Facts) -> str:
    setting = find(SETTINGS, name)
    return setting.knob.encode(setting.resolve(text, facts))


# Experiments

TRIALS = REGISTRY.trials
RULES = REGISTRY.rules()
SWITCHES = switches_of(feature.trial() for feature in REGISTRY.features if feature.trial)


def _factors() -> Factors:
    found = RULES["blackbox"].factors
    assert found
    return found


BLACKBOX = _factors()
