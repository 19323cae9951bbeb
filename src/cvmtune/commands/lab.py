# SPDX-License-Identifier: Apache-2.0
"""`cvmtune lab ...`: build, boot, look into and clean up the lab's machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from cvmtune.core.command import format_command
from cvmtune.core.errors import UsageError
from cvmtune.lab import kernel, rootfs
from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import Toolchain
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.kernel_source import SourceTree, fetch_command
from cvmtune.lab.lab import Lab, machine_spec
from cvmtune.lab.machine import BootOptions
from cvmtune.lab.progress import SilentProgress, terminal_progress
from cvmtune.lab.project import kernel_directory
from cvmtune.lab.qemu import processor_options, qemu_argv, start_guest_script
from cvmtune.lab.specs import GUEST, HOST, MACHINES, Images
from cvmtune.lab.terminal import join, this_terminal

# The oldest whose options are those of its successors.
_RECENT_QEMU = (7, 0)


def open_lab(silent: bool = False) -> Lab:
    """Return the lab with the user's cache; progress goes to standard error unless `silent`."""
    return Lab(Cache(), SilentProgress() if silent else terminal_progress())


def build(lab: Lab, flavours: Sequence[str], *, as_json: bool, dry_run: bool) -> int:
    """Build kernels of these flavours, their guest tools, and both root file systems."""
    if dry_run:
        print("\n".join(_build_commands(_Places(lab.cache.root), flavours)))
        return 0
    made: dict[str, object] = {}
    for flavour in flavours:
        built, tools, roots = lab.build(flavour, host=True)
        made[flavour] = {
            "image": str(built.image),
            "release": built.release,
            "guest_tools": str(tools),
            "root_file_systems": {name: str(path) for name, path in roots.items()},
        }
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        for flavour, parts in made.items():
            print(f"{flavour}: {parts['image']}" if isinstance(parts, dict) else flavour)
    return 0


class _Places(Cache):
    """A cache that tells where things would be and makes none of them, for a dry run."""

    def directory(self, name: str) -> Path:
        return self.root / name


def _build_commands(cache: Cache, flavours: Sequence[str]) -> Iterable[str]:
    """The commands of a build, each line one that a shell takes."""
    tree = SourceTree(cache)
    yield "# the kernel's source, unless it is installed or cached"
    yield format_command(fetch_command(tree.path / "out.tar"))
    for flavour in flavours:
        queue = "after" if FLAVOURS[flavour].patched else "without"
        yield f"# kernel, {flavour}: in {tree.path}, {queue} the patch queue of {kernel_directory()}"
        for argv in kernel.commands(FLAVOURS[flavour], Toolchain.here(), tree, cache):
            yield format_command(argv)
    for root in rootfs.ROOT_FILE_SYSTEMS.values():
        yield f"# root file system, {root.name}"
        for argv in rootfs.commands(root, cache.root / "rootfs" / root.name):
            yield format_command(argv)


def boot(lab: Lab, machine: str, flavour: str, append: Sequence[str], *, as_json: bool, dry_run: bool) -> int:
    """Boot a machine, tell how long it took, and end it."""
    options = BootOptions(append=tuple(append))
    if dry_run:
        print("\n".join(_boot_commands(machine, flavour, options)))
        return 0
    with (
        lab.progress.step(f"booting {machine}"),
        lab.boot(machine, flavour=flavour, options=options) as running,
    ):
        kernel_version = running.guest.read_text("/proc/version").strip()
        seconds = running.boot_seconds
        consoles = {
            role: str(running.console(role)) for role in (HOST, GUEST) if running.console(role).exists()
        }
    if as_json:
        print(json.dumps({"machine": machine, "boot_seconds": seconds, "kernel": kernel_version} | consoles))
    else:
        print(f"{machine}: agent ready after {seconds:.1f} s, {kernel_version}")
        for role, path in consoles.items():
            print(f"  console of the {role}: {path}")
    return 0


def _boot_commands(machine: str, flavour: str, options: BootOptions) -> Iterable[str]:
    spec = machine_spec(machine, flavour, options)
    images = Images(
        Path(f"kernel-{flavour}/Image"),
        Path("rootfs-guest/root.img"),
        Path("payload.tar"),
        Path("rootfs-host/root.img"),
    )
    ports = {
        name: f"socket,fd={number}"
        for number, name in enumerate((HOST, GUEST) if spec.nested else (GUEST,), 3)
    }
    if spec.nested:
        ports["console"] = "file,path=guest.console"
    argv = qemu_argv(
        spec,
        images,
        console=f"file,path={HOST if spec.nested else GUEST}.console",
        ports=ports,
        append=options.append,
        host_append=options.host_append,
        # Which QEMU is installed does not matter here: it may be none yet.
        processor=processor_options(nested=spec.nested, icount=options.icount, qemu_version=_RECENT_QEMU),
    )
    yield "# here; images are named by what they hold"
    yield format_command(argv)
    if spec.nested:
        yield "# and in the host, for its guest"
        yield start_guest_script(spec, options.append).rstrip()


def run(
    lab: Lab,
    machine: str,
    where: str,
    flavour: str,
    append: Sequence[str],
    argv: Sequence[str],
    timeout: float,
    *,
    dry_run: bool,
) -> int:
    """Run a command in a machine, pass on what it prints, and return its status."""
    _require_there(machine, where)
    options = BootOptions(append=tuple(append))
    if dry_run:
        print("\n".join(_boot_commands(machine, flavour, options)))
        print(f"# then, through the agent of the {where}\n{format_command(argv)}")
        return 0
    with lab.boot(machine, flavour=flavour, options=options) as running:
        system = running.guest if where == GUEST else running.host
        assert system
        done = system.run(argv, timeout=timeout)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    # As a shell does for a command that a signal has ended.
    return done.status if done.status >= 0 else 128 - done.status


def shell(lab: Lab, machine: str, where: str, flavour: str, append: Sequence[str], *, dry_run: bool) -> int:
    """Join the user's terminal to a shell in a machine, until it ends or the user types Ctrl-]."""
    _require_there(machine, where)
    if dry_run:
        print("\n".join(_boot_commands(machine, flavour, BootOptions(append=tuple(append)))))
        return 0
    options = BootOptions(append=tuple(append), terminal=this_terminal(where))
    with lab.boot(machine, flavour=flavour, options=options) as running:
        assert running.terminal
        print(f"a shell in the {where} of {machine}; leave it by `exit` or Ctrl-]", file=sys.stderr)
        join(running.terminal)
    return 0


def _require_there(machine: str, where: str) -> None:
    # Before a boot, and perhaps a build, that would be for nothing.
    if where == HOST and not MACHINES[machine].nested:
        raise UsageError(f"machine {machine} has no host", next_step="leave out --in host")


def clean(lab: Lab, what: str | None, *, as_json: bool, dry_run: bool) -> int:
    """Remove what the lab has cached: all of it, or one part."""
    sizes = {name: size for name, size in lab.cache.sizes().items() if what in (None, name)}
    if what and what not in sizes:
        parts = ", ".join(lab.cache.sizes()) or "nothing"
        raise UsageError(f"the cache has no part {what!r}", str(lab.cache.root), f"it has: {parts}")
    if not dry_run:
        lab.cache.clean(what)
    if as_json:
        print(json.dumps({"root": str(lab.cache.root), "bytes": sizes, "removed": not dry_run}))
    else:
        for name, size in sizes.items():
            print(f"{'would remove' if dry_run else 'removed'} {lab.cache.root / name}: {size / 1e6:.0f} MB")
    return 0
