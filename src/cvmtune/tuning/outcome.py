# SPDX-License-Identifier: Apache-2.0
"""What becomes of settings that are applied, compared with what is, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cvmtune.core.errors import CvmtuneError


class PartlyApplied(CvmtuneError):
    """Some settings could not be put back and are in force still; the journal has what rollback() needs."""

    exit_code: ClassVar[int] = 4


class NotSet(CvmtuneError):
    """The knob of `setting` failed, because of `why`; all settings are as before."""

    def __init__(self, setting: str, why: CvmtuneError) -> None:
        what = f"cannot set {setting}: {why.what}; all settings are as before"
        super().__init__(what, why.where, why.next_step)
        self.setting = setting
        self.why = why


@dataclass(frozen=True)
class Check:
    """What a setting was last set to, and what it is; values are canonical.

    `present` is None if the control cannot be read; `problem` says why, or why what it shows is not in force.
    """

    name: str
    path: str
    wanted: str
    present: str | None
    problem: str | None

    @property
    def holds(self) -> bool:
        """Tell whether the setting is as it was set."""
        return self.present == self.wanted and self.problem is None


@dataclass(frozen=True)
class Verification:
    """What has been applied and not been rolled back, and whether it is in force.

    `interrupted`: an apply or a rollback of this boot has not come to its end; it may be at work just now.
    `restarted`: the machine has been restarted since, which ended all settings. `source` and `kernel`, a
    release, are those of the newest apply, "" if there is none; `running` is the present kernel's.
    """

    applied: bool
    interrupted: bool
    restarted: bool
    source: str
    kernel: str
    running: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Restored:
    """A setting that rollback() has put back to `value`, what it was before the first apply.

    `found` is what it was until then, None if it could not be read; `foreign`: that is no value that cvmtune
    has found or set, so somebody else has changed it since. Nothing was written if it was `gone`, its control
    having vanished and the setting with it, or if the machine was `restarted` since, which ended it too.
    """

    name: str
    path: str
    found: str | None
    value: str
    foreign: bool
    gone: bool
    restarted: bool
