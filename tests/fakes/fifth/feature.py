# SPDX-License-Identifier: Apache-2.0
"""The toy feature: a number in one file, which is off at 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cvmtune.core.system import System
from cvmtune.features.feature import Advice, Feature, FeatureStatus, Risk
from cvmtune.observe.capture import Capture
from cvmtune.observe.captured import CapturedSystem
from cvmtune.observe.load import Load
from cvmtune.observe.platform import Platform
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.parameter import Microseconds
from cvmtune.tuning.setting import Facts, Setting, number

if TYPE_CHECKING:
    from cvmtune.features.trial import Trial

PATH = "/sys/kernel/toy_us"


class Toy(Microseconds):
    path = PATH
    noun = "toy"
    missing = "this kernel has no toys"


SETTING = Setting(
    name="toy",
    metavar="US",
    help="how long to toy, in microseconds; 0: off",
    types=(int, str),
    allowed="a number of microseconds",
    knob=Toy(),
    parse=lambda text, facts: number(text, 1000),
    show=lambda value: f"{value} us" if value else "off",
    off=0,
)


def status(capture: Capture, where: Platform) -> FeatureStatus:
    try:
        value = SETTING.knob.value(CapturedSystem(capture))
    except KnobError as error:
        return FeatureStatus("toy", "absent", problem=str(error))
    return FeatureStatus("toy", "on" if value else "off", {"toy": value}, did="7 toys")


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    if status.settings.get("toy", 0) > 500:
        yield Risk("it toys for long", "toy less")


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    return Advice("toy", "nobody toys here", {"toy": 250}, gain="joy", cost="time")


def costs(after: Mapping[str, Any], system: System, facts: Facts) -> Iterator[str]:
    if after.get("toy"):
        yield f"{after['toy']} us of toys"


def _trial() -> Trial:
    from tests.fakes.fifth.trial import TRIAL

    return TRIAL


FEATURE = Feature(
    name="toy",
    settings=(SETTING,),
    status=status,
    risks=risks,
    advise=advise,
    costs=costs,
    trial=_trial,
)
