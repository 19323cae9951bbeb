# SPDX-License-Identifier: Apache-2.0
"""Where we are: guest or host, behind which monitor, on whose kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cvmtune.core.cpumask import CpuMask
from cvmtune.observe import monitor
from cvmtune.observe.capture import CPUS, KVM_DEVICE, Capture
from cvmtune.observe.firmware import is_guest
from cvmtune.observe.isolation import kept
from cvmtune.observe.monitor import Monitor
from cvmtune.observe.vms import vms

Role = Literal["guest", "host", "machine"]
Flavour = Literal["ours", "vendor", "neither"]


@dataclass(frozen=True)
class Signs:
    """Files by which a kernel is known: those that only our patches make; those that any kernel with features
    has; and of these the ones that only a host's has."""

    ours: frozenset[str]
    features: frozenset[str]
    host: frozenset[str]


@dataclass(frozen=True)
class Platform:
    """A machine. `confidential` is None where nothing in it tells; a host's is about what it can run.

    `claim` is the parameter by which it was started as a confidential guest though no monitor answers.
    `untold` says of "online" and "possible" why they are not known, where they are not; they are empty then.
    """

    role: Role
    confidential: bool | None
    monitor: str
    flavour: Flavour
    release: str
    online: CpuMask
    possible: CpuMask
    isolated: CpuMask
    claim: str = ""
    untold: Mapping[str, str] = field(default_factory=dict)


def platform(capture: Capture, signs: Signs) -> Platform:
    """Tell where a capture was made."""
    role, behind = _role(capture, signs)
    online, possible = _cpus(capture, "online"), _cpus(capture, "possible")
    return Platform(
        role=role,
        confidential=behind.confidential,
        monitor=behind.name,
        flavour=_flavour(capture, signs),
        release=capture.get("/proc/sys/kernel/osrelease") or "unknown",
        online=online,
        possible=possible,
        isolated=CpuMask(frozenset(kept(capture))),
        claim=behind.claim,
        untold={
            name: capture.why_not(f"{CPUS}/{name}")
            for name, cpus in (("online", online), ("possible", possible))
            # A machine has some of each.
            if not cpus
        },
    )


def _role(capture: Capture, signs: Signs) -> tuple[Role, Monitor]:
    # A guest to which a monitor answers is one whatever else it has.
    if answering := monitor.of_guest(capture):
        return "guest", answering
    # A guest that runs guests of its own, or can untrap theirs, is a host to us.
    if vms(capture) or any(capture.has(path) for path in signs.host):
        return "host", monitor.of_host(capture)
    # One that only could run some has KVM's device, as behind nested virtualization.
    if is_guest(capture):
        return "guest", monitor.of_silence(capture)
    if capture.has(KVM_DEVICE):
        return "host", monitor.of_host(capture)
    return "machine", Monitor(False, "none", monitor.of_silence(capture).claim)


def _flavour(capture: Capture, signs: Signs) -> Flavour:
    if any(capture.has(path) for path in signs.ours):
        return "ours"
    if any(capture.has(path) for path in signs.features):
        return "vendor"
    return "neither"


def _cpus(capture: Capture, name: str) -> CpuMask:
    text = capture.get(f"{CPUS}/{name}") or ""
    try:
        return CpuMask.from_list(text)
    except ValueError:
        # "(null)" is what some kernels show for no CPU.
        return CpuMask(frozenset())
