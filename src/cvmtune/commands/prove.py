# SPDX-License-Identifier: Apache-2.0
"""`cvmtune prove`: run a feature's experiment in the lab, off and on, beside its baselines, and judge it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cvmtune import __version__
from cvmtune.bench import ipi
from cvmtune.bench import path_length as paths
from cvmtune.bench.raw import RawRun
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

FEATURES = ("ipi",)
DEFAULT_ROUNDS = 5


@dataclass(frozen=True)
class Measurement:
    """One boot of a machine, and what is measured in it: both states of the feature, or a baseline."""

    machine: str
    states: tuple[str, ...]
    rounds: int
    append: tuple[str, ...] = ()

    def __str__(self) -> str:
        booted = f" booted with {' '.join(self.append)}" if self.append else ""
        return f"on {self.machine}{booted}: {self.rounds} rounds each of {' and '.join(self.states)}"


def plan(feature: str, machine: str, rounds: int) -> tuple[Measurement, list[Measurement]]:
    """Return the measurement that the feature is judged by, and its baselines."""
    if feature not in FEATURES:
        raise UsageError(
            f"no experiment for feature {feature!r}", next_step=f"features: {', '.join(FEATURES)}"
        )
    if machine not in MACHINES:
        raise UsageError(f"no machine {machine!r}", next_step=f"machines: {', '.join(MACHINES)}")
    judged = Measurement(machine, ("off", "on"), rounds)
    # All CPUs poll, as a kernel without the feature can be told to: every IPI still goes by hardware.
    baselines = [Measurement(machine, ("nohlt",), rounds, ("nohlt",))]
    if machine != "vm":
        baselines.insert(0, Measurement("vm", ("off",), rounds))
    return judged, baselines


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
    wanted = features or FEATURES
    plans = {feature: plan(feature, machine, rounds or DEFAULT_ROUNDS) for feature in wanted}
    for path in filter(None, (html, json)):
        # Not only after all has been measured.
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UsageError("cannot write a file there", str(path), "name a file in a directory of yours")
    if dry_run:
        for feature, (judged, baselines) in plans.items():
            for measurement in (judged, *baselines):
                print(f"{feature}: {measurement}")
        if path_length:
            print(f"path length: on plain, counted in instructions: {', '.join(_PATH_STATES)}")
        return 0
    raws, baseline_raws = [], []
    lab = Lab(Cache(), terminal_progress())
    for judged, baselines in plans.values():
        lab.build("default", host=True)
        raws.append(_measure(lab, judged))
        baseline_raws += [_measure(lab, baseline) for baseline in baselines]
    if path_length:
        baseline_raws.append(_path_length(lab))
    results = judge(raws, baseline_raws)
    # Shown first: nothing that goes wrong with a file may lose them.
    print_tables(results, Console())
    render(results, html=html, json=json)
    for path in filter(None, (html, json)):
        print(f"written: {path}")
    return 0 if all(result.verdict == "PASS" for result in results.results) else 1


def _measure(lab: Lab, wanted: Measurement) -> RawRun:
    title = f"measuring on {wanted.machine}: {', '.join(wanted.states)}"
    with lab.progress.step(title, wanted.rounds * len(wanted.states) + 1) as step:

        def advance(note: str) -> None:
            step.advance()
            step.note(note)

        step.note("booting")
        with lab.boot(wanted.machine, options=BootOptions(append=wanted.append)) as machine:
            return ipi.collect(
                machine.guest,
                wanted.machine,
                states=wanted.states,
                rounds=wanted.rounds,
                host=_host(machine),
                tools=GUEST_TOOLS,
                environment=_environment(machine),
                advance=advance,
            )


# The state's name, the kernel, and the mask of polling CPUs. Both CPUs poll where any does: the idle path is
# measured on one, the other is sent to.
_PATH_STATES = {
    "instructions, feature not compiled in": ("absent", "0"),
    "instructions, feature off": ("default", "0"),
    "instructions, feature on": ("default", "3"),
}


def _path_length(lab: Lab) -> RawRun:
    rounds = []
    environment: dict[str, object] = {}
    with lab.progress.step("counting instructions on plain", len(_PATH_STATES)) as step:
        for state, (flavour, mask) in _PATH_STATES.items():
            step.note(state)
            with lab.boot("plain", flavour=flavour, options=BootOptions(icount=True)) as machine:
                rounds.append(paths.collect(machine.guest, state, mask, GUEST_TOOLS))
                environment = _environment(machine)
            step.advance()
    return RawRun("ipi", "plain", tuple(rounds), environment)


def _host(machine: Machine) -> ipi.Host | None:
    if machine.host is None:
        return None
    return ipi.Host(machine.host, machine.vmm_pid)


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
