# SPDX-License-Identifier: Apache-2.0
"""The near end of the agent's channel: a System whose operations are carried out inside a machine of the
lab."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cvmtune.core.command import Completed, format_command
from cvmtune.core.errors import CvmtuneError

# What an operation that waits for nothing may take before its machine counts as hung. Generous: a debug
# kernel under two layers of emulation on a busy machine.
_PROMPT = 60.0
# Beyond a command's own deadline, after which the agent should have killed it and answered.
_GRACE = 60.0


class AgentSystem:
    """A machine of the lab, reached through its agent. Implements core.system.System.

    `lost` is called when the machine has closed the channel or does not answer in time; it raises the error
    that says what became of the machine.
    """

    def __init__(
        self, name: str, channel: socket.socket, lost: Callable[[str, float | None], NoReturn]
    ) -> None:
        self.name = name
        self._channel = channel
        self._lost = lost
        self._buffer = b""
        # Answers that are still to come although nobody waits for them: Ctrl-C came first.
        self._unread = 0
        self._missed: float | None = None

    def wait_ready(self, deadline: float) -> None:
        """Wait for the agent's greeting, `deadline` seconds at most."""
        greeting = self._receive(deadline)
        if greeting.get("ready") is not True:
            raise CvmtuneError(f"the agent of {self.name} greets with {greeting!r}")

    def read_text(self, path: str) -> str:
        return str(self._request({"op": "read", "path": path})["text"])

    def write_text(self, path: str, text: str) -> None:
        written = self._request({"op": "write", "path": path, "text": text})["written"]
        if written != len(text.encode()):
            raise OSError(errno.EIO, f"short write, {written} of {len(text.encode())} bytes", path)

    def exists(self, path: str) -> bool:
        return bool(self._request({"op": "exists", "path": path})["exists"])

    def run(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Completed:
        command = f"{format_command(argv)} on {self.name}"
        request = {"op": "run", "argv": list(argv), "timeout": timeout, "input": input}
        try:
            reply = self._request(request, timeout + _GRACE)
        except OSError as error:
            raise CvmtuneError(f"cannot start {command}: {error.strerror}") from error
        if reply["expired"]:
            raise CvmtuneError(f"{command} did not end within {timeout:g} s")
        return Completed(tuple(argv), reply["status"], reply["stdout"], reply["stderr"], reply["seconds"])

    def pin(self, pid: int, thread: str, cpu: int) -> None:
        """Bind the thread of this name in process `pid` to one CPU."""
        self._request({"op": "pin", "pid": pid, "thread": thread, "cpu": cpu})

    def _request(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
        deadline = _PROMPT if deadline is None else deadline
        if self._missed is not None:
            # Callers that clean up must not each wait again, nor take a late answer for their own.
            self._lost(self.name, self._missed)
        while self._unread:
            self._receive(deadline)
            self._unread -= 1
        try:
            self._channel.settimeout(_PROMPT)
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            self._miss(_PROMPT)
        except OSError:
            self._lost(self.name, None)
        self._unread += 1
        reply = self._receive(deadline)
        self._unread -= 1
        if "error" in reply:
            if reply["errno"] is None:
                raise CvmtuneError(f"the agent of {self.name}: {reply['error']}")
            raise OSError(reply["errno"], reply["error"] or os.strerror(reply["errno"]), reply["file"])
        return reply

    def _receive(self, deadline: float) -> dict[str, Any]:
        end = time.monotonic() + deadline
        while b"\n" not in self._buffer:
            try:
                self._channel.settimeout(max(end - time.monotonic(), 0.001))
                data = self._channel.recv(1 << 16)
            except TimeoutError:
                self._miss(deadline)
            except OSError:
                data = b""
            if not data:
                self._lost(self.name, None)
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            text = line.decode(errors="replace")
            raise CvmtuneError(f"the agent of {self.name} answers with {text!r}, which is no JSON object")
        return reply

    def _miss(self, deadline: float) -> NoReturn:
        self._missed = deadline
        self._lost(self.name, deadline)
