# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`: run a feature's experiment in the lab, off and on, beside its baselines, and judge it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cvmtune import __version__
from cvmtune.bench import cq_poll, ipi, nfs_rdma, vtimer, wfx
from cvmtune.bench import path_length as paths
from cvmtune.bench.guest import Host
from cvmtune.bench.raw import RawRun, Round
from cvmtune.core import command
from cvmtune.core.errors import UsageError
from cvmtune.lab.cache import Cache
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.machines import MACHINES, QEMU
from cvmtune.lab.progress import terminal_progress
from cvmtune.report import render
from cvmtune.report.judge import judge
from cvmtune.report.table import print_tables


@dataclass(frozen=True)
class Measurement:
    """One boot of a machine, and what is measured in it: both states of the feature, or a baseline."""

    feature: str
    machine: str
    states: tuple[str, ...]
    rounds: int
    append: tuple[str, ...] = ()
    host_append: tuple[str, ...] = ()

    def __str__(self) -> str:
        booted = f" booted with {' '.join(self.append)}" if self.append else ""
        booted += f" on a host booted with {' '.join(self.host_append)}" if self.host_append else ""
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        # Quoted, as names of states have commas in them.
        return f"on {self.machine}{booted}: {rounds} each of {', '.join(map(repr, self.states))}"


def plan(feature: str, machine: str, rounds: int | None) -> tuple[Measurement, list[Measurement]]:
    """Return the measurement that the feature is judged by, and its baselines."""
    if feature not in FEATURES:
        raise UsageError(
            f"no experiment for feature {feature!r}", next_step=f"features: {', '.join(FEATURES)}"
        )
    if machine not in MACHINES:
        raise UsageError(f"no machine {machine!r}", next_step=f"machines: {', '.join(MACHINES)}")
    experiment = EXPERIMENTS[feature]
    if machine not in experiment.machines:
        raise UsageError(
            f"{feature} is nothing that {machine} can have",
            next_step=f"use --machine {' or '.join(experiment.machines)}, or leave the feature out",
        )
    rounds = rounds or experiment.rounds
    states = ("off", "on", *experiment.beside)
    return Measurement(feature, machine, states, rounds), experiment.baselines(machine, rounds)


def _on_vm(feature: str, machine: str, rounds: int) -> list[Measurement]:
    return [Measurement(feature, "vm", ("off",), rounds)] if machine != "vm" else []


def _ipi_baselines(machine: str, rounds: int) -> list[Measurement]:
    # All CPUs poll, as a kernel without the feature can be told to: every IPI still goes by hardware.
    nohlt = Measurement("ipi", machine, ("nohlt",), rounds, ("nohlt",))
    return [*_on_vm("ipi", machine, rounds), nohlt]


