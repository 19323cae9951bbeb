# SPDX-License-Identifier: Apache-2.0
"""Which monitor for confidential VMs a machine is behind, by what its driver shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cvmtune.observe.capture import KVM_DEVICE, Capture
from cvmtune.observe.command_line import last, switched_on

TMM = "virtCCA's TMM"
RMM = "Arm CCA's RMM"
# pKVM lets no guest see that it is there.
SILENT = "none that shows itself"
# The driver of virtCCA's guests makes it once the TMM has told its version (virtcca_cvm_tsi.c of openEuler).
_TSI = "/sys/class/misc/tsi/dev"
# The device of a realm, of one kind or another: made where the RMM has answered (arch/arm64/kernel/rsi.c, and
# drivers/firmware/smccc since it is an auxiliary device).
_REALM = re.compile(
    r"/sys/devices/(?:platform|faux)/arm-(?:cca|rsi)-dev/uevent"
    r"|/sys/bus/(?:platform|faux)/devices/arm-(?:cca|rsi)-dev/uevent"
    r"|/sys/bus/platform/drivers/arm[-_]cca[-_]guest/arm-(?:cca|rsi)-dev/uevent"
    r"|/sys/bus/auxiliary/devices/arm_cca_guest\.[^/]+/uevent"
    r"|/sys/devices/platform/[^/]+/arm_cca_guest\.[^/]+/uevent"
)
# What an image of a confidential VM has on its command line: OLK-6.6's, OLK-5.10's.
_GUEST_WORDS = ("virtcca_cvm_guest", "cvm_guest")
# Nothing else shows what the TMM has answered to a host.
_HOST_WORD = "virtcca_cvm_host"
_MODE = "kvm_arm.mode"

PARAMETERS = (*_GUEST_WORDS, _HOST_WORD, _MODE)
"""The kernel's parameters that are looked at, by their names with _ for -."""


@dataclass(frozen=True)
class Monitor:
    """A monitor by its name. `confidential` is None where nothing tells; `claim` is the parameter that has
    started this as a confidential guest of a monitor that does not answer."""

    confidential: bool | None
    name: str
    claim: str = ""


def of_guest(capture: Capture) -> Monitor | None:
    """Return the monitor that answers to this guest; None if none does, guest or not.

    Its driver's file tells by being there. Where KVM's beside it is closed too the folder is, and tells
    nothing.
    """
    if _TSI in capture.files or (_TSI in capture.unreadable and KVM_DEVICE not in capture.unreadable):
        return Monitor(True, TMM)
    if any(_REALM.fullmatch(path) for path in (*capture.files, *capture.unreadable)):
        return Monitor(True, RMM)
    return None


def of_silence(capture: Capture) -> Monitor:
    """Return what to say of a guest to which no monitor answers."""
    if claim := switched_on(capture, _GUEST_WORDS):
        if _TSI in capture.unreadable:
            return Monitor(None, f"not known: {_TSI} cannot be read")
        return Monitor(False, "none", claim)
    return Monitor(None, SILENT)


def of_host(capture: Capture) -> Monitor:
    """Return the monitor whose confidential VMs a host can run."""
    if switched_on(capture, (_HOST_WORD,)):
        return Monitor(True, TMM)
    if last(capture, _MODE) == "protected":
        return Monitor(True, "pKVM")
    return Monitor(False, "none")
