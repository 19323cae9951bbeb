# SPDX-License-Identifier: Apache-2.0
"""Debian with systemd as PID 1, in a container: boots with cvmtune.service, and NFS with a mount upon it.

The container has no network. Its mount.nfs mounts memory in place of an export, so only the order of things
is real: /etc/fstab, systemd's generators and units, and what persist writes are. So is the control a plain
file, which a unit of the test makes before the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvmtune.core import command
from cvmtune.lab.kernel_source import SUITE, mirror_arguments

# Debian's package systemd-container; not all computers that run the tests may start containers.
_MISSING = [name for name in ("systemd-nspawn", "mmdebstrap") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(bool(_MISSING), reason=f"missing: {', '.join(_MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a container is root's"),
]

CVMTUNE = "/usr/bin/python3 -m cvmtune"
CONTROL = "/sys/kernel/soft_ipi_passthrough"
UNITS = "/etc/systemd/system"
SOON = f"{UNITS}/cvmtune.service.d/soon.conf"
# CPU 0 alone, which every computer has.
ON = "1"
FILES = {
    "/etc/fstab": "192.0.2.10:/export /data nfs defaults 0 0\n/data/x /opt/x none bind 0 0\n",
    "/usr/sbin/mount.nfs": f"#!/bin/sh\ncat {CONTROL} >/run/when-mounted\n"
    'mount -n -i -t tmpfs tmpfs "$2" && mkdir -p "$2/x"\n',
    f"{UNITS}/control.service": "[Unit]\nDefaultDependencies=no\n"
    "Before=cvmtune.service remote-fs-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    "ExecStart=/bin/sh -c 'mount -t tmpfs tmpfs /sys/kernel; "
    f"test -e /late || echo 0 >{CONTROL}'\n",
    f"{UNITS}/job.target": "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\n",
    f"{UNITS}/job.service": "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\n"
    "ExecStart=/bin/sh -c 'sh /job >/out 2>&1; systemctl poweroff'\n",
    # Not half a minute: the test waits for it.
    SOON: "[Service]\nRestartSec=1\n",
    "/data/.keep": "",
    "/opt/x/.keep": "",
}
LINKS = {
    f"{UNITS}/multi-user.target.wants/control.service": "../control.service",
    f"{UNITS}/job.target.wants/job.service": "../job.service",
    f"{UNITS}/default.target": "job.target",
}


@dataclass(frozen=True)
class Debian:
    """A root file system of Debian's."""

    root: Path

    def boot(self, job: str) -> tuple[str, str]:
        """Boot it, run a script and power it off; return what that prints, and what the console shows."""
        (self.root / "job").write_text(job)
        (self.root / "out").unlink(missing_ok=True)
        done = command.run(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"),
                *("--directory", str(self.root), "--boot"),
            ],
            timeout=600,
        ).check()
        console = done.stdout + done.stderr
        assert (self.root / "out").exists(), console
        return (self.root / "out").read_text(), console


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    folder = tmp_path_factory.mktemp("debian")
    tar, root = folder / "root.tar", folder / "root"
    packages = "--include=systemd,systemd-sysv,python3,mount,kmod"
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", packages, SUITE, str(tar), *mirror_arguments()]
    command.run(argv, timeout=1200).check()
    root.mkdir()
    command.run(["tar", "-C", str(root), "--exclude=./dev/*", "-xf", str(tar)], timeout=600).check()
    tar.unlink()
    package = root / "usr/lib/python3/dist-packages/cvmtune"
    shutil.copytree(Path(__file__).parents[2] / "src/cvmtune", package)
    command.run(["chown", "-R", "root:root", str(package)], timeout=60).check()
    command.run(["chmod", "-R", "go-w", str(package)], timeout=60).check()
    for name, text in FILES.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for name, target in LINKS.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    yield Debian(root)
    shutil.rmtree(folder)


def test_boots_with_the_unit(debian: Debian) -> None:
    mounts = "findmnt -n /data && findmnt -n /opt/x && echo mounted\n"
    out, console = debian.boot(f"{mounts}{CVMTUNE} persist --ipi {ON}; echo status=$?\ncat {CONTROL}\n")
    assert "mounted\n" in out, console
    assert (
        f"is applied at each boot; but what cvmtune.service does is changed by {SOON}\nstatus=0\n0\n" in out
    )
    assert "cycle" not in console

    # In force at the next boot, and before NFS is mounted; it can be masked.
    out, console = debian.boot(
        f"{mounts}cat {CONTROL} /run/when-mounted\n{CVMTUNE} verify; echo status=$?\n"
        f"systemctl mask cvmtune; {CVMTUNE} verify; echo status=$?\nsystemctl unmask cvmtune\n"
    )
    assert "cycle" not in console
    assert f"mounted\n{ON}\n{ON}\n" in out, console
    assert out.count("All in force.\nstatus=0\n") == 2
    assert "not persisted: cvmtune.service is masked" in out

    # Without the control the unit waits, and holds nothing up; once that is there it is set.
    (debian.root / "late").touch()
    out, console = debian.boot(
        f"{mounts}systemctl is-active cvmtune; {CVMTUNE} verify; echo status=$?\necho 0 >{CONTROL}\n"
        f"until systemctl is-active --quiet cvmtune; do sleep 0.2; done; cat {CONTROL}\n"
        f"{CVMTUNE} verify; echo status=$?\n"
    )
    (debian.root / "late").unlink()
    assert "mounted\nactivating\n" in out, console
    assert "has not been: ipi" in out
    assert f"status=1\n{ON}\n" in out
    assert out.endswith("All in force.\nstatus=0\n")

    # What would make a cycle does so here.
    unit = debian.root / "usr/local/lib/systemd/system/cvmtune.service"
    text = unit.read_text()
    unit.write_text(text.replace("DefaultDependencies=no\n", ""))
    _, console = debian.boot("")
    assert "ordering cycle" in console
    unit.write_text(text)

    out, _ = debian.boot(f"{CVMTUNE} rollback; {CVMTUNE} unpersist; echo status=$?\n")
    assert f"nothing is applied at boot any more\nleft: {SOON}, a drop-in\nstatus=0\n" in out
    out, console = debian.boot(f"{mounts}cat {CONTROL}\nsystemctl cat cvmtune.service; echo status=$?\n")
    assert "mounted\n0\n" in out, console
    assert "status=1\n" in out
    assert not unit.exists()
