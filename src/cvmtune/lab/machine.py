# SPDX-License-Identifier: Apache-2.0
"""Booting a machine of the lab, talking to it, and telling what became of it when it no longer answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cvmtune.core.command import format_command
from cvmtune.core.errors import CvmtuneError
from cvmtune.lab import hang
from cvmtune.lab.client import AgentSystem
from cvmtune.lab.errors import GuestDied, GuestHung, GuestPanicked, LabError, MissingTool
from cvmtune.lab.interrupts import interrupts_put_off
from cvmtune.lab.payload import write_payload
from cvmtune.lab.qemu import QEMU, processor_options, qemu_argv, qemu_version, start_guest_script
from cvmtune.lab.specs import GUEST, HOST, Images, MachineSpec, Terminal

# Time for QEMU to end by itself once its guest has, seconds.
_ENDING = 10.0
# However we end, kill -9 included, no machine is left behind.
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_PANIC = "Kernel panic - not syncing"


@dataclass(frozen=True)
class BootOptions:
    """What a boot may ask for beyond its machine. `cpus` is how many the guest has, `deadline` in seconds.

    With `icount` time in the machine goes by instructions, one a nanosecond, whatever the computer does.
    `store` is a file: the guest's disk of that name, whose content stays.
    """

    append: tuple[str, ...] = ()
    host_append: tuple[str, ...] = ()
    terminal: Terminal | None = None
    cpus: int | None = None
    icount: bool = False
    deadline: float = 300.0
    store: Path | None = None


PLAIN_BOOT = BootOptions()


class Machine:
    """A running machine: `guest` and, where it is nested, `host`, both with their agents ready."""

    def __init__(
        self,
        spec: MachineSpec,
        directory: Path,
        process: subprocess.Popen[bytes],
        monitor: socket.socket,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.boot_seconds = 0.0
        self.terminal: socket.socket | None = None
        self._process = process
        self._monitor: socket.socket | None = monitor
        self._systems: dict[str, AgentSystem] = {}

    @property
    def guest(self) -> AgentSystem:
        return self._systems[GUEST]

    @property
    def host(self) -> AgentSystem | None:
        return self._systems.get(HOST)

    @property
    def emulator_pid(self) -> int:
        """The process on this computer that emulates the machine."""
        return self._process.pid

    @property
    def vmm_pid(self) -> int:
        """The process on the host that runs the guest."""
        assert self.host
        return int(self.host.read_text("/run/cvmtune/guest.pid"))

    def console(self, role: str) -> Path:
        """Return the file that holds all that this kernel's console has said."""
        return self.directory / f"{role}.console"

    def add_system(self, name: str, channel: socket.socket) -> None:
        """Take the near end of an agent's channel."""
        self._systems[name] = AgentSystem(name, channel, self._lost)

    def wait_ready(self, deadline: float) -> None:
        """Wait until all agents answer; pin the guest's vCPU threads one to one to the host's CPUs."""
        began = time.monotonic()
        for name in (HOST, GUEST):
            if name in self._systems:
                self._systems[name].wait_ready(max(began + deadline - time.monotonic(), 0.001))
        if self.host:
            for cpu in range(self.spec.guest_cpus):
                self.host.pin(self.vmm_pid, f"CPU {cpu}/KVM", cpu)

    def cut_power(self) -> None:
        """End the guest at once, with nothing written back, as if its power failed; it cannot be used again.

        Its host, if it has one, sees it end, and ends in order.
        """
        if self.host:
            with suppress(LabError):  # the answer may be lost with the machine
                self.host.run(["kill", "-KILL", str(self.vmm_pid)])
        else:
            self._process.kill()
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CvmtuneError("the host did not end with its guest", self.spec.name) from None

    def _lost(self, name: str, deadline: float | None) -> NoReturn:
        """Raise what became of the machine: it has closed its channel, or missed `deadline`."""
        if deadline is None:
            try:
                status: object = self._process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                status = "none yet"
        for role in (GUEST, HOST):
            console = self.console(role)
            if console.exists() and _PANIC in console.read_text(errors="replace"):
                raise GuestPanicked(role, console)
        if deadline is not None:
            if monitor := self._monitor:
                # Once: whoever cleans up finds the same machine, and its host may be what hangs.
                self._monitor = None
                hang.keep(self.directory, monitor, self.host)
            raise GuestHung(name, self.console(name), deadline)
        raise GuestDied(
            name, self.console(name), f"QEMU's exit status: {status}; its messages: {self._qemu_log}"
        )

    @property
    def _qemu_log(self) -> Path:
        return self.directory / "qemu.log"


