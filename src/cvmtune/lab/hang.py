# SPDX-License-Identifier: Apache-2.0
"""What a machine that hangs was doing: kept beside its consoles, for whoever has to find out why."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System

REGISTERS = "registers"
HOSTS_VIEW = "host.view"

# For the emulator to answer, seconds. It answers while its machine hangs.
_PATIENCE = 10.0
# Between two looks, of which the second tells what is stuck from what goes round, seconds.
_BETWEEN = 1.0
_VIEW = """\
grep -s . /sys/kernel/debug/kvm/*-*/*
cat /proc/interrupts
for thread in /proc/$(cat /run/cvmtune/guest.pid)/task/*; do cat $thread/comm $thread/stat $thread/stack; done
dmesg | tail -n 50
"""


def monitor_argv(chardev: str) -> list[str]:
    """Return QEMU's options for a monitor (QMP) behind this chardev, as specified without its id."""
    return ["-chardev", f"{chardev},id=monitor", "-mon", "chardev=monitor,mode=control"]


def keep(directory: Path, monitor: socket.socket, host: System | None) -> None:
    """Keep where the emulated CPUs are, twice, and what a host sees of its guest: what either answers."""
    with suppress(OSError, ValueError), (directory / REGISTERS).open("w") as file:
        for text in _registers(monitor):
            file.write(text)
    if host:
        # It may be the one that hangs, or be lost with its guest.
        with suppress(CvmtuneError, OSError):
            (directory / HOSTS_VIEW).write_text(host.run(["sh", "-c", _VIEW], timeout=_PATIENCE).stdout)


def _registers(monitor: socket.socket) -> Iterator[str]:
    """All CPUs' registers, at two times."""
    monitor.settimeout(_PATIENCE)
    with monitor.makefile("rw", encoding="utf-8", newline="\n") as lines:
        lines.readline()  # the greeting

        def execute(command: Mapping[str, object]) -> object:
            lines.write(json.dumps(command) + "\n")
            lines.flush()
            # Events may come between.
            while "return" not in (answer := json.loads(lines.readline())):
                pass
            return answer["return"]

        execute({"execute": "qmp_capabilities"})
        look = {"execute": "human-monitor-command", "arguments": {"command-line": "info registers -a"}}
        yield str(execute(look))
        time.sleep(_BETWEEN)
        yield str(execute(look))
