# SPDX-License-Identifier: Apache-2.0
"""What the monitor decides about a confidential VM's timer, against tables of what the architecture says.

The header with the decision is taken out of the patch queue, compiled for this computer, and called with
made-up registers. The tables below are not made from it. They say what these documents say:

- Arm Architecture Reference Manual, DDI 0487, chapter "The Generic Timer in AArch64 state", "Operation of the
  CompareValue views of the timers"; and its descriptions of CNTV_CTL_EL0 and CNTV_CVAL_EL0.
- Arm GIC Architecture Specification, IHI 0069: ICH_LR<n>_EL2.
- Realm Management Monitor specification, DEN 0137, chapter "Realm interrupts and timers", "Realm timers".
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.command import run
from cvmtune.lab.patches import read_series, run_git

KERNEL = Path(__file__).resolve().parents[2] / "kernel"
INCLUDE = Path("arch/arm64/include")
HEADER = INCLUDE / "asm" / "kvm_vtimer.h"

ENABLE = 1 << 0
IMASK = 1 << 1
ISTATUS = 1 << 2

TOP = 1 << 63
LAST = (1 << 64) - 1

# What the header includes: of linux/types.h and clocksource/arm_arch_timer.h no more than it may use.
STUBS = {
    "linux/types.h": """\
#include <stdbool.h>
typedef unsigned int u32;
typedef signed long long s64;
typedef unsigned long long u64;
""",
    "clocksource/arm_arch_timer.h": """\
#define ARCH_TIMER_CTRL_ENABLE (1 << 0)
#define ARCH_TIMER_CTRL_IT_MASK (1 << 1)
#define ARCH_TIMER_CTRL_IT_STAT (1 << 2)
""",
}
EXPORTS = """\
#include <asm/kvm_vtimer.h>
bool output(u32 ctl, u64 cval, u64 now);
bool output(u32 ctl, u64 cval, u64 now) { return kvm_vtimer_output(ctl, cval, now); }
bool mask(bool output, bool told, bool listed);
bool mask(bool output, bool told, bool listed) { return kvm_vtimer_mask(output, told, listed); }
"""

# "Operation of the CompareValue views": the timer condition is met when counter - CompareValue >= 0.
# CNTV_CVAL_EL0: it is zero-extended in counter calculations. So both are numbers from 0 to 2^64 - 1, and
# their difference may be negative. From the counter and the compare value:
CONDITION_MET = {
    # compare value after the counter, at it, before it
    (1000, 1001): False,
    (1000, 1000): True,
    (1000, 999): True,
    # the same around values at which a narrower or a signed comparison would change its mind
    (0, 1): False,
    (0, 0): True,
    (1, 0): True,
    (2**32 - 1, 2**32): False,
    (2**32, 2**32): True,
    (2**32, 2**32 - 1): True,
    (TOP - 1, TOP): False,
    (TOP, TOP): True,
    (TOP, TOP - 1): True,
    (TOP, TOP + 1): False,
    (LAST - 1, LAST): False,
    (LAST, LAST): True,
    (LAST, LAST - 1): True,
    # far apart
    (0, TOP): False,
    (1000, TOP): False,
    (TOP, 0): True,
    (TOP + 1000, 1000): True,
    (0, LAST): False,
    (1000, LAST): False,
    (LAST, 0): True,
    (LAST, TOP): True,
    (TOP, LAST): False,
}

# CNTV_CTL_EL0. ENABLE: without it the output signal is disabled. IMASK: the interrupt is asserted if the
# condition is met and IMASK is 0. ISTATUS: with ENABLE, the condition, whatever IMASK is; else UNKNOWN. So it
# adds nothing. From ENABLE, IMASK and the condition:
OUTPUT = {
    (False, False, False): False,
    (False, False, True): False,
    (False, True, False): False,
    (False, True, True): False,
    (True, False, False): False,
    (True, False, True): True,
    (True, True, False): False,
    (True, True, True): False,
}

# ICH_LR<n>_EL2.State: 0b00 inactive, 0b01 pending, 0b10 active, 0b11 pending and active.
LISTED = {0b00: False, 0b01: True, 0b10: True, 0b11: True}

# "Realm timers": the host is told of a change of the output by an exit. While the output is asserted and the
# host has been told, the monitor masks the hardware's interrupt; it unmasks it when the output is deasserted.
# That a host which has listed the interrupt need not be told is our own. From the output, told and listed:
MASK = {
    (False, False, False): False,
    (False, False, True): False,  # being handled, and set anew: its next expiry must be seen
    (False, True, False): False,  # masked or set anew by the guest since the host was told
    (False, True, True): False,
    (True, False, False): False,  # expired since the host last looked: the exit that tells it
    (True, False, True): True,  # the host found out by its own clock
    (True, True, False): True,  # told, but the guest has it disabled in its interrupt controller
    (True, True, True): True,
}


@dataclass(frozen=True)
class Registers:
    """What the monitor finds on a way in. `told` is its own memory, `lr_state` the list register's."""

    ctl: int
    cval: int
    now: int
    told: bool
    lr_state: int


