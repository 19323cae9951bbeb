# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.cpumask import MAX_CPUS, CpuMask

cpu_sets = st.frozensets(st.integers(0, 300)) | st.frozensets(st.integers(0, MAX_CPUS - 1), max_size=20)
masks = st.builds(CpuMask, cpu_sets)


def mask(*cpus: int) -> CpuMask:
    return CpuMask(frozenset(cpus))


def kernel_hex(cpus: frozenset[int], width: int) -> str:
    """What %*pb prints for a bitmap of `width` bits: every group, each padded to the bits it stands for."""
    groups = []
    for low in range(0, width, 32):
        bits = min(32, width - low)
        value = sum(1 << (cpu - low) for cpu in cpus if low <= cpu < low + bits)
        groups.append(f"{value:0{(bits + 3) // 4}x}")
    return ",".join(reversed(groups))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", []),
        ("00", []),
        ("00000000,00000000", []),
        ("3", [0, 1]),
        ("f", [0, 1, 2, 3]),
        ("F", [0, 1, 2, 3]),
        ("0c", [2, 3]),
        ("c\n", [2, 3]),
        (" c\t\n", [2, 3]),
        ("80000000", [31]),
        ("00000001,00000000", [32]),
        ("1,00000000", [32]),
        ("1,0", [32]),  # a short group still stands for 32 CPUs
        ("1,2", [1, 32]),
        ("ffffffff,ffffffff", list(range(64))),
        ("1,00000000,80000001", [0, 31, 64]),
        ("aAbB", [0, 1, 3, 4, 5, 7, 9, 11, 13, 15]),
    ],
)
def test_from_hex(text: str, cpus: list[int]) -> None:
    assert list(CpuMask.from_hex(text)) == cpus


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "group 1"),
        (" ", "group 1"),
        ("\n", "group 1"),
        (",", "group 1"),
        ("0x", "'0x'"),
        ("0x3", "'0x3'"),
        ("x3", "'x3'"),
        ("1,,5", "group 2"),
        (",5", "group 1"),
        ("5,", "group 2"),
        ("g", "'g'"),
        ("-1", "'-1'"),
        ("+1", "'+1'"),
        ("1_0", "'1_0'"),
        ("123456789", "'123456789'"),
        ("000000001", "'000000001'"),
        ("1,123456789", "group 2"),
        ("1 2", "'1 2'"),
        ("1, 2", "group 2"),
        ("1\n2", "group 1"),
        ("3\x00", "group 1"),
        ("\N{FULLWIDTH DIGIT THREE}", "group 1"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "group 1"),
        ("\N{NO-BREAK SPACE}3", "group 1"),
        ("2-3", "'2-3'"),
    ],
)
def test_from_hex_refuses(text: str, culprit: str) -> None:
    with pytest.raises(ValueError, match="no hex CPU mask") as caught:
        CpuMask.from_hex(text)
    assert culprit in str(caught.value)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        # A bare word is a mask.
        ("0", []),
        ("3", [0, 1]),
        ("10", [4]),
        ("c", [2, 3]),
        ("C\n", [2, 3]),
        ("00000003", [0, 1]),
        # So is what has 8 digits in every group after the first.
        ("1,00000000", [32]),
        ("00000001,00000000", [32]),
        ("1,00000000,80000001", [0, 31, 64]),
        # And whatever has 0x in front, whether or not its groups are full.
        ("0xc", [2, 3]),
        (" 0xC\n", [2, 3]),
        ("0x00000003", [0, 1]),
        ("0x1,00000000", [32]),
        ("0x1,0", [32]),
        ("0x2,6", [1, 2, 33]),
        # The rest are lists.
        ("2,6", [2, 6]),
        ("2,00000006,7", [2, 6, 7]),
        ("2-3", [2, 3]),
        ("2-3,6\n", [2, 3, 6]),
        ("3-3", [3]),
        ("1,10-10", [1, 10]),
        ("0-31,00000032", list(range(33))),  # as long as a group, but there is a range
    ],
)
def test_parse(text: str, cpus: list[int]) -> None:
    assert list(CpuMask.parse(text)) == cpus


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("", "no hex CPU mask"),
        (" \n", "no hex CPU mask"),
        ("none", "'none'"),
        ("0x", "'0x'"),
        ("0X3", "'0X3'"),
        ("0x 3", "'0x 3'"),
        ("0x0x3", "'0x3'"),
        ("x3", "'x3'"),
        ("1,0x00000003", "'0x00000003'"),
        ("0x1,0x00000003", "'0x00000003'"),
        ("0x2-3", "'2-3'"),
        ("0x123456789", "'123456789'"),
        ("123456789", "'123456789'"),
        ("c,0", "'c'"),
        ("2-c", "'2-c'"),
        ("c-d", "'c-d'"),
        ("-1", "'-1'"),
        ("3-2", "backwards"),
        ("1,2,", "item 3"),
        ("1,,2", "item 2"),
        ("1, 2", "item 2"),
        ("1 2", "'1 2'"),
        ("1,0000000g", "'0000000g'"),
        (f"{MAX_CPUS}-{MAX_CPUS}", "past"),
        (f"0,{MAX_CPUS}", "past"),
        ("1" + ",00000000" * (MAX_CPUS // 32), str(MAX_CPUS)),
        ("\N{ARABIC-INDIC DIGIT THREE}", "group 1"),
    ],
)
def test_parse_refuses(text: str, culprit: str) -> None:
    with pytest.raises(ValueError, match=r"give a hex mask such as .*, or a list such as") as caught:
        CpuMask.parse(text)
    assert culprit in str(caught.value)


