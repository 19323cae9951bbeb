# SPDX-License-Identifier: Apache-2.0
"""Counts how often kernel trace events fire, by tracefs (Documentation/trace/events.rst)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System

TRACEFS = "/sys/kernel/tracing"
# What a ring buffer's `stats` says of the events that were written into it, whatever became of them since.
_WRITTEN = ("entries", "overrun", "dropped events", "read events")


@contextmanager
def counted(guest: System, events: Sequence[str]) -> Iterator[EventCounts]:
    """Count the events ("group/name") for as long as the `with` block lasts.

    Each has a tracing instance of its own, as the kernel counts what is written to an instance's buffer, not
    what is written of one event.
    """
    with ExitStack() as stack:
        if not guest.exists(f"{TRACEFS}/events"):
            guest.run(["mount", "-t", "tracefs", "tracefs", TRACEFS]).check()
            stack.callback(lambda: guest.run(["umount", TRACEFS]).check())
        instances = {}
        for event in events:
            instances[event] = f"{TRACEFS}/instances/cvmtune-{event.replace('/', '-')}"
            guest.run(["mkdir", instances[event]]).check()
            stack.callback(lambda at: guest.run(["rmdir", at]).check(), instances[event])
        for event, instance in instances.items():
            guest.write_text(f"{instance}/events/{event}/enable", "1\n")
        yield EventCounts(guest, instances)


class EventCounts:
    """How often events have fired; of use inside the `with` block of counted()."""

    def __init__(self, guest: System, instances: Mapping[str, str]) -> None:
        self._guest = guest
        self._instances = instances

    def read(self) -> dict[str, int]:
        """The number of each event so far, over all CPUs."""
        return {event: self._read(instance) for event, instance in self._instances.items()}

    def _read(self, instance: str) -> int:
        # One process instead of one request a CPU: what is asked of the guest is work for it.
        text = self._guest.run(["sh", "-c", f"cat {instance}/per_cpu/cpu*/stats"]).check().stdout
        return parse_stats(text)


def parse_stats(text: str) -> int:
    """Return the number of events that the buffers with these `stats`, one after the other, were given."""
    total = 0
    found = Counter[str]()
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in _WRITTEN:
            if not value.strip().isdecimal():
                raise CvmtuneError(f"cannot read {line!r}", "per_cpu/*/stats")
            total += int(value)
            found[name.strip()] += 1
    if not found or len({found[name] for name in _WRITTEN}) != 1:
        raise CvmtuneError("the buffers' statistics lack a field", "per_cpu/*/stats")
    return total