class Decision:
    """The header's functions, compiled."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.output.argtypes = [ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64]
        self._library.output.restype = ctypes.c_bool
        self._library.mask.argtypes = [ctypes.c_bool] * 3
        self._library.mask.restype = ctypes.c_bool

    def output(self, ctl: int, cval: int, now: int) -> bool:
        return bool(self._library.output(ctl, cval, now))

    def mask(self, output: bool, told: bool, listed: bool) -> bool:
        return bool(self._library.mask(output, told, listed))

    def on_entry(self, found: Registers) -> tuple[bool, bool]:
        """The output, and whether the interrupt is masked."""
        output = self.output(found.ctl, found.cval, found.now)
        return output, self.mask(output, found.told, found.lr_state != 0)


def by_the_book(found: Registers, met: bool) -> tuple[bool, bool]:
    """The output, and whether the interrupt is masked, from the tables above."""
    output = OUTPUT[bool(found.ctl & ENABLE), bool(found.ctl & IMASK), met]
    return output, MASK[output, found.told, LISTED[found.lr_state]]


def every_case() -> Iterator[tuple[Registers, bool]]:
    """Each combination that the tables tell apart, and of what must make no difference, ISTATUS."""
    truth = (False, True)
    for enable, imask, istatus, told, lr_state in product(truth, truth, truth, truth, LISTED):
        ctl = enable * ENABLE | imask * IMASK | istatus * ISTATUS
        for (now, cval), met in CONDITION_MET.items():
            yield Registers(ctl, cval, now, told, lr_state), met


def mistakes(decision: Decision) -> list[str]:
    """Each case that a decision gets wrong."""
    wrong = []
    for found, met in every_case():
        got, expected = decision.on_entry(found), by_the_book(found, met)
        if got != expected:
            wrong.append(f"{found}: output, mask are {got}, not {expected}")
    return wrong


def shipped_header(where: Path) -> str:
    """The header's text as the patch queue makes it, all patches that touch it applied in order."""
    touching = [patch for patch in read_series(KERNEL, (6, 12)).patches if str(HEADER) in patch.files]
    assert touching, f"no patch in {KERNEL / 'queue'} adds {HEADER}"
    for patch in touching:
        run_git(where, "apply", f"--include={HEADER}", str(patch.path)).check()
    return (where / HEADER).read_text(encoding="utf-8")


def compiled(header: str, where: Path, *flags: str) -> Decision:
    """Compile the header's text in the empty directory `where`, for this computer."""
    sources = {str(HEADER): header, "exports.c": EXPORTS}
    sources |= {f"stubs/{name}": text for name, text in STUBS.items()}
    for name, text in sources.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text, encoding="utf-8")
    library = where / "decision.so"
    include = ["-I", str(where / "stubs"), "-I", str(where / INCLUDE)]
    argv = ["gcc", "-std=gnu11", *flags, "-shared", "-fPIC", *include, "-o", library, where / "exports.c"]
    run([str(word) for word in argv]).check()
    return Decision(library)


