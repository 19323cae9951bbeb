# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`: run a feature's experiment in the lab, off and on, beside its baselines, and judge it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cvmtune import __version__
from cvmtune.commands.report import rules
from cvmtune.core import command
from cvmtune.core.errors import UsageError
from cvmtune.experiments import path_length as paths
from cvmtune.experiments.guest import Host
from cvmtune.experiments.rounds import RawRun, Round
from cvmtune.features.cq_poll import experiment as cq_poll
from cvmtune.features.soft_ipi import experiment as ipi
from cvmtune.features.vtimer import experiment as vtimer
from cvmtune.features.wfx import experiment as wfx
from cvmtune.lab.cache import Cache
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.machines import MACHINES, QEMU
from cvmtune.lab.progress import terminal_progress
from cvmtune.report import render
from cvmtune.report.judge import judge
from cvmtune.report.schema import Verdict
from cvmtune.report.table import print_tables
from cvmtune.workloads import database, nfs_rdma
from cvmtune.workloads.blackbox import experiment as blackbox


@dataclass(frozen=True)
class Measurement:
    """One boot of a machine, and what is measured in it: both states of the feature, or a baseline.

    `options` are what the experiment's collect() takes beyond what all of them do.
    """

    feature: str
    machine: str
    states: tuple[str, ...]
    rounds: int
    append: tuple[str, ...] = ()
    host_append: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        booted = f" booted with {' '.join(self.append)}" if self.append else ""
        booted += f" on a host booted with {' '.join(self.host_append)}" if self.host_append else ""
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        # Quoted, as names of states have commas in them.
        return f"on {self.machine}{booted}: {rounds} each of {', '.join(map(repr, self.states))}"


def plan(
    feature: str, machine: str, rounds: int | None, *, brief: bool = False
) -> tuple[Measurement, list[Measurement]]:
    """Return the measurement that the feature is judged by, and its baselines; `brief`: of its short form."""
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
    form = experiment.form(brief)
    rounds = rounds or form.rounds
    states = ("off", "on", *form.beside, *form.combined)
    return Measurement(feature, machine, states, rounds, options=form.options), form.baselines(
        machine, rounds
    )


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


