# SPDX-License-Identifier: Apache-2.0
"""A fifth feature, from one folder and one entry of the registry, is everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvmtune.features import REGISTRY
from cvmtune.features.registry import Registry
from tests.fakes.controls import UintKernel
from tests.fakes.fifth.feature import FEATURE, PATH
from tests.fakes.tree import Machine, our_guest

FIVE = Registry((*REGISTRY.features, FEATURE), REGISTRY.workloads)


@pytest.fixture
def guest(tmp_path: Path) -> Machine:
    machine = our_guest(tmp_path / "root")
    machine.registry = FIVE
    machine.add(UintKernel(machine.root, PATH, 0))
    return machine


def test_status_shows_it(guest: Machine) -> None:
    guest.echo("700", PATH)
    outcome = guest.run("status")
    assert outcome.status == 0
    assert any(
        line.split()[:3] == ["toy", "on", "700"] and "7 toys" in line for line in outcome.out.splitlines()
    )
    assert "it toys for long. Next: toy less" in outcome.out
    (toy,) = (one for one in guest.run("status", "--json").json["features"] if one["name"] == "toy")
    assert (toy["status"], toy["settings"]) == ("on", {"toy": "700"})


def test_a_recommendation_has_it_and_is_applied(guest: Machine, tmp_path: Path) -> None:
    assert "toy: 250 us" in guest.watch().out
    content = guest.watch("--json").json
    assert content["settings"]["toy"] == "250"
    path = guest.user_file("/root/today.json", json.dumps({**content, "settings": {"toy": "250"}}))
    assert guest.run("apply", str(path)).status == 0
    assert guest.get(PATH) == "250\n"


def test_it_is_applied_verified_and_rolled_back(guest: Machine) -> None:
    applied = guest.run("apply", "--toy", "50", "--ipi", "off")
    assert (applied.status, guest.get(PATH)) == (0, "50\n"), applied
    assert "cost: 50 us of toys" in applied.out
    verified = guest.run("verify")
    assert (verified.status, "toy" in verified.out) == (0, True)
    guest.echo("60", PATH)
    assert guest.run("verify").status == 1
    assert guest.run("rollback").status == 0
    assert guest.get(PATH) == "0\n"


def test_bad_values_change_nothing(guest: Machine) -> None:
    for value in ("x", "-1", "1000"):
        outcome = guest.run("apply", "--toy", value)
        assert outcome.status == 2
        assert "give a number of microseconds" in outcome.err
    assert guest.get(PATH) == "0\n"


def test_a_profile_may_set_it(guest: Machine) -> None:
    guest.profile("toys", "[require]\nfeatures = ['toy']\n[set]\ntoy = 30\n")
    assert guest.run("apply", "toys").status == 0
    assert guest.get(PATH) == "30\n"


@pytest.mark.parametrize("command", ["apply", "persist"])
def test_help_tells_its_option(guest: Machine, command: str) -> None:
    told = guest.run(command, "--help").out
    assert "--toy US" in told
    assert "how long to toy" in told


def test_prove_would_measure_it(guest: Machine) -> None:
    assert "toy" in guest.run("prove", "--help").out
    outcome = guest.run("prove", "toy", "--dry-run")
    assert outcome.out.splitlines() == ["toy: on cvm: 6 rounds each of 'off', 'on'"]


def test_without_it_nothing_of_it_is_there(guest: Machine) -> None:
    guest.registry = REGISTRY
    assert "toy" not in guest.run("status").out
    assert guest.run("apply", "--toy", "5").status == 2
