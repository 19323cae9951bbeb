# SPDX-License-Identifier: Apache-2.0
"""The lab's agent: runs inside a guest or host of the lab, takes requests over virtio-serial and answers
them.

A line of JSON each way. Requests carry `op` and its arguments, answers either the result or `errno` and
`error`. Work comes one at a time: who asks waits for the answer, and gives up by ending the machine.

Started as a script by the lab's init, not imported: a guest waits for nothing but this to be ready, so it
gets by on few imports (under emulation each costs tens of milliseconds).
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

_SCRATCH = "/run/cvmtune"


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return {"text": file.read()}


def _write(path: str, text: str) -> dict[str, Any]:
    # As core.system.LocalSystem.write_text: one write, nothing created, nothing emptied.
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        return {"written": os.write(descriptor, text.encode())}
    finally:
        os.close(descriptor)


def _exists(path: str) -> dict[str, Any]:
    return {"exists": os.path.exists(path)}


def _pin(pid: int, thread: str, cpu: int) -> dict[str, Any]:
    """Bind the thread of this name in process `pid` to a CPU."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as file:
            if file.read().rstrip("\n") == thread:
                os.sched_setaffinity(int(task), {cpu})
                return {"tid": int(task)}
    raise ProcessLookupError(3, f"process {pid} has no thread {thread!r}")


def _run(argv: list[str], timeout: float, input: str | None) -> dict[str, Any]:
    """Run a command to its end. Output goes through files: no pipe can fill, and no module is needed."""
    paths = [f"{_SCRATCH}/{name}" for name in ("in", "out", "err")]
    with open(paths[0], "w", encoding="utf-8") as file:
        file.write(input or "")
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    began = time.monotonic()
    pid = os.posix_spawnp(
        argv[0],
        argv,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, n, paths[n], flags[n], 0o600) for n in range(3)],
        setsid=True,
    )
    poll = select.poll()
    descriptor = os.pidfd_open(pid)
    poll.register(descriptor, select.POLLIN)
    expired = not poll.poll(timeout * 1000)
    os.close(descriptor)
    if expired:
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "expired": expired,
        "stdout": _read(paths[1])["text"],
        "stderr": _read(paths[2])["text"],
        "seconds": time.monotonic() - began,
    }


_OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "read": _read,
    "write": _write,
    "exists": _exists,
    "pin": _pin,
    "run": _run,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request; what goes wrong becomes part of the answer."""
    arguments = {key: value for key, value in request.items() if key != "op"}
    try:
        return _OPERATIONS[request["op"]](**arguments)
    except OSError as error:
        return {"errno": error.errno, "error": error.strerror, "file": str(error.filename or "")}
    except Exception as error:  # whatever the request was, the next one may be good
        return {"errno": None, "error": f"bad request: {error!r}", "file": ""}


def serve(port: str) -> None:
    """Answer requests from the port until the machine ends."""
    os.makedirs(_SCRATCH, exist_ok=True)
    with open(port, "r+b", buffering=0) as channel:
        channel.write(b'{"ready": true}\n')
        buffer = b""
        while True:
            while b"\n" not in buffer:
                buffer += channel.read(1 << 16) or b""
            line, buffer = buffer.split(b"\n", 1)
            reply = json.dumps(answer(json.loads(line))).encode() + b"\n"
            while reply:
                reply = reply[channel.write(reply) or 0 :]


if __name__ == "__main__":
    serve(sys.argv[1])
