# SPDX-License-Identifier: Apache-2.0
"""Soft IPI passthrough: the guest's mask of CPUs that wait in their idle loop for IPIs handed over in memory.

The file takes and gives a hex mask. A kernel may keep its spinlock for ever after a mask that does not parse,
so what is written is always a mask printed by CpuMask, never a text that came from elsewhere, and never one
with CPUs that the machine cannot have. Kernels pad masks differently, so they are compared as sets.
"""

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.system import System
from cvmtune.knobs.contract import KnobError, Plan, State

PATH = "/sys/kernel/soft_ipi_passthrough"
POSSIBLE = "/sys/devices/system/cpu/possible"


class SoftIpi:
    """The knob; values are hex masks as CpuMask.to_hex() prints them, "0" is off."""

    name = "soft_ipi"

    def read(self, system: System) -> State:
        try:
            return State(available=True, value=_present(system).to_hex(), problem=None)
        except KnobError as error:
            return State(available=False, value=None, problem=str(error))

    def plan(self, system: System, want: str) -> Plan:
        after = _parse(want)
        before = _present(system)
        # A mask that could not be written back must not be replaced.
        _require_possible(system, before | after)
        return Plan(PATH, before.to_hex(), after.to_hex())

    def apply(self, system: System, plan: Plan) -> None:
        before, after = _masks(plan)
        _require_possible(system, before | after)
        present = _present(system)
        if present == after:
            return
        if present != before:
            raise KnobError(
                f"the mask is {present.to_hex()}, not {before.to_hex()} as when the change was planned",
                PATH,
                "find out who else sets it, then plan again",
            )
        try:
            _store(system, after)
        except KnobError as failure:
            try:
                _restore(system, before)
            except KnobError as second:
                raise KnobError(
                    f"{failure.what}; and putting {before.to_hex()} back failed: {second.what}",
                    PATH,
                    "undo this change once the file can be read and written again",
                ) from failure
            raise KnobError(
                f"{failure.what}; the mask is {before.to_hex()} as before", PATH, failure.next_step
            ) from failure

    def verify(self, system: System, plan: Plan) -> bool:
        _, after = _masks(plan)
        return _present(system) == after

    def undo(self, system: System, plan: Plan) -> None:
        before, _ = _masks(plan)
        # The plan may come from an earlier boot, when the machine had more CPUs.
        _require_possible(system, before)
        _restore(system, before)


def _parse(text: str) -> CpuMask:
    try:
        return CpuMask.from_hex(text)
    except ValueError as error:
        raise KnobError(str(error), next_step="give a hex mask such as 'c' for CPUs 2 and 3") from error


def _masks(plan: Plan) -> tuple[CpuMask, CpuMask]:
    if plan.path != PATH:
        raise KnobError(f"the plan is for another file, {plan.path}", PATH)
    return _parse(plan.before), _parse(plan.after)


def _require_possible(system: System, mask: CpuMask) -> None:
    try:
        possible = CpuMask.from_list(system.read_text(POSSIBLE))
    except OSError as error:
        raise _os_failure("cannot read", POSSIBLE, error) from error
    except ValueError as error:
        raise KnobError(f"cannot tell which CPUs are possible: {error}", POSSIBLE) from error
    if not mask <= possible:
        raise KnobError(
            f"mask {mask.to_hex()} names CPUs that this machine cannot have: {(mask - possible).to_list()}",
            POSSIBLE,
            f"name only CPUs of {possible.to_list()}",
        )


def _present(system: System) -> CpuMask:
    try:
        return CpuMask.from_hex(system.read_text(PATH))
    except FileNotFoundError as error:
        raise KnobError("the running kernel has no soft IPI passthrough", PATH) from error
    except OSError as error:
        raise _os_failure("cannot read the mask", PATH, error) from error
    except ValueError as error:
        raise KnobError(f"the kernel shows something else than a mask: {error}", PATH) from error


def _store(system: System, mask: CpuMask) -> None:
    try:
        system.write_text(PATH, f"{mask.to_hex()}\n")
    except OSError as error:
        raise _os_failure(f"cannot write mask {mask.to_hex()}", PATH, error) from error
    present = _present(system)
    if present != mask:
        raise KnobError(f"the kernel took mask {mask.to_hex()} but shows {present.to_hex()}", PATH)


def _restore(system: System, mask: CpuMask) -> None:
    # A write that failed has usually changed nothing; then the file is better left alone.
    if _present(system) != mask:
        _store(system, mask)


def _os_failure(doing: str, path: str, error: OSError) -> KnobError:
    next_step = "run as root" if isinstance(error, PermissionError) else ""
    return KnobError(f"{doing}: {error.strerror}", path, next_step)
