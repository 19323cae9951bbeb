# SPDX-License-Identifier: Apache-2.0
"""What is recommended for the virtual timer: nothing is to be chosen, so it only tells how it stands."""

from __future__ import annotations

from collections.abc import Sequence

from cvmtune.features.feature import Advice
from cvmtune.features.vtimer.status import modes_of
from cvmtune.features.words import count
from cvmtune.observe.load import Load
from cvmtune.observe.vms import unread, unseen


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Tell how it stands: there is nothing to choose, the feature is on for confidential VMs."""
    if load.place.role != "host":
        return Advice("vtimer", "it is the monitor's and the host's feature; a guest has nothing to set")
    machines = [vm.now for vm in load.vms]
    modes = modes_of(machines)
    hidden = unseen(load.now) or unread(machines)
    if hidden and not modes:
        return Advice("vtimer", hidden)
    if not modes:
        reason = "no VM here has it; a host with our patches boots with kvm-arm.cvm_vtimer=masked for it"
        return Advice("vtimer", reason)
    others = [name for name, mode in modes.items() if mode != "masked"]
    if others:
        one, names = len(others) == 1, ", ".join(others)
        reason = (
            f"VM{'' if one else 's'} {names} {'is' if one else 'are'} not in mode masked, which is "
            f"no setting: write that to {'its' if one else 'their'} vtimer_mode in KVM's debugfs"
        )
        return Advice("vtimer", reason)
    if hidden:
        return Advice(
            "vtimer", f"it is on for {count(len(modes), 'VM')}; of others it cannot be told: {hidden}"
        )
    every = f"all {len(modes)} VMs" if len(modes) > 1 else "the one VM here"
    return Advice("vtimer", f"it is on for {every}: nothing to set")
