# SPDX-License-Identifier: Apache-2.0
"""The instructions of a completion event."""

from __future__ import annotations

from contextlib import ExitStack

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.experiments.path_length import Paths
from cvmtune.experiments.rounds import Round
from cvmtune.features.cq_poll import books
from cvmtune.features.cq_poll.knob import MODULE, CqOwners, CqPoll
from cvmtune.features.cq_poll.metrics import EVENT_PATH
from cvmtune.lab.specs import MachineName
from cvmtune.workloads import nfs_rdma

_SAMPLES = 20
_EVENTS = 1000  # in one sample


class CqPollPaths(Paths):
    machine = MachineName.PLAIN

    def measure(self, bench: Bench, state: str, *, on: bool) -> list[Round]:
        guest, tools = bench.guest, bench.tools
        provider = nfs_rdma.PROVIDERS[0]
        with ExitStack() as stack:
            # Its module is loaded wherever there is one.
            if guest.exists(f"{tools}/{MODULE}.ko"):
                stack.enter_context(loaded_module(guest, tools, MODULE))
                stack.enter_context(applied(CqOwners(), guest, books.MODULE))
            if on:
                stack.enter_context(applied(CqPoll(), guest, "1"))
            stack.enter_context(loaded_module(guest, tools, books.MODULE))
            with nfs_rdma.network(guest), nfs_rdma.link(guest, provider):
                samples = books.run(guest, provider, kind="event_path", n=_SAMPLES, cpu=0)
        # The least, as the samples that a tick of the emulator falls into are longer.
        return [Round(state, 0, (EVENT_PATH.value(min(samples) / _EVENTS),))]
