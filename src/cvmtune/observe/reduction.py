# SPDX-License-Identifier: Apache-2.0
"""What of a captured machine a recording holds: what the rules read, and no more.

A file is reduced to a text of its own form, in which the parsers find what they found before. What is not
named here has nothing but figures and names of devices, and is kept whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from cvmtune.observe import monitor
from cvmtune.observe.capture import Capture
from cvmtune.observe.command_line import IDLE, parameters
from cvmtune.observe.container import mounted, root_type, runtime
from cvmtune.observe.nfs import parse_mountinfo, parse_mounts

# The kernel's parameters that tell something; the others may hold anything.
_PARAMETERS = frozenset(monitor.PARAMETERS)
# Values that mean something; what another one says is nobody's business.
_VALUE = re.compile(r"\+?[0-9]{1,20}|protected|nvhe|nested|none|")


@dataclass(frozen=True)
class Reduction:
    """How files of these paths are reduced, and what is kept of them, in words."""

    paths: str
    kept: str
    reduce: Callable[[str], str]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.paths).replace(r"\*\*", ".+").replace(r"\*", "[^/]+"))

    def fits(self, path: str) -> bool:
        return self._pattern.fullmatch(path) is not None


def _lines(pattern: str) -> Callable[[str], str]:
    """Keep the lines that the pattern matches from their beginning on."""
    wanted = re.compile(pattern)
    return lambda text: "".join(f"{line}\n" for line in text.split("\n") if wanted.match(line))


def _cmdline(text: str) -> str:
    told = (
        next((one for one in IDLE if name.startswith(one)), name)
        if value is None or name.startswith(IDLE)
        else f"{name}={value if _VALUE.fullmatch(value) else '-'}"
        for name, value in parameters(Capture({"/proc/cmdline": text}))
        if name in _PARAMETERS or name.startswith(IDLE)
    )
    return " ".join(told) + "\n"


def _mounts(text: str) -> str:
    return "".join(f"- {one.point} nfs4 {_option(one.proto)} 0 0\n" for one in parse_mounts(text))


def _mountinfo(text: str) -> str:
    nfs = (
        f"0 0 {one.device} / {one.point} rw - nfs4 - {_option(one.proto)}\n" for one in parse_mountinfo(text)
    )
    seen = Capture({"/proc/self/mountinfo": text})
    covers = (
        f"0 0 0:0 / {point} rw - {kind} - -\n" for point, kind in mounted(seen) if not kind.startswith("nfs")
    )
    root = [f"0 0 0:0 / / rw - {kind} - -\n" for kind in [root_type(seen)] if kind]
    return "".join((*root, *nfs, *covers))


def _option(proto: str) -> str:
    return f"proto={proto}" if proto else "-"


def _mountstats(text: str) -> str:
    """Of NFS mounts: the place, the transport, the age and what was counted of operations."""
    servers: dict[str, int] = {}

    def device(match: re.Match[str]) -> str:
        # Mounts of one server must be told from those of another, and that is all.
        number = servers.setdefault(match[1].partition(":/")[0], len(servers) + 1)
        return f"device server{number}:/ mounted on {match[2]} with fstype {match[3]}\n"

    kept = ["device - mounted on - with fstype -\n"] if text.startswith("device ") else []
    inside = False
    for line in text.split("\n"):
        if line.startswith("device "):
            match = re.fullmatch(r"device ([^ ]+) mounted on ([^ ]+) with fstype (nfs4?)(?: .*)?", line)
            inside = match is not None
            kept += [device(match)] if match else []
        elif inside and (match := re.match(r"(\s+xprt:\s+\S+)", line)):
            kept.append(f"{match[1]}\n")
        elif inside and (match := re.match(r"\s+opts:\s+(?:.*,)?(proto=[^,\s]+)", line)):
            kept.append(f"\topts:\t{match[1]}\n")
        elif inside and re.match(r"\s+(?:age:\s|per-op statistics|\w+: )", line):
            kept.append(f"{line}\n")
    return "".join(kept)


def _interrupts(text: str) -> str:
    """Leave out what devices are called, but for timers."""
    header, *rows = text.split("\n")
    count = len(header.split())
    kept = [header]
    for row in rows:
        name, _, rest = row.partition(":")
        device = name.strip().isdecimal() and "timer" not in rest
        kept.append(f"{name}: {' '.join(rest.split()[:count])}" if device else row)
    return "\n".join(kept)


def _runtime(text: str) -> str:
    kind = runtime(text)
    return f"0::/{kind}\n" if kind else ""


def _first_words(text: str) -> str:
    return "".join(f"{line.split()[0]}\n" for line in text.splitlines() if line.split())


REDUCTIONS: Sequence[Reduction] = (
    Reduction(
        "/proc/cmdline",
        "nohlt, hlt, kvm-arm.mode=, virtcca_cvm_*= and cvm_guest= of the kernel's command line",
        _cmdline,
    ),
    Reduction("/proc/1/cgroup", "which container's group it is, if one's", _runtime),
    Reduction("/run/systemd/container", "the kind of container", lambda text: f"{text.splitlines()[0]}\n"),
    Reduction("/sys/**/uevent", "that it is there", lambda text: ""),
    # Podman tells names in it.
    Reduction("/run/.containerenv", "that it is there", lambda text: ""),
    Reduction("/proc/mounts", "of NFS mounts: place and transport", _mounts),
    Reduction(
        "/proc/self/mountinfo",
        "of NFS mounts: place, transport, device number; of files of /proc and of the root: what is mounted",
        _mountinfo,
    ),
    Reduction(
        "/proc/self/mountstats",
        "of NFS mounts: place, transport, age and what was counted of operations; servers are numbers",
        _mountstats,
    ),
    Reduction("/proc/net/rpc/nfsd", "how many requests, by transport", _lines(r"(?:net|rpc) ")),
    Reduction("/proc/fs/nfsd/portlist", "the transports", _first_words),
    Reduction("/proc/stat", "CPUs' times, context switches", _lines(r"cpu\d|ctxt ")),
    Reduction(
        "/proc/interrupts", "the counts; names of timers and of the kernel's own rows only", _interrupts
    ),
    Reduction("/sys/devices/system/cpu/hotplug/states", "the hypervisor's", _lines(r".*hypervisor")),
    Reduction(
        "/proc/*/task/*/status",
        "of vCPUs' threads: the CPUs where they may run, context switches",
        _lines(r"Cpus_allowed_list:|(?:non)?voluntary_ctxt_switches:"),
    ),
    Reduction("/proc/*/task/*/cgroup", "the group of cgroup v2", _lines(r"0::")),
)


def reduced(capture: Capture) -> Capture:
    """Return the capture with its files reduced to what is read."""
    files = {}
    for path, text in capture.files.items():
        reduction = _reduction(path)
        if reduction and text.strip():
            # What was empty tells that, and what is so only for being reduced must not.
            kept = reduction.reduce(text)
            text = kept if kept.strip() else "-\n"
        files[path] = text
    return Capture(files, capture.unreadable)


def contents(capture: Capture) -> list[tuple[str, str]]:
    """Return which files a recording of this capture holds, and what of them; many alike are one."""
    found: dict[str, str] = {}
    for path in sorted(capture.files):
        reduction = _reduction(path)
        found.setdefault(*((reduction.paths, reduction.kept) if reduction else (_pattern(path), "whole")))
    if capture.unreadable:
        found["what cannot be read"] = "the path and the error"
    return list(found.items())


def _reduction(path: str) -> Reduction | None:
    return next((one for one in REDUCTIONS if one.fits(path)), None)


def _pattern(path: str) -> str:
    """The path with a star for what numbers things, and for what is below a folder of counters."""
    path = re.sub(r"(/hw_counters|/counters)/[^/]+$", r"\1/*", path)
    path = re.sub(r"^(/sys/class/infiniband)/[^/]+", r"\1/*", path)
    path = re.sub(r"^(/run/libvirt/qemu)/.*", r"\1/*.pid", path)
    path = re.sub(r"^(/sys/fs/cgroup)/.+/([^/]+)$", r"\1/*/\2", path)
    return re.sub(r"(?<=/)(cpu|node|state)?\d[\d-]*(?=/)", r"\1*", path)
