# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough on a machine: what it did since boot, and what is risky."""

from __future__ import annotations

from collections.abc import Iterator

from cvmtune.features.feature import NOBODY, FeatureStatus, Risk
from cvmtune.features.soft_ipi.knob import ROW
from cvmtune.features.soft_ipi.settings import IPI, POLL_US
from cvmtune.features.status import of_setting, sums
from cvmtune.observe.capture import CPUS, Capture
from cvmtune.observe.cpus import deep_idle, nohlt, stolen
from cvmtune.observe.platform import Platform
from cvmtune.observe.procfs import IPI_ROWS, parse_counts, parse_interrupts

STATISTICS = "/sys/kernel/debug/soft_ipi_passthrough/stats"
_TYPES = ("reschedule", "call_function", "timer", "irq_work")
_NS_PER_S = 1e9


def status(capture: Capture, where: Platform) -> FeatureStatus:
    """Return what it is set to, and how many IPIs went softly and by hardware."""
    rows = parse_interrupts(capture.files.get("/proc/interrupts", ""))
    statistics = {"soft_ipis": float(sum(rows.get(ROW, ())))}
    hardware = sum(sum(rows.get(row, ())) for row in IPI_ROWS)
    statistics["hardware_ipis"] = float(hardware)
    if STATISTICS in capture.files:
        counted = sums(parse_counts(capture.files[STATISTICS]), (*_TYPES, "poll_ns", "fallbacks"))
        statistics["polled_s"] = counted.pop("poll_ns") / _NS_PER_S
        statistics |= counted

    def did() -> Iterator[str]:
        yield f"{statistics['soft_ipis']:.0f} IPIs softly, {hardware} by hardware"
        if "polled_s" in statistics:
            yield f"polled {statistics['polled_s']:.1f} s"

    return of_setting(capture, IPI, POLL_US, did(), statistics)


def risks(capture: Capture, where: Platform, status: FeatureStatus) -> Iterator[Risk]:
    """Return what is wrong or risky with the CPUs that poll."""
    mask = status.settings.get(IPI.name, NOBODY)
    if not mask:
        return
    named = f"CPUs {mask.to_list()} poll for IPIs"
    if where.role == "host":
        yield Risk(f"{named} on a host, where an IPI costs no exit", "turn it off: cvmtune apply --ipi off")
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
