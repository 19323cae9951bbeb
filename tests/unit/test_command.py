# SPDX-License-Identifier: Apache-2.0
import os
import shlex
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.core.command import Completed, format_command, run
from cvmtune.core.errors import CvmtuneError

PROMPT = 10.0  # seconds in which a test's short command must have ended, on a busy machine too


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@given(st.lists(st.text(), min_size=1))
def test_format_command_survives_a_shell(argv: list[str]) -> None:
    assert shlex.split(format_command(argv)) == argv


def test_captures_streams_apart() -> None:
    done = run(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (done.status, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert 0 < done.seconds < PROMPT
    assert done.check() is done


def test_status_is_returned_not_raised() -> None:
    assert run(["sh", "-c", "exit 7"]).status == 7


def test_input_is_fed() -> None:
    assert run(["cat"], input="ä\n").stdout == "ä\n"


def test_without_input_the_command_reads_end_of_file() -> None:
    reader, writer = os.pipe()  # a terminal at which nobody types
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert run(["cat"], timeout=PROMPT).stdout == ""
    finally:
        os.dup2(saved, 0)
        for descriptor in (saved, reader, writer):
            os.close(descriptor)


def test_output_that_is_not_utf8_is_kept_readable() -> None:
    assert run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_cwd_and_env(tmp_path: Path) -> None:
    done = run(["sh", "-c", 'pwd; echo "$COLOUR"'], cwd=tmp_path, env={**os.environ, "COLOUR": "red"})
    assert done.stdout == f"{tmp_path.resolve()}\nred\n"


def test_arguments_are_not_seen_by_a_shell() -> None:
    assert run(["printf", "%s", "$(id); *"]).stdout == "$(id); *"


def test_missing_program_is_named() -> None:
    with pytest.raises(CvmtuneError, match="cannot start no-such-program --fast: No such file"):
        run(["no-such-program", "--fast"])


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CvmtuneError, match="cannot start true") as caught:
        run(["true"], cwd=tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere")


def test_timeout_names_the_command() -> None:
    with pytest.raises(CvmtuneError, match=r"sleep 60 did not end within 0\.2 s"):
        run(["sleep", "60"], timeout=0.2)


def test_timeout_reaches_grandchildren_that_hold_the_pipes(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CvmtuneError, match="did not end"):
        run(["sh", "-c", "sleep 60 & sleep 60"], timeout=0.2)
    assert time.monotonic() - began < PROMPT


def test_timeout_without_capture_is_kept_too() -> None:
    began = time.monotonic()
    with pytest.raises(CvmtuneError, match="did not end"):
        run(["sleep", "60"], timeout=0.2, capture=False)
    assert time.monotonic() - began < PROMPT


def test_without_capture_the_terminal_gets_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"], capture=False)
    assert (done.stdout, done.stderr) == ("", "")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_log_takes_both_streams_after_the_command(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("before\n")
    done = run(["sh", "-c", "echo out; echo err >&2; echo out again"], log=log)
    assert (done.stdout, done.stderr) == ("out\nerr\nout again\n", "")
    assert log.read_text() == "before\n$ " + format_command(done.argv) + "\n" + done.stdout


def test_log_without_capture_returns_no_output(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    assert run(["echo", "out"], log=log, capture=False).stdout == ""
    assert log.read_text() == "$ echo out\nout\n"


def test_log_keeps_what_came_before_a_timeout(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with pytest.raises(CvmtuneError) as caught:
        run(["sh", "-c", "echo started; sleep 60"], log=log, timeout=1.0)
    assert caught.value.where == str(log)
    assert log.read_text().endswith("started\n")


def test_check_tells_status_and_last_lines() -> None:
    lines = "".join(f"line {n}\n" for n in range(50))
    with pytest.raises(CvmtuneError, match="make all ended with status 2") as caught:
        Completed(("make", "all"), 2, "ignored\n", lines, 1.0).check()
    assert "line 49" in caught.value.what
    assert "line 39" not in caught.value.what


def test_check_falls_back_to_stdout() -> None:
    with pytest.raises(CvmtuneError, match="said on stdout"):
        Completed(("make",), 2, "said on stdout\n", "", 1.0).check()


def test_check_tells_the_signal() -> None:
    with pytest.raises(CvmtuneError, match="died of signal 9"):
        run(["sh", "-c", "kill -9 $$"]).check()
