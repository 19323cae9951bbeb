# SPDX-License-Identifier: Apache-2.0
"""Machines of the lab for the tests. What they need is built first if it is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import LabError
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import Machine
from cvmtune.lab.progress import terminal_progress
from tests.vm.shared_machines import Shared, state

# For a process that has been told to end, in seconds: no more than tells that it hangs.
_SETTLING = 20.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "booted" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("on")
        assert marker, f"{metafunc.definition.nodeid} names no machine: pytest.mark.on(...)"
        metafunc.parametrize("booted", marker.args, indirect=True, ids=str)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have all tests of a machine follow one another; the one that ends it is the last."""
    here = Path(__file__).parent
    ranks: dict[Shared, int] = {}
    ended: dict[Shared, str] = {}

    def key(item: pytest.Item) -> tuple[int, bool]:
        if here not in item.path.parents:
            return -2, False
        item.add_marker(pytest.mark.vm)
        machine = _machine_of(item)
        if machine is None:
            return -1, False
        ends = item.get_closest_marker("ends") is not None
        if ends:
            other = ended.setdefault(machine, item.nodeid)
            assert other == item.nodeid, f"{machine} can be ended once: {other}, {item.nodeid}"
        return ranks.setdefault(machine, len(ranks)), ends

    items.sort(key=key)


def _machine_of(item: pytest.Item) -> Shared | None:
    found = item.callspec.params.get("booted") if hasattr(item, "callspec") else None
    return found if isinstance(found, Shared) else None


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab(Cache(), terminal_progress())


@dataclass
class Booted:
    """A machine that is up, and its state when the last module had left it."""

    machine: Machine
    state: frozenset[str]


@pytest.fixture(scope="session")
def booted(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Booted]:
    """The one shared machine that is up: pytest ends it when a test wants another."""
    shared: Shared = request.param
    tools = [build(lab) for build in shared.tools]
    with lab.boot(shared.machine, flavour=shared.flavour, options=shared.options, tools=tools) as machine:
        yield Booted(machine, state(machine))


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, booted: Booted) -> Iterator[Machine]:
    """A machine that this module shares with others, and leaves as it found it."""
    before = booted.state
    yield booted.machine
    # A machine that is lost, or that a test has ended, cannot be asked.
    with suppress(LabError):
        end = time.monotonic() + _SETTLING
        while (after := state(booted.machine)) != before and time.monotonic() < end:
            time.sleep(0.5)
        booted.state = after
        gone, new = sorted(before - after), sorted(after - before)
        assert not gone + new, f"{request.node.name} leaves its machine with {new}, without {gone}"
