# SPDX-License-Identifier: Apache-2.0
"""The experiment `blackbox` against a guest and a host whose counters count as real ones would."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.experiments import runner
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.experiment import Measurement
from cvmtune.experiments.host import Host
from cvmtune.experiments.rounds import RawRun, Round
from cvmtune.features.cq_poll import knob as cq_poll
from cvmtune.features.soft_ipi import knob as soft_ipi
from cvmtune.features.trial import switched as switched_by
from cvmtune.features.trial import switches_of
from cvmtune.features.wfx import knob as wfx
from cvmtune.lab.specs import MachineName
from cvmtune.tuning.contract import KnobError
from cvmtune.workloads.blackbox import experiment as blackbox
from cvmtune.workloads.blackbox.experiment import AFTER, BlackboxExperiment
from cvmtune.workloads.blackbox.loads import (
    DEFAULT_SCALE,
    BlackboxScale,
    closed_loads,
    main_loads,
    more_loads,
)
from tests.fakes.bound import TRIALS
from tests.fakes.database import (
    ACTIVE_MS,
    BEGUN,
    EXECUTE_MS,
    EXIT_NS,
    HYPERCALLS,
    IDLE_US,
    LAG_US,
    LATENCY_US,
    LOG_SYNC_MS,
    LOG_WRITE_MS,
    MODE,
    RTT_MS,
    TRAVEL,
    UNDELAYED_US,
    Cost,
    FakeGuest,
    Machine,
)
from tests.fakes.kernel import When
from tests.fakes.machine import FAULTS, PID, Refused, fail_in_turn

SWITCHES = switches_of(load() for load in TRIALS.values())
EXPERIMENT = BlackboxExperiment(SWITCHES)
FEATURES = EXPERIMENT.features
COMBINATIONS = {name: state.features for name, state in EXPERIMENT.states.items()}
SINGLES = EXPERIMENT.form(brief=True).combined
SCALE = BlackboxScale(
    rates=(("insert", 20), ("tpcb", 10)),
    seconds=0.5,
    clients=(1, 2),
    closed_transactions=4,
    producers=3,
    records=2,
    server_cpu=0,
    client_cpu=1,
)
# As little as there can be, for what is run hundreds of times.
TINY = replace(SCALE, rates=(("insert", 4),))
LOADS = ("insert", "tpcb", "audit")
COST = Cost()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def different(root: Path, confidential: bool = True) -> Machine:
    """A machine that comes with all of it set to something that no state has."""
    machine = Machine(root, confidential)
    machine.guest.cpus, machine.host.cpus = {1}, {5}
    machine.first = machine.state()
    return machine


def run(
    machine: Machine,
    states: Sequence[str] = ("off", "on"),
    rounds: int = 1,
    *,
    scale: BlackboxScale = SCALE,
    host: bool = True,
    more: bool = False,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    return runner.run(
        BlackboxExperiment(SWITCHES, scale),
        Bench(machine.guest, Host(machine.host, PID) if host else None, MachineName.CVM, "/tools"),
        Measurement("blackbox", MachineName.CVM, tuple(states), rounds, more=more),
        environment={"kernel": "6.12"},
        advance=advance,
    )


def switched(
    guest: FakeGuest, host: Host | None, features: frozenset[str], *, poll_cpu: int
) -> AbstractContextManager[None]:
    return switched_by(Bench(guest, host, MachineName.CVM, "/tools"), SWITCHES, features, poll_cpu)


def samples(raw: RawRun, state: str, name: str, index: int = 0) -> tuple[float, ...]:
    (one,) = (one for one in raw.rounds if (one.state, one.index) == (state, index))
    (found,) = (series for series in one.series if series.name == name)
    return found.samples


def measured(raw: RawRun) -> tuple[Round, ...]:
    """The rounds without what comes after them all."""
    *rounds, after = raw.rounds
    assert (after.state, after.index) == (AFTER, 0)
    assert all(one.state in COMBINATIONS for one in rounds)
    return tuple(rounds)


def sample(raw: RawRun, state: str, name: str) -> float:
    (only,) = samples(raw, state, name)
    return only


# Names of states


def test_states_are_all_combinations_of_the_four_features() -> None:
    assert sorted(FEATURES) == ["cq-poll", "ipi", "vtimer", "wfx"]
    assert len(COMBINATIONS) == 16
    assert len(set(COMBINATIONS.values())) == 16
    assert all(features <= set(FEATURES) for features in COMBINATIONS.values())


def test_names_of_states() -> None:
    assert COMBINATIONS["off"] == frozenset()
    assert COMBINATIONS["on"] == set(FEATURES)
    for name, features in COMBINATIONS.items():
        if name not in ("off", "on"):
            assert set(name.split("+")) == features
            assert name.count("+") == len(features) - 1
    assert COMBINATIONS["ipi+cq-poll"] == {"ipi", "cq-poll"}  # by this name others ask for it
    assert set(SINGLES) == set(FEATURES)
    assert list(COMBINATIONS)[:1] == ["off"]


@given(st.sets(st.sampled_from(FEATURES)))
def test_name_of_any_features(features: set[str]) -> None:
    in_order = [feature for feature in FEATURES if feature in features]
    assert COMBINATIONS[blackbox.name_of(in_order, FEATURES)] == features


# Loads


def test_loads_of_a_round() -> None:
    loads = list(main_loads(DEFAULT_SCALE))
    assert [one.name for one in loads] == ["insert", "tpcb"]
    for one, (script, rate) in zip(loads, DEFAULT_SCALE.rates, strict=True):
        assert (one.load.script, one.load.clients, one.load.rate) == (script, 1, rate)
        assert one.load.transactions == round(rate * DEFAULT_SCALE.seconds)
        assert f"{rate} a second" in one.title


def test_all_other_loads() -> None:
    assert [one.name for one in closed_loads(DEFAULT_SCALE)] == ["insert_1_closed", "tpcb_1_closed"]
    others = (*closed_loads(DEFAULT_SCALE), *more_loads(DEFAULT_SCALE))
    loads = {one.name: one.load for one in others}
    assert len(loads) == len(others)
    assert loads.keys() == {
        f"{script}_{suffix}"
        for script in ("insert", "tpcb")
        for suffix in ("1_closed", "2_closed", "4_closed", "2", "4")
    }
    for name, load in loads.items():
        script, clients, *closed = name.split("_")
        assert (load.script, load.clients) == (script, int(clients))
        alone = dict(DEFAULT_SCALE.rates)[script]
        if closed:
            assert (load.rate, load.transactions) == (None, DEFAULT_SCALE.closed_transactions)
        else:
            # More than one client does, and less than as many would.
            assert load.rate is not None
            assert alone < load.rate < int(clients) * alone
            assert load.transactions == round(load.rate * DEFAULT_SCALE.seconds)


def test_titles_of_loads_tell_them_apart() -> None:
    loads = (main_loads, closed_loads, more_loads)
    titles = [one.title for of_kind in loads for one in of_kind(DEFAULT_SCALE)]
    assert len(set(titles)) == len(titles)
    assert "insert by 1 client, 25 a second" in titles
    assert any("by 4 clients" in title for title in titles)


# Features on and off

IN_FORCE = {
    "soft IPIs": (frozenset[int](), frozenset({0, 1}), "ipi"),
    "WFx": (frozenset[int](), frozenset({0, 1}), "wfx"),
    "mode": ("unmasked", "masked", "vtimer"),
    "poller": ("-1", "1", "cq-poll"),
}


def with_module(machine: Machine) -> None:
    machine.guest.there.append("module ib_core_cq_poll")
    machine.guest.idle_us = "700"
    machine.first = machine.state()


def vm_host(machine: Machine) -> Host:
    return Host(machine.host, PID)


@pytest.mark.parametrize("state", COMBINATIONS)
def test_features_are_on_for_the_block(tmp_path: Path, state: str) -> None:
    machine = different(tmp_path / "one")
    with_module(machine)
    features = COMBINATIONS[state]
    with switched(machine.guest, vm_host(machine), features, poll_cpu=1):
        found = machine.state()
        for name, (off, on, feature) in IN_FORCE.items():
            assert found[name] == (on if feature in features else off), name
        if "cq-poll" in features:
            assert machine.guest.idle_us == "0"
    assert machine.changed() == set()


def test_all_off_is_written_whatever_the_machine_came_with(tmp_path: Path) -> None:
    machine = different(tmp_path / "one")
    with switched(machine.guest, vm_host(machine), frozenset(), poll_cpu=1):
        pass
    assert machine.guest.written == ["0\n", "2\n"]
    assert machine.host.written == ["0\n", "20\n"]
    assert [text for path, text in machine.host.written_texts if path == MODE] == ["unmasked\n", "hw\n"]
    # Without its module there is no polling, and nothing to turn off.
    assert {path for path, _ in machine.guest.written_texts} == {soft_ipi.PATH}


def test_poller_looks_without_end_before_it_starts(machine: Machine) -> None:
    with_module(machine)
    with switched(machine.guest, None, frozenset({"cq-poll"}), poll_cpu=0):
        assert machine.guest.poll == "0"
    paths = {IDLE_US, cq_poll.PATH}
    written = [one for one in machine.guest.written_texts if one[0] in paths]
    # What it had is back once no poller would use it.
    assert written == [(IDLE_US, "0\n"), (cq_poll.PATH, "0\n"), (cq_poll.PATH, "-1\n"), (IDLE_US, "700\n")]
    assert machine.guest.idle_us == "700"


def test_every_cpu_that_is_online_waits_for_soft_ipis(machine: Machine) -> None:
    with switched(machine.guest, None, frozenset({"ipi"}), poll_cpu=0):
        assert machine.guest.cpus == {0, 1}
    assert machine.guest.written == ["3\n", "0\n"]


def test_poller_is_stopped_before_the_others_are_put_back(machine: Machine) -> None:
    """As it was started last: what is taken back goes the way it came."""
    with_module(machine)
    with switched(machine.guest, vm_host(machine), COMBINATIONS["on"], poll_cpu=1):
        begun = [path for path, _ in machine.guest.written_texts]
        machine.guest.written_texts.clear()
    assert [path for path, _ in machine.guest.written_texts] == begun[::-1]


# What a machine may have: a confidential VM all, an ordinary one no timer of a monitor's, and without a host
# there are no exits.
@pytest.mark.parametrize(
    ("confidential", "host", "lacks"),
    [(True, True, set()), (False, True, {"vtimer"}), (True, False, {"vtimer", "wfx"})],
)
@pytest.mark.parametrize("size", range(5))
def test_feature_that_the_machine_lacks_is_wrong_usage(
    tmp_path: Path, confidential: bool, host: bool, lacks: set[str], size: int
) -> None:
    for number, features in enumerate(combinations(FEATURES, size)):
        machine = different(tmp_path / str(number), confidential)
        with_module(machine)
        with ExitStack() as stack:
            if missing := lacks & set(features):
                caught = stack.enter_context(pytest.raises(UsageError, match="has no such feature"))
            stack.enter_context(
                switched(machine.guest, vm_host(machine) if host else None, frozenset(features), poll_cpu=0)
            )
            assert not missing
        if missing:
            assert caught.value.where in missing
            assert caught.value.next_step
            assert machine.guest.written_texts == machine.host.written_texts == []
        assert machine.changed() == set()


@pytest.mark.parametrize("confidential", [True, False])
def test_ordinary_vm_has_no_mode_to_set(tmp_path: Path, confidential: bool) -> None:
    machine = different(tmp_path / "one", confidential)
    with switched(machine.guest, vm_host(machine), frozenset({"wfx"}), poll_cpu=0):
        assert machine.host.cpus == {0, 1}
    assert any(path == MODE for path, _ in machine.host.written_texts) is confidential
    assert machine.changed() == set()


@pytest.mark.parametrize("error", [CvmtuneError("it fails"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("state", ["off", "on"])
def test_failing_block_leaves_all_as_it_was(tmp_path: Path, state: str, error: BaseException) -> None:
    machine = different(tmp_path / "one")
    with_module(machine)
    with (
        pytest.raises(type(error)) as caught,
        switched(machine.guest, vm_host(machine), COMBINATIONS[state], poll_cpu=0),
    ):
        raise error
    assert caught.value is error
    assert machine.changed() == set()


@pytest.mark.parametrize(
    ("of", "path"),
    [
        ("guest", cq_poll.PATH),
        ("guest", soft_ipi.PATH),
        ("guest", IDLE_US),
        ("host", wfx.PATH),
        ("host", MODE),
    ],
)
def test_feature_that_cannot_be_switched_leaves_the_others_as_they_were(
    tmp_path: Path, of: str, path: str
) -> None:
    def enter(machine: Machine) -> None:
        with_module(machine)
        with switched(machine.guest, vm_host(machine), COMBINATIONS["on"], poll_cpu=0):
            pass

    whole = different(tmp_path / "whole")
    enter(whole)
    system = whole.guest if of == "guest" else whole.host
    machine = different(tmp_path / "one")
    failing = machine.guest if of == "guest" else machine.host
    failing.fail(system.operations.index(f"write {path}"), Refused(22, "refused"))
    with pytest.raises((KnobError, Refused), match="refused"):
        enter(machine)
    assert machine.changed() == set()


def test_soft_ipis_that_do_not_hold_are_an_error(machine: Machine) -> None:
    machine.guest.take_instead("1")
    with (
        pytest.raises(KnobError, match="shows 1"),
        switched(machine.guest, None, frozenset({"ipi"}), poll_cpu=0),
    ):
        raise AssertionError("switched in spite of it")
    assert machine.changed() == set()


# States, order, cleaning up


@pytest.mark.parametrize(
    ("states", "rounds", "expected"),
    [
        (("off", "on"), 3, ["off", "on", "on", "off", "off", "on"]),
        (("wfx",), 2, ["wfx", "wfx"]),
        (tuple(COMBINATIONS), 2, [*COMBINATIONS, *reversed(tuple(COMBINATIONS))]),
    ],
)
def test_states_alternate_in_turned_order(
    tmp_path: Path, states: tuple[str, ...], rounds: int, expected: list[str]
) -> None:
    machine = different(tmp_path / "one")
    raw = run(machine, states, rounds, scale=TINY)
    assert [one.state for one in measured(raw)] == expected
    assert [one.index for one in measured(raw)] == [n // len(states) for n in range(len(expected))]
    # Of each round, its records and its transactions, and of both the smallest run; it was warm before.
    seen = machine.seen[1:]
    # Where off and on are compared, these also have it without a rate.
    compared = {"off", "on"} <= set(states)
    in_force = [state for state in expected for _ in range(8 if compared and state in ("off", "on") else 4)]
    assert [load for load, _ in seen] == ["audit", "audit", "insert", "insert"] * (len(in_force) // 4)
    for (number, (_, found)), state in zip(enumerate(seen), in_force, strict=True):
        features = COMBINATIONS[state]
        for name, (off, on, feature) in IN_FORCE.items():
            on = "0" if name == "poller" else on  # where the scale has it
            assert found[name] == (on if feature in features else off), (number, name)
        assert (found["CPUs of vCPU 0"], found["CPUs of vCPU 1"]) == ("0", "1")
        assert found["travel"] == str(EXIT_NS)
    assert machine.changed() == set()


def test_database_is_warm_before_the_first_round(machine: Machine) -> None:
    run(machine, ("on",))
    loads = [load for load, _ in machine.seen]
    assert loads == ["insert", "tpcb", *("audit",) * 2, *("insert",) * 2, *("tpcb",) * 2]
    # With whatever the machine came with.
    for _, found in machine.seen[:2]:
        assert (found["soft IPIs"], found["mode"], found["poller"]) == (frozenset(), "hw", "-1")
    assert "pg_prewarm" in machine.guest.database.queries[0][1]
    # By the loads that are compared.
    warm = machine.guest.database.loads[:2]
    assert [(one["rate"], one["client"], one["transactions"]) for one in warm] == [
        *(("20", "1", "10"), ("10", "1", "5"))
    ]


def test_says_what_it_is_and_what_comes(machine: Machine) -> None:
    notes: list[str] = []
    raw = run(machine, rounds=2, scale=TINY, advance=notes.append)
    assert (raw.feature, raw.machine) == ("blackbox", "cvm")
    assert (raw.environment, raw.findings) == ({"kernel": "6.12"}, {"exit_and_entry_ns": EXIT_NS})
    assert notes == [
        f"cvm, {state}, round {number} of 2"
        for state, number in (("off", 1), ("on", 1), ("on", 2), ("off", 2))
    ]


@pytest.mark.parametrize("states", [("warp",), ("off", "warp"), ("on", "ipi+warp"), ("cq-poll+ipi",), ("",)])
def test_unknown_state_is_an_error_that_leaves_nothing(machine: Machine, states: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=rf"no state '{re.escape(states[-1])}'\n.*ipi\+vtimer") as caught:
        run(machine, states)
    assert caught.value.exit_code == 2
    assert machine.trace == []


@pytest.mark.parametrize(("confidential", "host", "state"), [(False, True, "on"), (True, False, "wfx")])
def test_state_that_the_machine_cannot_have_leaves_nothing(
    tmp_path: Path, confidential: bool, host: bool, state: str
) -> None:
    machine = different(tmp_path / "one", confidential)
    with pytest.raises(UsageError, match="has no such feature"):
        run(machine, ("off", state), host=host, scale=TINY)
    assert machine.changed() == set()


def test_cluster_is_fresh_and_on_the_mount(machine: Machine) -> None:
    run(machine, scale=TINY)
    # Past NFS, before it was mounted.
    assert machine.guest.unpacked == [("/export", False)]
    assert machine.guest.disk == ""
    assert {state["server"] for _, state in machine.seen} == {"/mnt/database"}
    assert all(state["mount /mnt"] for _, state in machine.seen)


def test_hypercalls_are_timed_on_cpus_of_their_own_before_all_else(machine: Machine) -> None:
    run(machine, scale=TINY, rounds=2)
    (called,) = machine.called
    assert (called["CPUs of vCPU 0"], called["CPUs of vCPU 1"]) == ("0", "1")
    assert (called["mode"], called["travel"], called["server"]) == ("hw", "600", "")
    assert sorted(HYPERCALLS)[2] == EXIT_NS
    assert [text for path, text in machine.host.written_texts if path == TRAVEL] == [f"{EXIT_NS}\n", "600\n"]


def test_log_is_by_the_scale(machine: Machine) -> None:
    run(machine, ("off",))
    # Producers, records, rate; the writer beside the poller, the producers on the other CPU; the seed. Before
    # them what a run takes that writes as little as there can be, by as many.
    assert machine.guest.audit == [
        ("3", "1", "0", "0", "1", "0"),
        ("3", "2", str(SCALE.audit_rate), "0", "1", "0"),
    ]
    machine.guest.audit.clear()
    run(machine, ("off",), scale=replace(SCALE, server_cpu=1, client_cpu=0, audit_rate=7, producers=2))
    assert machine.guest.audit == [("2", "1", "0", "1", "0", "0"), ("2", "2", "7", "1", "0", "0")]


def test_each_round_has_its_own_random_numbers_in_all_states(machine: Machine) -> None:
    run(machine, ("off", "ipi"), rounds=3, scale=TINY)
    in_turn = ["0", "0", "1", "1", "2", "2"]
    assert [numbers[-1] for numbers in machine.guest.audit] == [seed for seed in in_turn for _ in range(2)]
    first, *loads = (one["random-seed"] for one in machine.guest.database.loads)
    assert first == "1"  # what warms it is no round's
    assert loads == [seed for seed in in_turn for _ in range(2)]


def test_smallest_run_has_as_many_clients_and_no_rate(machine: Machine) -> None:
    run(machine, ("off",), more=True)
    loads = machine.guest.database.loads[2:]
    for load, least in zip(loads[::2], loads[1::2], strict=True):
        assert int(load["transactions"]) > 1
        assert least["transactions"] == "1"
        assert least["client"] == load["client"]
        assert "rate" not in least
    scripts = [load for load, _ in machine.seen if load != "audit"][2:]
    assert scripts[::2] == scripts[1::2]
    assert machine.guest.audit[2:] == [("3", "1", "0", "0", "1", "0"), ("3", "2", "0", "0", "1", "0")]


def test_check_comes_after_all_rounds(machine: Machine) -> None:
    run(machine, rounds=2, scale=TINY)
    ran = [one for one in machine.guest.operations if one.startswith(("run", "write /proc/sys/vm"))]
    order = [
        *("--mode=immediate stop", "drop_caches", "--log", "/psql"),
        *("/pg_amcheck", "/psql", "--mode=fast stop", "drop_caches", "/pg_checksums"),
        *("umount /mnt", "umount /export"),
    ]
    at = max(at for at, one in enumerate(ran) if "/pgbench" in one)
    after = ran[at + 1 :]
    checks = iter(after)
    for word in order:
        assert any(word in one for one in checks), word
    assert not any("auditlog write" in one for one in after)
    for word, number in (("drop_caches", 2), ("--log ", 1), ("start", 1), ("/pg_amcheck", 1), ("stop", 2)):
        assert sum(word in one for one in after) == number, word


def test_rows_are_counted_anew_after_the_server_was_killed(machine: Machine) -> None:
    run(machine, scale=TINY)
    ran = machine.guest.operations
    killed = next(at for at, one in enumerate(ran) if "--mode=immediate" in one)
    checked = next(at for at, one in enumerate(ran) if "/pg_amcheck" in one)
    assert sum("/psql" in one for one in ran[killed:checked]) == 2
    tables = [re.search(r"count\(\*\) from (\w+);", sql) for _, sql in machine.guest.database.queries[-3:-1]]
    assert {found[1] for found in tables if found} == {"audit", "pgbench_history"}


# What fails and is no error: it looks for what may not be there.
LET_PASS = ("run pgrep", "run pidwait", "run timeout")


@FAULTS
def test_whatever_fails_all_is_left_as_it_was(scratch: Path, fault: BaseException, when: When) -> None:
    def experiment(machine: Machine) -> None:
        run(machine, ("on",), scale=TINY)
        failed = machine.guest.failed
        if failed is not None and machine.guest.operations[failed].startswith(LET_PASS):
            raise Refused(0, "let pass")

    changed = fail_in_turn(
        lambda name: different(scratch / name), experiment, fault, when, unknown=set(BEGUN)
    )
    assert changed == different(scratch / "other").state().keys()


# Figures

COUNTS = {
    **{
        name: "per something"
        for name in ("ipis", "wakeups", "switches", "exits", "timer_exits", "redundant_exits", "wfx_exits")
    },
    **{name: "CPUs" for name in ("poller_use", "cpu_use")},
}
OF_HOST = {"exits", "timer_exits", "redundant_exits", "wfx_exits", "cpu_use"}
PARTS = {
    "insert": ("begin", "client", "server", "flush", "rpc", "rtt"),
    "tpcb": ("begin", "client", "server", "flush", "rpc", "rtt"),
    "audit": ("begin", "handoff", "flush", "rpc", "rtt", "answer"),
}


def names_of(load: str, counts: set[str]) -> set[str]:
    parts = PARTS[load.partition("_")[0]]
    served = set() if load.startswith("audit") or load.endswith("_closed") else {f"{load}_served"}
    return {
        load,
        f"{load}_lost",
        *served,
        *(f"{load}_{one}" for one in counts),
        *(f"{load}/{one}" for one in parts),
    }


@pytest.mark.parametrize("host", [True, False])
def test_metrics_of_a_round(machine: Machine, host: bool) -> None:
    counts = COUNTS.keys() - (set() if host else OF_HOST)
    raw = run(machine, ("off", "ipi+cq-poll"), host=host)
    for one in measured(raw):
        names = [series.name for series in one.series]
        assert len(names) == len(set(names))
        assert set(names) == set[str]().union(*(names_of(load, counts) for load in LOADS))
    assert [series.name for series in raw.rounds[-1].series] == ["all_lost", "damage"]


def test_metrics_of_all_loads(machine: Machine) -> None:
    """Of the others few counts: they are not compared."""
    (one,) = measured(run(machine, ("on",), more=True))
    few = {"audit_closed", *(load.name for kind in (closed_loads, more_loads) for load in kind(SCALE))}
    names = [series.name for series in one.series]
    assert len(names) == len(set(names))
    wanted = [names_of(load, set(COUNTS)) for load in LOADS] + [
        names_of(load, {"ipis", "exits"}) for load in few
    ]
    assert set(names) == set[str]().union(*wanted)


def test_ordinary_vm_has_no_redundant_exits(tmp_path: Path) -> None:
    """Who emulates its timer does not tell of them."""
    for one in measured(run(Machine(tmp_path, confidential=False), ("off", "ipi"))):
        names = {series.name for series in one.series}
        counts = COUNTS.keys() - {"redundant_exits"}
        assert names == set[str]().union(*(names_of(load, counts) for load in LOADS))


def test_units_and_what_is_better(machine: Machine) -> None:
    for series in run(machine, ("off",)).rounds[0].series:
        assert series.better == "lower"
        assert "{" not in series.title
        if series.name in LOADS or "/" in series.name or series.name.endswith("_served"):
            assert (series.unit, series.kind) == ("ns", "time")
            continue
        assert series.kind == "count"
        load, _, name = series.name.partition("_")
        if name == "lost":
            assert series.unit == ("records" if load == "audit" else "transactions")
        else:
            assert series.unit.startswith("CPUs" if COUNTS[name] == "CPUs" else "per ")
            assert ("record" in series.unit) is (load == "audit" and COUNTS[name] != "CPUs")


def test_units_of_what_comes_after(machine: Machine) -> None:
    lost, damage = run(machine, ("off",)).rounds[-1].series
    assert (lost.name, lost.unit, lost.kind, lost.better) == ("all_lost", "transactions", "count", "lower")
    assert (damage.name, damage.unit, damage.kind, damage.better) == ("damage", "findings", "count", "lower")
    assert AFTER not in COMBINATIONS


MASKED = {name: each for name, each in asdict(COST).items() if name != "start"} | {"redundant_exits": 0}
ON = {**MASKED, "ipis": 0, "wakeups": 0, "wfx_exits": 0}
OFF = {**MASKED, "timer_exits": 10 * COST.timer_exits, "redundant_exits": COST.redundant_exits}


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("off", OFF),
        ("on", ON),
        ("ipi", {**OFF, "ipis": 0}),
        ("cq-poll", {**OFF, "wakeups": 0}),
        ("wfx", {**OFF, "wfx_exits": 0}),
        ("vtimer", MASKED),
    ],
)
def test_counts_are_per_transaction_and_record(machine: Machine, state: str, counts: dict[str, int]) -> None:
    """What switching, queries, checks and starting the clients count is none of it."""
    raw = run(machine, (state,))
    for name, count in counts.items():
        for load, factor in (("insert", 1), ("tpcb", 1), ("audit", 2)):
            assert sample(raw, state, f"{load}_{name}") == pytest.approx(factor * count), (load, name)


@pytest.mark.parametrize("start", [0, 1, 10**6])
def test_counts_do_not_depend_on_what_it_takes_to_start(machine: Machine, start: int) -> None:
    machine.cost = replace(COST, start=start)
    raw = run(machine, ("off",), more=True)
    for load in ("insert", "tpcb", "insert_2", "tpcb_1_closed", "insert_2_closed"):
        assert sample(raw, "off", f"{load}_ipis") == COST.ipis, load
        assert sample(raw, "off", f"{load}_exits") == COST.exits, load
    for load in ("audit", "audit_closed"):
        assert sample(raw, "off", f"{load}_exits") == 2 * COST.exits, load
    assert sample(raw, "off", "tpcb_switches") == COST.switches


def test_counts_do_not_depend_on_how_how_much_is_done(machine: Machine) -> None:
    raw = run(machine, ("off",), scale=replace(SCALE, seconds=3.0, records=17))
    assert len(samples(raw, "off", "insert")) == 60
    assert sample(raw, "off", "insert_switches") == COST.switches
    assert sample(raw, "off", "audit_switches") == 2 * COST.switches


def test_timer_exits_of_an_ordinary_vm_are_those_of_its_host(tmp_path: Path) -> None:
    raw = run(Machine(tmp_path, confidential=False), ("off",))
    assert sample(raw, "off", "insert_timer_exits") == COST.timer_exits


def test_processor_time(machine: Machine) -> None:
    raw = run(machine)
    for load in LOADS:
        assert sample(raw, "off", f"{load}_poller_use") == 0
        assert sample(raw, "on", f"{load}_poller_use") == pytest.approx(0.75, rel=0.05)
        assert sample(raw, "on", f"{load}_cpu_use") == pytest.approx(1.5, rel=0.05)


def test_latencies_are_all_told(machine: Machine) -> None:
    raw = run(machine)
    assert samples(raw, "off", "insert") == tuple(1000.0 * (LATENCY_US + n) for n in range(10))
    assert samples(raw, "on", "tpcb") == tuple(1000.0 * (LATENCY_US + n) for n in range(5))
    # Late, hand-off, the write beyond its RPC, its RPC, answer.
    written = EXECUTE_MS * 1e6 + 300_000
    assert samples(raw, "on", "audit") == tuple(1000.0 + n + 20_000 + written + 40_000 for n in range(6))


def test_latency_from_its_beginning_is_without_the_lag(machine: Machine) -> None:
    raw = run(machine, more=True)
    served = (1000.0 * (LATENCY_US - LAG_US),)
    assert samples(raw, "off", "insert_served") == served * 10
    assert samples(raw, "on", "tpcb_served") == served * 5
    assert samples(raw, "on", "insert_2_served") == served * 14
    for one in measured(raw):
        assert {series.name for series in one.series if series.name.endswith("_served")} == {
            *("insert_served", "tpcb_served", "insert_2_served", "tpcb_2_served")
        }


@pytest.mark.parametrize("state", ["off", "ipi+wfx", "on"])
def test_parts_add_up_to_the_mean(machine: Machine, state: str) -> None:
    raw = run(machine, (state,))
    for load in LOADS:
        whole = samples(raw, state, load)
        parts = [sample(raw, state, f"{load}/{part}") for part in PARTS[load]]
        assert sum(parts) == pytest.approx(sum(whole) / len(whole)), load


def test_parts_of_a_transaction(machine: Machine) -> None:
    raw = run(machine, ("off",))
    in_ms = {
        "begin": LAG_US / 1000 + 4.5 / 1000,  # of ten transactions, each waits 1 us more than the one before
        "client": LATENCY_US / 1000 - LAG_US / 1000 - ACTIVE_MS,
        "server": ACTIVE_MS - LOG_WRITE_MS - LOG_SYNC_MS,
        "flush": LOG_WRITE_MS + LOG_SYNC_MS - EXECUTE_MS,
        "rpc": EXECUTE_MS - RTT_MS,
        "rtt": RTT_MS,
    }
    # All of them are different, so that none can stand for another.
    assert len(set(in_ms.values())) == 6
    for part, ms in in_ms.items():
        assert sample(raw, "off", f"insert/{part}") == pytest.approx(ms * 1e6, rel=0.02), part


def test_parts_of_a_record(machine: Machine) -> None:
    raw = run(machine, ("off",))
    ns = {
        "begin": 1002.5,
        "handoff": 20_000,
        "flush": 300_000,
        "rpc": (EXECUTE_MS - RTT_MS) * 1e6,
        "rtt": RTT_MS * 1e6,
        "answer": 40_000,
    }
    for part, wanted in ns.items():
        assert sample(raw, "off", f"audit/{part}") == pytest.approx(wanted), part


def test_storage_that_nothing_is_written_to_is_an_error(machine: Machine) -> None:
    machine.writes_nothing = True
    with pytest.raises(CvmtuneError, match=r"nothing was written to the storage \(mountstats\)"):
        run(machine)
    assert machine.changed() == set()


# All loads


def test_with_all_loads(machine: Machine) -> None:
    raw = run(machine, ("off", "ipi", "on"), more=True)
    more = {one.name for one in more_loads(SCALE)}
    for one in measured(raw):
        names = {series.name for series in one.series}
        assert set(LOADS) < names
        assert names.issuperset(more) is (one.state != "ipi")
        assert names.isdisjoint(more) is (one.state == "ipi")
    assert sample(raw, "off", "insert_2_ipis") == COST.ipis
    assert sample(raw, "on", "tpcb_2_closed_lost") == 0


@pytest.mark.parametrize("state", ["off", "on"])
def test_parts_of_the_other_loads_add_up_too(machine: Machine, state: str) -> None:
    (one,) = measured(run(machine, (state,), more=True))
    means = {series.name: sum(series.samples) / len(series.samples) for series in one.series}
    wholes = {name.partition("/")[0] for name in means if "/" in name}
    assert wholes > set(LOADS)
    for whole in wholes:
        parts = [mean for name, mean in means.items() if name.startswith(f"{whole}/")]
        assert sum(parts) == pytest.approx(means[whole]), whole
        assert f"{whole}_lost" in means
    closed = next(series for series in one.series if series.name == "insert_1_closed")
    assert closed.samples == tuple(1000.0 * (UNDELAYED_US + n) for n in range(4))
    assert means["insert_1_closed/begin"] == 0


# What is lost and damaged


def test_nothing_is_lost(machine: Machine) -> None:
    raw = run(machine)
    for name in (f"{load}_lost" for load in LOADS):
        assert sample(raw, "off", name) == sample(raw, "on", name) == 0
    for name in ("all_lost", "damage"):
        assert sample(raw, AFTER, name) == 0


@pytest.mark.parametrize(
    ("loses", "lost"),
    [({"audit": 3}, 3), ({"pgbench_history": 1}, 1), ({"audit": 3, "pgbench_history": 2}, 5)],
)
def test_what_was_only_in_memory_is_lost_when_the_server_is_killed(
    machine: Machine, loses: dict[str, int], lost: int
) -> None:
    machine.guest.database.crash_loses = loses
    raw = run(machine, rounds=2)
    assert sample(raw, AFTER, "all_lost") == lost
    assert sample(raw, AFTER, "damage") == 0
    for name in ("insert_lost", "tpcb_lost"):
        assert sample(raw, "off", name) == sample(raw, "on", name) == 0
    assert machine.changed() == set()


def test_loss_of_a_script_that_is_not_among_the_loads_is_seen_too(machine: Machine) -> None:
    machine.guest.database.crash_loses = {"pgbench_history": 500}
    assert sample(run(machine, scale=TINY), AFTER, "all_lost") == 500


def test_server_that_does_not_recover_is_an_error_that_leaves_nothing(machine: Machine) -> None:
    machine.guest.database.does_not_recover = True
    with pytest.raises(CvmtuneError):
        run(machine, scale=TINY)
    assert machine.changed() == set()


def test_transactions_that_are_not_there_are_counted(machine: Machine) -> None:
    machine.guest.database.loses = 2
    raw = run(machine)
    # By the load, and by the smallest run beside it.
    assert sample(raw, "off", "insert_lost") == sample(raw, "on", "tpcb_lost") == 4
    assert sample(raw, "on", "audit_lost") == 0


@pytest.mark.parametrize(("intact", "lost"), [(6, 0), (5, 1), (0, 6), (-1, 6)])
def test_records_that_are_not_there_are_counted(machine: Machine, intact: int, lost: int) -> None:
    """Of a damaged log none is."""
    machine.guest.audit_intact = intact
    raw = run(machine)
    assert sample(raw, "off", "audit_lost") == sample(raw, "on", "audit_lost") == lost
    assert sample(raw, "on", "insert_lost") == 0


def test_records_that_were_not_told_are_an_error(machine: Machine) -> None:
    machine.guest.audit_forgets = 1
    with pytest.raises(CvmtuneError, match="of 3 records it tells 2"):
        run(machine)
    assert machine.changed() == set()


def test_transactions_that_were_not_logged_are_an_error(machine: Machine) -> None:
    machine.guest.database.forgets = 1
    with pytest.raises(CvmtuneError, match="transactions it logged"):
        run(machine)
    assert machine.changed() == set()


@pytest.mark.parametrize(
    ("bad", "complaints", "balances", "damage"),
    [
        (0, (0, ""), ("7", "7", "7", "7"), 0),
        (3, (0, ""), ("7", "7", "7", "7"), 3),
        (0, (2, "one\ntwo\n"), ("7", "7", "7", "7"), 2),
        (0, (0, ""), ("8", "7", "7", "7"), 1),
        (3, (2, "one\ntwo\n"), ("8", "7", "7", "7"), 6),
    ],
)
def test_damage_is_in_a_round_of_its_own(
    machine: Machine, bad: int, complaints: tuple[int, str], balances: tuple[str, ...], damage: int
) -> None:
    """Nobody knows which of them it came from."""
    database = machine.guest.database
    database.bad, database.complaints, database.balances = bad, complaints, balances
    raw = run(machine, rounds=2, scale=TINY)
    assert len(measured(raw)) == 4
    assert not any(series.name == "damage" for one in measured(raw) for series in one.series)
    assert samples(raw, AFTER, "damage") == (damage,)
    assert samples(raw, AFTER, "all_lost") == (0,)
    assert machine.changed() == set()


def test_check_that_fails_is_an_error_that_leaves_nothing(machine: Machine) -> None:
    machine.guest.database.bad = None
    with pytest.raises(CvmtuneError, match="how many checksums are bad"):
        run(machine, scale=TINY)
    assert machine.changed() == set()
