# SPDX-License-Identifier: Apache-2.0
"""How many instructions the paths that the features touch take: sending an IPI, idling, a completion event.

In a machine booted with `icount` the guest's counter goes on by one nanosecond an instruction, whatever the
computer does, so differences of counter readings are counts of instructions. The counter's step is 16 ns:
single samples are that coarse, means over many are not.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

from cvmtune.core.system import System
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.experiments.rounds import Round, Series
from cvmtune.features.cq_poll import experiment as cq_poll
from cvmtune.features.cq_poll.knob import CqPoll
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.wfx.knob import Wfx
from cvmtune.workloads import nfs_rdma

_MODULE = "cvmtune_ipi"
_DEBUGFS = f"/sys/kernel/debug/{_MODULE}"
_SAMPLES = 2000
_EVENT_SAMPLES = 20
_EVENTS = 1000  # in one sample
_GAP_US = 100
_USUAL = 200  # how much longer than the shortest an exit without an interrupt may be
_PATHS = {
    "send_path": "Instructions to send a rescheduling IPI to an idle CPU",
    "idle_path": "Instructions of an idle entry and exit with an interrupt already pending",
}


def collect(guest: System, state: str, mask: str, tools: str) -> Round:
    """Measure in a guest that was booted with `icount`; `tools` is its directory with the module.

    `state` names the measurement, `mask` (hex) the polling CPUs; a kernel without the feature takes none.
    """
    with loaded_module(guest, tools, _MODULE):
        return _measure(guest, state, mask)


def collect_events(guest: System, state: str, *, polled: bool, tools: str) -> Round:
    """Measure a completion event, from the driver's call to its return, in a guest booted with `icount`.

    `polled` needs a kernel with the feature; its module is loaded wherever there is one.
    """
    with ExitStack() as stack:
        if guest.exists(f"{tools}/{cq_poll.FEATURE}.ko"):
            stack.enter_context(loaded_module(guest, tools, cq_poll.FEATURE))
            guest.write_text(cq_poll.OWNERS, f"{cq_poll.BOOKS}\n")
        if polled:
            stack.enter_context(applied(CqPoll(), guest, "1"))
        stack.enter_context(loaded_module(guest, tools, cq_poll.BOOKS))
        provider = nfs_rdma.PROVIDERS[0]
        with nfs_rdma.network(guest), nfs_rdma.link(guest, provider):
            samples = cq_poll.run_books(guest, provider, kind="event_path", n=_EVENT_SAMPLES, cpu=0)
    title = "Instructions of a completion event, from the driver's call to its return"
    # The least, as the samples that a tick of the emulator falls into are longer.
    return Round(
        state, 0, (Series("event_path", title, "instructions", "count", "lower", (min(samples) / _EVENTS,)),)
    )


def collect_exits(guest: System, host: System, state: str, mask: str, tools: str) -> Round:
    """Measure an exit and the entry after it, in a guest whose host was booted with `icount`.

    `mask` (hex) names the vCPUs whose WFx is not trapped; a host without the feature takes none.
    """
    with ExitStack() as stack:
        if host.exists(Wfx.path):
            stack.enter_context(applied(Wfx(), host, mask))
        samples = hypercalls(guest, tools)
    title = "Instructions of a hypercall of the guest: an exit to its host, and the entry after it"
    # Only those without an interrupt in them, each of which is some thousand instructions.
    usual = [sample for sample in samples if sample <= min(samples) + _USUAL]
    return Round(
        state,
        0,
        (Series("exit_path", title, "instructions", "count", "lower", (sum(usual) / len(usual),)),),
    )


def hypercalls(guest: System, tools: str) -> list[int]:
    """Return how long hypercalls of the guest took that do next to nothing, in nanoseconds."""
    with loaded_module(guest, tools, _MODULE):
        return _samples(guest, "exit_path")


def _measure(guest: System, state: str, mask: str) -> Round:
    with applied(SoftIpi(), guest, mask) if SoftIpi().read(guest).available else nullcontext():
        clock = _mean(guest, "clock_path")
        series = tuple(
            Series(name, title, "instructions", "count", "lower", (round(_mean(guest, name) - clock, 1),))
            for name, title in _PATHS.items()
        )
    return Round(state, 0, series)


def _mean(guest: System, kind: str) -> float:
    samples = _samples(guest, kind)
    return sum(samples) / len(samples)


def _samples(guest: System, kind: str) -> list[int]:
    command = f"echo kind={kind} src=0 dst=1 n={_SAMPLES} gap_us={_GAP_US} >{_DEBUGFS}/run"
    guest.run(["sh", "-c", command], timeout=600).check()
    return [int(line) for line in guest.read_text(f"{_DEBUGFS}/samples").split()]
