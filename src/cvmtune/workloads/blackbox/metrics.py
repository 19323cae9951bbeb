# SPDX-License-Identifier: Apache-2.0
"""The metrics of the black box: each load has its latency, parts of it, and what was counted per transaction.

What features are there to save they count themselves (Event and Use in features/trial.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cvmtune.experiments.measure import Measure
from cvmtune.experiments.rounds import PART

MAIN_METRICS = ("insert", "tpcb", "audit")
"""The latencies by which combinations are compared: those of an insert, of a TPC-B transaction and of a
record of the audit log, all at a rate."""

CLOSED = {"insert": "insert_1_closed", "tpcb": "tpcb_1_closed", "audit": "audit_closed"}
"""Of each of these the same load without a rate, by which exits are judged. At a rate, the time between two
transactions is part of each: a vCPU that polls takes its own and its host's ticks in it as exits, by the
time, and a sleeping one takes none."""

EXITS = "exits"
LOST = "lost"
SWITCHES = "switches"
CPU_USE = "cpu_use"

ALL_LOST = Measure(
    "all_lost",
    "Transactions lost of all that were committed, when the server was killed after all rounds",
    "transactions",
)
DAMAGE = Measure(
    "damage", "Damage found in the database then: blocks, indexes and tables, balances", "findings"
)


@dataclass(frozen=True)
class Named:
    """A load as metrics name it: `unit` is what it consists of, "tx" or "record"."""

    name: str
    title: str
    unit: str

    def latency(self, of: str) -> Measure:
        return Measure(self.name, f"{of}: {self.title}", "ns", "time")

    def served(self) -> Measure:
        """The latency of transactions from when they began."""
        return Measure(f"{self.name}_served", f"Database: {self.title}, from its beginning", "ns", "time")

    def counted(self, suffix: str, title: str) -> Measure:
        """Something that is counted, per unit."""
        of = {"tx": "transaction"}.get(self.unit, self.unit)
        return Measure(f"{self.name}_{suffix}", f"{title} per {of} ({self.title})", f"per {self.unit}")

    def used(self, suffix: str, title: str) -> Measure:
        """CPUs that something takes."""
        return Measure(f"{self.name}_{suffix}", f"{title} ({self.title})", "CPUs")

    def lost(self, what: str, unit: str) -> Measure:
        return Measure(f"{self.name}_{LOST}", f"{what} ({self.title})", unit)

    def parts(self, titles: Mapping[str, str]) -> Mapping[str, Measure]:
        """The parts of the mean latency."""
        return {
            part: Measure(f"{self.name}{PART}{part}", title, "ns", "time") for part, title in titles.items()
        }
