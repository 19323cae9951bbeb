# SPDX-License-Identifier: Apache-2.0
"""WFx traps: the host's mask of vCPU ids whose WFI and WFE end in no exit; a mask as others are of CPUs.

It is for all VMs that have no choice of their own. Mainline with our patches takes every id that a vCPU can
have, whatever CPUs the machine has.

A vendor's kernel (openEuler OLK-6.6, arch/arm64/kvm/virtcca_cvm.c) keeps the ids in a cpumask: a mask with an
id past the machine's last CPU does not parse. So only where our kernel is known, by a file of its own, are
such ids written.
"""

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.tuning.file_knob import MaskKnob, os_failure, read_cpus
from cvmtune.tuning.parameter import Switch

PATH = "/sys/kernel/cvm_wfx_trap_config"
# There on every kernel with our patches, and on no other.
GUARD = "/sys/module/kvm/parameters/wfx_guard"
POSSIBLE = "/sys/devices/system/cpu/possible"

# KVM_MAX_VCPU_IDS on arm64.
MAX_VCPUS = 512


class WfxGuard(Switch):
    """Whether named vCPUs are trapped while others want their CPU, "Y" or "N"."""

    path = GUARD
    noun = "guard"
    missing = "only the host's kernel, with cvmtune's patches, has the guard of WFx traps"


class Wfx(MaskKnob):
    """The knob; values are hex masks of vCPU ids."""

    path = PATH
    form = "give a hex mask such as 'c' for vCPUs 2 and 3"
    missing = "the running kernel has no control of WFx traps, or is not the host's"

    def _permit(self, system: System, *values: CpuMask) -> None:
        # "Off" must not fail for want of what it does not need.
        if not any(values):
            return
        ids = MAX_VCPUS
        if not _is_ours(system):
            ids = max(read_cpus(system, POSSIBLE), default=-1) + 1
        allowed = CpuMask(frozenset(range(ids)))
        self._confine(values, allowed, "vCPUs that this kernel cannot take", self.path)


def _is_ours(system: System) -> bool:
    try:
        return system.exists(GUARD)
    except OSError as error:
        raise os_failure("cannot tell which kernel this is", GUARD, error) from error
