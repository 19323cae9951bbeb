# SPDX-License-Identifier: Apache-2.0
"""How busy the computer is, by what the scheduler counts of the emulator's threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvmtune.experiments.emulator import CpuTime, waited_share


def threads(proc: Path, counted: dict[int, tuple[int, int]]) -> None:
    for number, (ran, waited) in counted.items():
        thread = proc / "7" / "task" / str(number)
        thread.mkdir(parents=True, exist_ok=True)
        (thread / "schedstat").write_text(f"{ran} {waited} 12\n")


def test_share_is_of_the_time_in_which_threads_wanted_to_run(tmp_path: Path) -> None:
    threads(tmp_path, {7: (1000, 1000), 8: (500, 0)})
    before = CpuTime.of(7, tmp_path)
    threads(tmp_path, {7: (1300, 1100), 9: (200, 400)})
    (tmp_path / "7/task/8/schedstat").unlink()  # it has ended
    assert waited_share(before, CpuTime.of(7, tmp_path)) == pytest.approx(500 / 1000)


@pytest.mark.parametrize("missing", ["process", "files", "counts"])
def test_what_is_not_counted_is_unknown_and_not_zero(tmp_path: Path, missing: str) -> None:
    if missing == "files":
        (tmp_path / "7" / "task" / "7").mkdir(parents=True)
    elif missing == "counts":
        threads(tmp_path, {7: (0, 0)})
    assert CpuTime.of(7, tmp_path) is None
    assert waited_share(None, CpuTime.of(7, tmp_path)) is None


def test_no_emulator_is_unknown() -> None:
    assert CpuTime.of(None) is None


def test_a_process_that_wanted_nothing_is_unknown(tmp_path: Path) -> None:
    threads(tmp_path, {7: (1000, 1000)})
    same = CpuTime.of(7, tmp_path)
    assert waited_share(same, same) is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
def test_this_process_is_counted() -> None:
    before = CpuTime.of(os.getpid())
    sum(range(1_000_000))
    share = waited_share(before, CpuTime.of(os.getpid()))
    assert share is not None
    assert 0 <= share < 1


def test_what_a_host_takes_of_the_computer_counts_as_waiting(tmp_path: Path) -> None:
    threads(tmp_path, {7: (0, 0), 8: (1, 0)})
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 100 0 0\ncpu0 1 2 3\n")
    before = CpuTime.of(7, tmp_path)
    threads(tmp_path, {7: (3_000_000_000, 1_000_000_000)})
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 200 0 0\n")
    assert waited_share(before, CpuTime.of(7, tmp_path)) == pytest.approx(2 / 4)
