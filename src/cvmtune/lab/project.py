# SPDX-License-Identifier: Apache-2.0
"""Where the lab finds what is not Python: a checkout's patch queue, kernel configs and test sources."""

from __future__ import annotations

from pathlib import Path

from cvmtune.lab.errors import LabError


def kernel_directory() -> Path:
    """Return the checkout's kernel/; raises LabError where there is none, as with an installed package."""
    directory = Path(__file__).resolve().parents[3] / "kernel"
    if not (directory / "queue").is_dir():
        raise LabError("no patch queue", str(directory), "run the lab from a checkout of the project")
    return directory
