# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration: what fragments ask for, and the proof that it was done."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmtune.lab import kconfig
from cvmtune.lab.errors import BadConfig
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.project import kernel_directory


def test_a_later_fragment_replaces_what_an_earlier_one_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("# reason\nCONFIG_A=y\nCONFIG_B=1\n\n")
    (tmp_path / "b").write_text('CONFIG_A=n\nCONFIG_C="text"\n')
    options = kconfig.read_fragments([tmp_path / "a", tmp_path / "b"])
    assert kconfig.to_text(options) == 'CONFIG_A=n\nCONFIG_B=1\nCONFIG_C="text"\n'
    assert [option.fragment for option in options] == ["b", "a", "b"]


@pytest.mark.parametrize("text", ["CONFIG_A=y\nCONFIG_A=n\n", "CONFIG_A\n", "A=y\n", " CONFIG_A=y\n"])
def test_a_bad_fragment_is_refused(tmp_path: Path, text: str) -> None:
    fragment = tmp_path / "fragment"
    fragment.write_text(text)
    with pytest.raises(BadConfig) as error:
        kconfig.read_fragments([fragment])
    assert f"{fragment}:{len(text.splitlines())}" in str(error.value)


def test_every_difference_is_told(tmp_path: Path) -> None:
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=16\nCONFIG_E=n\nCONFIG_F=y\n")
    config = tmp_path / ".config"
    config.write_text("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=8\n")
    with pytest.raises(BadConfig) as error:
        kconfig.check(kconfig.read_fragments([fragment]), config)
    assert error.value.what.splitlines()[1:] == [
        "  CONFIG_B=y, wanted by fragment, became n",
        "  CONFIG_C=n, wanted by fragment, became m",
        "  CONFIG_D=16, wanted by fragment, became 8",
        "  CONFIG_F=y, wanted by fragment, became n",
    ]


def test_the_projects_own_fragments() -> None:
    configs = kernel_directory() / "configs"
    used = {name for flavour in FLAVOURS.values() for name in flavour.fragments}
    assert used == {path.name for path in configs.iterdir()}
    for flavour in FLAVOURS.values():
        options = kconfig.read_fragments(configs / name for name in flavour.fragments)
        # A line that a later one replaces would be dead.
        assert len(options) == sum(
            len(kconfig.read_fragments([configs / name])) for name in flavour.fragments
        ), flavour.name
    for path in configs.iterdir():
        for group in path.read_text().split("\n\n"):
            assert group.startswith("#"), f"a group of {path.name} has no reason: {group}"