pytestmark = pytest.mark.skipif(
    (shutil.which("gcc") is None or shutil.which("git") is None)
    and os.environ.get("CVMTUNE_REQUIRE_TOOLS") != "1",
    reason="gcc or git is not installed",
)


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> str:
    return shipped_header(tmp_path_factory.mktemp("queue"))


@pytest.fixture(scope="module")
def decision(header: str, tmp_path_factory: pytest.TempPathFactory) -> Decision:
    return compiled(header, tmp_path_factory.mktemp("decision"), "-Wall", "-Wextra", "-Werror")


def test_decision_is_the_tables(decision: Decision) -> None:
    assert mistakes(decision) == []


def test_tables_are_whole() -> None:
    truth = (False, True)
    assert set(OUTPUT) == set(MASK) == set(product(truth, truth, truth))
    assert set(LISTED) == set(range(4))
    assert len(list(every_case())) == 2 * 2 * 2 * 2 * 4 * len(CONDITION_MET)


WORDS = st.integers(0, LAST)
NEAR = st.tuples(WORDS, st.integers(-2, 2)).map(lambda pair: (pair[0], min(max(sum(pair), 0), LAST)))


@given(
    ctl=st.integers(0, (1 << 32) - 1),
    times=st.tuples(WORDS, WORDS) | NEAR,
    told=st.booleans(),
    lr_state=st.sampled_from(sorted(LISTED)),
)
def test_any_values_obey_the_rules(
    decision: Decision, ctl: int, times: tuple[int, int], told: bool, lr_state: int
) -> None:
    now, cval = times
    found = Registers(ctl, cval, now, told, lr_state)
    # Python's integers have no width: this is the unsigned comparison.
    assert decision.on_entry(found) == by_the_book(found, now - cval >= 0)


@given(ctl=st.integers(0, (1 << 32) - 1), times=st.tuples(WORDS, WORDS) | NEAR)
def test_only_enable_and_imask_count(decision: Decision, ctl: int, times: tuple[int, int]) -> None:
    now, cval = times
    assert decision.output(ctl, cval, now) == decision.output(ctl & (ENABLE | IMASK), cval, now)


BOTH_BITS = "(ARCH_TIMER_CTRL_ENABLE | ARCH_TIMER_CTRL_IT_MASK)"
CONDITION = "now >= cval"
WHETHER = "output && (told || listed)"

MUTATIONS = {
    "later than the compare value only": (CONDITION, "now > cval"),
    "before the compare value": (CONDITION, "now <= cval"),
    "signed numbers": (CONDITION, "(s64)now >= (s64)cval"),
    "signed difference": (CONDITION, "(s64)(now - cval) >= 0"),
    "32 bits": (CONDITION, "(u32)now >= (u32)cval"),
    "ISTATUS for the condition": (CONDITION, "(ctl & ARCH_TIMER_CTRL_IT_STAT)"),
    "ISTATUS and the condition": (CONDITION, "now >= cval && (ctl & ARCH_TIMER_CTRL_IT_STAT)"),
    "IMASK ignored": (BOTH_BITS, "(ARCH_TIMER_CTRL_ENABLE)"),
    "ISTATUS must be clear": (BOTH_BITS, "7"),
    "ENABLE ignored": ("(ctl & (", "((ctl | ARCH_TIMER_CTRL_ENABLE) & ("),
    "never masked": (WHETHER, "false"),
    "masked whenever asserted": (WHETHER, "output"),
    "told ignored": (WHETHER, "output && listed"),
    "listed ignored": (WHETHER, "output && told"),
    "both told and listed": (WHETHER, "output && told && listed"),
    "output ignored": (WHETHER, "told || listed"),
    "output not needed if listed": (WHETHER, "(output && told) || listed"),
    "output not needed if told": (WHETHER, "told || (output && listed)"),
}
"""Text of the header, and what a mistake would have there."""


@pytest.mark.parametrize("mistake", MUTATIONS)
def test_mutation_is_caught(mistake: str, header: str, tmp_path: Path) -> None:
    text, instead = MUTATIONS[mistake]
    assert header.count(text) == 1, f"{text!r} is no longer in the header just once: adapt MUTATIONS"
    assert mistakes(compiled(header.replace(text, instead), tmp_path, "-w"))
