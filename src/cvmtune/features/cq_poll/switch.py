# SPDX-License-Identifier: Apache-2.0
"""Polled completion queues on and off, for experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied, loaded_module
from cvmtune.features.cq_poll.knob import MODULE, CqIdleUs, CqPoll
from cvmtune.features.cq_poll.metrics import POLLER, WAKEUPS
from cvmtune.features.trial import Switch


class CqPollSwitch(Switch):
    """On: a thread on the servers' CPU polls all queues, and never sleeps, as where completions keep coming.

    Without its module there is no polling, and nothing to turn off.
    """

    name = "cq-poll"
    noun = "polled completion queues"
    events = (WAKEUPS,)
    uses = (POLLER,)

    def prepare(self, bench: Bench, exit_ns: float | None) -> AbstractContextManager[None]:
        return loaded_module(bench.guest, bench.tools, MODULE)

    @contextmanager
    def switched(self, bench: Bench, *, on: bool, cpu: int) -> Iterator[None]:
        if not on:
            yield
            return
        with applied(CqIdleUs(), bench.guest, "0"), applied(CqPoll(), bench.guest, str(cpu)):
            yield
