# SPDX-License-Identifier: Apache-2.0
"""KVM's selftests: which files are programs, what their exit status says, and what is a regression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cvmtune.core.system import Completed
from cvmtune.lab import kernel_selftests
from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import Toolchain
from cvmtune.lab.kernel_source import SourceTree
from tests.vm.kvm_selftests_host import (
    FAIL,
    LEFT_OUT,
    LIMIT,
    OPTIONS,
    PASS,
    SHORT,
    SKIP,
    TIMEOUT,
    Outcome,
    outcome_of,
    regressions,
    run,
    table,
)


def test_programs_are_what_can_be_run(tmp_path: Path) -> None:
    for name in ("steal_time", "steal_time.o", "aarch64/psci_test", "aarch64/psci_test.d", "lib/elf.o"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o644 if path.suffix else 0o755)
    (tmp_path / "list").touch(0o644)
    assert kernel_selftests.programs(tmp_path) == ["aarch64/psci_test", "steal_time"]


def test_nothing_is_built_into_the_source(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    output = tmp_path / "output"
    toolchain = Toolchain("aarch64-linux-gnu-")
    headers, tests = kernel_selftests.commands(
        kernel_selftests.KVM, toolchain, SourceTree(cache), output, cache
    )
    assert headers[-1] == "headers"
    assert f"O={output}" in headers
    for argument in (
        f"OUTPUT={output}/kvm",
        f"abs_objdir={output}",
        f"KHDR_INCLUDES=-isystem {output}/usr/include",
        "EXTRA_CFLAGS=-static -s",
    ):
        assert argument in tests


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (0, PASS),
        (4, SKIP),
        (1, FAIL),
        (254, FAIL),
        (-11, FAIL),
        (124, TIMEOUT),
        (137, TIMEOUT),
        (-9, TIMEOUT),
    ],
)
def test_exit_status_is_read_as_kselftest_does(status: int, result: str) -> None:
    assert outcome_of(Completed(("x",), status, "", "", 1.5)).result == result


def test_a_failure_tells_its_last_word() -> None:
    out = "Random seed: 0x6b8b4567\n"
    err = """\
==== Test Assertion Failure ====
  x.c:12: r == 0
  pid=1 tid=1 errno=4 - Interrupted system call
     1\t0x0000000000401b2c: ?? ??:0
     2\t(inlined by) main at x.c:12
  KVM_RUN failed, rc: -1
"""
    assert outcome_of(Completed(("x",), 254, out, err, 1.0)).why == "KVM_RUN failed, rc: -1"
    assert outcome_of(Completed(("x",), 142, out, "", 1.0)).why == "ended by SIGALRM"
    assert outcome_of(Completed(("x",), 3, "\n", "", 1.0)).why == "status 3"
    assert outcome_of(Completed(("x",), 0, out, "", 1.0)).why == ""


class Host:
    """Keeps each command and answers it with one of these statuses, then with 0."""

    def __init__(self, *statuses: int) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.statuses = list(statuses)

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        assert timeout > LIMIT
        self.commands.append(tuple(argv))
        return Completed(tuple(argv), self.statuses.pop(0) if self.statuses else 0, "", "", 2.0)

    def read_text(self, path: str) -> str:
        raise NotImplementedError

    def write_text(self, path: str, text: str) -> None:
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        raise NotImplementedError


def test_each_has_a_limit_and_its_options() -> None:
    host = Host()
    outcomes = run(host, ["steal_time", "dirty_log_test"])
    assert outcomes == {name: Outcome(PASS, 2.0) for name in ("steal_time", "dirty_log_test")}
    plain, small = host.commands
    assert plain[0] == small[0] == "timeout"
    assert plain[2:] == (str(LIMIT), "/opt/cvmtune/kvm/steal_time")
    assert small[3:] == ("/opt/cvmtune/kvm/dirty_log_test", *OPTIONS["dirty_log_test"])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((254, 0), "pass 2.0 s (try 2)"),
        ((254, 124, 1), "fail 2.0 s (try 3)"),
        ((254, 1, 124), "timeout 2.0 s (try 3)"),
        ((4, 0), "skip 2.0 s"),
    ],
)
def test_what_fails_is_tried_again(statuses: tuple[int, ...], expected: str) -> None:
    assert str(run(Host(*statuses), ["steal_time"])["steal_time"]) == expected


def test_what_is_left_out_is_not_run() -> None:
    assert not {*LEFT_OUT} & {*OPTIONS, *SHORT}
    assert all(LEFT_OUT.values())


def test_a_regression_passed_before() -> None:
    passed, skipped, failed = Outcome(PASS, 1.0), Outcome(SKIP, 1.0), Outcome(FAIL, 1.0, "why")
    before = {"a": passed, "b": passed, "c": passed, "d": skipped, "e": failed, "f": passed}
    after = {"a": passed, "b": skipped, "c": failed, "d": failed, "e": passed, "g": failed}
    assert regressions(before, after) == ["b: skip 1.0 s", "c: fail 1.0 s", "f: not run"]


def test_the_table_has_a_row_for_each() -> None:
    before = {"b": Outcome(FAIL, 1.0, "a | b"), "c": Outcome(PASS, 0.25)}
    after = {"b": Outcome(FAIL, 2.0, "a | b"), "a": Outcome(SKIP, 0.0, "- no")}
    assert table(before, after)[2:] == [
        "| `a` | not run | skip 0.0 s | - no |",
        "| `b` | fail 1.0 s | fail 2.0 s | a \\| b |",
        "| `c` | pass 0.2 s | not run |  |",
    ]
