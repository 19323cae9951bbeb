# SPDX-License-Identifier: Apache-2.0
"""The command lines of a boot: QEMU's, that of the kernels in it, and that of the QEMU in a nested machine's
host. Nothing here boots anything."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cvmtune.core import command
from cvmtune.core.command import format_command
from cvmtune.core.errors import CvmtuneError
from cvmtune.lab.specs import GUEST, HOST, Images, MachineSpec, Terminal

QEMU = "qemu-system-aarch64"

STORE = "store"
"""The name of the disk that outlives a machine; in it, that is /run/disk/store."""

# Where init leaves the names of disks and ports (see guest/init).
_DISK = "/run/disk"
_PORT = "/run/port"


def _append(role: str, extra: Sequence[str], terminal: Terminal | None) -> list[str]:
    words = [
        # Whatever the kernel says is kept, but a slow console must not slow the machine down: warnings and
        # worse.
        "console=ttyAMA0",
        "loglevel=5",
        # With -no-reboot a panic ends QEMU, which is how the lab learns of it.
        "panic=-1",
        "root=/dev/vda",
        "rw",
        "init=/init",
        f"cvmtune.role={role}",
    ]
    if terminal and terminal.where == role:
        words += [
            f"cvmtune.shell={role}",
            f"cvmtune.rows={terminal.rows}",
            f"cvmtune.cols={terminal.columns}",
            f"cvmtune.term={terminal.term}",
        ]
    return [*words, *extra]


def _disk(name: str, path: str, options: str) -> list[str]:
    return [
        "-drive",
        f"file={path},format=raw,if=none,id={name},{options}",
        "-device",
        f"virtio-blk-device,drive={name},serial={name}",
    ]


def _root_disk(path: str, options: str) -> list[str]:
    """Return the disk that the kernel finds as vda. It must come after all other disks: the last is probed
    first."""
    return _disk("root", path, options)


def _common(memory_mb: int, cpus: int) -> list[str]:
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-smp", str(cpus), "-m", str(memory_mb)),
        *("-device", "virtio-rng-device"),
    ]


def start_guest_script(
    spec: MachineSpec,
    append: Sequence[str] = (),
    terminal: Terminal | None = None,
    *,
    store: bool = False,
) -> str:
    """Return the shell script by which the host's init starts the nested guest.

    Its ports are the host's own virtio-serial ports, opened as they are: nothing relays.
    """
    argv = [
        *(
            QEMU,
            "-name",
            "guest,debug-threads=on",
            "-machine",
            "virt,gic-version=3",
            "-accel",
            "kvm",
            "-cpu",
            "host",
        ),
        *_common(spec.guest_mb, spec.guest_cpus),
        *("-kernel", f"{_DISK}/kernel", "-append", " ".join(_append(GUEST, append, terminal))),
        *_disk("payload", f"{_DISK}/payload", "readonly=on"),
        # Nothing of it may stay in the host, which does not outlive its guest.
        *(_disk(STORE, f"{_DISK}/{STORE}", "cache=none") if store else ()),
        *_root_disk(f"{_DISK}/guest", "cache=unsafe"),
        *("-chardev", f"pipe,id=console,path={_PORT}/console", "-serial", "chardev:console"),
        *("-chardev", f"pipe,id=agent,path={_PORT}/guest"),
        *("-device", "virtio-serial-device", "-device", "virtserialport,chardev=agent,name=guest"),
    ]
    return f"echo $$ >/run/cvmtune/guest.pid\nexec {format_command(argv)}\n"


def qemu_argv(
    spec: MachineSpec,
    images: Images,
    *,
    console: str,
    ports: Mapping[str, str],
    append: Sequence[str] = (),
    host_append: Sequence[str] = (),
    terminal: Terminal | None = None,
    processor: Sequence[str],
) -> list[str]:
    """Return the command line of the outermost QEMU.

    `console` is what the outermost kernel's console leads to, `ports` what each virtio-serial port does, as
    chardev specifications without their ids. `append` goes to the guest's kernel, `host_append` to the host's
    (where there is one). `processor` is what processor_options() has returned.
    """
    role = HOST if spec.nested else GUEST
    root = images.host_root if spec.nested else images.guest_root
    assert root is not None
    machine = "virt,gic-version=3" + (",virtualization=on" if spec.nested else "")
    extra = [*spec.host_append, *host_append] if spec.nested else append
    argv = [
        *(QEMU, "-name", f"{spec.name},debug-threads=on", "-machine", machine, *processor),
        *_common(spec.host_mb if spec.nested else spec.guest_mb, spec.guest_cpus),
        *("-kernel", str(images.kernel), "-append", " ".join(_append(role, extra, terminal))),
        *_disk("payload", str(images.payload), "readonly=on"),
    ]
    if spec.nested:
        argv += _disk("guest", str(images.guest_root), "snapshot=on")
        argv += _disk("kernel", str(images.kernel), "readonly=on")
    if images.store:
        argv += _disk(STORE, str(images.store), "cache=writeback")
    # Writes go to a temporary file that QEMU throws away: images are shared and stay as they were built.
    argv += _root_disk(str(root), "snapshot=on")
    argv += [
        "-chardev",
        f"{console},id=console",
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-device",
    ]
    for name, chardev in ports.items():
        argv += [
            "-chardev",
            f"{chardev},id=port-{name}",
            "-device",
            f"virtserialport,chardev=port-{name},name={name}",
        ]
    return argv


def processor_options(*, nested: bool, icount: bool, qemu_version: tuple[int, ...]) -> list[str]:
    """Return QEMU's options for the outermost machine's processor, and for how its code is run.

    That is emulation, but for `plain` on an arm64 computer with KVM. With `icount` the guest's clock counts
    instructions, which takes one thread for all its CPUs; it does not stand still while they idle, but goes
    on to their next timer.
    """
    if not nested and not icount and platform.machine() == "aarch64" and Path("/dev/kvm").exists():
        return ["-cpu", "host", "-accel", "kvm"]
    # KVM of this kernel does not start under the emulator's LPA2 (52-bit addresses with 4 KiB pages), which
    # came with QEMU 7.0.
    cpu = ["-cpu", "max,lpa2=off" if nested and qemu_version >= (7, 0) else "max"]
    if icount:
        return [*cpu, "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
    return [*cpu, "-accel", "tcg,thread=multi"]


def qemu_version() -> tuple[int, ...]:
    """Return the version of the installed QEMU; CvmtuneError if there is none."""
    first = command.run([QEMU, "--version"]).check().stdout.split("\n", 1)[0]
    found = re.search(r"version (\d+)\.(\d+)", first)
    if found is None:
        raise CvmtuneError(f"cannot tell QEMU's version from {first!r}", QEMU)
    return int(found[1]), int(found[2])
