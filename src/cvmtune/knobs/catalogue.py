# SPDX-License-Identifier: Apache-2.0
"""All knobs by the names that users give them."""

from collections.abc import Mapping

from cvmtune.knobs.contract import Knob
from cvmtune.knobs.cq_poll import CqPoll
from cvmtune.knobs.parameters import CqIdleUs, IpiPollUs, WfxGuard
from cvmtune.knobs.soft_ipi import SoftIpi
from cvmtune.knobs.wfx import Wfx

# In the order in which they are applied: a bound or guard is in force before what it bounds, and, undone in
# reverse order, until after it.
KNOBS: Mapping[str, Knob] = {
    "ipi-poll-us": IpiPollUs(),
    "ipi": SoftIpi(),
    "cq-idle-us": CqIdleUs(),
    "cq-poll": CqPoll(),
    "wfx-guard": WfxGuard(),
    "wfx": Wfx(),
}

# Those whose values are hex masks.
MASKS = frozenset({"ipi", "wfx"})
