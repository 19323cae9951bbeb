# SPDX-License-Identifier: Apache-2.0
"""Sets of CPUs, and the two forms in which the kernel writes and reads them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

# The largest NR_CPUS of any 64-bit architecture we may meet (x86-64; arm64 ends at 4096: arch/*/Kconfig).
# Without a limit, a slip such as "0-4000000000" would exhaust memory before anything could call it wrong.
MAX_CPUS = 8192

_GROUP_BITS = 32
_GROUP_DIGITS = _GROUP_BITS // 4
_GROUP = re.compile(rf"[0-9a-fA-F]{{1,{_GROUP_DIGITS}}}")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
# A blank after it would go unnoticed, as from_hex() strips what is around a mask.
_PREFIX = re.compile(r"^0x(?=\S)")


@dataclass(frozen=True)
class CpuMask:
    """A set of CPU numbers, each 0 to MAX_CPUS - 1; others raise ValueError."""

    cpus: frozenset[int]

    def __post_init__(self) -> None:
        for cpu in self.cpus:
            if not 0 <= cpu < MAX_CPUS:
                raise ValueError(f"CPU {cpu} is not in 0-{MAX_CPUS - 1}")

    @classmethod
    def from_hex(cls, text: str) -> CpuMask:
        """Parse a hex mask: comma-separated groups of 1 to 8 digits, each for 32 CPUs, highest first.

        What the kernel prints is accepted in full: zero groups, leading zeros, the newline at the end. Of
        what its parser takes (bitmap_parse in lib/bitmap-str.c), whitespace inside the mask and empty groups
        are refused, because "1,,5" and "1 5" are far more likely slips than masks; and so is the empty
        string, which the kernel reads as the empty mask ("0" says that). A leading "0x" is refused because
        the kernel refuses it: a mask that works here must work with `echo` too. Raises ValueError.
        """
        value = 0
        for position, group in enumerate(text.strip(string.whitespace).split(","), start=1):
            if not _GROUP.fullmatch(group):
                raise ValueError(
                    f"{text!r} is no hex CPU mask: group {position}, {group!r}, is not 1 to 8 hex digits"
                )
            value = value << _GROUP_BITS | int(group, 16)
        return cls(frozenset(cpu for cpu, bit in enumerate(reversed(f"{value:b}")) if bit == "1"))

    @classmethod
    def from_list(cls, text: str) -> CpuMask:
        """Parse a list of CPUs and ranges such as "2-3,6", the form of /sys/devices/system/cpu/possible.

        The empty string is the empty set, for that is how the kernel prints it. The additions of its parser
        (bitmap_parselist: "N", "all", strides) are refused. Raises ValueError.
        """
        stripped = text.strip(string.whitespace)
        cpus: set[int] = set()
        for position, item in enumerate(stripped.split(",") if stripped else (), start=1):
            match = _RANGE.fullmatch(item)
            if match is None:
                raise ValueError(f"{text!r} is no CPU list: item {position}, {item!r}, is no number or range")
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < MAX_CPUS:
                raise ValueError(
                    f"{text!r} is no CPU list: item {position}, {item!r}, is backwards or past {MAX_CPUS - 1}"
                )
            cpus.update(range(first, last + 1))
        return cls(frozenset(cpus))

    @classmethod
    def parse(cls, text: str) -> CpuMask:
        """Parse what people write: a hex mask, also with 0x in front, or a list of CPUs.

        With 0x it is a mask; else with a "-" a list; else with a "," a mask if every group after the first
        has 8 digits, as the kernel prints them, or else a list. A bare word is a mask, as in the kernel's
        files: "3" is CPUs 0 and 1, and CPU 3 alone is "3-3" or "8".

        So this reads back what to_hex() prints, and what to_list() prints but for no CPU and for one CPU.
        Raises ValueError.
        """
        stripped = text.strip(string.whitespace)
        _, *later = stripped.split(",")
        is_list = not stripped.startswith("0x") and (
            "-" in stripped or any(len(group) != _GROUP_DIGITS for group in later)
        )
        try:
            return cls.from_list(stripped) if is_list else cls.from_hex(_PREFIX.sub("", stripped))
        except ValueError as error:
            raise ValueError(
                f"{error}; give a hex mask such as c or 1,00000000, or a list such as 2-3,6"
            ) from error

    def both_forms(self) -> str:
        """Return the mask in both forms, for people: "c = 2-3"; the empty mask is "0 = none"."""
        return f"{self.to_hex()} = {self.to_list() or 'none'}"

    def to_hex(self) -> str:
        """Return the mask as the kernel's %*pb prints a bitmap just wide enough; the empty mask is "0"."""
        digits = f"{sum(1 << cpu for cpu in self.cpus):x}"
        ends = range(len(digits), 0, -_GROUP_DIGITS)
        return ",".join(reversed([digits[max(0, end - _GROUP_DIGITS) : end] for end in ends]))

    def to_list(self) -> str:
        """Return the set as the kernel's %*pbl prints it: "2-3,6"; the empty set is the empty string."""
        runs: list[tuple[int, int]] = []
        for cpu in self:
            if runs and runs[-1][1] == cpu - 1:
                runs[-1] = (runs[-1][0], cpu)
            else:
                runs.append((cpu, cpu))
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

    def __or__(self, other: CpuMask) -> CpuMask:
        return CpuMask(self.cpus | other.cpus)

    def __and__(self, other: CpuMask) -> CpuMask:
        return CpuMask(self.cpus & other.cpus)

    def __sub__(self, other: CpuMask) -> CpuMask:
        return CpuMask(self.cpus - other.cpus)

    def __le__(self, other: CpuMask) -> bool:
        return self.cpus <= other.cpus

    def __contains__(self, cpu: object) -> bool:
        return cpu in self.cpus

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.cpus))

    def __len__(self) -> int:
        return len(self.cpus)

    def __bool__(self) -> bool:
        return bool(self.cpus)
