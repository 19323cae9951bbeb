# SPDX-License-Identifier: Apache-2.0
"""The four features on a machine: whether it has them, what they are set to, what they did since boot."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from cvmtune.core.command import Completed
from cvmtune.core.cpumask import CpuMask
from cvmtune.features.catalogue import KNOBS, MASKS
from cvmtune.features.cq_poll.knob import OFF
from cvmtune.observe.capture import Capture
from cvmtune.observe.platform import Place
from cvmtune.observe.procfs import IPI_ROWS, SOFT_IPI_ROW, parse_counts, parse_interrupts, parse_named
from cvmtune.observe.vms import vms

Status = Literal["on", "off", "absent", "elsewhere", "unknown"]
_SOFT_STATS = "/sys/kernel/debug/soft_ipi_passthrough/stats"
_CQS = "/sys/kernel/debug/ib_core_cq_poll/cqs"
_CQ_TOTALS = "/sys/kernel/debug/ib_core_cq_poll/totals"
_SOFT_TYPES = ("reschedule", "call_function", "timer", "irq_work")
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Feature:
    """A feature. `settings` are its knobs' values by name; `did` is in words, `statistics` the figures.

    "elsewhere": it is not this side's, guest's or host's. "unknown": its control is there and cannot be read.
    """

    name: str
    status: Status
    settings: Mapping[str, str]
    did: str
    statistics: Mapping[str, float]
    problem: str = ""


class CapturedSystem:
    """A System whose files are a capture's, for knobs to be read. It can be neither written nor run."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def read_text(self, path: str) -> str:
        if number := self._capture.unreadable.get(path):
            raise OSError(number, os.strerror(number), path)
        if path not in self._capture.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._capture.files[path]

    def write_text(self, path: str, text: str) -> NoReturn:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), path)

    def exists(self, path: str) -> bool:
        return path in self._capture.files or path in self._capture.unreadable

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        raise NotImplementedError


def features(capture: Capture, where: Place) -> list[Feature]:
    """Return the four features in the order of their numbers."""
    return [_ipi(capture), _vtimer(capture, where), _cq_poll(capture), _wfx(capture, where)]


def present(capture: Capture) -> frozenset[str]:
    """The names of the settings whose controls are there, whether or not they can be read."""
    system = CapturedSystem(capture)
    return frozenset(name for name, knob in KNOBS.items() if system.exists(knob.path))


def shown(name: str, value: str) -> str:
    """A setting's value as people want to see it: a mask also as a list."""
    if name in MASKS:
        return CpuMask.from_hex(value).both_forms()
    return "off" if name == "cq-poll" and value == OFF else value


def _feature(
    capture: Capture, name: str, beside: str, did: Iterator[str], statistics: Mapping[str, float]
) -> Feature:
    """A feature with the main knob `name` and a parameter `beside`."""
    system = CapturedSystem(capture)
    state = KNOBS[name].read(system)
    if state.value is None:
        there = system.exists(KNOBS[name].path)
        return Feature(name, "unknown" if there else "absent", {}, "", {}, state.problem or "")
    settings = {name: state.value}
    parameter = KNOBS[beside].read(system).value
    if parameter is not None:
        settings[beside] = parameter
    # To the poller "0" is a CPU.
    on = state.value != (OFF if name == "cq-poll" else "0")
    return Feature(name, "on" if on else "off", settings, ", ".join(did), statistics)


def _sums(rows: Iterable[Mapping[str, int]], names: Iterable[str]) -> dict[str, float]:
    """The sum of each of these columns; 0 for one that this kernel does not have."""
    rows = list(rows)
    return {name: float(sum(row.get(name, 0) for row in rows)) for name in names}


def _ipi(capture: Capture) -> Feature:
    rows = parse_interrupts(capture.files.get("/proc/interrupts", ""))
    statistics = {"soft_ipis": float(sum(rows.get(SOFT_IPI_ROW, ())))}
    hardware = sum(sum(rows.get(row, ())) for row in IPI_ROWS)
    statistics["hardware_ipis"] = float(hardware)
    if _SOFT_STATS in capture.files:
        sums = _sums(parse_counts(capture.files[_SOFT_STATS]), (*_SOFT_TYPES, "poll_ns", "fallbacks"))
        statistics["polled_s"] = sums.pop("poll_ns") / _NS_PER_S
        statistics |= sums

    def did() -> Iterator[str]:
        yield f"{statistics['soft_ipis']:.0f} IPIs softly, {hardware} by hardware"
        if "polled_s" in statistics:
            yield f"polled {statistics['polled_s']:.1f} s"

    return _feature(capture, "ipi", "ipi-poll-us", did(), statistics)


def _vtimer(capture: Capture, where: Place) -> Feature:
    machines = vms(capture)
    modes = {vm.name: vm.vtimer_mode for vm in machines if vm.vtimer_mode is not None}
    if where.role != "host":
        return Feature("vtimer", "elsewhere", {}, "", {}, "it is the monitor's and the host's")
    if not modes:
        return Feature("vtimer", "absent", {}, "", {}, "no VM here has it")
    rows = [row for vm in machines for row in vm.vtimer]
    sums = _sums(rows, ("entries", "masked_entries", "timer_exits", "redundant_exits"))
    did = f"{sums['timer_exits']:.0f} timer exits, {sums['redundant_exits']:.0f} redundant"
    on = "masked" in modes.values()
    told = ", ".join(f"VM {name}: {mode}" for name, mode in modes.items())
    return Feature("vtimer", "on" if on else "off", {}, f"{told}; {did}", sums)


def _cq_poll(capture: Capture) -> Feature:
    statistics = {
        name: float(value) for name, value in parse_named(capture.files.get(_CQ_TOTALS, "")).items()
    }
    queues = parse_counts(capture.files.get(_CQS, ""))
    statistics["queues"] = float(len(queues))
    statistics["polled_queues"] = float(sum(row.get("polled") == 1 for row in queues))
    statistics |= _sums(queues, ("completions",))

    def did() -> Iterator[str]:
        if _CQS in capture.files:
            yield f"{statistics['polled_queues']:.0f} of {len(queues)} queues polled"
            yield f"{statistics['completions']:.0f} completions found"
        if "awake_ns" in statistics:
            yield f"awake {statistics['awake_ns'] / _NS_PER_S:.1f} s"

    return _feature(capture, "cq-poll", "cq-idle-us", did(), statistics)


def _wfx(capture: Capture, where: Place) -> Feature:
    machines = vms(capture)
    rows = [row for vm in machines for row in vm.wfx]
    statistics = _sums(rows, ("entries", "untrapped", "guarded", "wfi_exits", "wfe_exits"))
    statistics["vms"] = float(len(machines))

    def did() -> Iterator[str]:
        yield f"{len(machines)} VMs"
        if rows:
            yield f"{statistics['untrapped']:.0f} of {statistics['entries']:.0f} entries untrapped"
        for vm in machines:
            if vm.own_mask is not None:
                yield f"VM {vm.name} has a mask of its own, {vm.own_mask.both_forms()}"

    found = _feature(capture, "wfx", "wfx-guard", did(), statistics)
    if found.status == "absent" and where.role != "host":
        return Feature("wfx", "elsewhere", {}, "", {}, "it is the host's")
    return found
