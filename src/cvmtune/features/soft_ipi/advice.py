# SPDX-License-Identifier: Apache-2.0
"""The rule by which soft IPI passthrough is recommended, with its reason, gain and cost in figures.

All thresholds are here, above the rule that uses them. A rule takes a Load (what the system did over some
seconds) and returns an Advice; nothing is read or written.

Gains are estimates. Where they rest on a figure, that is the goal which the features' request sets for
hardware, not a measurement of this system: what is gained here only its own counters can tell, before and
after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvmtune.core.cpumask import CpuMask
from cvmtune.core.figure import Figure, Unknown, known, reasons, total
from cvmtune.features.feature import Advice
from cvmtune.features.soft_ipi.knob import PATH, ROW
from cvmtune.features.soft_ipi.settings import POLL_US
from cvmtune.features.status import of_parameter
from cvmtune.features.words import between, count, named_cpus, overcommitted, round_up, time_lost
from cvmtune.observe.command_line import nohlt
from cvmtune.observe.cpus import deep_idle, deep_idle_untold, nohlt_untold
from cvmtune.observe.firmware import is_guest
from cvmtune.observe.load import CpuLoad, Load

# IPIs a second that a vCPU must take. Of fewer, more than 5 ms apart, most would be awaited longer than the
# bound below lets a vCPU poll: paid for, and not met.
MIN_IPIS = 200.0
# Share of the most loaded vCPU's IPIs that another must take to be named with it: what a machine takes beside
# its load stays below.
MIN_SHARE_OF_MOST = 0.1
# A vCPU that idles less does not poll: it takes its IPIs by interrupt, named or not.
MIN_IDLE = 0.05
# An IPI's way as the request has it, us: 7 through the monitor, less than 3 through memory.
IPI_SAVES_US = 4.0
# The bound of polling, in mean times between IPIs, so that nearly all come while the vCPU polls (of a Poisson
# process all but 2 %); and its ends, us. Beyond the upper one to wake up is cheap against the wait.
BOUND_IN_GAPS = 4.0
BOUND_US = (100, 10_000)


def advise(load: Load, before: Sequence[Advice]) -> Advice:
    """Name the vCPUs that take many IPIs and idle between them."""
    if load.place.role != "guest":
        other = "a host" if is_guest(load.now) else "no guest"
        return Advice("ipi", f"it is a guest's feature, and this is {other}")
    figures = {f"IPIs a second taken by CPU {cpu}": taken(one) for cpu, one in load.cpus.items()}
    rates = {cpu: rate for cpu, one in load.cpus.items() if not isinstance(rate := taken(one), Unknown)}
    if len(rates) < max(1, len(figures)):
        # Whoever takes the most may be among those that are not known.
        why = next(iter(reasons(figures).values()), "neither /proc/stat nor /proc/interrupts shows a CPU")
        return Advice("ipi", f"how many IPIs CPUs take cannot be told: {why}", figures=figures)
    most = max(rates.values())
    busy = [cpu for cpu, rate in rates.items() if rate >= max(MIN_IPIS, most * MIN_SHARE_OF_MOST)]
    if not busy:
        reason = f"no CPU takes {MIN_IPIS:g} IPIs a second; the most is {most:.0f}"
        return Advice("ipi", reason, figures=figures)
    if refusal := _refusal(load, busy):
        return Advice("ipi", f"{_takers(busy, rates)}, but {refusal}", figures=figures)
    idling = {cpu: known(load.cpus[cpu].idle) or 0.0 for cpu in busy}
    chosen = [cpu for cpu in busy if idling[cpu] >= MIN_IDLE or load.cpus[cpu].rows.get(ROW)]
    if not chosen:
        reason = (
            f"{_takers(busy, rates)}, but {_they(busy)} hardly {_s(busy, 'idle')}: only an idle CPU polls"
        )
        return Advice("ipi", reason, figures=figures)
    if PATH not in load.now.files:
        hidden = PATH in load.now.unreadable
        missing = load.now.why_not(PATH) if hidden else "this kernel has no soft IPI passthrough"
        reason = f"{_takers(chosen, rates)}; but {missing}"
        return Advice("ipi", reason, figures=figures)
    mask = CpuMask(frozenset(chosen))
    if deep := _deep(load, mask):
        return Advice("ipi", f"{_takers(chosen, rates)}, but {deep}", figures=figures)
    bound_us, busy_for = _bound(load, [rates[cpu] for cpu in chosen], sum(idling[cpu] for cpu in chosen))
    settings = {**({} if bound_us is None else {"ipi-poll-us": bound_us}), "ipi": mask}
    everyone = ""
    if len(chosen) == len(load.cpus):
        everyone = f"ALL {len(chosen)} vCPUs poll: " if len(chosen) > 1 else "its ONLY vCPU polls: "
    total = sum(rates[cpu] for cpu in chosen)
    return Advice(
        "ipi",
        f"{_takers(chosen, rates)}; {_idling(chosen, idling)}; {time_lost(load)}",
        settings,
        gain=(
            f"up to {total:.0f} IPIs a second without an exit; at the {IPI_SAVES_US:g} us each that is the "
            f"feature's goal on hardware, {total * IPI_SAVES_US / 1e6:.1%} of a CPU's time in waits"
        ),
        cost=f"{everyone}{busy_for}",
        figures=figures,
        polling=mask,
    )


def _refusal(load: Load, busy: Sequence[int]) -> str:
    """Why the CPUs that take IPIs are not to poll for them, as a clause; nothing if they may."""
    if nohlt(load.now):
        return "with nohlt on the command line no CPU polls for them"
    if why := nohlt_untold(load.now):
        return f"whether CPUs poll elsewhere instead (nohlt) cannot be told: {why}"
    if refusal := overcommitted(load):
        return refusal
    hidden = reasons({str(cpu): load.cpus[cpu].idle for cpu in busy})
    return (
        f"whether {_they(busy)} {_s(busy, 'idle')} cannot be told: {next(iter(hidden.values()))}"
        if hidden
        else ""
    )


def _deep(load: Load, mask: CpuMask) -> str:
    """What cpuidle does with the CPUs that is deeper than WFI, as a clause; nothing if that is not so."""
    if why := deep_idle_untold(load.now, mask):
        return f"whether cpuidle may take {_them(mask)} deeper than WFI cannot be told: {why}"
    if deep := deep_idle(load.now, mask):
        return (
            f"cpuidle may take {named_cpus(deep)} deeper than WFI, where no CPU polls: disable those states "
            "first (cpuidle/state*/disable)"
        )
    return ""


def _bound(load: Load, rates: Sequence[float], idle: float) -> tuple[int | None, str]:
    """How long CPUs with these rates of IPIs and this idle time in all are to poll, in us; and for how long
    they are busy, in words. None where no bound can be set."""
    always = f"{count(len(rates), 'physical CPU')} busy always, also when nothing is done"
    present = of_parameter(load.now, POLL_US)
    if isinstance(present, Unknown):
        return None, f"{always}, unless a bound is set: {present.why}"
    if present is None:
        return None, f"{always}: this kernel has no bound"
    bound_us = between(BOUND_US, round_up(BOUND_IN_GAPS * 1e6 / min(rates), 100))
    return bound_us, (
        f"up to {idle:.2f} more physical CPUs busy while IPIs come, and {bound_us} us after the last one"
    )


def taken(cpu: CpuLoad) -> Figure:
    """IPIs that a CPU took, by hardware and softly, a second."""
    return total([*cpu.ipis.values(), cpu.rows.get(ROW, 0.0)])


def _takers(cpus: Sequence[int], rates: Mapping[int, float]) -> str:
    each = ", ".join(f"{rates[cpu]:.0f}" for cpu in cpus)
    return f"{named_cpus(cpus)} {_s(cpus, 'take')} {each} IPIs a second"


def _idling(cpus: Sequence[int], idling: Mapping[int, float]) -> str:
    idle = sum(idling[cpu] for cpu in cpus)
    if len(cpus) == 1:
        return f"it idles {idle:.0%} of its time"
    return f"they idle {idle:.2f} CPUs' time in all"


def _they(cpus: Sequence[int]) -> str:
    return "they" if len(cpus) > 1 else "it"


def _them(cpus: CpuMask) -> str:
    return "them" if len(cpus) > 1 else "it"


def _s(cpus: Sequence[int], verb: str) -> str:
    return verb if len(cpus) > 1 else f"{verb}s"
