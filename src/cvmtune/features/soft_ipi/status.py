# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough on a machine: what it did since boot, and what is risky."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown
from cvmtune.features.feature import NOBODY, FeatureStatus, Risk
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.soft_ipi.settings import IPI, POLL_US
from cvmtune.features.status import in_words, of_setting, sums, table
from cvmtune.features.words import named_cpus
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.command_line import nohlt
from cvmtune.observe.cpus import deep_idle, deep_idle_untold, nohlt_untold, stolen
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
    mask: CpuMask = status.settings.get(IPI.name, NOBODY)
    if not mask:
        return
    one = len(mask) == 1
    named = f"{named_cpus(mask)} {'polls' if one else 'poll'} for IPIs"
    if where.role == "host":
        yield Risk(f"{named} on a host; it is a guest's feature", "turn it off: cvmtune apply --ipi off")
    if where.role == "guest":
        yield from _steal(capture, where, named, "it polls" if one else "they poll")
    yield from _unbounded(where, mask, status)
    yield from _offline(where, mask)
    yield from _deep(capture, mask)
    if nohlt(capture):
        yield Risk(
            f"{named}, but with nohlt all CPUs poll elsewhere, and take IPIs by hardware",
            "boot without nohlt",
        )
    elif why := nohlt_untold(capture):
        yield Risk(
            f"{named}, and whether all CPUs poll elsewhere instead (nohlt) cannot be told: {why}",
            "run as root, on the machine itself",
        )


def _steal(capture: Capture, where: Platform, named: str, they_poll: str) -> Iterator[Risk]:
    lost = stolen(capture, where)
    if lost.too_much:
        yield Risk(
            f"{named}, and this guest's vCPUs lose time to others (steal): {lost}; {they_poll} while others "
            "wait",
            "turn it off, or give the vCPUs physical CPUs of their own",
        )
    elif isinstance(lost.share, Unknown):
        yield Risk(
            f"{named}, and what this guest's vCPUs lose to others (steal) {lost.share}; others may wait "
            f"while {they_poll}",
            "ask the host whether the vCPUs have physical CPUs of their own, else turn it off",
        )


def _unbounded(where: Platform, mask: CpuMask, status: FeatureStatus) -> Iterator[Risk]:
    # Where it is not known which are online, these are all if they are all that there can be.
    every = where.online or where.possible
    bound = status.statistics.get(POLL_US.name, status.settings.get(POLL_US.name))
    if not every or not mask >= every or (bound and not isinstance(bound, Unknown)):
        return
    all_poll = f"all {len(every)} CPUs poll" if len(every) > 1 else "the only CPU polls"
    if isinstance(bound, Unknown):
        what = f"{all_poll}, and whether with a bound {bound}"
    else:
        busy = "as many physical CPUs are" if len(every) > 1 else "a physical CPU is"
        what = f"{all_poll} without a bound: {busy} busy, always"
    yield Risk(
        what,
        "bound it where the kernel can (setting ipi-poll-us), or name only those that take many IPIs",
    )


def _offline(where: Platform, mask: CpuMask) -> Iterator[Risk]:
    if why := where.untold.get("online"):
        yield Risk(
            f"{named_cpus(mask)} {_are(mask)} to poll, and which CPUs are online cannot be told: {why}",
            "run as root, on the machine itself",
        )
    elif offline := mask - where.online:
        them = "them" if len(offline) > 1 else "it"
        yield Risk(
            f"{named_cpus(offline)} {_are(offline)} to poll, and {_are(offline)} offline",
            f"bring {them} online, or name others",
        )


def _deep(capture: Capture, mask: CpuMask) -> Iterator[Risk]:
    if why := deep_idle_untold(capture, mask):
        them = "them" if len(mask) > 1 else "it"
        yield Risk(
            f"{named_cpus(mask)} {_are(mask)} to poll, and whether cpuidle may take {them} deeper than WFI "
            f"cannot be told: {why}",
            "run as root, on the machine itself",
        )
    elif deep := deep_idle(capture, mask):
        them = "them" if len(deep) > 1 else "it"
        yield Risk(
            f"{named_cpus(deep)} {_are(deep)} to poll, and cpuidle may take {them} deeper than WFI, where "
            "none does",
            f"disable those states: {CPUS}/cpu*/cpuidle/state*/disable",
        )


def _are(cpus: CpuMask) -> str:
    return "are" if len(cpus) > 1 else "is"
