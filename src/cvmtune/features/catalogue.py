# SPDX-License-Identifier: Apache-2.0
"""All knobs by the names that users give them."""

from collections.abc import Mapping

from cvmtune.features.cq_poll.knob import CqIdleUs, CqPoll
from cvmtune.features.soft_ipi.knob import IpiPollUs, SoftIpi
from cvmtune.features.wfx.knob import Wfx, WfxGuard
from cvmtune.tuning.contract import Knob

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
