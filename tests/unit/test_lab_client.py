# SPDX-License-Identifier: Apache-2.0
"""The near end of the agent's channel, with the agent or a misbehaving one in a thread behind it."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.system import System
from cvmtune.lab import agent, client
from cvmtune.lab.client import AgentSystem

PROMPT = 10.0
SOON = 0.1

Answer = Callable[[dict[str, Any]], dict[str, Any] | bytes | None]


class Lost(Exception):
    """What a machine's owner raises when it is lost: the name, and the deadline that was missed."""


def lost(name: str, deadline: float | None) -> NoReturn:
    raise Lost(name, deadline)


class FarEnd:
    """Answers requests in a thread: with an object, with bytes as they are, or (None) by closing."""

    def __init__(self, answer: Answer) -> None:
        self.near, self._far = socket.socketpair()
        self.requests: list[dict[str, Any]] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # A test is over when it closes its end, whatever is still on the way.
        with suppress(ConnectionError), self._far, self._far.makefile("rb") as lines:
            for line in lines:
                self.requests.append(json.loads(line))
                reply = self._answer(self.requests[-1])
                if reply is None:
                    return
                self._far.sendall(reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n")

    def close(self) -> None:
        self.near.close()
        self._thread.join(PROMPT)


Connect = Callable[[Answer], AgentSystem]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that makes a system whose agent answers so."""
    ends: list[FarEnd] = []

    def make(answer: Answer) -> AgentSystem:
        ends.append(FarEnd(answer))
        return AgentSystem("guest", ends[-1].near, lost)

    yield make
    for end in ends:
        end.close()


@pytest.fixture
def system(connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentSystem:
    """A system with the real agent."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(agent, "_SCRATCH", str(tmp_path / "scratch"))
    return connect(agent.answer)


# With the real agent


def test_is_a_system(system: AgentSystem, tmp_path: Path) -> None:
    any_system: System = system
    path = str(tmp_path / "mask")
    Path(path).write_text("0\n")
    assert any_system.exists(path)
    any_system.write_text(path, "ä")
    assert any_system.read_text(path) == "ä"
    assert not any_system.exists(f"{path}.no")


def test_run_gives_what_became_of_the_command(system: AgentSystem) -> None:
    done = system.run(["sh", "-c", "cat; echo err >&2; exit 7"], input="in\n")
    assert done.argv == ("sh", "-c", "cat; echo err >&2; exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, "in\n", "err\n")
    assert 0 < done.seconds < PROMPT


def test_status_of_a_signal(system: AgentSystem) -> None:
    assert system.run(["sh", "-c", "kill -9 $$"]).status == -9


def test_file_error_comes_with_number_and_path(system: AgentSystem, tmp_path: Path) -> None:
    path = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError) as caught:
        system.read_text(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, path)
    with pytest.raises(IsADirectoryError):
        system.write_text(str(tmp_path), "x")


def test_kernels_refusal_of_a_value_is_its_error_number(system: AgentSystem) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        system.write_text("/proc/self/oom_score_adj", "no number")
    assert caught.value.errno == errno.EINVAL


def test_command_that_cannot_start_is_named(system: AgentSystem) -> None:
    with pytest.raises(CvmtuneError, match="cannot start /no/such --fast on guest: No such file"):
        system.run(["/no/such", "--fast"])


def test_command_that_takes_too_long_is_named(system: AgentSystem) -> None:
    with pytest.raises(CvmtuneError, match=r"sleep 60 on guest did not end within 0\.1 s"):
        system.run(["sleep", "60"], timeout=SOON)
    assert system.run(["echo", "alive"]).stdout == "alive\n"


def test_request_that_makes_no_sense(system: AgentSystem) -> None:
    with pytest.raises(CvmtuneError, match="the agent of guest: bad request"):
        system.run([])


def test_pin_error(system: AgentSystem) -> None:
    with pytest.raises(ProcessLookupError, match="has no thread 'CPU 9/KVM'"):
        system.pin(os.getpid(), "CPU 9/KVM", 0)


# What goes over the channel


def test_requests(connect: Connect) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        seen.append(request)
        return {"text": "", "written": 1, "exists": False, "tid": 1} | {
            "status": 0,
            "stdout": "",
            "stderr": "",
            "seconds": 0.1,
            "expired": False,
        }

    system = connect(answer)
    system.read_text("/a")
    system.write_text("/b", "x")
    system.exists("/c")
    system.pin(7, "CPU 0/KVM", 1)
    system.run(("true", "ä\n"), timeout=2.5, input="in")
    assert seen == [
        {"op": "read", "path": "/a"},
        {"op": "write", "path": "/b", "text": "x"},
        {"op": "exists", "path": "/c"},
        {"op": "pin", "pid": 7, "thread": "CPU 0/KVM", "cpu": 1},
        {"op": "run", "argv": ["true", "ä\n"], "timeout": 2.5, "input": "in"},
    ]


def test_short_write_is_an_error(connect: Connect) -> None:
    with pytest.raises(OSError, match="short write, 1 of 3 bytes") as caught:
        connect(lambda request: {"written": 1}).write_text("/sys/mask", "ff\n")
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "/sys/mask")


