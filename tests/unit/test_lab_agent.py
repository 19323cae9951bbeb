# SPDX-License-Identifier: Apache-2.0
"""The agent on this machine: every operation, every error as an answer, and the lines on its port."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmtune.lab import agent

PROMPT = 10.0  # seconds in which a test's short command must have ended, on a busy machine too


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(agent, "_SCRATCH", str(directory))
    return directory


def run(*argv: str, timeout: float = PROMPT, input: str | None = None) -> dict[str, Any]:
    reply = agent.answer({"op": "run", "argv": list(argv), "timeout": timeout, "input": input})
    assert json.loads(json.dumps(reply)) == reply
    return reply


# Files


def test_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mask"
    file.write_bytes("ä\xff\n".encode("latin-1") + "ä".encode())
    assert agent.answer({"op": "read", "path": str(file)}) == {"text": "\ufffd\ufffd\nä"}


def test_reads_a_file_without_a_size() -> None:
    text = agent.answer({"op": "read", "path": "/proc/self/status"})["text"]
    assert f"Pid:\t{os.getpid()}\n" in text


def test_writes_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mask"
    file.write_text("ffff\n")
    assert agent.answer({"op": "write", "path": str(file), "text": "ä\n"}) == {"written": 3}
    assert file.read_text() == "ä\nf\n"  # nothing is emptied first


def test_writing_creates_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "mask")
    reply = agent.answer({"op": "write", "path": path, "text": "3"})
    assert reply == {"errno": errno.ENOENT, "error": os.strerror(errno.ENOENT), "file": path}
    assert list(tmp_path.iterdir()) == []


def test_writing_does_not_follow_a_symlink(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("0\n")
    link.symlink_to(target)
    assert agent.answer({"op": "write", "path": str(link), "text": "3"})["errno"] == errno.ELOOP
    assert target.read_text() == "0\n"


@pytest.mark.parametrize(
    ("op", "path", "number"),
    [
        ("read", "/nonexistent/file", errno.ENOENT),
        ("read", "/proc", errno.EISDIR),
        ("write", "/proc", errno.EISDIR),
        ("write", "/proc/self/mem/x", errno.ENOTDIR),
    ],
)
def test_file_error_is_an_answer_with_its_number(op: str, path: str, number: int) -> None:
    request = {"op": op, "path": path} | ({"text": "x"} if op == "write" else {})
    reply = agent.answer(request)
    assert (reply["errno"], reply["error"], reply["file"]) == (number, os.strerror(number), path)


def test_error_of_the_write_itself_is_an_answer() -> None:
    reply = agent.answer({"op": "write", "path": "/proc/self/oom_score_adj", "text": "no number"})
    assert (reply["errno"], reply["error"]) == (errno.EINVAL, os.strerror(errno.EINVAL))


def test_file_operations_leave_no_descriptor_open(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    agent.answer({"op": "read", "path": str(file)})
    agent.answer({"op": "write", "path": str(file), "text": "y"})
    agent.answer({"op": "write", "path": "/proc/self/oom_score_adj", "text": "no number"})
    run("true")
    run("sleep", "60", timeout=0.05)
    run("/no/such")
    assert len(os.listdir("/proc/self/fd")) == before


def test_exists(tmp_path: Path) -> None:
    assert agent.answer({"op": "exists", "path": str(tmp_path)}) == {"exists": True}
    assert agent.answer({"op": "exists", "path": str(tmp_path / "no")}) == {"exists": False}


# Commands


def test_command_gives_output_status_and_time() -> None:
    reply = run("sh", "-c", "cat; echo err >&2; exit 7", input="in ä\n")
    assert (reply["status"], reply["stdout"], reply["stderr"]) == (7, "in ä\n", "err\n")
    assert reply["expired"] is False
    assert 0 < reply["seconds"] < PROMPT


def test_command_without_input_reads_none() -> None:
    assert run("cat", input="from an earlier command")["stdout"]
    assert run("cat")["stdout"] == ""


def test_output_of_an_earlier_command_does_not_show() -> None:
    run("sh", "-c", "echo a long line of output; echo another >&2")
    reply = run("printf", "x")
    assert (reply["stdout"], reply["stderr"]) == ("x", "")


def test_much_output_is_whole() -> None:
    reply = run(
        "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"
    )
    assert (reply["stdout"], reply["stderr"]) == ("x" * 300_000, "y" * 300_000)


def test_output_that_is_not_utf8_is_kept_readable() -> None:
    assert run("printf", r"a\377b")["stdout"] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_signal_is_a_negative_status(number: signal.Signals) -> None:
    assert run("sh", "-c", f"kill -{number.value} $$")["status"] == -number


@pytest.mark.parametrize("program", ["/no/such", "no-such-program"])
def test_program_that_is_missing(program: str) -> None:
    reply = run(program)
    assert (reply["errno"], reply["file"]) == (errno.ENOENT, program)


def test_program_that_may_not_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    assert run(str(tmp_path / "file"))["errno"] == errno.EACCES


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has, its parent is not our business."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_deadline_kills_the_command_and_its_children() -> None:
    reply = run("sh", "-c", "sleep 60 & echo $!; echo $$; wait", timeout=0.5)
    assert reply["expired"] is True
    assert reply["status"] == -signal.SIGKILL
    assert 0.5 <= reply["seconds"] < PROMPT
    pids = [int(word) for word in reply["stdout"].split()]
    assert len(pids) == 2
    end = time.monotonic() + PROMPT
    while not all(gone(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert all(gone(pid) for pid in pids)


def test_background_process_of_a_command_is_not_waited_for() -> None:
    reply = run("sh", "-c", "sleep 60 & echo $!")
    assert reply["expired"] is False
    os.kill(int(reply["stdout"]), signal.SIGKILL)


# Pinning


@pytest.fixture
def thread() -> Iterator[int]:
    """A thread of this process by the name that QEMU gives a vCPU's; its number."""
    started, over = threading.Event(), threading.Event()
    numbers: list[int] = []

    def body() -> None:
        Path("/proc/thread-self/comm").write_text("CPU 0/KVM")
        numbers.append(threading.get_native_id())
        started.set()
        over.wait()

    one = threading.Thread(target=body)
    one.start()
    started.wait()
    yield numbers[0]
    over.set()
    one.join()


