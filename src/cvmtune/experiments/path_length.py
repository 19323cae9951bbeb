# SPDX-License-Identifier: Apache-2.0
"""How many instructions a path takes that a feature touches.

In a machine booted with `icount` the guest's counter goes on by one nanosecond an instruction, whatever the
computer does, so differences of counter readings are counts of instructions. The counter's step is 16 ns:
single samples are that coarse, means over many are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from cvmtune.core.system import System
from cvmtune.experiments.bench import Bench
from cvmtune.experiments.environment import environment_of
from cvmtune.experiments.guest import loaded_module
from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions
from cvmtune.lab.specs import MachineName

MODULE = "cvmtune_ipi"
"""The lab's module that times paths; what is timed is a kind of its own."""

EXIT_PATH = Measure(
    "exit_path",
    "Instructions of a hypercall of the guest: an exit to its host, and the entry after it",
    "instructions",
)

_DEBUGFS = f"/sys/kernel/debug/{MODULE}"
_SAMPLES = 2000
_GAP_US = 100
_USUAL = 200  # how much longer than the shortest an exit without an interrupt may be
# One thread emulates all CPUs then.
_DEADLINE = 300.0


@dataclass(frozen=True)
class PathState:
    """A kernel, by its flavour, in which paths are counted, and whether the feature is on."""

    name: str
    flavour: str
    on: bool


PATH_STATES = (
    PathState("instructions, feature not compiled in", "absent", on=False),
    PathState("instructions, feature off", "default", on=False),
    PathState("instructions, feature on", "default", on=True),
)


class Paths(ABC):
    """How a feature's instructions are counted: on which machine, by what, and how its host is booted where
    the feature is off and where it is on, if not as ever."""

    machine: MachineName
    off_append: tuple[str, ...] = ()
    on_append: tuple[str, ...] = ()

    @abstractmethod
    def measure(self, bench: Bench, state: str, *, on: bool) -> list[Round]:
        """Count in a machine that was booted with `icount`, with the feature on or off. Rounds are of
        `state`, or of states that are named after it."""


def dry_run_line(paths: Mapping[str, Paths]) -> str:
    """What a dry run says of counting these."""
    machines = ", ".join(dict.fromkeys(one.machine for one in paths.values()))
    states = ", ".join(repr(state.name) for state in PATH_STATES)
    return f"path length: on {machines}, counted in instructions: {states}"


def count(lab: Lab, paths: Mapping[str, Paths]) -> list[RawRun]:
    """Count the instructions of each experiment's paths, in all states; those that want the same boot share
    it. The runs, one for each boot, are in the order of `paths`."""
    runs: dict[str, list[RawRun]] = {name: [] for name in paths}
    boots: dict[tuple[PathState, MachineName, tuple[str, ...]], list[str]] = {}
    for state in PATH_STATES:
        for name, one in paths.items():
            host_append = one.on_append if state.on else one.off_append
            boots.setdefault((state, one.machine, host_append), []).append(name)
    with lab.progress.step("counting instructions", len(boots)) as step:
        for (state, where, host_append), measured in boots.items():
            step.note(f"{state.name}, on {where}")
            options = BootOptions(icount=True, deadline=_DEADLINE, host_append=host_append)
            with lab.boot(where, flavour=state.flavour, options=options) as machine:
                bench = Bench.of(machine, GUEST_TOOLS)
                environment = environment_of(machine)
                for name in measured:
                    rounds = paths[name].measure(bench, state.name, on=state.on)
                    runs[name].append(RawRun(name, str(where), tuple(rounds), environment))
            step.advance()
    return [run for found in runs.values() for run in found]


def exit_path(bench: Bench) -> Series:
    """The length of an exit and the entry after it, in a guest whose host was booted with `icount`."""
    samples = hypercalls(bench.guest, bench.tools)
    # Only those without an interrupt in them, each of which is some thousand instructions.
    usual = [sample for sample in samples if sample <= min(samples) + _USUAL]
    return EXIT_PATH.value(sum(usual) / len(usual))


def hypercalls(guest: System, tools: str) -> list[int]:
    """Return how long hypercalls of the guest took that do next to nothing, in nanoseconds."""
    with loaded_module(guest, tools, MODULE):
        return samples_of(guest, "exit_path")


def samples_of(guest: System, kind: str) -> list[int]:
    """Have the module, which is loaded, time paths of this kind; return them, in nanoseconds."""
    command = f"echo kind={kind} src=0 dst=1 n={_SAMPLES} gap_us={_GAP_US} >{_DEBUGFS}/run"
    guest.run(["sh", "-c", command], timeout=600).check()
    return [int(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split()]
