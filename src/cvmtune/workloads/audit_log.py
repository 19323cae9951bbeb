# SPDX-License-Identifier: Apache-2.0
"""An audit log in a guest, as the lab's helper auditlog writes it: several producers hand records to one
writer, which makes each durable before it answers."""

from __future__ import annotations

from dataclasses import dataclass

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System


@dataclass(frozen=True)
class AuditLoad:
    """Records of so many producers, each with as many; `rate` is how many come in a second from all of them
    together, at random, or 0 for each as soon as the one before is answered. The two kinds of threads are on
    CPUs of their own."""

    producers: int
    records: int
    rate: int
    writer_cpu: int
    producer_cpu: int
    seed: int = 0

    @property
    def total(self) -> int:
        return self.producers * self.records


@dataclass(frozen=True)
class Record:
    """Where one record's time went, in nanoseconds: from when it was due till its producer handed it over,
    till the writer had it, till it was durable, and till the producer knew."""

    late: float
    handoff: float
    write: float
    answer: float

    @property
    def latency(self) -> float:
        return self.late + self.handoff + self.write + self.answer


def log(
    guest: System, tools: str, path: str, load: AuditLoad, *, timeout: float = 300.0
) -> tuple[Record, ...]:
    """Write the records to a new file at `path`, in place of one that may be there."""
    guest.run(["rm", "-f", path]).check()
    numbers = (load.producers, load.records, load.rate, load.writer_cpu, load.producer_cpu, load.seed)
    argv = [f"{tools}/auditlog", "write", path, *map(str, numbers)]
    records = parse(guest.run(argv, timeout=timeout).check().stdout)
    if len(records) != load.total:
        raise CvmtuneError(f"of {load.total} records it tells {len(records)}", "auditlog")
    return records


def intact(guest: System, tools: str, path: str) -> int:
    """The number of records in the log; none, if one of them is damaged, or left out."""
    done = guest.run([f"{tools}/auditlog", "check", path], timeout=60)
    # 1 is a damaged file's, and that of what failed in another way.
    if done.status == 1 and "record " in done.stderr:
        return 0
    done.check()
    ((number,),) = _numbers(done.stdout, 1) or [[0.0]]
    return int(number)


def parse(text: str) -> tuple[Record, ...]:
    """Read what auditlog prints, a line a record."""
    return tuple(Record(*row) for row in _numbers(text, 4))


def _numbers(text: str, columns: int) -> list[list[float]]:
    rows = [line.split() for line in text.splitlines()]
    if any(len(row) != columns or not all(map(str.isdecimal, row)) for row in rows):
        raise CvmtuneError(f"expected lines of {columns} whole numbers, found {text[:200]!r}", "auditlog")
    return [[float(word) for word in row] for row in rows]
