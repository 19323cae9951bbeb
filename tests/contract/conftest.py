# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the contract tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmtune.core import command
from tests.fakes.kernel import BootKernel, FakeKernel
from tests.fakes.systemd import FakeSystemd


@pytest.fixture
def tmp_path(scratch: Path) -> Path:
    """As pytest's own, but in memory."""
    return scratch


@pytest.fixture
def boot(tmp_path: Path) -> BootKernel:
    """Return what makes a fresh fake kernel: boot(path, width=4, possible="0-3", kind=FakeKernel)."""
    count = 0

    def make(
        path: str, width: int = 4, possible: str | None = None, kind: type[FakeKernel] = FakeKernel
    ) -> FakeKernel:
        nonlocal count
        count += 1
        root = tmp_path / f"kernel{count}"
        root.mkdir()
        return kind(root, path, width, f"0-{width - 1}" if possible is None else possible)

    return make


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    """The systemd that is spoken to: none of the tests is for that of the computer that runs it."""
    fake = FakeSystemd()
    monkeypatch.setattr(command, "run", fake.run)
    return fake
