# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab shell` and `lab run`, as a user at a terminal has them."""

from __future__ import annotations

import subprocess
import sys

import pexpect
import pytest

from cvmtune.lab.lab import Lab

CVMTUNE = [sys.executable, "-m", "cvmtune"]
# For a boot, and for all that a shell says.
PATIENCE = 600


@pytest.mark.parametrize(
    ("machine", "where", "leave"),
    [
        ("plain", "guest", "by its key"),
        ("cvm", "guest", "by exit"),
        pytest.param("cvm", "host", "by exit", marks=(pytest.mark.stress, pytest.mark.long)),
    ],
)
def test_a_shell_is_interactive(lab: Lab, machine: str, where: str, leave: str) -> None:
    lab.build("default", host=machine != "plain")
    shell = pexpect.spawn(
        CVMTUNE[0],
        [*CVMTUNE[1:], "lab", "shell", "--machine", machine, "--in", where],
        timeout=PATIENCE,
        dimensions=(33, 99),
        encoding="utf-8",
    )
    # All that it says, for who has to find out what went wrong.
    shell.logfile_read = sys.stdout
    shell.expect("a shell in the")
    shell.sendline("echo ${HOSTNAME}-$(stty size | tr ' ' x)")
    shell.expect(f"{where}-33x99")
    # Job control: Ctrl-C ends the command, not the shell. It is the command that says it has begun: by then
    # the terminal is its own. (A Ctrl-C that comes while bash hands the terminal over may end bash.) What it
    # says is not what was typed.
    shell.sendline("sh -c 'echo begun-$((40 + 1)); exec sleep 1000'")
    shell.expect("begun-41")
    # For the prompt alone: the signal may flush the terminal's own "^C".
    shell.sendcontrol("c")
    shell.expect("# ")
    shell.sendline("echo still-$((40 + 2))")
    shell.expect("still-42")
    if leave == "by exit":
        shell.sendline("exit")
    else:
        shell.sendcontrol("]")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_run_passes_on_output_and_status(lab: Lab) -> None:
    lab.build("default", host=False)
    script = "echo out; echo err >&2; exit 42"
    argv = [*CVMTUNE, "lab", "run", "--machine", "plain", "--", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (42, "out\n")
    assert done.stderr.endswith("err\n")
