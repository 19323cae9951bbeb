# SPDX-License-Identifier: Apache-2.0
"""cvmtune.service: what it says, and when at a boot it can run.

It runs early: before whatever takes RDMA at boot, as a vendor's kernel polls only what comes afterwards. So
it must not wait for basic.target, as services do by default: a local mount upon one over the network would
then wait for it, and it for that.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cvmtune
from cvmtune.commands.apply import INCOMPLETE
from cvmtune.commands.site import Site
from cvmtune.commands.wanted import Unmet
from cvmtune.core.errors import CvmtuneError, UsageError
from cvmtune.tuning.outcome import PartlyApplied

UNIT = "cvmtune.service"
MADE_BY = "# Made by cvmtune persist; cvmtune unpersist removes it."
_RETRY_S = 30
_NOT_IN_FORCE = 1  # what `verify` ends with

# What makes completion queues at boot, or serves them: mounts, NFS servers, and initiators and targets of
# NVMe, iSER and SRP, by the names that distributions give them.
_RDMA_USERS = (
    "remote-fs-pre.target",
    "nfs-server.service",
    "nfs-kernel-server.service",
    "nvmf-autoconnect.service",
    "nvmf-connect-nbft.service",
    "nvmefc-boot-connections.service",
    "nvmet.service",
    "iscsi.service",
    "iscsid.service",
    "open-iscsi.service",
    "target.service",
    "rtslib-fb-targetctl.service",
    "srp_daemon.service",
    "ksmbd.service",
)

_TEXT = """\
{made_by}
[Unit]
Description=Settings of performance features for confidential VMs
# It runs before basic.target, so that mounts over the network, and what is mounted on these, may wait for it.
DefaultDependencies=no
Conflicts=shutdown.target
After=systemd-modules-load.service systemd-remount-fs.service sys-kernel-debug.mount
RequiresMountsFor={needs}
# A vendor's kernel polls only what comes afterwards.
Before=shutdown.target {users}
Wants=remote-fs-pre.target
# It may take any time until all can be set.
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
{modprobe}ExecStart={apply}
ExecStop={rollback}
# A control whose kernel hangs must not keep a machine from booting.
TimeoutStartSec=60
TimeoutStopSec=30
Restart=on-failure
RestartSec={retry}
# Tried again: {unmet}, preconditions that do not hold yet, and {incomplete}, settings that cannot be had yet.
# 203 is a program that cannot be run.
RestartPreventExitStatus={final} 203

[Install]
WantedBy=multi-user.target
"""


def text(site: Site, modules: Iterable[str]) -> str:
    """Return the unit that applies what is persisted, after loading these modules."""
    errors = (_NOT_IN_FORCE, UsageError.exit_code, CvmtuneError.exit_code, PartlyApplied.exit_code)
    return _TEXT.format(
        made_by=MADE_BY,
        needs=_quoted(map(str, needs(site))),
        users=" ".join(_RDMA_USERS),
        modprobe="".join(f"ExecStartPre=-/usr/sbin/modprobe {name}\n" for name in modules),
        apply=_quoted([*program(), "apply", str(at_boot(site, site.persisted))]),
        rollback=_quoted([*program(), "rollback"]),
        retry=_RETRY_S,
        unmet=Unmet.exit_code,
        incomplete=INCOMPLETE,
        final=" ".join(map(str, errors)),
    )


def at_boot(site: Site, path: Path) -> Path:
    """Return a path below the site's root as the system there sees it."""
    return Path("/") / path.relative_to(site.root)


def needs(site: Site) -> list[Path]:
    """Return the places that must be mounted for the unit: the program's, its settings', its journal's."""
    ours = {
        *(Path(sys.executable), Path(os.path.realpath(sys.executable)), Path(sys.base_prefix)),
        Path(cvmtune.__file__).resolve().parent,
    }
    kept = {at_boot(site, site.journal.directory), at_boot(site, site.configuration)}
    found = {Path("/usr"), *ours, *kept}
    # What lies above another is needed with that.
    return sorted(path for path in found if not any(path in other.parents for other in found))


def program() -> list[str]:
    """Return the command that is this tool, wherever it is started."""
    # Not what PATH finds: the interpreter that runs us has the package, and -I keeps the environment out.
    return [sys.executable, "-I", "-m", "cvmtune"]


def _quoted(words: Iterable[str]) -> str:
    """Words as a unit file takes them (systemd.service(5), COMMAND LINES)."""
    return " ".join(f'"{word}"' if " " in word else word for word in words).replace("%", "%%")


# When what it needs is mounted

# File systems that systemd takes for the network's (fstype_is_network() in src/basic/mountpoint-util.c).
_NETWORK = re.compile(
    r"afs|ceph|cifs|davfs|gfs2?|glusterfs|lustre|ncp(fs)?|nfs4?|ocfs2|orangefs|pvfs2|smb3|smbfs|sshfs"
)


def mounted_late(site: Site) -> str:
    """Say which place that the unit needs is mounted over the network, and so after it; "" if none is."""
    late = {point for table in ("/etc/fstab", "/proc/mounts") for point in _network_mounts(site, table)}
    for need in needs(site):
        for place in (need, *need.parents):
            # These are mounted before systemd begins, whatever they are on.
            if str(place) in late and str(place) not in ("/", "/usr"):
                return f"{need} is on {place}, which is mounted over the network"
    return ""


def _network_mounts(site: Site, table: str) -> Iterator[str]:
    try:
        content = site.system.read_text(table)
    except OSError:
        return
    for line in content.splitlines():
        match line.split():
            case [what, point, kind, options, *_] if not what.startswith("#") and (
                _NETWORK.fullmatch(kind.removeprefix("fuse.")) or "_netdev" in options.split(",")
            ):
                yield point.replace("\\040", " ").rstrip("/")