def guest_files(spec: MachineSpec, options: BootOptions) -> dict[str, str]:
    """Return the files that this machine's payload carries besides the package and the tools."""
    if not spec.nested:
        return {}
    return {
        "run/cvmtune/start-guest": start_guest_script(
            spec, options.append, options.terminal, store=options.store is not None
        )
    }


@contextmanager
def boot(
    spec: MachineSpec,
    images: Images,
    tools: Sequence[Path],
    directory: Path,
    options: BootOptions = PLAIN_BOOT,
) -> Iterator[Machine]:
    """Boot a machine and end it on the way out. `directory` (new) takes its consoles, command line and
    payload.

    Raises MissingTool, GuestDied, GuestPanicked or GuestHung.
    """
    if shutil.which(QEMU) is None:
        raise MissingTool({QEMU: "qemu-system-arm"})
    directory.mkdir(parents=True)
    write_payload(images.payload, tools, guest_files(spec, options))
    with ExitStack() as stack:
        ends = _Ends(stack)
        channels: dict[str, socket.socket] = {}
        consoles: dict[str, str] = {}
        ports: dict[str, str] = {}
        terminal: socket.socket | None = None
        for name in (HOST, GUEST) if spec.nested else (GUEST,):
            channels[name], ports[name] = ends.connect()
            log = directory / f"{name}.console"
            consoles[name] = f"file,path={log}"
            if options.terminal and options.terminal.where == name:
                terminal, port = ends.connect()
                consoles[name] = f"{port},logfile={log}"
        if spec.nested:
            ports["console"] = consoles[GUEST]
        argv = qemu_argv(
            spec,
            images,
            console=consoles[HOST if spec.nested else GUEST],
            ports=ports,
            append=options.append,
            host_append=options.host_append,
            terminal=options.terminal,
            processor=processor_options(
                nested=spec.nested, icount=options.icount, qemu_version=qemu_version()
            ),
        )
        monitor, port = ends.connect()
        argv += hang.monitor_argv(port)
        (directory / "command").write_text(format_command(argv) + "\n")
        began = time.monotonic()
        machine = Machine(spec, directory, _start(argv, directory, ends, stack), monitor)
        machine.terminal = terminal
        for name, channel in channels.items():
            machine.add_system(name, channel)
        machine.wait_ready(options.deadline)
        machine.boot_seconds = time.monotonic() - began
        yield machine


class _Ends:
    """Channels into a machine: the near ends are ours until the stack ends, the far ones are for QEMU."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.far: list[socket.socket] = []

    def connect(self) -> tuple[socket.socket, str]:
        """Return the near end of a new channel, and the far one as QEMU's command line has it."""
        near, far = socket.socketpair()
        self._stack.callback(near.close)
        self.far.append(far)
        return near, f"socket,fd={far.fileno()}"


def _start(argv: Sequence[str], directory: Path, ends: _Ends, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start QEMU; it ends with the stack."""
    with (directory / "qemu.log").open("wb") as log_file:
        try:
            with interrupts_put_off():
                process = subprocess.Popen(
                    [*_DIE_WITH_US, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=[end.fileno() for end in ends.far],
                    # Ctrl-C at the terminal is for us: we end QEMU in order.
                    start_new_session=True,
                )
                stack.callback(_end, process)
        finally:
            # Ours would keep the channels open after QEMU's end.
            for end in ends.far:
                end.close()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    # Nothing of a machine outlives it (its disks are snapshots), so there is nothing to shut down.
    process.kill()
    process.wait()
