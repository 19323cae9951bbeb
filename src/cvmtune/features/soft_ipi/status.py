# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough on a machine: what it did since boot, and what is risky."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.feature import NOBODY, FeatureStatus, Risk
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.soft_ipi.settings import IPI, POLL_US
from cvmtune.features.status import in_words, of_setting, sums, table
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.cpus import deep_idle, nohlt, stolen
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import IPI_ROWS, parse_interrupts
from cvmtune.observe.unreadable import is_hidden, why

STATISTICS = "/sys/kernel/debug/soft_ipi_passthrough/stats"
_TYPES = ("reschedule", "call_function", "timer", "irq_work")
_NS_PER_S = 1e9
_INTERRUPTS = "/proc/interrupts"


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return what it is set to, and how many IPIs went softly and by hardware."""
    soft, hardware = _taken(capture, (ROW,)), _taken(capture, IPI_ROWS)
    statistics = {"soft_ipis": soft, "hardware_ipis": hardware}
    polled: Figure | None = None
    if STATISTICS in capture.files or is_hidden(capture, STATISTICS):
        counted = sums(table(capture, STATISTICS), (*_TYPES, "poll_ns", "fallbacks"), STATISTICS)
        polled = counted.pop("poll_ns")
        polled = polled if isinstance(polled, Unknown) else polled / _NS_PER_S
        statistics |= {"polled_s": polled, **counted}

    def did() -> Iterator[str]:
        yield in_words(soft, "IPIs softly")
        yield in_words(hardware, "by hardware")
        if polled is not None:
            yield f"polled {polled:.1f} s" if not isinstance(polled, Unknown) else f"polling {polled}"

    return of_setting(capture, IPI, POLL_US, did(), statistics)


def _taken(capture: Capture, names: Iterable[str]) -> Figure:
    """The IPIs of these rows that all CPUs took."""
    text = capture.files.get(_INTERRUPTS)
    if text is None:
        return Unknown(f"{_INTERRUPTS} cannot be read: {why(capture, _INTERRUPTS)}")
    rows = parse_interrupts(text)
    if missing := [name for name in names if not rows.get(name)]:
        return Unknown(f"{_INTERRUPTS} has no row {missing[0]}")
    return float(sum(sum(rows[name]) for name in names))


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what is wrong or risky with the CPUs that poll."""
    mask = status.settings.get(IPI.name, NOBODY)
    if not mask:
        return
    named = f"CPUs {mask.to_list()} poll for IPIs"
    if where.role == "host":
        yield Risk(f"{named} on a host; it is a guest's feature", "turn it off: cvmtune apply --ipi off")
    if where.role == "guest" and (lost := stolen(capture, where)).too_much:
        yield Risk(
            f"{named}, and this guest's vCPUs lose time to others (steal): {lost}; they poll while others "
            "wait",
            "turn it off, or give the vCPUs physical CPUs of their own",
        )
    if mask >= where.online and where.online and not status.settings.get(POLL_US.name):
        yield Risk(
            f"all {len(where.online)} CPUs poll without a bound: as many physical CPUs are busy, always",
            "bound it where the kernel can (setting ipi-poll-us), or name only those that take many IPIs",
        )
    if offline := mask - where.online:
        yield Risk(
            f"CPUs {offline.to_list()} are to poll, and are offline", "bring them online, or name others"
        )
    if deep := deep_idle(capture, mask):
        yield Risk(
            f"CPUs {deep.to_list()} are to poll, and cpuidle may take them deeper than WFI, where none does",
            f"disable those states: {CPUS}/cpu*/cpuidle/state*/disable",
        )
    if nohlt(capture):
        yield Risk(
            f"{named}, but with nohlt all CPUs poll elsewhere, and take IPIs by hardware",
            "boot without nohlt",
        )