def _blackbox_baselines(machine: str, rounds: int) -> list[Measurement]:
    few = max(1, rounds // 2)
    # What an ordinary VM can have of the features, and what a machine without a hypervisor can.
    states = {"vm": ("off", "ipi+cq-poll+wfx"), "plain": ("off", "ipi+cq-poll")}
    more = {"more": True}
    return [Measurement("blackbox", other, there, few, options=more) for other, there in states.items()]


def _no_baselines(machine: str, rounds: int) -> list[Measurement]:
    return []


def _power_cut(lab: Lab, machine: str) -> RawRun:
    with lab.progress.step(f"blackbox: {_POWER_CUT} on {machine}"):
        outcome = Round("power cut", 0, database.cut_power(lab, machine))
    return RawRun("blackbox", machine, (outcome,), {})


_POWER_CUT = "the guest's power is cut while it commits, with all features on"


@dataclass(frozen=True)
class Form:
    """How much an experiment measures.

    `rounds` is how many there are if nobody says, `passes` how often it goes through all of them. Beside off
    and on these states take turns: `beside` are baselines, `combined` have some of several features on.
    `options` are the experiment's own. `also` is what it does beside measuring states, by its title.
    """

    rounds: int
    baselines: Callable[[str, int], list[Measurement]] = _no_baselines
    passes: int = 1
    beside: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    also: Mapping[str, Callable[[Lab, str], RawRun]] = field(default_factory=dict)


# More states than this are not named on the line of progress.
_NAMED = 6
_BRIEF_ROUNDS = 2  # the fewest that give an interval


@dataclass(frozen=True)
class Experiment:
    """How a feature is measured: in full, and so that all experiments together take some minutes.

    `machines` are those that can have the feature. `tools` makes what they need beyond the lab's own.
    """

    collect: Callable[..., RawRun]
    full: Form
    brief: Form = Form(_BRIEF_ROUNDS)
    machines: tuple[str, ...] = tuple(MACHINES)
    tools: Callable[[Lab], tuple[Path, ...]] = lambda lab: ()

    def form(self, brief: bool) -> Form:
        return self.brief if brief else self.full


EXPERIMENTS = {
    "ipi": Experiment(ipi.collect, Form(5, _ipi_baselines)),
    "vtimer": Experiment(
        vtimer.collect,
        Form(3, _vtimer_baselines, beside=(vtimer.HW,)),
        Form(_BRIEF_ROUNDS, beside=(vtimer.HW,)),
        machines=("cvm",),  # nobody but a monitor masks
    ),
    "cq-poll": Experiment(
        cq_poll.collect,
        Form(3, _cq_poll_baselines, passes=len(nfs_rdma.PROVIDERS)),
        # The verdict goes by the first.
        Form(_BRIEF_ROUNDS, options={"providers": nfs_rdma.PROVIDERS[:1]}),
    ),
    "wfx": Experiment(wfx.collect, Form(3, _wfx_baselines), machines=("vm", "cvm")),  # it is the host's
    "blackbox": Experiment(
        blackbox.collect,
        Form(
            4,
            _blackbox_baselines,
            combined=tuple(state for state in blackbox.COMBINATIONS if state not in ("off", "on")),
            options={"more": True},
            also={_POWER_CUT: _power_cut},
        ),
        Form(
            _BRIEF_ROUNDS,
            lambda machine, rounds: _on_vm("blackbox", machine, rounds),
            combined=blackbox.SINGLES,
        ),
        machines=("cvm",),
        tools=lambda lab: (database.build(lab),),
    ),
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
    # Nobody who names none wants to wait for all of all.
    brief = not features
    # Of a machine that we do not know plan() will tell.
    wanted = features or [
        name for name in FEATURES if machine not in MACHINES or machine in EXPERIMENTS[name].machines
    ]
    plans = {feature: plan(feature, machine, rounds, brief=brief) for feature in wanted}
    for path in filter(None, (html, json)):
        # Not only after all has been measured.
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UsageError("cannot write a file there", str(path), "name a file in a directory of yours")
    with_paths = [feature for feature in wanted if feature in _PATHS]
    if path_length and not with_paths:
        raise UsageError("no path of its own to count", wanted[0], f"name {' or '.join(_PATHS)} too")
    if dry_run:
        for feature, (judged, baselines) in plans.items():
            for measurement in (judged, *baselines):
                print(f"{feature}: {measurement}")
            for title in EXPERIMENTS[feature].form(brief).also:
                print(f"{feature}: on {judged.machine}: {title}")
        if path_length:
            machines = ", ".join(dict.fromkeys(_PATHS[feature].machine for feature in with_paths))
            states = ", ".join(map(repr, _PATH_STATES))
            print(f"path length: on {machines}, counted in instructions: {states}")
        return 0
    raws, baseline_raws = [], []
    lab = Lab(Cache(), terminal_progress())
    for judged, baselines in plans.values():
        lab.build("default", host=True)
        form = EXPERIMENTS[judged.feature].form(brief)
        judged_raw, beside = _parted(_measure(lab, judged, form.passes), ("off", "on", *form.combined))
        raws.append(judged_raw)
        baseline_raws += [beside] if beside.rounds else []
        baseline_raws += [_measure(lab, baseline, form.passes) for baseline in baselines]
        baseline_raws += [step(lab, judged.machine) for step in form.also.values()]
    if path_length:
        baseline_raws += _path_length(lab, with_paths)
    known = rules()
    results = judge(raws, baseline_raws, known)
    # Shown first: nothing that goes wrong with a file may lose them.
    print_tables(results, Console())
    render(results, known, html=html, json=json)
    for path in filter(None, (html, json)):
        print(f"written: {path}")
    return 0 if all(result.verdict is Verdict.PASS for result in results.results) else 1


def _parted(raw: RawRun, states: tuple[str, ...]) -> tuple[RawRun, RawRun]:
    """The rounds in the states that are compared, and the others: baselines that took turns, and the end."""
    judged = tuple(one for one in raw.rounds if one.state in states)
    others = tuple(one for one in raw.rounds if one.state not in states)
    return replace(raw, rounds=judged), replace(raw, rounds=others)


def _measure(lab: Lab, wanted: Measurement, passes: int) -> RawRun:
    states = ", ".join(wanted.states) if len(wanted.states) <= _NAMED else f"{len(wanted.states)} states"
    title = f"{wanted.feature}: measuring on {wanted.machine}: {states}"
    experiment = EXPERIMENTS[wanted.feature]
    tools = experiment.tools(lab)
    with lab.progress.step(title, wanted.rounds * len(wanted.states) * passes + 1) as step:

        def advance(note: str) -> None:
            step.advance()
            step.note(note)

        step.note("booting")
        options = BootOptions(append=wanted.append, host_append=wanted.host_append)
        with lab.boot(wanted.machine, options=options, tools=tools) as machine:
            return experiment.collect(
                machine.guest,
                wanted.machine,
                states=wanted.states,
                rounds=wanted.rounds,
                host=_host(machine),
                tools=GUEST_TOOLS,
                environment=_environment(machine),
                advance=advance,
                **wanted.options,
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
