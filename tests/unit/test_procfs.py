# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts is read right, of kernels old and new, and whatever else a file may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.observe.procfs import (
    IPI_ROWS,
    CpuTimes,
    interrupt_cpus,
    is_count,
    parse_counts,
    parse_cpu_times,
    parse_interrupts,
    parse_named,
    parse_table,
)
from tests.fakes.capture import GUEST

INTERRUPTS = GUEST["/proc/interrupts"]
# Of a guest with both modules and an NFS mount, cut short.
CQS = """\
device cq owner polled polls completions empty max_batch ns
rxe0 12 rpcrdma 1 1200 480 900 3 52000
rxe0 13 ib_mad 0 0 0 0 0 0
"""
# The kernel's, cut short.
STAT = """\
cpu  5081 0 3274 2031 0 12 88 0 0 0
cpu0 2601 0 1600 1002 0 6 44 0 0 0
intr 190423 0 2514 33 0
ctxt 381204
btime 1700000000
processes 1201
procs_running 1
softirq 99120 0 41 0 0 0 0 300 0 0 98779
"""
words = st.text("ABCXYZabcxyz0189_/-", min_size=1, max_size=16)
counts = st.integers(0, 2**64 - 1)


# /proc/interrupts


def test_interrupts_by_row_and_cpu() -> None:
    rows = parse_interrupts(INTERRUPTS)
    assert rows["Rescheduling interrupts"] == (60, 78)
    assert rows["SIPI"] == (0, 500)
    assert rows["46"] == (1041, 0)
    assert "Err" not in rows  # one count for all CPUs


def test_interrupts_of_one_cpu() -> None:
    text = "           CPU0\nIPI0:         5       Rescheduling interrupts\nErr:          2\n"
    assert parse_interrupts(text) == {"Rescheduling interrupts": (5,), "Err": (2,)}


# The IPIs of kernels, each in its order (arch/arm64/kernel/smp.c).
IPIS = {
    "6.1": [
        *("Rescheduling interrupts", "Function call interrupts", "CPU stop interrupts"),
        *("CPU stop (for crash dump) interrupts", "Timer broadcast interrupts", "IRQ work interrupts"),
        "CPU wake-up interrupts",
    ],
    "6.12": [
        *("Rescheduling interrupts", "Function call interrupts", "CPU stop interrupts", "CPU stop NMIs"),
        *("Timer broadcast interrupts", "IRQ work interrupts", "CPU backtrace interrupts"),
        "KGDB roundup interrupts",
    ],
    "another": [
        *("CPU stop interrupts", "IRQ work interrupts", "Function call interrupts"),
        *("Timer broadcast interrupts", "GICv5 3 Rescheduling interrupts"),
    ],
}


@pytest.mark.parametrize("kernel", IPIS)
def test_ipis_by_what_they_are(kernel: str) -> None:
    lines = (f"IPI{n}:  {n + 10} {n + 20}       {what}\n" for n, what in enumerate(IPIS[kernel]))
    rows = parse_interrupts(f"     CPU0  CPU1\n{''.join(lines)}Err: 0\n")
    for row in IPI_ROWS:
        (number,) = (n for n, what in enumerate(IPIS[kernel]) if what.endswith(row))
        assert rows[row] == (number + 10, number + 20)


def test_device_is_never_an_ipi() -> None:
    text = "     CPU0\n 13:    1  GICv3 33 Level  Rescheduling interrupts\n"
    assert parse_interrupts(text) == {"13": (1,)}


def test_interrupts_with_numbers_in_the_description() -> None:
    text = "     CPU0  CPU1\n 13:    1     2  GICv3 33 Level  44\nMIS:    0\n"
    assert parse_interrupts(text) == {"13": (1, 2)}


@st.composite
def interrupt_tables(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, ...]]]:
    """A file with the kernel's widths, and what is in it."""
    cpus = draw(st.integers(1, 9))
    names = st.from_regex(r"[A-HJ-Z][A-Z]{2}[0-9]?|[0-9]{1,3}", fullmatch=True)
    counts = st.tuples(*[st.integers(0, 2**32 - 1)] * cpus)
    rows = draw(st.dictionaries(names, counts))
    words = st.lists(st.from_regex(r"[A-Za-z0-9:-]{1,12}", fullmatch=True), max_size=4)
    lines = ["    " + "".join(f"CPU{cpu:<8}" for cpu in range(cpus))]
    for name, row in rows.items():
        lines.append(f"{name:>4}: " + " ".join(f"{count:10}" for count in row) + "  " + " ".join(draw(words)))
    return "\n".join(lines) + "\n", rows


