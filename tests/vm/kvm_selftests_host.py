# SPDX-License-Identifier: Apache-2.0
"""KVM's selftests on the host of a nested machine: which are run and how, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from signal import Signals

from cvmtune.core.system import Completed, System
from cvmtune.lab.lab import KVM_SELFTESTS

PASS = "pass"
SKIP = "skip"
FAIL = "fail"
TIMEOUT = "timeout"

# For one test, in seconds, and how long it has to end after SIGTERM.
LIMIT = 300
GRACE = 10
# Some tests want an interrupt within milliseconds, which a busy computer may be too slow for: what fails is
# tried again, on either kernel. What a patch has broken fails each time, or shows by the number of tries.
TRIES = 3

# What cannot say anything here, and why.
LEFT_OUT: Mapping[str, str] = {
    "aarch64/page_fault_test": "needs userfaultfd(2), which the lab's kernels are built without",
    "access_tracking_perf_test": "needs CONFIG_IDLE_PAGE_TRACKING, which the lab's kernels are built without",
    "rseq_test": "needs rseq(2), which the lab's kernels are built without",
}

# The defaults are made for hardware: a GiB a vCPU, seconds of measuring, microseconds of lateness.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    # Milliseconds that it lets pass between two steps, which an emulated guest must not be late for.
    "aarch64/arch_timer_edge_cases": ("-i", "1", "-w", "200", "-l", "400"),
    "aarch64/debug-exceptions": ("-i", "1000"),
    "aarch64/vgic_lpi_stress": ("-v", "2", "-d", "4"),
    # An interrupt may be this late, in us, before it counts as lost.
    "arch_timer": ("-i", "3", "-e", "300000"),
    "demand_paging_test": ("-b", "16M", "-v", "2"),
    "dirty_log_perf_test": ("-b", "16M", "-v", "2"),
    # Two of the nine guest modes: pages of 4 and of 64 KiB, with addresses of 40 bits.
    "dirty_log_test": ("-i", "4", "-m", "6", "-m", "8"),
    "kvm_page_table_test": ("-b", "16M", "-v", "2"),
    "memslot_modification_stress_test": ("-b", "16M", "-v", "2"),
    # Seconds for each of its parts, memory slots, and the last part: the next one ends by SIGALRM if its vCPU
    # takes more than 10 s for 512 MiB.
    "memslot_perf_test": ("-l", "1", "-s", "64", "-e", "4"),
}

# With --short: quick ones, of what a patch to KVM's arm64 code is most likely to break.
SHORT = (
    "aarch64/debug-exceptions",
    "aarch64/hypercalls",
    "aarch64/no-vgic-v3",
    "aarch64/psci_test",
    "aarch64/smccc_filter",
    "aarch64/vgic_irq",
    "aarch64/vgic_lpi_stress",
    "aarch64/vtimer_mode",
    "aarch64/wfx_trap",
    "arch_timer",
    "get-reg-list",
    "kvm_binary_stats_test",
    "steal_time",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a test at its last try. `why` is its last word, unless it has passed."""

    result: str
    seconds: float
    why: str = ""
    tries: int = 1

    def __str__(self) -> str:
        tries = f" (try {self.tries})" if self.tries > 1 else ""
        return f"{self.result} {self.seconds:.1f} s{tries}"


def outcome_of(completed: Completed) -> Outcome:
    """Return what a test's exit status says, by the rules of kselftest; it has run under timeout(1)."""
    status = completed.status
    if status == 0:
        return Outcome(PASS, completed.seconds)
    # timeout(1)'s own status, or its death by the signal that it sends last.
    result = SKIP if status == 4 else TIMEOUT if status in (124, 137, -9) else FAIL
    if status > 128 and result == FAIL and status - 128 in set(Signals):
        return Outcome(result, completed.seconds, f"ended by {Signals(status - 128).name}")
    lines = (completed.stdout + completed.stderr).split("\n")
    words = [line.strip() for line in lines if line.strip() and not _is_trace(line)]
    return Outcome(result, completed.seconds, words[-1] if words else f"status {status}")


def _is_trace(line: str) -> bool:
    # A failed assertion prints its backtrace, a line a frame, between where it was and what it says.
    return line.strip()[0].isdigit() and ": ?" in line


def run(
    system: System,
    names: Iterable[str],
    directory: str = KVM_SELFTESTS,
    options: Mapping[str, tuple[str, ...]] = OPTIONS,
) -> dict[str, Outcome]:
    """Run the tests of these names, one after the other; what fails, TRIES times at most."""
    outcomes = {}
    for name in names:
        argv = [f"{directory}/{name}", *options.get(name, ())]
        for tries in range(1, TRIES + 1):
            outcomes[name] = replace(_run_once(system, argv), tries=tries)
            if outcomes[name].result in (PASS, SKIP):
                break
    return outcomes


def _run_once(system: System, argv: Sequence[str]) -> Outcome:
    limit = ("timeout", f"--kill-after={GRACE}", str(LIMIT))
    return outcome_of(system.run([*limit, *argv], timeout=LIMIT + 6 * GRACE))


def regressions(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> list[str]:
    """Return, a line each, the tests that passed before and do anything else, or are missing, after."""
    return [
        f"{name}: {after.get(name, 'not run')}"
        for name, outcome in before.items()
        if outcome.result == PASS and (name not in after or after[name].result != PASS)
    ]


def table(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> Sequence[str]:
    """Return the lines of a table, in Markdown."""
    rows = ["| test | unpatched | patched | why |", "|---|---|---|---|"]
    for name in sorted({*before, *after}):
        both = (before.get(name), after.get(name))
        why = dict.fromkeys(outcome.why for outcome in both if outcome and outcome.why)
        cells = [str(outcome) if outcome else "not run" for outcome in both]
        text = "; ".join(why).replace("|", "\\|")
        rows.append(f"| `{name}` | {cells[0]} | {cells[1]} | {text} |")
    return rows
