# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues: the CPU whose kernel thread polls what RDMA devices have completed.

Mainline with our patches takes and gives the number of a CPU, -1 being off. Any change is safe, and once its
CPU goes offline the file reads -1.

A vendor's kernel (openEuler OLK-6.6, ib_core_cq_poll.c) takes the same and answers in sentences. It polls
only queues made while polling was on, and abandons them when polling ends: their I/O hangs for ever.
So there nothing is changed, or put back, while NFS is mounted over RDMA; not even from CPU to CPU, for that
may sleep with a spinlock held. It also takes a CPU that is offline, so none is ever written.

What this cannot see: mounts of other mount namespaces, or lazily unmounted; a mount made between the look and
the write; queues whose owners are not NFS clients.
"""

import re

from cvmtune.core.system import System
from cvmtune.knobs.contract import KnobError
from cvmtune.knobs.files import FileKnob, os_failure, read_cpus

PATH = "/sys/kernel/ib_core_poll_cpu"
ONLINE = "/sys/devices/system/cpu/online"
MOUNTS = "/proc/mounts"
OFF = "-1"

# As many digits as CPUs may need, and no leading zero, which some take for octal.
_VALUE = re.compile(r"-1|0|[1-9][0-9]{0,3}")
_SENTENCE = re.compile(r"Current polling (?:core is: ([0-9]+)|thread is down)")
# The netids of RDMA over IPv4 and over IPv6, as nfs_show_mount_options() in fs/nfs/super.c prints them.
_OVER_RDMA = frozenset({"proto=rdma", "proto=rdma6"})


class CqPoll(FileKnob):
    """The knob; values are the number of a CPU, or "-1" for off."""

    name = "cq_poll"
    path = PATH
    noun = "polling CPU"
    form = "give the number of an online CPU, or -1 for off"
    missing = "ib_core_cq_poll is not loaded, or the kernel lacks it"
    remedy = "modprobe ib_core_cq_poll"
    if_changed = "find out who else sets it, or whether its CPU went offline; then plan again"

    def _canonical(self, text: str) -> str:
        value = text.strip()
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{text!r} is neither a CPU's number nor -1")
        return value

    def _shown(self, text: str) -> str:
        sentence = _SENTENCE.fullmatch(text.strip())
        return self._canonical((sentence[1] or OFF) if sentence else text)

    def _permit(self, system: System, *values: str) -> None:
        # A CPU that is online is possible too.
        online = read_cpus(system, ONLINE)
        for value in values:
            if value != OFF and int(value) not in online:
                raise KnobError(
                    f"CPU {value} is not online, so polling cannot be put there",
                    ONLINE,
                    f"bring it online, or plan for a CPU of {online.to_list()}",
                )
        # Whatever does not answer as mainline does is taken for the vendor's. The mounts are looked at last,
        # so that hardly anything can come between this and the write.
        if not _VALUE.fullmatch(self._text(system).strip()) and (mounts := _rdma_mounts(system)):
            raise KnobError(
                f"NFS is mounted over RDMA on {', '.join(mounts)}: this vendor's kernel leaves such "
                "mounts unpolled when polling is turned on, and may hang them when it is turned off or moved",
                MOUNTS,
                "unmount first, change polling, mount again",
            )


def _rdma_mounts(system: System) -> list[str]:
    """Return the mount points of NFS over RDMA, escaped as the kernel does."""
    try:
        lines = system.read_text(MOUNTS).splitlines()
    except OSError as error:
        raise os_failure("cannot tell whether NFS is mounted over RDMA", MOUNTS, error) from error
    mounts = []
    for line in lines:
        # Split at blanks only, and counted from the end: a mount point may hold whitespace that the kernel
        # does not escape, at some of which even the line was broken.
        match line.split(" "):
            case [*_, point, "nfs" | "nfs4", options, _, _] if not _OVER_RDMA.isdisjoint(options.split(",")):
                mounts.append(point)
    return mounts
