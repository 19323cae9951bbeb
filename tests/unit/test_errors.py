# SPDX-License-Identifier: Apache-2.0
import pickle

import pytest

from cvmtune.core.errors import CvmtuneError, UsageError


@pytest.mark.parametrize(
    ("where", "next_step", "text"),
    [
        ("", "", "no answer"),
        ("guest 1", "", "no answer (guest 1)"),
        ("", "boot it again", "no answer\n  next: boot it again"),
        ("guest 1", "boot it again", "no answer (guest 1)\n  next: boot it again"),
    ],
)
def test_text_names_what_is_known(where: str, next_step: str, text: str) -> None:
    assert str(CvmtuneError("no answer", where, next_step)) == text


def test_fields_are_kept() -> None:
    error = CvmtuneError("no answer", where="guest 1", next_step="boot it again")
    assert (error.what, error.where, error.next_step) == ("no answer", "guest 1", "boot it again")


def test_exit_codes() -> None:
    assert CvmtuneError("x").exit_code == 3
    assert UsageError("x").exit_code == 2


def test_usage_error_is_caught_as_cvmtune_error() -> None:
    assert issubclass(UsageError, CvmtuneError)


def test_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(UsageError("no answer", "guest 1", "boot it again")))
    assert type(copy) is UsageError
    assert str(copy) == "no answer (guest 1)\n  next: boot it again"
