# SPDX-License-Identifier: Apache-2.0
"""Search the models in kernel/model by SPIN.

Each property gets an exhaustive search of its model. Each mutant, a preprocessor symbol of the model, must
violate the very property that its change endangers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "kernel" / "model"

DEPTH = 1_000_000
"""Longest path searched, in steps. No model comes near it."""
MEMORY_MB = 2048
SECONDS = 120.0
"""Deadline of one search. The longest takes some five seconds; the rest is for a busy machine."""

CYCLE = r"acceptance cycle"
"""What a violation of a property of liveness is called."""

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None and os.environ.get("CVMTUNE_REQUIRE_TOOLS") != "1",
    reason="spin is not installed",
)


@dataclass(frozen=True)
class Property:
    """How to search for one property: options of the verifier, and whether it is built without claims."""

    name: str
    options: tuple[str, ...]
    claims: bool = True


def invariant(name: str) -> Property:
    """A claim that something always holds."""
    return Property(name, ("-N", name))


def liveness(name: str) -> Property:
    """A claim that something happens sooner or later, if no process is kept from its next step for ever."""
    return Property(name, ("-a", "-f", "-N", name))


def run(argv: Sequence[str | Path], cwd: Path) -> str:
    """Run a command to its end and return what it printed; a failure fails the test, with that text."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        timeout=SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv} ended with status {done.returncode}:\n{done.stdout}"
    return done.stdout


def build(model: Path, where: Path, *, claims: bool, mutant: str | None = None) -> Path:
    """Make a verifier of ``model`` in the empty or new directory ``where``.

    The verifier of a mutant finds its error within a moment, so only the model's own is worth optimising.
    """
    where.mkdir(parents=True, exist_ok=True)
    run(["spin", *([f"-D{mutant}"] if mutant else []), "-a", model], where)
    flags = ["-O0" if mutant else "-O2", "-w", f"-DMEMLIM={MEMORY_MB}"]
    # A verifier built with claims always follows one of them, and then ignores invalid end states.
    flags += [] if claims else ["-DNOCLAIM", "-DSAFETY"]
    pan = where / "pan"
    run(["gcc", *flags, "-o", pan, "pan.c"], where)
    return pan


def search(pan: Path, prop: Property) -> str:
    """Search for a violation of ``prop`` and return the verifier's report."""
    return run([pan, f"-m{DEPTH}", *prop.options], pan.parent)


def search_whole(model: Path, prop: Property, base: Path) -> str:
    """Search the unchanged model, building its verifier below ``base`` if need be; return the report.

    The report of an error ends with the steps that lead to it.
    """
    where = base / f"{model.stem}_{'claims' if prop.claims else 'safety'}"
    pan = where / "pan"
    if not pan.exists():
        build(model, where, claims=prop.claims)
    report = search(pan, prop)
    if errors(report):
        trail = where / f"{model.name}.trail"
        steps = run(["spin", "-t", "-p", "-g", "-k", trail, model], where).splitlines()
        report += "\nThe last steps that lead to it:\n" + "\n".join(steps[-80:])
    return report


def assert_complete(report: str, prop: Property, min_states: int) -> None:
    """Fail unless all of the model was searched for ``prop``, in at least ``min_states`` states."""
    assert "Full statespace search" in report
    for sign in ("max search depth too small", "out of memory", "-DMEMLIM", "Search not completed"):
        assert sign not in report, report
    assert count(r"(\d+) states, stored", report) >= min_states
    assert count(r"depth reached (\d+)", report) < DEPTH - 1
    if prop.claims:
        assert f"never claim         \t+ ({prop.name})" in report
    else:
        assert "invalid end states\t+" in report
    if "-f" in prop.options:
        assert "(fairness enabled)" in report


def assert_violated(model: Path, mutant: str, prop: Property, expected: str, where: Path) -> None:
    """Fail unless the mutant violates ``prop``, as the regular expression ``expected`` describes it."""
    report = search(build(model, where, claims=prop.claims, mutant=mutant), prop)
    assert errors(report) >= 1, report
    assert re.search(expected, report), report


def count(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    assert found, report
    return int(found[1])


def errors(report: str) -> int:
    return count(r"errors: (\d+)", report)


def unreached(report: str) -> Iterator[tuple[str, str]]:
    """The process and text of each statement that a search has not reached; claims are left out."""
    lists = re.findall(r"unreached in proctype (\w+)\n(.*?)\(\d+ of \d+ states\)", report, re.DOTALL)
    for process, listed in lists:
        for statement in re.findall(r'state \d+, "(.*)"', listed):
            yield process, statement


def mutants(model: Path) -> set[str]:
    """The symbols that the model's text tests for."""
    return set(re.findall(r"^#ifn?def (\w+)", model.read_text(encoding="utf-8"), re.MULTILINE))
