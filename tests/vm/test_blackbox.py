# SPDX-License-Identifier: Apache-2.0
"""The database in real machines: protected writes with all features off and on, and a power cut."""

from __future__ import annotations

import pytest

from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.rounds import PART, RawRun
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import Machine
from cvmtune.lab.specs import MachineName
from cvmtune.workloads import database, postgres, power_cut
from cvmtune.workloads.blackbox import experiment as blackbox
from cvmtune.workloads.blackbox.loads import BlackboxScale
from tests.fakes.bound import SWITCHES
from tests.vm.shared_machines import CVM, PLAIN

pytestmark = pytest.mark.on(CVM)

LOADS = ("insert", "tpcb", "audit")
SMALL = BlackboxScale(seconds=1.5, records=15, closed_transactions=10)


def value(raw: RawRun, state: str, name: str) -> float:
    """The mean of a metric's samples in the one round of a state."""
    (samples,) = (
        series.samples
        for one in raw.rounds
        if one.state == state
        for series in one.series
        if series.name == name
    )
    return sum(samples) / len(samples)


@pytest.fixture(scope="module")
def raw(machine: Machine) -> RawRun:
    """A round of all off and one of all on, in a confidential VM."""
    return runner.run(
        blackbox.BlackboxExperiment(SWITCHES, SMALL),
        Bench.of(machine, GUEST_TOOLS),
        Measurement("blackbox", MachineName.CVM, ("off", "on"), 1),
        environment={},
    )


@pytest.mark.parametrize("state", ["off", "on"])
@pytest.mark.parametrize("load", LOADS)
def test_all_that_was_promised_is_there(raw: RawRun, load: str, state: str) -> None:
    assert value(raw, state, f"{load}_lost") == 0
    assert value(raw, blackbox.AFTER, "all_lost") == value(raw, blackbox.AFTER, "damage") == 0


@pytest.mark.parametrize("load", LOADS)
def test_features_save_what_they_are_for(raw: RawRun, load: str) -> None:
    assert value(raw, "on", f"{load}_ipis") < value(raw, "off", f"{load}_ipis")
    assert value(raw, "on", f"{load}_wakeups") < value(raw, "off", f"{load}_wakeups") / 2
    assert value(raw, "off", f"{load}_wfx_exits") > 1
    assert value(raw, "on", f"{load}_wfx_exits") < 1


@pytest.mark.parametrize("state", ["off", "on"])
@pytest.mark.parametrize("load", LOADS)
def test_parts_add_up_to_the_latency(raw: RawRun, load: str, state: str) -> None:
    names = {series.name for one in raw.rounds for series in one.series}
    parts = [value(raw, state, name) for name in names if name.startswith(f"{load}{PART}")]
    assert len(parts) == 6
    assert sum(parts) == pytest.approx(value(raw, state, load), rel=1e-6)


@pytest.mark.on(PLAIN)
def test_damage_is_found(machine: Machine) -> None:
    guest = machine.guest
    at = guest.run(["mktemp", "-d", "-p", "/var/lib"]).check().stdout.strip()
    # The database's own user must get in.
    guest.run(["chmod", "755", at]).check()
    database.unpack(guest, GUEST_TOOLS, at)
    cluster = f"{at}/{database.CLUSTER}"
    with postgres.running(guest, cluster) as running:
        assert running.damage() == 0
        running.query("update pgbench_tellers set tbalance = tbalance + 1 where tid = 1;")
        assert running.damage() == 1
        file = running.query("select pg_relation_filepath('pgbench_accounts_pkey');")[0][0]
    assert postgres.damaged_blocks(guest, cluster) == 0
    script = f"printf spoilt | dd of={cluster}/{file} bs=1 seek=50000 conv=notrunc"
    guest.run(["sh", "-c", script]).check()
    assert postgres.damaged_blocks(guest, cluster) == 1
    with postgres.running(guest, cluster) as running:
        assert running.damage() > 1
    guest.run(["rm", "-r", at]).check()


def outcome(lab: Lab, machine: str, *, synchronous: bool) -> dict[str, float]:
    found = power_cut.cut_power(lab, MachineName(machine), SWITCHES, synchronous=synchronous)
    return {series.name: series.samples[0] for series in found}


long = (pytest.mark.stress, pytest.mark.long)


@pytest.mark.parametrize("name", ["plain", pytest.param("cvm", marks=long)])
def test_power_cut_loses_no_commit(lab: Lab, name: str) -> None:
    found = outcome(lab, name, synchronous=True)
    assert found["cut_lost"] == found["cut_damage"] == 0
    assert found["cut_committed"] >= 100


@pytest.mark.stress
@pytest.mark.long
def test_power_cut_loses_what_was_not_durable(lab: Lab) -> None:
    """Without it nobody would know that the other one can fail."""
    found = outcome(lab, "plain", synchronous=False)
    assert found["cut_lost"] > 0
    assert found["cut_damage"] == 0
