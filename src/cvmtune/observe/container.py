# SPDX-License-Identifier: Apache-2.0
"""Whether what is seen is a container's view of a machine: what /proc shows there is not all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cvmtune.observe.capture import Capture

# What is mounted over files of /proc in containers: lxcfs has its own instead, by FUSE, and OCI's runtimes
# hide some (runtime-spec, maskedPaths).
_COVERED = re.compile(
    r"/proc/(?:stat|uptime|interrupts|softirqs|cpuinfo|meminfo|cmdline|kcore|keys|timer_list)"
)
# Docker's and Podman's own marks. They may be empty, and be left in a machine's root that was made of a
# container's image.
MARKS = ("/.dockerenv", "/run/.containerenv")
# Of the first PID namespace alone process 2 is the kernel's.
KTHREADD = "/proc/2/comm"
# Groups that container managers put their containers in, seen from outside of a cgroup namespace.
_GROUP = re.compile(r"[/:](docker|lxc(?:\.payload)?|kubepods|libpod|containerd|crio|buildkit)\b")


def container(capture: Capture) -> str:
    """Return which container this is, as words for people; nothing if nothing shows one.

    /run/systemd/container is systemd's word for it (systemd.io/CONTAINER_INTERFACE).
    """
    if kind := capture.get("/run/systemd/container"):
        return f"{kind.splitlines()[0]}, by /run/systemd/container"
    for mark in MARKS:
        if capture.has(mark) and not _is_whole(capture):
            return f"by {mark}"
    for point, kind in mounted(capture):
        if _COVERED.fullmatch(point):
            return f"{kind} mounted on {point}"
    kind = runtime(capture.get("/proc/1/cgroup") or "")
    return f"{kind}, by /proc/1/cgroup" if kind else ""


def runtime(cgroup: str) -> str:
    """Return whose container a process is in, by its groups; "" if in none's."""
    match = _GROUP.search(cgroup)
    return match[1] if match else ""


def _is_whole(capture: Capture) -> bool:
    """Tell whether all processes are seen, and a root that is no container's layers."""
    return capture.get(KTHREADD) == "kthreadd" and root_type(capture) not in ("", "overlay")


def root_type(capture: Capture) -> str:
    """The type of the file system that is mounted on /; "" if that is not told."""
    last = ""
    for point, kind in _mounts(capture):
        # Of several the last hides the others.
        last = kind if point == "/" else last
    return last


def view(capture: Capture) -> str:
    """Say whose view it is, as a clause; nothing if it is the machine's own."""
    # A machine may have thousands of mounts, and all that counts asks.
    kind = capture.once(container)
    return f"this is a container's view of the machine ({kind})" if kind else ""


def mounted(capture: Capture) -> list[tuple[str, str]]:
    """What is mounted where on files of /proc: mount points and types of file systems."""
    return [(point, kind) for point, kind in _mounts(capture) if point.startswith("/proc/")]


def _mounts(capture: Capture) -> Iterator[tuple[str, str]]:
    for line in capture.files.get("/proc/self/mountinfo", "").split("\n"):
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) > 4:
            yield words[4], after.split(" ")[0]
