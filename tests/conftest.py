# SPDX-License-Identifier: Apache-2.0
"""Options of the test runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.os_calls import in_memory

# How long an example takes, or is made, says more of the computer, which may be busy, than of what is tested.
settings.register_profile(
    "cvmtune", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cvmtune")


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory that needs no disk, for what makes thousands of small files. Programs may not run there."""
    with in_memory() as directory:
        yield directory


@pytest.fixture
def scratch(memory: Path) -> Path:
    """An empty directory in memory."""
    return Path(mkdtemp(dir=memory))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="stress tests: some minutes, one more kernel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--short"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
