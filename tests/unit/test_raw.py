# SPDX-License-Identifier: Apache-2.0
"""Raw runs survive JSON, and a malformed one is refused with the path of what is wrong."""

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.rounds import BETTER, KINDS, Fields, RawRun, Round, Series

finite = st.floats(allow_nan=False, allow_infinity=False)
series = st.builds(
    Series,
    name=st.text(),
    title=st.text(),
    unit=st.text(),
    kind=st.sampled_from(KINDS),
    better=st.sampled_from(BETTER),
    samples=st.lists(finite, min_size=1, max_size=5).map(tuple),
)
rounds = st.builds(
    Round,
    state=st.sampled_from(["off", "on", "nohlt"]),
    index=st.integers(),
    series=st.lists(series, max_size=3, unique_by=lambda one: one.name).map(tuple),
)
runs = st.builds(
    RawRun,
    feature=st.text(),
    machine=st.text(),
    rounds=st.lists(rounds, max_size=4, unique_by=lambda one: (one.state, one.index)).map(tuple),
    environment=st.dictionaries(st.text(), st.text() | st.integers() | finite | st.lists(st.text())),
)

GOOD: dict[str, Any] = {
    "feature": "ipi",
    "machine": "cvm",
    "rounds": [
        {
            "state": "off",
            "index": 0,
            "series": [
                {
                    "name": "notify",
                    "title": "t",
                    "unit": "ns",
                    "kind": "time",
                    "better": "lower",
                    "samples": [1, 2.5],
                }
            ],
        }
    ],
    "environment": {"kernel": "6.12", "cpus": 4, "hosts": ["a"]},
}


@given(runs)
def test_survives_json(run: RawRun) -> None:
    assert RawRun.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_reads_a_file() -> None:
    run = RawRun.from_json(GOOD)
    assert run.rounds[0].series[0].samples == (1.0, 2.5)


ROUND = ("rounds", 0)
SERIES = (*ROUND, "series", 0)


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("feature",), 1, "run.feature"),
        (("rounds",), {}, "run.rounds"),
        (("environment",), [], "run.environment"),
        (("environment", "kernel"), None, "run.environment.kernel"),
        (ROUND, "off", "run.rounds[0]"),
        ((*ROUND, "index"), True, "run.rounds[0].index"),
        ((*ROUND, "index"), 1.5, "run.rounds[0].index"),
        ((*SERIES, "kind"), "speed", "run.rounds[0].series[0].kind"),
        ((*SERIES, "better"), [], "run.rounds[0].series[0].better"),
        ((*SERIES, "samples"), [], "run.rounds[0].series[0].samples"),
        ((*SERIES, "samples"), [1, "2"], "run.rounds[0].series[0].samples[1]"),
        ((*SERIES, "samples"), [math.nan], "run.rounds[0].series[0].samples[0]"),
        ((*SERIES, "samples"), [10**400], "run.rounds[0].series[0].samples[0]"),
        ((*SERIES, "speed"), 1, "run.rounds[0].series[0].speed"),
    ],
)
def test_refuses_a_wrong_field(place: tuple[str | int, ...], value: object, where: str) -> None:
    data = copy.deepcopy(GOOD)
    target: Any = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with pytest.raises(CvmtuneError) as caught:
        RawRun.from_json(data)
    assert caught.value.where == where


@pytest.mark.parametrize("name", GOOD)
def test_refuses_a_missing_field(name: str) -> None:
    with pytest.raises(CvmtuneError) as caught:
        RawRun.from_json({key: value for key, value in GOOD.items() if key != name})
    assert (caught.value.what, caught.value.where) == ("missing", f"run.{name}")


@pytest.mark.parametrize("data", [None, [], "run", 1])
def test_refuses_what_is_no_object(data: object) -> None:
    with pytest.raises(CvmtuneError, match="expected an object"):
        RawRun.from_json(data)


def test_refuses_a_round_that_appears_twice() -> None:
    with pytest.raises(CvmtuneError, match="'off 0' appears twice") as caught:
        RawRun.from_json({**GOOD, "rounds": GOOD["rounds"] * 2})
    assert caught.value.where == "run"


def test_refuses_a_series_that_appears_twice() -> None:
    one = GOOD["rounds"][0]
    with pytest.raises(CvmtuneError, match="'notify' appears twice") as caught:
        RawRun.from_json({**GOOD, "rounds": [{**one, "series": one["series"] * 2}]})
    assert caught.value.where == "run.rounds[0]"


@pytest.mark.parametrize("samples", [(), (1.0, math.inf), (math.nan,)])
def test_a_series_needs_finite_samples(samples: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="'notify'"):
        Series("notify", "t", "ns", "time", "lower", samples)


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