def test_pins_the_thread_of_that_name_and_no_other(thread: int) -> None:
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    reply = agent.answer({"op": "pin", "pid": os.getpid(), "thread": "CPU 0/KVM", "cpu": cpu})
    assert reply == {"tid": thread}
    assert os.sched_getaffinity(thread) == {cpu}
    assert os.sched_getaffinity(0) == allowed


def test_pinning_a_thread_that_is_not_there() -> None:
    reply = agent.answer({"op": "pin", "pid": os.getpid(), "thread": "CPU 7/KVM", "cpu": 0})
    assert reply["errno"] == errno.ESRCH
    assert "CPU 7/KVM" in reply["error"]


# Requests that make no sense


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "format"},
        {"op": ["read"]},
        {"op": "read"},
        {"op": "read", "path": "/", "mode": "r"},
        {"op": "read", "path": None},
        {"op": "read", "path": "a\0b"},
        {"op": "write", "path": "/dev/null", "text": 3},
        {"op": "write", "path": "/dev/null", "text": "\udc80"},
        {"op": "run", "argv": [], "timeout": 1, "input": None},
        {"op": "run", "argv": [1], "timeout": 1, "input": None},
        {"op": "run", "argv": ["true\0"], "timeout": 1, "input": None},
        {"op": "run", "argv": ["true"], "timeout": "soon", "input": None},
        {"op": "run", "argv": ["true"], "timeout": 1, "input": 1},
    ],
)
def test_bad_request_is_answered(request_: dict[str, Any]) -> None:
    reply = agent.answer(request_)
    assert reply["errno"] is None
    assert reply["error"].startswith("bad request: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["op", "path", "argv", "timeout", "x"]), json_values))
def test_nothing_that_is_json_ends_the_agent(request_: dict[str, Any]) -> None:
    assert "error" in agent.answer(request_)


# On the port


class Port:
    """The near end of a terminal that the agent serves on, as init starts it: a script in a bare Python."""

    def __init__(self, scratch: Path) -> None:
        self.near, far = os.openpty()
        tty.setraw(far)
        script = (
            "import runpy, sys; agent = runpy.run_path(sys.argv[1]); "
            "agent['serve'].__globals__['_SCRATCH'] = sys.argv[2]; agent['serve'](sys.argv[3])"
        )
        argv = [
            sys.executable,
            *("-I", "-S", "-B", "-c"),
            script,
            agent.__file__,
            str(scratch),
            os.ttyname(far),
        ]
        self.process = subprocess.Popen(argv)
        # Only now may ours be closed, or the terminal would hang up before the agent opens it.
        assert self.receive() == {"ready": True}
        os.close(far)
        self._buffer = b""

    _buffer = b""

    def receive(self) -> Any:
        while b"\n" not in self._buffer:
            self._buffer += os.read(self.near, 1 << 16)
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.near, data) :]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.near)


@pytest.fixture
def port(scratch: Path) -> Iterator[Port]:
    one = Port(scratch)
    yield one
    one.close()


def test_serves_requests_in_order_however_they_are_cut(port: Port, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("line\n" * 20_000)  # more than any buffer on the way holds
    requests: list[dict[str, Any]] = [
        {"op": "exists", "path": "/"},
        {"op": "read", "path": str(file)},
        {"op": "nonsense"},
        {"op": "run", "argv": ["echo", "ä"], "timeout": PROMPT, "input": None},
    ]
    data = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
    port.send(data[:7])
    time.sleep(0.05)
    port.send(data[7:])
    assert port.receive() == {"exists": True}
    assert port.receive() == {"text": file.read_text()}
    assert port.receive()["error"].startswith("bad request")
    assert port.receive()["stdout"] == "ä\n"
