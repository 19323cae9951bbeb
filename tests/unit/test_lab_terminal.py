# SPDX-License-Identifier: Apache-2.0
"""A terminal joined to a console: bytes pass as they are, Ctrl-] leaves, the terminal is as it was."""

from __future__ import annotations

import io
import os
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvmtune.core.errors import UsageError
from cvmtune.lab.specs import Terminal
from cvmtune.lab.terminal import LEAVE, join, this_terminal

PROMPT = 10.0


class User:
    """Sits before the terminal that join() runs on, and behind the console that it is joined to."""

    def __init__(self) -> None:
        self.screen, self.terminal = os.openpty()
        tty.setraw(self.terminal)
        attributes = termios.tcgetattr(self.terminal)
        attributes[3] |= termios.ICANON  # what join() must put back
        termios.tcsetattr(self.terminal, termios.TCSANOW, attributes)
        self.settings = termios.tcgetattr(self.terminal)
        self.near, self.machine = socket.socketpair()
        self.machine.settimeout(PROMPT)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._join, daemon=True)

    def _join(self) -> None:
        try:
            join(self.near)
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.start()

    def start(self) -> None:
        self.join()
        while termios.tcgetattr(self.terminal)[3] & termios.ICANON:
            threading.Event().wait(0.005)

    def type(self, data: bytes) -> None:
        os.write(self.screen, data)

    def left(self) -> bool:
        self._thread.join(PROMPT)
        assert self._error is None
        return not self._thread.is_alive() and termios.tcgetattr(self.terminal) == self.settings

    def close(self) -> None:
        self.machine.close()
        self.near.close()
        os.close(self.screen)
        os.close(self.terminal)


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    one = User()
    with open(one.terminal, "r+b", buffering=0, closefd=False) as raw:
        stream = io.TextIOWrapper(raw)
        # In the module alone: pytest puts streams of its own into sys.
        standard = SimpleNamespace(stdin=stream, stdout=stream)
        monkeypatch.setattr("cvmtune.lab.terminal.sys", standard)
        yield one
        one.close()
        stream.detach()


def test_bytes_pass_both_ways(user: User) -> None:
    user.start()
    user.type(b"ls\x03\x04\xff\r")
    assert user.machine.recv(100) == b"ls\x03\x04\xff\r"
    user.machine.sendall(b"\x1b[31mred\n\xff")
    assert os.read(user.screen, 100) == b"\x1b[31mred\n\xff"
    user.type(LEAVE)
    assert user.left()


def test_keys_typed_before_it_joins_count(user: User) -> None:
    user.type(b"ls\r" + LEAVE)
    user.join()
    assert user.left()


def test_leaves_when_the_console_ends(user: User) -> None:
    user.start()
    user.machine.shutdown(socket.SHUT_RDWR)
    assert user.left()


def test_leaves_when_the_machine_ends_with_keys_untaken(user: User) -> None:
    user.start()
    user.type(b"typed while the machine goes down")
    while not user.machine.recv(1, socket.MSG_PEEK):
        pass
    user.machine.close()  # a reset for the near end, as bytes are left
    assert user.left()


def test_form_of_the_terminal(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((132, 50)))
    # Of no account: the shell's size must be the terminal's own.
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    assert this_terminal("guest") == Terminal("guest", 50, 132, "xterm")
    monkeypatch.delenv("TERM")
    assert this_terminal("host").term == "vt100"


def test_no_terminal_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+") as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(UsageError, match="needs a terminal") as caught:
            this_terminal("guest")
    assert "lab run" in caught.value.next_step
