# SPDX-License-Identifier: Apache-2.0
"""The house is in order: a feature is one folder, modules and functions are short, arrows go down."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cvmtune
from cvmtune.features import REGISTRY

PACKAGE = Path(cvmtune.__file__).parent
TOP = Path(__file__).resolve().parents[2]
MODULES = sorted(PACKAGE.rglob("*.py"))
# How each feature's name is written: the folder, and what its name looks like elsewhere.
NAMES = {
    "soft_ipi": r"soft.?ipi|soft IPI|[\"']ipi[\"']|^ipi\b",
    "vtimer": r"vtimer",
    "cq_poll": r"cq.?poll",
    "wfx": r"wfx",
}
# Outside of its folder a feature may be named by the registry, a profile, a machine or a guest of the lab.
MAY_NAME = 3
MAX_MODULE, MAX_FUNCTION = 350, 60


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def named_in(feature: str) -> list[str]:
    """The files outside of a feature's folder that name it."""
    pattern = re.compile(NAMES[feature], re.IGNORECASE | re.MULTILINE)
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    elsewhere = [path for path in files if PACKAGE / "features" / feature not in path.parents]
    return [
        str(path.relative_to(PACKAGE))
        for path in sorted(elsewhere)
        if pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    ]


def test_every_feature_has_its_folder() -> None:
    folders = {path.parent.name for path in (PACKAGE / "features").glob("*/feature.py")}
    assert folders == NAMES.keys()
    assert len(REGISTRY.features) == len(folders)


@pytest.mark.parametrize("feature", NAMES)
def test_a_feature_is_named_in_its_folder_and_hardly_elsewhere(feature: str) -> None:
    assert len(named_in(feature)) <= MAY_NAME, named_in(feature)


def test_everything_that_can_be_off_is_off_in_the_profile_for_that() -> None:
    profile = REGISTRY.profiles(TOP / "nowhere").load("off")
    able = {name for name, one in REGISTRY.settings.items() if one.off is not None}
    assert able <= {*profile.settings, *profile.optional}


def test_modules_are_short() -> None:
    assert {str(path): lines(path) for path in MODULES if lines(path) > MAX_MODULE} == {}


def test_functions_are_short() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION:
                    long[f"{path.name}:{node.name}"] = length
    assert long == {}


def test_a_target_loads_neither_lab_nor_experiments() -> None:
    """What `status` imports there is Python's own and these."""
    script = (
        "import sys; from cvmtune import cli; from cvmtune.commands import apply, recommend, status, verify; "
        "cli.parser(); print(*sorted(sys.modules))"
    )
    argv = [sys.executable, "-c", script]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    own = tuple(f"cvmtune.{part}" for part in ("lab", "experiments", "workloads", "report"))
    unwanted = (*own, "rich", "jinja2", "matplotlib", "msgspec", "scipy", "numpy")
    assert [name for name in loaded if name.startswith(unwanted)] == []
