# SPDX-License-Identifier: Apache-2.0
"""Check the SPIN model of the soft IPI protocol, and that the model can tell a broken protocol from it.

The model's own header says what its properties and mutants mean. Each property gets an exhaustive
search of the model; each mutant must violate the very property that its change endangers.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[2] / "kernel" / "model" / "soft_ipi.pml"

DEPTH = 1_000_000
"""Longest path searched, in steps; the model's is about an eighth of it."""
MEMORY_MB = 2048
SECONDS = 120.0
"""Deadline of one search. It takes some five seconds; the rest is for a busy machine."""
MIN_STATES = 100_000
"""Well below the states of every full search. Fewer mean that some process got stuck."""


@dataclass(frozen=True)
class Property:
    """How to search for one property: options of the verifier, and whether it is built without claims."""

    name: str
    options: tuple[str, ...]
    claims: bool = True


SAFETY = Property("assertions and end states", (), claims=False)
INVARIANTS = Property("invariants", ("-N", "invariants"))
NO_LOST_IPI = Property("no_lost_ipi", ("-a", "-f", "-N", "no_lost_ipi"))
UNNAMED_RELEASED = Property("unnamed_released", ("-a", "-f", "-N", "unnamed_released"))
SENDER_ENDS = Property("sender_ends", ("-a", "-f", "-N", "sender_ends"))
PROPERTIES = (SAFETY, INVARIANTS, NO_LOST_IPI, UNNAMED_RELEASED, SENDER_ENDS)

UNSEEN_PAYLOAD = r"assertion violated .*covers"
INVARIANT = r"assertion violated .*in_poll.*online"
CYCLE = r"acceptance cycle"

MUTANTS = {
    "NO_RELEASE": (SAFETY, UNSEEN_PAYLOAD),
    "NO_ACQUIRE": (SAFETY, UNSEEN_PAYLOAD),
    "SENDER_TEST_THEN_SET": (INVARIANTS, INVARIANT),
    "SENDER_SKIP_IF_SET": (NO_LOST_IPI, CYCLE),
    "LEAVE_WITHOUT_COLLECT": (NO_LOST_IPI, CYCLE),
    "NO_FINAL_COLLECT_BEFORE_WFI": (NO_LOST_IPI, CYCLE),
    "NO_NAMED_RECHECK": (UNNAMED_RELEASED, CYCLE),
    "NO_ISR_CHECK": (NO_LOST_IPI, CYCLE),
    "OFFLINE_WHILE_POLLING": (INVARIANTS, INVARIANT),
}

UNREACHED = {("store_buffer", "-end-")}
"""(process, statement) that no search reaches: this process alone never ends."""

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None and os.environ.get("CVMTUNE_REQUIRE_TOOLS") != "1",
    reason="spin is not installed",
)


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


def build(where: Path, *, claims: bool, mutant: str | None = None) -> Path:
    """Make a verifier of the model in the empty or new directory ``where``.

    The verifier of a mutant finds its error within a moment, so only the model's own is worth optimising.
    """
    where.mkdir(parents=True, exist_ok=True)
    run(["spin", *([f"-D{mutant}"] if mutant else []), "-a", MODEL], where)
    flags = ["-O0" if mutant else "-O2", "-w", f"-DMEMLIM={MEMORY_MB}"]
    # A verifier built with claims always follows one of them, and then ignores invalid end states.
    flags += [] if claims else ["-DNOCLAIM", "-DSAFETY"]
    pan = where / "pan"
    run(["gcc", *flags, "-o", pan, "pan.c"], where)
    return pan


def search(pan: Path, prop: Property) -> str:
    """Search for a violation of ``prop`` and return the verifier's report."""
    return run([pan, f"-m{DEPTH}", *prop.options], pan.parent)


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


@pytest.fixture(scope="module", params=PROPERTIES, ids=lambda prop: prop.name)
def full_search(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Property, str]:
    """A property and the report of its search in the unchanged model."""
    prop: Property = request.param
    where = tmp_path_factory.getbasetemp() / f"soft_ipi_{'claims' if prop.claims else 'safety'}"
    pan = where / "pan"
    if not pan.exists():
        build(where, claims=prop.claims)
    report = search(pan, prop)
    if errors(report):
        trail = where / f"{MODEL.name}.trail"
        steps = run(["spin", "-t", "-p", "-g", "-k", trail, MODEL], where).splitlines()
        report += "\nThe last steps that lead to it:\n" + "\n".join(steps[-80:])
    return prop, report


def test_property_holds(full_search: tuple[Property, str]) -> None:
    _, report = full_search
    assert errors(report) == 0, report


def test_search_is_complete(full_search: tuple[Property, str]) -> None:
    prop, report = full_search
    assert "Full statespace search" in report
    for sign in ("max search depth too small", "out of memory", "-DMEMLIM", "Search not completed"):
        assert sign not in report, report
    assert count(r"(\d+) states, stored", report) > MIN_STATES
    assert count(r"depth reached (\d+)", report) < DEPTH - 1
    if prop.claims:
        assert f"never claim         \t+ ({prop.name})" in report
    else:
        assert "invalid end states\t+" in report
    if "-f" in prop.options:
        assert "(fairness enabled)" in report


def test_every_statement_is_reached(full_search: tuple[Property, str]) -> None:
    _, report = full_search
    assert report.count("unreached in proctype") == 3, report
    assert set(unreached(report)) == UNREACHED


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_caught(mutant: str, tmp_path: Path) -> None:
    prop, expected = MUTANTS[mutant]
    report = search(build(tmp_path, claims=prop.claims, mutant=mutant), prop)
    assert errors(report) >= 1, report
    assert re.search(expected, report), report


def test_every_mutant_of_the_model_is_tried() -> None:
    text = MODEL.read_text(encoding="utf-8")
    assert set(re.findall(r"^#ifn?def (\w+)", text, re.MULTILINE)) == set(MUTANTS)
