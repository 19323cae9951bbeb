# SPDX-License-Identifier: Apache-2.0
"""Stands in for QEMU in tests: takes the sockets of its command line and plays the agents behind them.

Not imported by tests but run as a program, by the name of QEMU (see test_lab_machine.py). $FAKE_QEMU says
how it behaves; what it does is told on standard output, which the lab keeps as QEMU's log.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from cvmtune.lab import agent

PANIC = "[    1.234567] Kernel panic - not syncing: sysrq triggered crash\n"


class Machine:
    """What the command line makes: channels of agents, consoles as files, and perhaps a terminal."""

    def __init__(self, argv: list[str]) -> None:
        self.channels: dict[str, socket.socket] = {}
        self.consoles: dict[str, Path] = {}
        self.terminal: socket.socket | None = None
        chardevs = [value for name, value in itertools.pairwise(argv) if name == "-chardev"]
        outer = "host" if any("id=port-host" in chardev for chardev in chardevs) else "guest"
        roles = {"console": outer, "port-console": "guest", "port-host": "host", "port-guest": "guest"}
        for chardev in chardevs:
            kind, _, rest = chardev.partition(",")
            options = dict(option.split("=", 1) for option in rest.split(","))
            if options["id"] == "monitor":
                monitor = socket.socket(fileno=int(options["fd"]))
                threading.Thread(target=answer_monitor, args=(monitor,), daemon=True).start()
                continue
            role = roles[options["id"]]
            if "console" in options["id"]:
                self.consoles[role] = Path(options["path"] if kind == "file" else options["logfile"])
                self.say(role, f"this is the {role}\n")
                if kind == "socket":
                    self.terminal = socket.socket(fileno=int(options["fd"]))
            else:
                self.channels[role] = socket.socket(fileno=int(options["fd"]))

    def say(self, role: str, text: str) -> None:
        with self.consoles[role].open("a") as console:
            console.write(text)

    def panic(self, role: str) -> NoReturn:
        self.say(role, PANIC)
        sys.exit(0)

    def send(self, role: str, line: str) -> None:
        self.channels[role].sendall(line.encode() + b"\n")


def answer_monitor(monitor: socket.socket) -> None:
    """As QMP does, an event amid it."""
    with monitor.makefile("rw", newline="\n") as lines:
        lines.write('{"QMP": {"version": {}, "capabilities": []}}\n')
        lines.flush()
        for number, line in enumerate(lines):
            command = json.loads(line)
            text = f"CPU#0\n PC={number:016x}\n" if "arguments" in command else {}
            lines.write('{"event": "RTC_CHANGE"}\n' + json.dumps({"return": text}) + "\n")
            lines.flush()


def answer(request: dict[str, Any], role: str) -> dict[str, Any]:
    """As the agent would, but for what only a machine of the lab has."""
    if request["op"] == "pin":
        print("pin", role, request["pid"], request["thread"], request["cpu"], flush=True)
        return {"tid": request["pid"]}
    if request.get("path") == "/run/cvmtune/guest.pid":
        return {"text": "4711\n"}
    return agent.answer(request)


def main() -> None:
    behaviour = os.environ.get("FAKE_QEMU", "")
    agent._SCRATCH = os.environ["FAKE_QEMU_SCRATCH"]
    if behaviour == "refuse":
        sys.exit("no such machine")
    machine = Machine(sys.argv)
    if behaviour == "panic":
        machine.panic("guest")
    if behaviour == "panic of the host":
        machine.panic("host")
    if behaviour == "close the channels and stay":
        for channel in machine.channels.values():
            channel.close()
    if behaviour in ("be silent", "close the channels and stay"):
        time.sleep(1000)
    for role in machine.channels:
        greetings = {"greet with rubbish": "\x00rubbish", "not be ready": '{"ready": false}'}
        machine.send(role, greetings.get(behaviour, '{"ready": true}'))
    serve(machine, behaviour)


def serve(machine: Machine, behaviour: str) -> None:
    ends = selectors.DefaultSelector()
    for role, channel in machine.channels.items():
        ends.register(channel, selectors.EVENT_READ, role)
    if machine.terminal:
        ends.register(machine.terminal, selectors.EVENT_READ, "terminal")
    buffers = dict.fromkeys(machine.channels, b"")
    while True:
        for key, _ in ends.select():
            data = os.read(key.fd, 1 << 16)
            if not data:
                return
            if key.data == "terminal":
                os.write(key.fd, b"typed: " + data)
                continue
            buffers[key.data] += data
            while b"\n" in buffers[key.data]:
                line, buffers[key.data] = buffers[key.data].split(b"\n", 1)
                reply(machine, key.data, json.loads(line), behaviour)


def reply(machine: Machine, role: str, request: dict[str, Any], behaviour: str) -> None:
    if request["op"] == "exists":  # the request at which what is wrong comes out
        match behaviour:
            case "panic when asked":
                machine.panic("guest")
            case "panic when asked and stay":
                machine.say("guest", PANIC)
                time.sleep(1000)
            case "die when asked":
                sys.exit(42)
            case "hang when asked":
                return  # no answer; that of its host still comes
            case "answer rubbish":
                return machine.send(role, "[0.1] random: crng init done")
            case "answer with a list":
                return machine.send(role, "[]")
    machine.send(role, json.dumps(answer(request, role)))


if __name__ == "__main__":
    main()
