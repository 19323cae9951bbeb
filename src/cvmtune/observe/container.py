# SPDX-License-Identifier: Apache-2.0
"""Whether what is seen is a container's view of a machine: what /proc shows there is not all of it."""

from __future__ import annotations

import re

from cvmtune.observe.capture import Capture

# What is mounted over files of /proc in containers: lxcfs has its own instead, by FUSE, and OCI's runtimes
# hide some (runtime-spec, maskedPaths).
_COVERED = re.compile(
    r"/proc/(?:stat|uptime|interrupts|softirqs|cpuinfo|meminfo|cmdline|kcore|keys|timer_list)"
)
# Docker's and Podman's own marks. They may be empty.
MARKS = ("/.dockerenv", "/run/.containerenv")
# Groups that container managers put their containers in, seen from outside of a cgroup namespace.
_GROUP = re.compile(r"[/:](docker|lxc(?:\.payload)?|kubepods|libpod|containerd|crio|buildkit)\b")


def container(capture: Capture) -> str:
    """Return which container this is, as words for people; nothing if nothing shows one.

    /run/systemd/container is systemd's word for it (systemd.io/CONTAINER_INTERFACE).
    """
    if kind := capture.get("/run/systemd/container"):
        return f"{kind.splitlines()[0]}, by /run/systemd/container"
    for mark in MARKS:
        if mark in capture.files or mark in capture.unreadable:
            return f"by {mark}"
    for point, kind in mounted(capture):
        if _COVERED.fullmatch(point):
            return f"{kind} mounted on {point}"
    if match := _GROUP.search(capture.get("/proc/1/cgroup") or ""):
        return f"{match[1]}, by /proc/1/cgroup"
    return ""


def view(capture: Capture) -> str:
    """Say whose view it is, as a clause; nothing if it is the machine's own."""
    kind = container(capture)
    return f"this is a container's view of the machine ({kind})" if kind else ""


def mounted(capture: Capture) -> list[tuple[str, str]]:
    """What is mounted where on files of /proc: mount points and types of file systems."""
    found = []
    for line in capture.files.get("/proc/self/mountinfo", "").split("\n"):
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) > 4 and words[4].startswith("/proc/"):
            found.append((words[4], after.split(" ")[0]))
    return found
