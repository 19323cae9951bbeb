# SPDX-License-Identifier: Apache-2.0
"""The status of a feature that is switched by a setting: read through the knobs, as settings are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cvmtune.core.figure import Figure, Unknown, total
from cvmtune.features.feature import FeatureStatus
from cvmtune.observe.capture import Capture
from cvmtune.observe.captured import CapturedSystem
from cvmtune.observe.procfs import parse_counts
from cvmtune.observe.unreadable import why
from cvmtune.observe.vms import Vm
from cvmtune.tuning.contract import KnobError
from cvmtune.tuning.setting import Setting

V = TypeVar("V")


def of_setting(
    capture: Capture,
    main: Setting[Any],
    beside: Setting[Any],
    did: Iterator[str],
    statistics: Mapping[str, Figure],
) -> FeatureStatus:
    """Return the status of a feature with the setting `main`, and a parameter `beside` it that may be
    missing. One that cannot be told is among the statistics, as Unknown."""
    system = CapturedSystem(capture)
    try:
        value = main.knob.value(system)
    except KnobError as error:
        there = system.exists(main.knob.path)
        return FeatureStatus(main.name, "unknown" if there else "absent", problem=str(error))
    settings = {main.name: value}
    said = list(did)
    parameter = of_parameter(capture, beside)
    if isinstance(parameter, Unknown):
        statistics = {**statistics, beside.name: parameter}
        said.append(f"{beside.name} {parameter}")
    elif parameter is not None:
        settings[beside.name] = parameter
    return FeatureStatus(
        main.name, "off" if value == main.off else "on", settings, ", ".join(said), statistics
    )


def of_parameter(capture: Capture, one: Setting[V]) -> V | Unknown | None:
    """The value of a setting, None if the kernel has no such control. One that cannot be read is there."""
    system = CapturedSystem(capture)
    if not system.exists(one.knob.path):
        return None
    try:
        return one.knob.value(system)
    except KnobError:
        return Unknown(capture.why_not(one.knob.path))


def table(capture: Capture, path: str) -> str | Unknown:
    """The text of a file; Unknown if it was not read."""
    text = capture.files.get(path)
    return Unknown(f"{path} cannot be read: {why(capture, path)}") if text is None else text


def sums(text: str | Unknown, names: Iterable[str], what: str) -> dict[str, Figure]:
    """The sum of each of these columns of a table, which is `what`; Unknown if it has not the column, or has
    lines without it."""
    if isinstance(text, Unknown):
        return dict.fromkeys(names, text)
    header = next((line.split() for line in text.splitlines()), [])
    lines = sum(bool(line.strip()) for line in text.splitlines()[1:])
    rows = parse_counts(text)
    found: dict[str, Figure] = {}
    for name in names:
        numbers = [row[name] for row in rows if name in row]
        if name not in header:
            found[name] = Unknown(f"{what} has no {name}")
        elif len(numbers) < lines:
            found[name] = Unknown(f"{what} has lines that are not understood")
        else:
            found[name] = float(sum(numbers))
    return found


def of_vms(machines: Iterable[Vm], file: str, names: Sequence[str]) -> dict[str, Figure]:
    """The sum over VMs of each of these columns of a table in their folders; Unknown if one has it not."""
    tables = [sums(_of_vm(vm, file), names, file) for vm in machines]
    return {name: total(one[name] for one in tables) for name in names}


def _of_vm(vm: Vm, file: str) -> str | Unknown:
    if file in vm.unreadable:
        return Unknown(f"{file} cannot be read: {vm.unreadable[file]}")
    return vm.files.get(file, Unknown(f"this kernel has no {file}"))


def in_words(figure: Figure, words: str, form: str = ".0f") -> str:
    """What was done, as "7 completions found", or that it cannot be told, and why."""
    return f"{words} {figure}" if isinstance(figure, Unknown) else f"{figure:{form}} {words}"