def test_write_is_counted_in_bytes(connect: Connect) -> None:
    connect(lambda request: {"written": 2}).write_text("/file", "ä")


def test_answers_may_come_in_pieces(connect: Connect) -> None:
    text = "x" * 500_000
    assert connect(lambda request: {"text": text}).read_text("/big") == text


def test_greeting() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b'{"ready": true}\n')
        AgentSystem("guest", near, lost).wait_ready(PROMPT)


@pytest.mark.parametrize("greeting", [b"{}", b'{"ready": 1}', b"[]", b"null", b"Segmentation fault", b"\xff"])
def test_greeting_that_is_none(greeting: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(greeting + b"\n")
        with pytest.raises(CvmtuneError, match="the agent of guest"):
            AgentSystem("guest", near, lost).wait_ready(PROMPT)


@pytest.mark.parametrize("reply", [b"Segmentation fault\n", b"[]\n", b"\xff\n", b"\n"])
def test_answer_that_is_none(connect: Connect, reply: bytes) -> None:
    with pytest.raises(CvmtuneError, match="agent of guest answers with"):
        connect(lambda request: reply).exists("/")


# Machines that are lost


def test_closed_channel(connect: Connect) -> None:
    system = connect(lambda request: None)
    for _ in range(2):
        with pytest.raises(Lost) as caught:
            system.exists("/")
        assert caught.value.args == ("guest", None)


def test_channel_closed_amid_an_answer() -> None:
    near, far = socket.socketpair()
    with near:
        far.sendall(b'{"exists": tr')
        far.close()
        with pytest.raises(Lost) as caught:
            AgentSystem("host", near, lost).wait_ready(PROMPT)
        assert caught.value.args == ("host", None)


def test_closed_channel_while_a_command_runs_is_not_taken_for_the_commands_error(connect: Connect) -> None:
    with pytest.raises(Lost):
        connect(lambda request: None).run(["true"])


def test_no_greeting_in_time() -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(Lost) as caught:
        AgentSystem("guest", near, lost).wait_ready(SOON)
    assert caught.value.args == ("guest", SOON)


def test_no_answer_in_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PROMPT", SOON)
    over = threading.Event()
    system = connect(lambda request: {"exists": over.wait(PROMPT)})
    with pytest.raises(Lost) as caught:
        system.exists("/")
    assert caught.value.args == ("guest", SOON)
    over.set()


def test_deadline_holds_against_an_answer_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PROMPT", 3 * SOON)
    near, far = socket.socketpair()
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(SOON / 4):
            far.sendall(b" ")

    thread = threading.Thread(target=trickle)
    with near, far:
        thread.start()
        began = time.monotonic()
        with pytest.raises(Lost):
            AgentSystem("guest", near, lost).exists("/")
        assert time.monotonic() - began < PROMPT
        over.set()
        thread.join()


def test_requests_after_a_missed_deadline_neither_wait_nor_take_late_answers(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PROMPT", SOON)
    answers = iter([{"text": "late"}])

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(2 * SOON)
        return next(answers)

    system = connect(answer)
    with pytest.raises(Lost):
        system.read_text("/first")
    time.sleep(2 * SOON)
    monkeypatch.setattr(client, "_PROMPT", 60.0)
    began = time.monotonic()
    with pytest.raises(Lost) as caught:
        system.read_text("/second")
    assert caught.value.args == ("guest", SOON)
    assert time.monotonic() - began < PROMPT


def test_machine_that_takes_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PROMPT", SOON)
    near, far = socket.socketpair()
    with near, far, pytest.raises(Lost) as caught:
        AgentSystem("guest", near, lost).write_text("/file", "x" * 10_000_000)
    assert caught.value.args == ("guest", SOON)


def test_a_command_may_take_its_own_time_and_some_grace(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PROMPT", SOON)
    monkeypatch.setattr(client, "_GRACE", SOON)
    over = threading.Event()
    system = connect(lambda request: {"over": over.wait(PROMPT)})
    with pytest.raises(Lost) as caught:
        system.run(["sleep", "60"], timeout=2 * SOON)
    assert caught.value.args == ("guest", pytest.approx(3 * SOON))
    over.set()


def test_answer_that_an_interrupt_left_behind_is_not_the_next_ones(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during one request; then what cleans up makes others."""

    class Interrupted(socket.socket):
        def recv(self, *arguments: Any) -> bytes:
            raise KeyboardInterrupt

    system = connect(lambda request: {"text": request["path"]})
    with Interrupted(fileno=os.dup(system._channel.fileno())) as channel, monkeypatch.context() as patched:
        patched.setattr(system, "_channel", channel)
        with pytest.raises(KeyboardInterrupt):
            system.read_text("/first")
    assert system.read_text("/second") == "/second"
    assert system.read_text("/third") == "/third"