@given(interrupt_tables())
def test_interrupts_of_any_machine(content: tuple[str, dict[str, tuple[int, ...]]]) -> None:
    text, rows = content
    assert parse_interrupts(text) == rows


@given(st.text())
def test_any_text_below_the_cpus(text: str) -> None:
    for counts in parse_interrupts(f"   CPU0   CPU1\n{text}").values():
        assert len(counts) == 2


def test_what_is_no_number_is_no_count() -> None:
    assert parse_interrupts("   CPU0\nIPI0:   \N{SUPERSCRIPT TWO}\nIPI1:   -1\n") == {}


@pytest.mark.parametrize(
    ("header", "cpus"),
    [
        ("           CPU0       CPU1       CPU3", (0, 1, 3)),  # CPU 2 is offline
        ("      CPU10 CPU100", (10, 100)),
        ("CPU7", (7,)),
        ("", ()),
        ("IPI0: 60 78 Rescheduling interrupts", ()),
        ("CPU CPUx xCPU1 CPU1x cpu1", ()),
    ],
)
def test_cpus_of_the_columns(header: str, cpus: tuple[int, ...]) -> None:
    assert interrupt_cpus(f"{header}\n 13:  1  2  CPU5\n") == cpus
    assert interrupt_cpus(header) == cpus


def test_counts_without_a_header_are_of_no_cpu() -> None:
    text = INTERRUPTS.partition("\n")[2]
    assert interrupt_cpus(text) == ()
    assert not any(parse_interrupts(text).values())
    assert parse_interrupts("") == {}


@given(st.text())
def test_any_text_with_another_header(text: str) -> None:
    for counts in parse_interrupts(text).values():
        assert len(counts) == len(interrupt_cpus(text))


# Processor time


@pytest.mark.parametrize("more", ["", " 7", " 7 8", " 7 8 9", " x"])
def test_times_of_kernels_with_more_columns(more: str) -> None:
    """Guests' time, columns 9 and 10, is in user's and nice's already (proc(5))."""
    text = f"cpu  9 9 9 9 9 9 9 9{more}\ncpu3 1 20 300 4000 50000 600000 7000000 80000000{more}\n"
    assert parse_cpu_times(text) == {3: CpuTimes(busy=7600321, idle=54000, steal=80000000)}
    assert parse_cpu_times(text)[3].total == 87654321


@pytest.mark.parametrize(
    "line",
    [
        *("cpu1", "cpu1 ", "cpu1 1 2 3 4", "cpu1 1 2 3 4 5 6 7", "cpu1 1 2 3 -4 5 6 7 8"),
        *("cpu1  1 2 3 4 5 6 7 8", "cpux 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 8", "xcpu1 1 2 3 4 5 6 7 8"),
        "cpu1 1 2 3 4 5 6 7 8x",
    ],
)
def test_line_that_is_no_cpus_time_does_not_count(line: str) -> None:
    text = f"cpu0 1 0 0 1 0 0 0 0 0 0\n{line}\ncpu2 2 0 0 2 0 0 0 1 0 0\n"
    assert parse_cpu_times(text) == {0: CpuTimes(1, 1, 0), 2: CpuTimes(2, 2, 1)}


@given(st.dictionaries(st.integers(0, 8191), st.tuples(*[counts] * 10)))
def test_times_of_any_machine(times: dict[int, tuple[int, ...]]) -> None:
    text = "".join(f"cpu{cpu} {' '.join(map(str, one))}\n" for cpu, one in times.items())
    found = parse_cpu_times(f"cpu  0 0 0 0 0 0 0 0 0 0\n{text}intr 1 2\n")
    assert found.keys() == times.keys()
    for cpu, one in times.items():
        assert found[cpu].total == sum(one[:8])
        assert (found[cpu].idle, found[cpu].steal) == (one[3] + one[4], one[7])


@given(st.text())
def test_any_text_for_times(text: str) -> None:
    assert parse_cpu_times(f"cpu0 {text}").keys() <= {0}
    assert all(one.total >= 0 for one in parse_cpu_times(text).values())


# Tables


