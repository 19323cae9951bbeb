# SPDX-License-Identifier: Apache-2.0
"""A JSON object is read strictly, and a wrong one is refused with the path of what is wrong."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.fields import Fields


@pytest.mark.parametrize("data", [None, [], "run", 1])
def test_refuses_what_is_no_object(data: object) -> None:
    with pytest.raises(CvmtuneError, match="expected an object") as caught:
        Fields(data, "run", ())
    assert caught.value.where == "run"


@pytest.mark.parametrize("value", [None, True, 1.5, "1"])
def test_refuses_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(CvmtuneError, match="expected a whole number") as caught:
        Fields({"index": value}, "round", ("index",)).integer("index")
    assert caught.value.where == "round.index"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ([], "series.samples"),
        ({}, "series.samples"),
        ([1, "2"], "series.samples[1]"),
        ([math.nan], "series.samples[0]"),
        ([10**400], "series.samples[0]"),
        ([True], "series.samples[0]"),
    ],
)
def test_refuses_what_is_no_list_of_finite_numbers(value: object, where: str) -> None:
    with pytest.raises(CvmtuneError) as caught:
        Fields({"samples": value}, "series", ("samples",)).numbers("samples")
    assert caught.value.where == where


# Lists of texts


@given(st.lists(st.text()))
def test_texts_are_read_as_they_are(texts: list[str]) -> None:
    read = Fields(json.loads(json.dumps({"on": texts})), "cell", ("on",)).texts("on")
    assert read == tuple(texts)
    # to_json leaves tuples as they are.
    assert Fields({"on": tuple(texts)}, "cell", ("on",)).texts("on") == read


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (None, "cell.on"),
        ("ipi", "cell.on"),
        ({"ipi": 1}, "cell.on"),
        (1, "cell.on"),
        ([1], "cell.on[0]"),
        (["ipi", None], "cell.on[1]"),
        (["ipi", "wfx", True, 1], "cell.on[2]"),
        ([["ipi"]], "cell.on[0]"),
    ],
)
def test_refuses_what_is_no_list_of_texts(value: object, where: str) -> None:
    with pytest.raises(CvmtuneError, match="expected") as caught:
        Fields({"on": value}, "cell", ("on",)).texts("on")
    assert caught.value.where == where
