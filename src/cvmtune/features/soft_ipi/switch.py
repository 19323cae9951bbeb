# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough on and off, for experiments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cvmtune.experiments.bench import Bench
from cvmtune.experiments.guest import applied, online_cpus
from cvmtune.features.soft_ipi.knob import SoftIpi
from cvmtune.features.soft_ipi.metrics import HARDWARE_IPIS
from cvmtune.features.trial import Switch


class SoftIpiSwitch(Switch):
    """On: every CPU that is online waits for soft IPIs."""

    name = "ipi"
    noun = "soft IPIs"
    eases_wakeups = True
    events = (HARDWARE_IPIS,)

    @contextmanager
    def switched(self, bench: Bench, *, on: bool, cpu: int) -> Iterator[None]:
        guest = bench.guest
        # Off as well: the guest may have come with a mask. A kernel without the feature has none.
        if not on and not guest.exists(SoftIpi.path):
            yield
            return
        with applied(SoftIpi(), guest, online_cpus(guest).to_hex() if on else "0"):
            yield