def test_table_by_the_names_of_its_header() -> None:
    found = parse_table(CQS)
    assert [line["owner"] for line in found] == ["rpcrdma", "ib_mad"]
    assert found[0]["max_batch"] == "3"
    assert found[1].keys() == set(CQS.splitlines()[0].split())


def test_table_without_lines() -> None:
    assert parse_table("device cq owner\n") == []


@pytest.mark.parametrize("line", ["rxe0 12", "rxe0 12 rpcrdma 1"])
def test_table_with_another_number_of_columns_is_not_guessed_at(line: str) -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        parse_table(f"device cq owner\n{line}\n")


@given(
    st.lists(words, min_size=1, max_size=9, unique=True).flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.tuples(*[words] * len(names)), max_size=5))
    )
)
def test_table_of_any_columns(content: tuple[list[str], list[tuple[str, ...]]]) -> None:
    names, lines = content
    text = "".join("  ".join(line) + "\n" for line in (names, *lines))
    assert parse_table(text) == [dict(zip(names, line, strict=True)) for line in lines]


# Tables of any kernel


def test_counts_by_the_names_of_the_header() -> None:
    found = parse_counts(CQS)
    assert found[0] == {
        **{"cq": 12, "polled": 1, "polls": 1200, "completions": 480, "empty": 900, "max_batch": 3},
        "ns": 52000,
    }
    assert found[1]["cq"] == 13


@pytest.mark.parametrize("text", ["", "\n", " \n", "vcpu entries\n", "vcpu entries"])
def test_no_counts(text: str) -> None:
    assert parse_counts(text) == []


@pytest.mark.parametrize("line", ["", "5", "5 6 7", "5 6 7 8"])
def test_line_that_does_not_fit_the_header_is_left_out(line: str) -> None:
    assert parse_counts(f"vcpu entries\n0 10\n{line}\n1 20\n") == [
        {"vcpu": 0, "entries": 10},
        {"vcpu": 1, "entries": 20},
    ]


@pytest.mark.parametrize("word", ["-", "-1", "1.5", "0x10", "n/a", "\N{SUPERSCRIPT TWO}"])
def test_what_is_no_number_is_left_out(word: str) -> None:
    assert parse_counts(f"vcpu entries exits\n0 {word} 3\n") == [{"vcpu": 0, "exits": 3}]


@given(
    st.lists(words, min_size=1, max_size=9, unique=True).flatmap(
        lambda names: st.tuples(st.just(names), st.lists(st.tuples(*[counts] * len(names)), max_size=5))
    )
)
def test_counts_of_any_columns(content: tuple[list[str], list[tuple[int, ...]]]) -> None:
    names, lines = content
    text = "".join(" ".join(map(str, line)) + "\n" for line in (names, *lines))
    assert parse_counts(text) == [dict(zip(names, line, strict=True)) for line in lines]


@given(st.text())
def test_any_text_for_counts(text: str) -> None:
    assert all(value >= 0 for row in parse_counts(text) for value in row.values())


# Values by name


def test_values_by_name() -> None:
    assert parse_named("posted_send 40\nlost 0\nmax_ns 123456\n") == {
        **{"posted_send": 40, "lost": 0, "max_ns": 123456}
    }


def test_values_of_the_kernels_statistics() -> None:
    found = parse_named(STAT)
    assert (found["intr"], found["ctxt"], found["softirq"]) == (190423, 381204, 99120)


@pytest.mark.parametrize(
    "line", ["", " ", "name", "name -1", "name x 1", "name 1.5", "name \N{SUPERSCRIPT TWO}"]
)
def test_line_without_a_number_does_not_count(line: str) -> None:
    assert parse_named(f"one 1\n{line}\nother 2\n") == {"one": 1, "other": 2}


@given(st.dictionaries(words, st.integers(0, 2**64 - 1)), st.lists(words))
def test_any_values(values: dict[str, int], more: list[str]) -> None:
    text = "".join(f"{name} {value} {' '.join(more)}\n" for name, value in values.items())
    assert parse_named(text) == values


@given(st.text())
def test_any_text_for_values(text: str) -> None:
    assert all(value >= 0 for value in parse_named(text).values())


@pytest.mark.parametrize("word", ["9" * 21, "9" * 5000, "\u0663", "-1", "x", ""])
def test_word_that_no_kernel_counts_to_is_no_count(word: str) -> None:
    """Python refuses to read one of thousands of digits."""
    assert not is_count(word)
    assert parse_named(f"ctxt {word}\nprocesses 7\n") == {"processes": 7}
