# SPDX-License-Identifier: Apache-2.0
"""The lab's module cvmtune_cq: it posts work requests of its own and keeps books of what became of them."""

from __future__ import annotations

from collections.abc import Mapping

from cvmtune.core.system import System
from cvmtune.observe.procfs import parse_named
from cvmtune.workloads import nfs_rdma

MODULE = "cvmtune_cq"
# Its own queues, and those of NFS.
OWNERS = f"rpcrdma,{MODULE}"
_DEBUGFS = f"/sys/kernel/debug/{MODULE}"

MUST_BE_0 = (
    *("lost", "duplicates", "out_of_order", "wrong_payload", "errors", "early_flushes", "post_errors"),
    *("concurrent", "wrong_context", "hung", "stranded"),
)
"""Of the module's books what must be 0, whatever is switched."""


def run(guest: System, provider: str, **load: object) -> tuple[float, ...]:
    """Run a load of the module (key=value, as its source tells) on a device; return samples, in ns."""
    words = [f"dev={nfs_rdma.device(provider)}", f"addr={nfs_rdma.ADDRESS}"]
    command = " ".join([*words, *(f"{key}={value}" for key, value in load.items())])
    # Through a process of its own, as the write lasts as long as the measurement.
    guest.run(["sh", "-c", f"echo {command} >{_DEBUGFS}/run"], timeout=300).check()
    return tuple(float(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split())


def result(guest: System) -> Mapping[str, int]:
    """The books of the last run."""
    return parse_named(guest.read_text(f"{_DEBUGFS}/result"))