@given(masks)
def test_parse_reads_what_to_hex_prints(one: CpuMask) -> None:
    assert CpuMask.parse(one.to_hex()) == one
    assert CpuMask.parse(f"0x{one.to_hex()}") == one
    assert CpuMask.parse(one.to_hex().upper() + "\n") == one


@given(masks.filter(lambda one: len(one) > 1))
def test_parse_reads_what_to_list_prints(one: CpuMask) -> None:
    assert CpuMask.parse(one.to_list()) == one


@given(st.integers(0, MAX_CPUS - 1))
def test_parse_takes_a_list_of_one_cpu_for_a_mask(cpu: int) -> None:
    assert CpuMask.parse(mask(cpu).to_list()) == CpuMask.from_hex(str(cpu))
    assert CpuMask.parse(f"{cpu}-{cpu}") == mask(cpu)


@given(cpu_sets, st.integers(0, 100))
def test_parse_reads_what_a_kernel_of_any_width_prints(cpus: frozenset[int], spare: int) -> None:
    width = max(cpus, default=0) + 1 + spare
    assert CpuMask.parse(kernel_hex(cpus, width) + "\n").cpus == cpus


@given(st.text(alphabet="0123456789abcdefABCDEFxg,- \n_", max_size=24))
def test_parse_gives_what_one_of_the_forms_says_or_value_error(text: str) -> None:
    try:
        one = CpuMask.parse(text)
    except ValueError:
        return
    stripped = text.strip()
    if "-" in stripped:
        assert one == CpuMask.from_list(stripped)
    elif re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}(,[0-9a-fA-F]{8})*", stripped):
        assert one == CpuMask.from_hex(stripped.removeprefix("0x"))
    else:
        form = CpuMask.from_hex if stripped.startswith("0x") else CpuMask.from_list
        assert one == form(stripped.removeprefix("0x"))


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([], "0 = none"), ([0], "1 = 0"), ([2, 3], "c = 2-3"), ([0, 32], "1,00000001 = 0,32")],
)
def test_both_forms(cpus: list[int], text: str) -> None:
    assert mask(*cpus).both_forms() == text


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        ([], "0"),
        ([0], "1"),
        ([0, 1], "3"),
        ([31], "80000000"),
        ([32], "1,00000000"),
        ([64], "1,00000000,00000000"),
        (range(64), "ffffffff,ffffffff"),
        ([0, 36], "10,00000001"),
    ],
)
def test_to_hex(cpus: list[int], text: str) -> None:
    assert mask(*cpus).to_hex() == text


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        ("\n", []),
        ("0\n", [0]),
        ("0-3\n", [0, 1, 2, 3]),
        ("2-3,6", [2, 3, 6]),
        ("6,2-3", [2, 3, 6]),
        ("1-2,2-3", [1, 2, 3]),
        ("5-5", [5]),
        (f"{MAX_CPUS - 1}", [MAX_CPUS - 1]),
    ],
)
def test_from_list(text: str, cpus: list[int]) -> None:
    assert list(CpuMask.from_list(text)) == cpus


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        (",", "item 1"),
        ("1,", "item 2"),
        ("1,,2", "item 2"),
        ("-1", "'-1'"),
        ("1-", "'1-'"),
        ("3-2", "backwards"),
        ("1-2-3", "'1-2-3'"),
        ("0xf", "'0xf'"),
        ("f", "'f'"),
        ("1 2", "'1 2'"),
        ("1, 2", "item 2"),
        ("N", "'N'"),
        ("all", "'all'"),
        ("0-8:2/4", "'0-8:2/4'"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "item 1"),
        (f"{MAX_CPUS}", "past"),
        ("0-4000000000", "past"),
    ],
)
def test_from_list_refuses(text: str, culprit: str) -> None:
    with pytest.raises(ValueError, match="no CPU list") as caught:
        CpuMask.from_list(text)
    assert culprit in str(caught.value)


