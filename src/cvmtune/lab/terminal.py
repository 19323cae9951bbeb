# SPDX-License-Identifier: Apache-2.0
"""The user's terminal, joined to a console of a machine of the lab."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty

from cvmtune.core.errors import UsageError
from cvmtune.lab.specs import Terminal

LEAVE = b"\x1d"  # Ctrl-]
_CHUNK = 1 << 16


def this_terminal(where: str) -> Terminal:
    """Return the form of the terminal that we run on, for a shell in `where`; UsageError if there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("a shell needs a terminal", next_step="use `cvmtune lab run` in scripts")
    size = os.get_terminal_size(sys.stdout.fileno())
    return Terminal(where, size.lines, size.columns, os.environ.get("TERM", "vt100"))


def join(console: socket.socket) -> None:
    """Pass bytes both ways until the console ends or the user types Ctrl-]."""
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(stdin)
    console.setblocking(True)
    # What was typed while the machine booted is kept, the key to leave among it.
    tty.setraw(stdin, termios.TCSADRAIN)
    try:
        while True:
            ready, _, _ = select.select([stdin, console], [], [])
            if console in ready:
                data = console.recv(_CHUNK)
                if not data:
                    return
                os.write(stdout, data)
            if stdin in ready:
                typed = os.read(stdin, _CHUNK)
                if not typed or LEAVE in typed:
                    return
                console.sendall(typed)
    except ConnectionError:
        # The machine ended before it had taken all that was typed.
        return
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