def _cq_poll_baselines(machine: str, rounds: int) -> list[Measurement]:
    states = tuple(state for state in cq_poll.SETTINGS if state not in ("off", "on"))
    few = max(1, rounds // 2)  # a round of it takes long
    return [*_on_vm("cq-poll", machine, few), Measurement("cq-poll", machine, states, few)]


def _wfx_baselines(machine: str, rounds: int) -> list[Measurement]:
    states = tuple(state for state in wfx.SETTINGS if state not in ("off", "on"))
    few = max(1, rounds // 2)
    others = [Measurement("wfx", "vm", ("off", "on"), few)] if machine != "vm" else []
    policy = Measurement("wfx", machine, (wfx.BOOT_POLICY,), few, host_append=wfx.BOOT_POLICY_APPEND)
    return [*others, Measurement("wfx", machine, states, few), policy]


def _vtimer_baselines(machine: str, rounds: int) -> list[Measurement]:
    return [Measurement("vtimer", "vm", (vtimer.ORDINARY,), max(1, rounds // 2))]


@dataclass(frozen=True)
class Experiment:
    """How a feature is measured, and beside what.

    `rounds` is how many there are if nobody says, `passes` how often it goes through all of them. `beside`
    are baselines that are measured in turns with off and on. `machines` are those that can have the feature.
    """

    collect: Callable[..., RawRun]
    baselines: Callable[[str, int], list[Measurement]]
    rounds: int = 5
    passes: int = 1
    beside: tuple[str, ...] = ()
    machines: tuple[str, ...] = tuple(MACHINES)


EXPERIMENTS = {
    "ipi": Experiment(ipi.collect, _ipi_baselines),
    # Nobody but a monitor masks.
    "vtimer": Experiment(vtimer.collect, _vtimer_baselines, rounds=3, beside=(vtimer.HW,), machines=("cvm",)),
    "cq-poll": Experiment(cq_poll.collect, _cq_poll_baselines, rounds=3, passes=len(nfs_rdma.PROVIDERS)),
    # It is the host's.
    "wfx": Experiment(wfx.collect, _wfx_baselines, rounds=3, machines=("vm", "cvm")),
}
FEATURES = tuple(EXPERIMENTS)


def main(
    features: Sequence[str],
    machine: str,
    rounds: int | None,
    *,
    json: Path | None,
    html: Path | None,
    path_length: bool,
    dry_run: bool,
) -> int:
    """Prove the features, show and write the results; return 0 if every verdict is PASS, else 1."""
    # Of a machine that we do not know plan() will tell.
    wanted = features or [
        name for name in FEATURES if machine not in MACHINES or machine in EXPERIMENTS[name].machines
    ]
    plans = {feature: plan(feature, machine, rounds) for feature in wanted}
    for path in filter(None, (html, json)):
        # Not only after all has been measured.
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UsageError("cannot write a file there", str(path), "name a file in a directory of yours")
    if dry_run:
        for feature, (judged, baselines) in plans.items():
            for measurement in (judged, *baselines):
                print(f"{feature}: {measurement}")
        if path_length:
            machines = ", ".join(dict.fromkeys(_PATHS[feature].machine for feature in wanted))
            states = ", ".join(map(repr, _PATH_STATES))
            print(f"path length: on {machines}, counted in instructions: {states}")
        return 0
    raws, baseline_raws = [], []
    lab = Lab(Cache(), terminal_progress())
    for judged, baselines in plans.values():
        lab.build("default", host=True)
        judged_raw, beside = _parted(_measure(lab, judged))
        raws.append(judged_raw)
        baseline_raws += [beside] if beside.rounds else []
        baseline_raws += [_measure(lab, baseline) for baseline in baselines]
    if path_length:
        baseline_raws += _path_length(lab, wanted)
    results = judge(raws, baseline_raws)
    # Shown first: nothing that goes wrong with a file may lose them.
    print_tables(results, Console())
    render(results, html=html, json=json)
    for path in filter(None, (html, json)):
        print(f"written: {path}")
    return 0 if all(result.verdict == "PASS" for result in results.results) else 1


def _parted(raw: RawRun) -> tuple[RawRun, RawRun]:
    """The rounds with the feature off and on, and those of the baselines that took turns with them."""
    judged = tuple(one for one in raw.rounds if one.state in ("off", "on"))
    others = tuple(one for one in raw.rounds if one.state not in ("off", "on"))
    return replace(raw, rounds=judged), replace(raw, rounds=others)


def _measure(lab: Lab, wanted: Measurement) -> RawRun:
    title = f"{wanted.feature}: measuring on {wanted.machine}: {', '.join(wanted.states)}"
    experiment = EXPERIMENTS[wanted.feature]
    with lab.progress.step(title, wanted.rounds * len(wanted.states) * experiment.passes + 1) as step:

        def advance(note: str) -> None:
            step.advance()
            step.note(note)

        step.note("booting")
        options = BootOptions(append=wanted.append, host_append=wanted.host_append)
        with lab.boot(wanted.machine, options=options) as machine:
            return experiment.collect(
                machine.guest,
                wanted.machine,
                states=wanted.states,
                rounds=wanted.rounds,
                host=_host(machine),
                tools=GUEST_TOOLS,
                environment=_environment(machine),
                advance=advance,
            )


# One thread emulates all CPUs then.
_ICOUNT_DEADLINE = 300.0
# The state's name, the kernel, and whether the features are on.
_PATH_STATES = {
    "instructions, feature not compiled in": ("absent", False),
    "instructions, feature off": ("default", False),
    "instructions, feature on": ("default", True),
}


def _ipi_path(machine: Machine, state: str, on: bool) -> list[Round]:
    # Both CPUs poll where any does: the idle path is measured on one, the other is sent to.
    return [paths.collect(machine.guest, state, "3" if on else "0", GUEST_TOOLS)]


def _vtimer_path(machine: Machine, state: str, on: bool) -> list[Round]:
    host = _host(machine)
    assert host
    # Not the state that feature 4 counts an exit in: a baseline of that name would be of both.
    state = state.replace("feature", "vtimer")
    exits = paths.collect_exits(machine.guest, host.system, state, "0", GUEST_TOOLS)
    return [exits, *(vtimer.collect_paths(machine.guest, host, state, tools=GUEST_TOOLS) if on else ())]


def _cq_poll_path(machine: Machine, state: str, on: bool) -> list[Round]:
    return [paths.collect_events(machine.guest, state, polled=on, tools=GUEST_TOOLS)]


def _wfx_path(machine: Machine, state: str, on: bool) -> list[Round]:
    host = _host(machine)
    assert host
    exits = paths.collect_exits(machine.guest, host.system, state, "3" if on else "0", GUEST_TOOLS)
    wakes = wfx.collect_paths(machine.guest, host, state, untrapped=on, tools=GUEST_TOOLS)
    return [Round(state, 0, (*exits.series, *wakes.series))]


@dataclass(frozen=True)
class _Path:
    """How a feature's instructions are counted: on which machine, by what, and how its host is booted where
    the feature is off and where it is on, if not as ever."""

    machine: str
    measure: Callable[[Machine, str, bool], list[Round]]
    off_append: tuple[str, ...] = ()
    on_append: tuple[str, ...] = ()


_PATHS = {
    "ipi": _Path("plain", _ipi_path),
    "vtimer": _Path("cvm", _vtimer_path, off_append=vtimer.OFF_APPEND),
    "cq-poll": _Path("plain", _cq_poll_path),
    # Or what the monitor does for the timer would be part of its exits, and not where it is not compiled in.
    "wfx": _Path("cvm", _wfx_path, off_append=vtimer.OFF_APPEND, on_append=vtimer.OFF_APPEND),
}


def _path_length(lab: Lab, features: Sequence[str]) -> list[RawRun]:
    rounds: dict[str, list[Round]] = {feature: [] for feature in features}
    environments: dict[str, dict[str, object]] = {}
    # Features that want the same boot share it.
    boots: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for state, (_, on) in _PATH_STATES.items():
        for feature in features:
            path = _PATHS[feature]
            host_append = path.on_append if on else path.off_append
            boots.setdefault((state, path.machine, host_append), []).append(feature)
    with lab.progress.step("counting instructions", len(boots)) as step:
        for (state, name, host_append), measured in boots.items():
            step.note(f"{state}, on {name}")
            flavour, on = _PATH_STATES[state]
            options = BootOptions(icount=True, deadline=_ICOUNT_DEADLINE, host_append=host_append)
            with lab.boot(name, flavour=flavour, options=options) as machine:
                for feature in measured:
                    rounds[feature] += _PATHS[feature].measure(machine, state, on)
                environments[name] = _environment(machine)
            step.advance()
    return [
        RawRun(feature, _PATHS[feature].machine, tuple(found), environments[_PATHS[feature].machine])
        for feature, found in rounds.items()
    ]


def _host(machine: Machine) -> Host | None:
    if machine.host is None:
        return None
    return Host(machine.host, machine.vmm_pid)


def _environment(machine: Machine) -> dict[str, object]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cvmtune": __version__,
        "kernel": machine.guest.read_text("/proc/version").strip(),
        "guest_cpus": machine.spec.guest_cpus,
        "machine": f"{machine.spec.name}: {machine.spec.stands_for}",
        "boot_seconds": round(machine.boot_seconds, 1),
        "emulator": command.run([QEMU, "--version"]).check().stdout.splitlines()[0],
        "computer": _processor(),
        # A computer that was busy with other things makes times worse, those with the feature on most.
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(models) or '?'} CPUs"
