# SPDX-License-Identifier: Apache-2.0
"""What is read of a guest and its host is read right, and a module put into a guest is taken out again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.bench.guest import Host, loaded_module, parse_interrupts, process_seconds
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import Completed

# Of a guest with two CPUs; the rows of a real one, cut short.
INTERRUPTS = """\
           CPU0       CPU1
 10:       2514       1893     GICv3  27 Level     arch_timer
 12:         33          0     GICv3  33 Level     uart-pl011
 13:          0          0  GICv3-23   1 Edge      ACPI:Ged
 46:       1041          0  virtio-mmio  78 Edge      virtio0
IPI0:        60         78       Rescheduling interrupts
IPI1:      1523       1204       Function call interrupts
IPI2:         0          0       CPU stop interrupts
IPI4:         7          0       Timer broadcast interrupts
IPI5:        12          4       IRQ work interrupts
SIPI:         0        500       Soft IPIs
Err:          0
"""


# /proc/interrupts


def test_interrupts_by_row_and_cpu() -> None:
    rows = parse_interrupts(INTERRUPTS)
    assert rows["IPI0"] == (60, 78)
    assert rows["SIPI"] == (0, 500)
    assert rows["46"] == (1041, 0)
    assert "Err" not in rows  # one count for all CPUs


def test_interrupts_of_one_cpu() -> None:
    text = "           CPU0\nIPI0:         5       Rescheduling interrupts\nErr:          2\n"
    assert parse_interrupts(text) == {"IPI0": (5,), "Err": (2,)}


def test_interrupts_with_numbers_in_the_description() -> None:
    text = "     CPU0  CPU1\n 13:    1     2  GICv3 33 Level  44\nMIS:    0\n"
    assert parse_interrupts(text) == {"13": (1, 2)}


@st.composite
def interrupt_tables(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, ...]]]:
    """A file with the kernel's widths, and what is in it."""
    cpus = draw(st.integers(1, 9))
    names = st.from_regex(r"[A-Z]{3}[0-9]?|[0-9]{1,3}", fullmatch=True)
    counts = st.tuples(*[st.integers(0, 2**32 - 1)] * cpus)
    rows = draw(st.dictionaries(names, counts))
    words = st.lists(st.from_regex(r"[A-Za-z0-9:-]{1,12}", fullmatch=True), max_size=4)
    lines = ["    " + "".join(f"CPU{cpu:<8}" for cpu in range(cpus))]
    for name, row in rows.items():
        lines.append(f"{name:>4}: " + " ".join(f"{count:10}" for count in row) + "  " + " ".join(draw(words)))
    return "\n".join(lines) + "\n", rows


@given(interrupt_tables())
def test_interrupts_of_any_machine(table: tuple[str, dict[str, tuple[int, ...]]]) -> None:
    text, rows = table
    assert parse_interrupts(text) == rows


@given(st.text())
def test_any_text_below_the_cpus(text: str) -> None:
    for counts in parse_interrupts(f"   CPU0   CPU1\n{text}").values():
        assert len(counts) == 2


def test_what_is_no_number_is_no_count() -> None:
    assert parse_interrupts("   CPU0\nIPI0:   \N{SUPERSCRIPT TWO}\nIPI1:   -1\n") == {}


# Processor time


class Files:
    """A system that consists of files, and of modules that come and go. `fails` is a command that fails."""

    def __init__(self, fails: str = "", **files: str) -> None:
        self.files = files
        self.commands: list[str] = []
        self._fails = fails

    def read_text(self, path: str) -> str:
        return self.files[path]

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError(f"wrote {path}")

    def exists(self, path: str) -> bool:
        return path in self.files

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        self.commands.append(" ".join(argv))
        failed = argv[0] == self._fails
        return Completed(tuple(argv), int(failed), "", "refused" if failed else "", 0.1)


def stat(name: str, user: int, system: int) -> dict[str, str]:
    """A process's file in /proc; user and system time are its fields 14 and 15 (proc(5))."""
    return {"/proc/7/stat": f"7 ({name}) S 1 7 7 0 -1 4194560 9 8 7 6 {user} {system} 3 4 20 0 6 0 17\n"}


@pytest.mark.parametrize("name", ["qemu-system-aar", "a b", "x) S 1 (y", "", ")", "1 2 3"])
def test_time_of_a_process_of_any_name(name: str) -> None:
    assert process_seconds(Files(**stat(name, 150, 75)), 7) == pytest.approx(2.25)


@given(st.text(max_size=15), st.integers(0, 2**40), st.integers(0, 2**40))
def test_time_of_any_process(name: str, user: int, system: int) -> None:
    assert process_seconds(Files(**stat(name, user, system)), 7) == pytest.approx((user + system) / 100)


def test_host_tells_exits_and_the_time_of_its_vmm() -> None:
    host = Host(Files(**stat("qemu", 10, 20), **{"/sys/kernel/debug/kvm/exits": "123456\n"}), 7)
    assert host.exits() == 123456
    assert host.vmm_seconds() == pytest.approx(0.3)


# Modules


def test_module_is_there_for_the_block() -> None:
    guest = Files()
    with loaded_module(guest, "/tools", "one"), loaded_module(guest, "/tools", "other"):
        assert guest.commands == ["insmod /tools/one.ko", "insmod /tools/other.ko"]
    assert guest.commands[2:] == ["rmmod other", "rmmod one"]


def test_failing_block_leaves_no_module() -> None:
    guest = Files()
    with pytest.raises(KeyboardInterrupt), loaded_module(guest, "/tools", "one"):
        raise KeyboardInterrupt
    assert guest.commands == ["insmod /tools/one.ko", "rmmod one"]


def test_module_that_cannot_be_loaded_is_not_unloaded() -> None:
    guest = Files(fails="insmod")
    with pytest.raises(CvmtuneError, match="refused"), loaded_module(guest, "/tools", "one"):
        raise AssertionError("loaded in spite of it")
    assert guest.commands == ["insmod /tools/one.ko"]


def test_module_that_stays_is_an_error() -> None:
    with pytest.raises(CvmtuneError, match="rmmod one ended"), loaded_module(Files("rmmod"), "/tools", "one"):
        pass
