# SPDX-License-Identifier: Apache-2.0
"""Machines of the lab for the tests. The default kernel is built first if it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmtune.lab.cache import Cache
from cvmtune.lab.lab import Lab
from cvmtune.lab.machine import Machine
from cvmtune.lab.progress import terminal_progress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab(Cache(), terminal_progress())


@pytest.fixture(scope="module")
def plain(lab: Lab) -> Iterator[Machine]:
    with lab.boot("plain") as machine:
        yield machine


@pytest.fixture(scope="module")
def cvm(lab: Lab) -> Iterator[Machine]:
    with lab.boot("cvm") as machine:
        yield machine
