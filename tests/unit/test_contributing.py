# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING's five commonest changes are true: each is walked through."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cvmtune.cli import options
from cvmtune.features import REGISTRY
from cvmtune.features.soft_ipi import advice
from cvmtune.lab import kernel
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.patches import read_series
from tests.unit.test_advice_rules import cpu, system

TOP = Path(__file__).resolve().parents[2]
CHANGES = ("A feature", "An experiment", "A kernel version", "A flavour", "A threshold")
STANDS_FOR = {"features/NAME": "src/cvmtune/features/wfx", "NAME": "wfx", "VERSION": "6.12"}


def section(title: str) -> str:
    text = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^### {title}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("title", CHANGES)
def test_the_files_that_it_names_are_there(title: str) -> None:
    named = re.findall(r"`([\w./]+(?:/|\.py|\.toml|\.md))`|\]\(([\w./]+)\)", section(title))
    paths = [one or other for one, other in named]
    assert paths
    for path in paths:
        for word, stand_in in (("features/NAME", "features/wfx"), ("workloads/NAME", "workloads/blackbox")):
            path = path.replace(word, stand_in)
        path = path.replace("VERSION", "6.12")
        places = [TOP / path, TOP / "src/cvmtune" / path, TOP / "src/cvmtune/features/wfx" / path]
        places += [TOP / "kernel/queue/6.12" / path]
        assert any(place.exists() for place in places), path


def test_a_feature_has_what_the_table_says() -> None:
    """And no module that it does not tell of: tests/contract/test_fifth_feature.py registers one more."""
    told = set(re.findall(r"`(\w+\.py)`", section("A feature")))
    assert {"feature.py", "knob.py", "settings.py", "status.py", "advice.py", "trial.py"} <= told
    assert all((TOP / "tests/fakes/fifth" / name).exists() for name in ("feature.py", "trial.py"))
    for name in ("soft_ipi", "cq_poll", "wfx"):
        folder = TOP / "src/cvmtune/features" / name
        assert all((folder / module).exists() for module in told - {"__init__.py"})


def test_an_experiment_is_found_by_its_trial() -> None:
    assert [load().experiment.name for load in REGISTRY.trials.values()] == list(REGISTRY.trials)


def test_a_kernel_version_is_a_folder(tmp_path: Path) -> None:
    shutil.copytree(TOP / "kernel/queue", tmp_path / "queue")
    shutil.copytree(tmp_path / "queue/6.12", tmp_path / "queue/6.99")
    series = tmp_path / "queue/6.99/series.toml"
    series.write_text(
        re.sub(r"^base = .*$", 'base = ">=6.99,<6.100"', series.read_text(), flags=re.MULTILINE)
    )
    for version in ((6, 12, 40), (6, 99, 1)):
        found = read_series(tmp_path, version)
        assert found.fits(version)
        assert all(f"6.{version[1]}" in patch.path.parts for patch in found.patches)


def test_a_flavour_is_an_entry_and_its_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(options.FLAVOURS) == FLAVOURS.keys()
    monkeypatch.setitem(kernel.FLAVOURS, "another", replace(FLAVOURS["debug"], name="another"))
    assert kernel.FLAVOURS["another"].fragments == FLAVOURS["debug"].fragments


def test_a_threshold_is_one_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    load = system(cpus=[cpu(20), cpu(4000, idle=0.6)])
    assert advice.advise(load, ()).settings
    monkeypatch.setattr(advice, "MIN_IPIS", 5000.0)
    assert not advice.advise(load, ()).settings
