# SPDX-License-Identifier: Apache-2.0
"""What features' experiments take of each other."""

from __future__ import annotations

from cvmtune.features.soft_ipi.switch import SoftIpiSwitch
from cvmtune.features.trial import Switch
from cvmtune.features.wfx.statistics import FILE

WAKER: Switch = SoftIpiSwitch()
"""The feature that experiments with wake-ups in them have on and off beside their own."""

VCPU_FILE = FILE
"""The file in which our kernel counts every vCPU's entries into its guest, each of which follows an exit."""
