# SPDX-License-Identifier: Apache-2.0
"""The lab's database: the cluster that experiments start from, and whether it stands a power cut."""

from __future__ import annotations

import base64
import tempfile
import time
from pathlib import Path

from cvmtune.core import command
from cvmtune.core.errors import CvmtuneError
from cvmtune.experiments.guest import Host
from cvmtune.experiments.rounds import Series
from cvmtune.lab import rootfs
from cvmtune.lab.errors import LabError
from cvmtune.lab.lab import GUEST_TOOLS, Lab
from cvmtune.lab.machine import BootOptions, Machine
from cvmtune.lab.machines import GUEST
from cvmtune.workloads import postgres, power_cut
from cvmtune.workloads.blackbox import experiment as blackbox

_MACHINE = "plain"  # the fastest
_WHERE = "/var/lib"
_STORE_MB = 512
# How many commits there must be before the power fails, and how long they may take, in seconds.
_COMMITS = 100
_PATIENCE = 60.0


def build(lab: Lab) -> Path:
    """Return the directory of the cluster's archive, for `tools` of boot(), after making it if need be."""

    def fill(directory: Path) -> None:
        with lab.boot(_MACHINE) as machine, lab.progress.step("making the database"):
            guest = machine.guest
            postgres.create(guest, f"{_WHERE}/{blackbox.CLUSTER}")
            # The agent's channel is for text.
            script = f"b=/bin/busybox; cd {_WHERE} && $b tar -c {blackbox.CLUSTER} | $b gzip -1 | $b base64"
            text = guest.run(["bash", "-o", "pipefail", "-c", script], timeout=120).check().stdout
        (directory / blackbox.ARCHIVE).write_bytes(base64.b64decode(text))

    guest_root = rootfs.key(rootfs.ROOT_FILE_SYSTEMS["guest"])
    return lab.cache.get_or_fill("database", {**guest_root, "setup": postgres.SETUP}, fill)


def cut_power(lab: Lab, machine: str, *, synchronous: bool = True) -> tuple[Series, ...]:
    """Cut a guest's power while it commits with all features on; return what is there when it is back.

    Not `synchronous`, commits are told of before they are durable, and some are lost: the check is one.
    """
    archive = build(lab)
    with tempfile.TemporaryDirectory(dir=lab.cache.directory("work")) as directory:
        store = Path(directory) / "store"
        command.run(["mke2fs", "-q", "-t", "ext4", str(store), f"{_STORE_MB}M"]).check()
        options = BootOptions(store=store)
        promised = _commit_until_cut(lab, machine, options, archive, synchronous)
        with (
            lab.boot(machine, options=options, tools=(archive,)) as second,
            power_cut.stored(second.guest, GUEST_TOOLS, fill=False) as database,
        ):
            found = power_cut.held(database)
            damage = database.damage()
    return power_cut.series(promised, found, damage)


def _commit_until_cut(
    lab: Lab, machine: str, options: BootOptions, archive: Path, synchronous: bool
) -> frozenset[int]:
    """Have a guest commit with all features on, cut its power, and return what was promised by then."""
    promised: frozenset[int] | None = None
    try:
        with lab.boot(machine, options=options, tools=(archive,)) as running:
            host = Host(running.host, running.vmm_pid) if running.host else None
            features = blackbox.COMBINATIONS["on" if host else "ipi+cq-poll"]
            with (
                power_cut.stored(running.guest, GUEST_TOOLS, fill=True) as database,
                blackbox.switched(running.guest, host, features, poll_cpu=0),
            ):
                power_cut.start_clients(database, synchronous=synchronous)
                _wait_for_commits(running)
                running.cut_power()
                promised = _promised(running)
    except LabError:
        # Whatever is to be undone in a guest without power fails. Before, it is no power cut that has failed.
        if promised is None:
            raise
    assert promised is not None
    return promised


def _promised(machine: Machine) -> frozenset[int]:
    return power_cut.acknowledged(machine.console(GUEST).read_text(errors="replace"))


def _wait_for_commits(machine: Machine) -> None:
    end = time.monotonic() + _PATIENCE
    while len(told := _promised(machine)) < _COMMITS:
        if time.monotonic() > end:
            raise CvmtuneError(f"only {len(told)} commits in {_PATIENCE:g} s", str(machine.console(GUEST)))
        time.sleep(0.2)
