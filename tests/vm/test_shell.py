# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab shell` and `lab run`, as a user at a terminal has them."""

from __future__ import annotations

import subprocess
import sys
import time

import pexpect
import pytest

from cvmtune.lab.lab import Lab

CVMTUNE = [sys.executable, "-m", "cvmtune"]


@pytest.mark.parametrize(("machine", "where"), [("plain", "guest"), ("cvm", "guest"), ("cvm", "host")])
def test_a_shell_is_interactive(lab: Lab, machine: str, where: str) -> None:
    lab.build("default", host=True)
    shell = pexpect.spawn(
        CVMTUNE[0],
        [*CVMTUNE[1:], "lab", "shell", "--machine", machine, "--in", where],
        timeout=90,
        dimensions=(33, 99),
        encoding="utf-8",
    )
    shell.expect("a shell in the")
    shell.sendline("echo ${HOSTNAME}-$(stty size | tr ' ' x)")
    shell.expect(f"{where}-33x99")
    # Job control: Ctrl-C ends the command, not the shell.
    shell.sendline("sleep 1000")
    time.sleep(1)
    shell.sendcontrol("c")
    shell.expect("\\^C.*# ")
    shell.sendline("echo still-$((40 + 2))")
    shell.expect("still-42")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_the_shell_is_left_by_its_key(lab: Lab) -> None:
    lab.build("default", host=False)
    shell = pexpect.spawn(CVMTUNE[0], [*CVMTUNE[1:], "lab", "shell", "--machine", "plain"], timeout=60)
    shell.expect("a shell in the guest")
    shell.sendcontrol("]")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_run_passes_on_output_and_status(lab: Lab) -> None:
    lab.build("default", host=False)
    script = "echo out; echo err >&2; exit 42"
    argv = [*CVMTUNE, "lab", "run", "--machine", "plain", "--", "sh", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (42, "out\n")
    assert done.stderr.endswith("err\n")
