# SPDX-License-Identifier: Apache-2.0
"""Options of the test runs."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="stress tests: some minutes in all")
