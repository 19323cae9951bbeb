# SPDX-License-Identifier: Apache-2.0
"""The experiment `cq-poll`: 4 KiB writes to NFS over RDMA, with completion queues polled and not.

It runs in a guest (any System), server and client both, over each software RDMA provider, with the lab's
module cvmtune_cq beside them, which posts work requests of its own and keeps exact books of what became of
them. It collects; report/ judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.experiments.guest import Counters, Host, applied, loaded_module
from cvmtune.experiments.rounds import Better, RawRun, Round, Series, in_turns
from cvmtune.experiments.tracing import counted
from cvmtune.features.cq_poll.knob import CqPoll
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.observe.procfs import parse_named
from cvmtune.tuning.contract import Knob
from cvmtune.workloads import nfs_rdma
from cvmtune.workloads.nfs_rdma import Load, Mount, Written

FEATURE = "ib_core_cq_poll"
BOOKS = "cvmtune_cq"
_DEBUGFS = f"/sys/kernel/debug/{BOOKS}"
OWNERS = f"/sys/module/{FEATURE}/parameters/owners"
IDLE_US = f"/sys/module/{FEATURE}/parameters/idle_us"
# What queues the work of a CQ: a completion's interrupt, or what a software provider has in its place.
_WAKEUP = "rdma_core/cq_schedule"
_WORK = "workqueue/workqueue_execute_start"
_NS_PER_MS = 1e6
# Of the module's books: what must be 0, whatever is switched.
VIOLATIONS = (
    *("lost", "duplicates", "out_of_order", "wrong_payload", "errors", "early_flushes", "post_errors"),
    *("concurrent", "wrong_context", "hung", "stranded"),
)


@dataclass(frozen=True)
class Setting:
    """What is on in a state of the experiment. `idle_us` is how long the poller looks on; 0: always."""

    polled: bool = False
    idle_us: int = 0
    soft_ipi: bool = False


SETTINGS: Mapping[str, Setting] = {
    "off": Setting(),
    "on": Setting(polled=True),
    "on, sleeping after 1 ms": Setting(polled=True, idle_us=1000),
    "soft IPIs alone": Setting(soft_ipi=True),
    "on, with soft IPIs": Setting(polled=True, soft_ipi=True),
}


@dataclass(frozen=True)
class Scale:
    """How much is done in a round.

    `rate` (writes a second) must be one that every machine sustains: then off and on do the same work.
    `depths` has the writes of each closed loop by its queue depth.
    """

    rate: int = 60
    writes: int = 100
    depths: tuple[tuple[int, int], ...] = ((1, 200), (8, 400), (32, 800))
    messages: int = 200
    gap_us: int = 300
    idle_s: float = 1.0
    poll_cpu: int = 1


DEFAULT_SCALE = Scale()


def collect(
    guest: System,
    machine: str,
    *,
    states: Sequence[str],
    rounds: int,
    host: Host | None,
    tools: str,
    environment: Mapping[str, object],
    scale: Scale = DEFAULT_SCALE,
    providers: Sequence[str] = nfs_rdma.PROVIDERS,
    advance: Callable[[str], None] = lambda note: None,
) -> RawRun:
    """Run `rounds` rounds in each of the states (names of SETTINGS).

    States alternate, in turned order every other round, so that drift of the machine falls on all alike.
    `tools` is the directory in the guest with the modules. `advance` is told what is about to be done. In
    the end the guest has neither the modules nor the mounts, and its masks are what they were.
    """
    collected: dict[tuple[str, int], tuple[Series, ...]] = {}
    with loaded_module(guest, tools, FEATURE), loaded_module(guest, tools, BOOKS):
        # Else the module's own CQs would not be polled.
        guest.write_text(OWNERS, f"rpcrdma,{BOOKS}\n")
        for provider in providers:
            with nfs_rdma.mounted(guest, provider) as mount:
                # The first load lays its file out, which would count as the first round's.
                nfs_rdma.write(mount, Load(writes=8))
                for index, state in in_turns(states, rounds):
                    advance(f"{machine}, {provider}, {state}, round {index + 1} of {rounds}")
                    with _set(guest, SETTINGS[state], scale.poll_cpu):
                        series = tuple(_round(mount, host, scale))
                    collected[state, index] = collected.get((state, index), ()) + series
    found = tuple(Round(state, index, series) for (state, index), series in collected.items())
    return RawRun("cq-poll", machine, found, environment)


@contextmanager
def _set(guest: System, setting: Setting, cpu: int) -> Iterator[None]:
    wanted: list[tuple[Knob, str]] = []
    # Off as well: the guest may have come with a mask. A kernel without the feature has none.
    if setting.soft_ipi or guest.exists(SoftIpi.path):
        everyone = CpuMask.from_list(guest.read_text("/sys/devices/system/cpu/online"))
        wanted.append((SoftIpi(), everyone.to_hex() if setting.soft_ipi else "0"))
    if setting.polled:
        guest.write_text(IDLE_US, f"{setting.idle_us}\n")
        wanted.append((CqPoll(), str(cpu)))
    with ExitStack() as stack:
        for knob, value in wanted:
            stack.enter_context(applied(knob, guest, value))
        yield


def _round(mount: Mount, host: Host | None, scale: Scale) -> Iterator[Series]:
    # The first provider is the one that the rules judge by; the other's metrics say whose they are.
    prefix = "" if mount.provider == nfs_rdma.PROVIDERS[0] else f"{mount.provider}_"
    for one in (*_books(mount, scale), *_writes(mount, host, scale)):
        yield replace(one, name=f"{prefix}{one.name}", title=f"{one.title}, over {mount.provider}")


def _books(mount: Mount, scale: Scale) -> Iterator[Series]:
    """Work requests of our own: none may be lost, and how long each took to be noticed."""
    guest = mount.guest
    samples = run_books(guest, mount.provider, kind="pingpong", n=scale.messages, gap_us=scale.gap_us)
    books = parse_named(guest.read_text(f"{_DEBUGFS}/result"))
    posted = books["posted_send"] + books["posted_recv"]
    handled = books["handled_send"] + books["handled_recv"]
    title = "Completions handled per work request posted"
    yield _count("handled_per_posted", title, handled, posted, "share", "higher")
    wrong = sum(books[name] for name in VIOLATIONS)
    title = (
        "Completions lost, wrong, handled twice, out of order, at once with another, or where they may not be"
    )
    yield _count("violations", title, wrong, 1, "completions")
    title = "From posting a message to the callback of its completion on the other side"
    yield Series("completion", title, "ns", "time", "lower", samples)


def run_books(guest: System, provider: str, **load: object) -> tuple[float, ...]:
    """Run a load of the module cvmtune_cq (key=value, as its source tells) on a device; return samples."""
    words = [f"dev={nfs_rdma.device(provider)}", f"addr={nfs_rdma.ADDRESS}"]
    command = " ".join([*words, *(f"{key}={value}" for key, value in load.items())])
    # Through a process of its own, as the write lasts as long as the measurement.
    guest.run(["sh", "-c", f"echo {command} >{_DEBUGFS}/run"], timeout=300).check()
    return tuple(float(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split())


def _writes(mount: Mount, host: Host | None, scale: Scale) -> Iterator[Series]:
    guest = mount.guest
    try:
        verified = nfs_rdma.verify(mount, mb=1)
    except nfs_rdma.DataDamaged:
        verified = 0
    title = "Blocks read back as they were written, of those written (none, if one was damaged)"
    yield _count("verified", title, verified, nfs_rdma.blocks(1), "share", "higher")

    with counted(guest, (_WAKEUP, _WORK)) as events:
        fired, before = events.read(), Counters.read(guest, host)
        nfs_rdma.write(mount, Load(scale.writes))
        now, after = events.read(), Counters.read(guest, host)
    per_write: dict[str, tuple[str, float]] = {
        "wakeups": ("Completion events that woke a handler", now[_WAKEUP] - fired[_WAKEUP]),
        "works": ("Works that workqueues ran", now[_WORK] - fired[_WORK]),
        "ipis": ("Hardware IPIs, all CPUs", after.ipis - before.ipis),
        "interrupts": ("Interrupts of all kinds, all CPUs", after.interrupts - before.interrupts),
        "switches": ("Context switches", after.switches - before.switches),
    }
    if host:
        per_write["exits"] = ("Exits of all the guest's vCPUs", after.exits - before.exits)
    for name, (title, amount) in per_write.items():
        yield _count(f"{name}_per_write", f"{title}, per write", amount, scale.writes)

    before = Counters.read(guest, host)
    written = nfs_rdma.write(mount, Load(scale.writes, rate=scale.rate, depth=8))
    after = Counters.read(guest, host)
    title = f"4 KiB write, {scale.rate} a second, as the program sees it"
    yield Series("write", title, "ns", "time", "lower", written.latencies_ns)
    yield _mean_ms("write_rtt", "The same, from the RPC's sending to its reply", written.rpc.rtt_ms, written)
    yield _mean_ms("write_exe", "The same, from the RPC's start to its end", written.rpc.execute_ms, written)
    span = after.uptime_s - before.uptime_s
    title = "CPUs that the poller takes under that load"
    yield _count("poller_use", title, after.poller_s - before.poller_s, span, "CPUs")
    if host:
        title = "Physical CPUs that the guest takes under that load"
        yield _count("write_cpu_use", title, after.vmm_s - before.vmm_s, span, "CPUs")

    # Closed loops with the first provider alone: the other's say the same, and take their time.
    for depth, writes in scale.depths if mount.provider == nfs_rdma.PROVIDERS[0] else ():
        written = nfs_rdma.write(mount, Load(writes, depth=depth))
        title = f"4 KiB write, {depth} at a time, as the program sees it"
        yield Series(f"write_depth_{depth}", title, "ns", "time", "lower", written.latencies_ns)

    before = Counters.read(guest, host)
    guest.run(["sleep", str(scale.idle_s)]).check()
    after = Counters.read(guest, host)
    span = after.uptime_s - before.uptime_s
    title = "CPUs that the poller takes while nobody uses the mount"
    yield _count("poller_idle_use", title, after.poller_s - before.poller_s, span, "CPUs")


def _count(
    name: str, title: str, amount: float, base: float, unit: str = "per write", better: Better = "lower"
) -> Series:
    return Series(name, title, unit, "count", better, (amount / base,))


def _mean_ms(name: str, title: str, total_ms: int, written: Written) -> Series:
    return Series(name, title, "ns", "time", "lower", (total_ms * _NS_PER_MS / written.rpc.ops,))
