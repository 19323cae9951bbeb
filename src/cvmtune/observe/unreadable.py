# SPDX-License-Identifier: Apache-2.0
"""Why something is not among what a capture has read."""

from __future__ import annotations

import errno
import os

from cvmtune.observe.capture import DEBUG, KVM, Capture

_LOCKDOWN = "/sys/kernel/security/lockdown"


def why(capture: Capture, path: str) -> str:
    """Return why a file was not read, as a clause: by its own error, or that of what it is in."""
    at = path
    while at:
        if number := capture.unreadable.get(at):
            return reason(capture, at, number)
        at = at.rpartition("/")[0]
    return f"there is no {path}"


def is_hidden(capture: Capture, path: str) -> bool:
    """Tell whether a file may be there though it was not read."""
    parts = path.split("/")
    return any("/".join(parts[:end]) in capture.unreadable for end in range(2, len(parts) + 1))


def reason(capture: Capture, path: str, number: int) -> str:
    """Return what an error means there, as a clause."""
    if path == DEBUG and number == errno.ENOENT:
        return "debugfs is not mounted, or empty"
    if path == KVM and number == errno.ENOENT:
        return "debugfs shows nothing of it here"
    if path.startswith(f"{DEBUG}/") and number == errno.EPERM and not _is_unlocked(capture):
        return "kernel lockdown"
    if path.startswith("/proc/") and number in (errno.EPERM, errno.EACCES):
        return "/proc hides processes (hidepid, or not root)"
    if path.startswith("/proc/") and number == errno.ENOENT:
        return "this /proc lacks their processes (hidepid, or a container's)"
    return os.strerror(number)


def _is_unlocked(capture: Capture) -> bool:
    """Tell whether the kernel says that it is not locked down. Where it says nothing the error does."""
    return "[none]" in (capture.get(_LOCKDOWN) or "")
