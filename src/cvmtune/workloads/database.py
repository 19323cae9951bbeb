# SPDX-License-Identifier: Apache-2.0
"""The lab's database: the cluster that experiments start from."""

from __future__ import annotations

import base64
from pathlib import Path

from cvmtune.core.system import System
from cvmtune.lab import rootfs
from cvmtune.lab.lab import Lab
from cvmtune.lab.specs import MachineName
from cvmtune.workloads import postgres

CLUSTER = "database"
"""The cluster's directory, in a mount and in the archive that it comes from."""
ARCHIVE = "database.tar.gz"
"""A file of the guest's tools: the cluster that every run starts from."""

_MACHINE = MachineName.PLAIN  # the fastest
_WHERE = "/var/lib"


def build(lab: Lab) -> Path:
    """Return the directory of the cluster's archive, for `tools` of boot(), after making it if need be."""

    def fill(directory: Path) -> None:
        with lab.boot(_MACHINE) as machine, lab.progress.step("making the database"):
            guest = machine.guest
            postgres.create(guest, f"{_WHERE}/{CLUSTER}")
            # The agent's channel is for text.
            script = f"b=/bin/busybox; cd {_WHERE} && $b tar -c {CLUSTER} | $b gzip -1 | $b base64"
            text = guest.run(["bash", "-o", "pipefail", "-c", script], timeout=120).check().stdout
        (directory / ARCHIVE).write_bytes(base64.b64decode(text))

    guest_root = rootfs.key(rootfs.ROOT_FILE_SYSTEMS["guest"])
    return lab.cache.get_or_fill("database", {**guest_root, "setup": postgres.SETUP}, fill)


def unpack(guest: System, tools: str, directory: str) -> None:
    """Put the cluster that every run starts from into a directory, durably."""
    script = f"/bin/busybox zcat {tools}/{ARCHIVE} | /bin/busybox tar -x -C {directory} && sync"
    guest.run(["bash", "-o", "pipefail", "-c", script], timeout=120).check()
