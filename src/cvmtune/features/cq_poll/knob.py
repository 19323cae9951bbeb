# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues: the CPU whose kernel thread polls what RDMA devices have completed.

Mainline with our patches takes and gives the number of a CPU, -1 being off. Any change is safe, and once its
CPU goes offline the file reads -1.

A vendor's kernel (openEuler OLK-6.6, ib_core_cq_poll.c) takes the same and answers in sentences. It polls
only queues made while polling was on, and abandons them when polling ends: their I/O hangs for ever.
So there nothing is changed, or put back, while RDMA is in use by the kernel: NFS mounted or served over it,
or a module that makes queues held by its users, as it is by mounts of other namespaces too. Not even from
CPU to CPU, for that may sleep with a spinlock held. It also takes a CPU that is offline, so none is ever
written, and shows one that went offline as if it polled.

What this cannot see: a user who comes between the look and the write.
"""

import re
from dataclasses import dataclass

from cvmtune.core.system import System
from cvmtune.tuning.contract import KnobError, NotNow, Plan
from cvmtune.tuning.file_knob import FileKnob, os_failure, read_cpus
from cvmtune.tuning.parameter import Microseconds, Words

MODULE = "ib_core_cq_poll"
PATH = "/sys/kernel/ib_core_poll_cpu"
# There only with our patches.
IDLE_US = "/sys/module/ib_core_cq_poll/parameters/idle_us"
OWNERS_PARAMETER = "/sys/module/ib_core_cq_poll/parameters/owners"
VENDORS_STATISTICS = "/sys/kernel/ib_core_poll_stat"
ONLINE = "/sys/devices/system/cpu/online"
MOUNTS = "/proc/mounts"
SERVED = "/proc/fs/nfsd/portlist"
# Modules whose queues are polled by work, all of which the vendor's kernel takes: NFS, NVMe, iSER, SRP.
OWNERS = ("rpcrdma", "nvme_rdma", "nvmet_rdma", "ib_iser", "ib_isert", "ib_srp", "ib_srpt")
# By which it shows that RDMA is in use, besides what is mounted and served.
USES = tuple(f"/sys/module/{name}/refcnt" for name in OWNERS)
OFF = -1

# As many digits as CPUs may need, and no leading zero, which some take for octal.
_VALUE = re.compile(r"-1|0|[1-9][0-9]{0,3}")
_SENTENCE = re.compile(r"Current polling (?:core is: ([0-9]+)|thread is down)")
# The netids of RDMA over IPv4 and over IPv6, as nfs_show_mount_options() in fs/nfs/super.c prints them.
_OVER_RDMA = frozenset({"proto=rdma", "proto=rdma6"})


class CqPoll(FileKnob[int]):
    """The knob; values are the number of a CPU, or OFF."""

    path = PATH
    noun = "polling CPU"
    form = "give the number of an online CPU, or -1 for off"
    missing = "ib_core_cq_poll is not loaded, or the kernel lacks it"
    module = MODULE
    if_changed = "find out who else sets it, or whether its CPU went offline; then plan again"

    def decode(self, text: str) -> int:
        value = text.strip()
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{text!r} is neither a CPU's number nor -1")
        return int(value)

    def encode(self, value: int) -> str:
        return str(value)

    def _shown(self, text: str) -> int:
        sentence = _SENTENCE.fullmatch(text.strip())
        if not sentence:
            return self.decode(text)
        return self.decode(sentence[1]) if sentence[1] else OFF

    def _permit(self, system: System, *values: int) -> None:
        # A CPU that is online is possible too. "Off" must not fail for want of what it does not need.
        if cpus := [value for value in values if value != OFF]:
            online = read_cpus(system, ONLINE)
            for cpu in cpus:
                if cpu not in online:
                    raise KnobError(
                        f"CPU {cpu} is not online, so polling cannot be put there",
                        ONLINE,
                        f"bring it online, or plan for a CPU of {online.to_list()}",
                    )
        # Whatever does not answer as mainline does is taken for the vendor's. All of this is looked at
        # last, so that hardly anything can come between it and the write.
        if _VALUE.fullmatch(self._text(system).strip()):
            return
        if use := in_use(system):
            raise NotNow(f"{use.what}: {use.hangs}", use.where, use.next_step)

    def verify(self, system: System, plan: Plan) -> bool:
        if not super().verify(system, plan):
            return False
        after = self.decode(plan.after)
        return after == OFF or after in read_cpus(system, ONLINE)


@dataclass(frozen=True)
class Use:
    """What the kernel uses RDMA for, where that shows, what polling's change does to it on a vendor's kernel,
    and what to do first."""

    what: str
    where: str
    hangs: str
    next_step: str


def in_use(system: System) -> Use | None:
    """Return for what RDMA is in use, None if it is not; KnobError if that cannot be told."""
    for name in OWNERS:
        if _users(system, name):
            return Use(
                f"module {name} is in use",
                _refcount(name),
                "this vendor's kernel may hang its I/O when polling changes",
                "unmount first, in all namespaces, and stop servers and targets; then change polling",
            )
    if "rdma" in _text_or_none(system, SERVED):
        return Use(
            "NFS is served over RDMA",
            SERVED,
            "this vendor's kernel may hang it when polling changes",
            "stop the NFS server first, change polling, start it again",
        )
    if mounts := _rdma_mounts(system):
        return Use(
            f"NFS is mounted over RDMA on {', '.join(mounts)}",
            MOUNTS,
            "this vendor's kernel leaves such mounts unpolled when polling is turned on, and may hang them "
            "when it is turned off or moved",
            "unmount first, change polling, mount again",
        )
    return None


def _refcount(module: str) -> str:
    return f"/sys/module/{module}/refcnt"


def _users(system: System, module: str) -> int:
    """How many hold a module; 0 if it is not loaded, or built in and not counted."""
    text = _text_or_none(system, _refcount(module)).strip()
    # What is no number is no proof that nobody does.
    return int(text) if text.isdecimal() else len(text)


def _text_or_none(system: System, path: str) -> str:
    try:
        return system.read_text(path) if system.exists(path) else ""
    except OSError as error:
        raise os_failure("cannot tell whether RDMA is in use", path, error) from error


def _rdma_mounts(system: System) -> list[str]:
    try:
        return rdma_mounts(system.read_text(MOUNTS))
    except OSError as error:
        raise os_failure("cannot tell whether NFS is mounted over RDMA", MOUNTS, error) from error


def rdma_mounts(text: str) -> list[str]:
    """Return the mount points of NFS over RDMA in a text like /proc/mounts, escaped as the kernel does."""
    mounts = []
    # Split at newlines and blanks alone, which the kernel escapes in names, and counted from the end: at a
    # carriage return, which it does not escape, a line was broken when it was read.
    for line in text.split("\n"):
        match line.split(" "):
            case [*_, point, "nfs" | "nfs4", options, _, _] if not _OVER_RDMA.isdisjoint(options.split(",")):
                mounts.append(point)
    return mounts


class CqIdleUs(Microseconds):
    """How long the thread polls on after the last completion, in microseconds; "0" is for ever."""

    path = IDLE_US
    noun = "idle window"
    missing = "ib_core_cq_poll is not loaded, or is not that of a kernel with cvmtune's patches"
    module = MODULE


class CqOwners(Words):
    """Whose completion queues are polled: names of modules, separated by commas."""

    path = OWNERS_PARAMETER
    noun = "list of owners"
    pattern = re.compile(r"[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*")
    form = "give names of modules, separated by commas"
    missing = "ib_core_cq_poll is not loaded, or is not that of a kernel with cvmtune's patches"
    module = MODULE
