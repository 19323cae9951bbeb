# SPDX-License-Identifier: Apache-2.0
"""What is wrong or risky whatever the feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.features.words import named_cpus
from cvmtune.observe.capture import DEBUG, KVM, Capture
from cvmtune.observe.container import view
from cvmtune.observe.timer import Timers
from cvmtune.observe.vms import lacks_kvm, unread, unseen, vms


def unknown(capture: Capture, known: Sequence[FeatureStatus]) -> Iterator[Risk]:
    """What cannot be seen."""
    closed = unread(vms(capture))
    # What is told below, once.
    told = (closed, unseen(capture))
    for one in known:
        if one.status == "unknown" and one.problem not in told:
            what, _, next_step = one.problem.partition("\n  next: ")
            yield Risk(f"{one.name}: {what.splitlines()[0]}", next_step or "look at the kernel's log")
    if why := view(capture):
        yield Risk(
            f"{why}: CPUs' times, interrupts, mounts and VMs are not all the machine's, or another's",
            "run cvmtune on the machine itself",
        )
    if lacks_kvm(capture):
        yield Risk(unseen(capture), "run cvmtune where all of debugfs is shown, on the machine itself")
    elif DEBUG in capture.unreadable or KVM in capture.unreadable:
        yield Risk(
            "statistics and VMs are not seen: debugfs cannot be read", "run as root, with debugfs mounted"
        )
    if closed:
        yield Risk(
            closed,
            "run as the host's own root, on a kernel that is not locked down",
        )


def masks_of_a_vendor(names: Sequence[str]) -> Iterator[Risk]:
    """What a vendor's kernel makes of a mask, where it has these features."""
    if names:
        yield Risk(
            f"after a mask that does not parse this vendor's kernel hangs ({' and '.join(names)})",
            "set masks by cvmtune alone: it writes none but those it has printed itself",
        )


def timers(found: Timers) -> Iterator[Risk]:
    """What is wrong with the interrupts of a guest's timers."""
    if silent := found.silent:
        yield Risk(
            f"the timer interrupt does not arrive on {named_cpus(silent)}: "
            "a program ran there, and the timer's count in /proc/interrupts stood still",
            "look whether the monitor or the host hides the virtual timer's interrupt (PPI 27) from it",
        )
