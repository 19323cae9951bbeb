# SPDX-License-Identifier: Apache-2.0
"""What is wrong or risky whatever the feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cvmtune.features.feature import FeatureStatus, Risk
from cvmtune.observe.capture import DEBUG, KVM, Capture
from cvmtune.observe.vms import unread, unseen, vms


def unknown(capture: Capture, known: Sequence[FeatureStatus]) -> Iterator[Risk]:
    """What cannot be seen."""
    closed = unread(vms(capture))
    # What is told below, once.
    told = (closed, unseen(capture))
    for one in known:
        if one.status == "unknown" and one.problem not in told:
            yield Risk(f"{one.name}: {one.problem.splitlines()[0]}", "look at the kernel's log")
    if DEBUG in capture.unreadable or KVM in capture.unreadable:
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