@pytest.mark.parametrize("cpu", [-1, MAX_CPUS])
def test_cpu_numbers_are_bounded(cpu: int) -> None:
    with pytest.raises(ValueError, match=str(cpu)):
        mask(cpu)


def test_from_hex_is_bounded() -> None:
    with pytest.raises(ValueError, match=str(MAX_CPUS)):
        CpuMask.from_hex("1" + ",0" * (MAX_CPUS // 32))


@given(masks)
def test_hex_round_trip(one: CpuMask) -> None:
    assert CpuMask.from_hex(one.to_hex()) == one
    assert CpuMask.from_hex(one.to_hex().upper() + "\n") == one


@given(masks)
def test_list_round_trip(one: CpuMask) -> None:
    assert CpuMask.from_list(one.to_list()) == one


@given(cpu_sets, st.integers(0, 100))
def test_reads_what_a_kernel_of_any_width_prints(cpus: frozenset[int], spare: int) -> None:
    width = max(cpus, default=0) + 1 + spare
    assert CpuMask.from_hex(kernel_hex(cpus, width) + "\n").cpus == cpus


@given(cpu_sets)
def test_prints_as_the_kernel_at_the_least_width(cpus: frozenset[int]) -> None:
    assert CpuMask(cpus).to_hex() == kernel_hex(cpus, max(cpus, default=0) + 1)


@given(st.text(alphabet="0123456789abcdefABCDEFxg,- \n_", max_size=24))
def test_from_hex_gives_a_mask_or_value_error(text: str) -> None:
    try:
        one = CpuMask.from_hex(text)
    except ValueError:
        return
    assert CpuMask.from_hex(one.to_hex()) == one


@given(cpu_sets, cpu_sets)
def test_algebra_is_that_of_sets(a: frozenset[int], b: frozenset[int]) -> None:
    assert (CpuMask(a) | CpuMask(b)).cpus == a | b
    assert (CpuMask(a) & CpuMask(b)).cpus == a & b
    assert (CpuMask(a) - CpuMask(b)).cpus == a - b
    assert (CpuMask(a) <= CpuMask(b)) == (a <= b)
    assert CpuMask(a) & CpuMask(b) <= CpuMask(a) <= CpuMask(a) | CpuMask(b)


@given(cpu_sets)
def test_container_protocol(cpus: frozenset[int]) -> None:
    one = CpuMask(cpus)
    assert list(one) == sorted(cpus)
    assert len(one) == len(cpus)
    assert bool(one) == bool(cpus)
    assert all(cpu in one for cpu in cpus)
    assert MAX_CPUS not in one


def test_equal_sets_are_equal_and_hash_alike() -> None:
    assert CpuMask.from_hex("0000000c") == CpuMask.from_list("2-3")
    assert len({CpuMask.from_hex("c"), CpuMask.from_hex("0,0000000c")}) == 1
