# SPDX-License-Identifier: Apache-2.0
"""Errors meant for the user: what went wrong, where, and what to do next."""

from typing import ClassVar


class CvmtuneError(Exception):
    """An expected failure, told to the user without a traceback.

    `what` is one clause, `where` the file, machine or setting it happened at, `next_step` the user's best
    next action. `exit_code` is the status that the command line ends with.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, where: str = "", next_step: str = "") -> None:
        super().__init__(what, where, next_step)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        text = f"{self.what} ({self.where})" if self.where else self.what
        return f"{text}\n  next: {self.next_step}" if self.next_step else text


class UsageError(CvmtuneError):
    """The command line, or a file that the user wrote, asks for something that makes no sense."""

    exit_code: ClassVar[int] = 2
