# SPDX-License-Identifier: Apache-2.0
"""The lab as one thing: builds what a machine needs, boots it, keeps the consoles of the last runs."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cvmtune.lab import guest_tools, kernel, kernel_selftests, rootfs
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import GuestHung, MissingTool
from cvmtune.lab.kernel import FLAVOURS, BuiltKernel
from cvmtune.lab.machine import PLAIN_BOOT, BootOptions, Machine, boot
from cvmtune.lab.progress import Progress
from cvmtune.lab.qemu import QEMU
from cvmtune.lab.specs import MACHINES, Images, MachineSpec

# Where the payload puts test modules and helpers, and those modules that come with the guest's kernel.
GUEST_TOOLS = "/opt/cvmtune"
KVM_SELFTESTS = f"{GUEST_TOOLS}/{kernel_selftests.KVM.name}"
TIMER_SELFTESTS = f"{GUEST_TOOLS}/{kernel_selftests.TIMERS.name}"

_KEPT_RUNS = 30
# Programs that build and boot, beside the kernel's own needs (kbuild.require_tools), and their packages.
_PROGRAMS = {QEMU: "qemu-system-arm", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}


class Lab:
    """Builds and boots, with one cache."""

    def __init__(self, cache: Cache, progress: Progress) -> None:
        self.cache = cache
        self.progress = progress
        self._serial = itertools.count(1)

    def build(self, flavour: str, *, host: bool) -> tuple[BuiltKernel, Path, dict[str, Path]]:
        """Return the kernel, the directory of its guest tools, and the root file systems by name."""
        require_programs()
        built = kernel.build(FLAVOURS[flavour], self.cache, self.progress)
        tools = guest_tools.build_guest_tools(FLAVOURS[flavour], self.cache, self.progress)
        names = ("guest", "host") if host else ("guest",)
        roots = {
            name: rootfs.build(rootfs.ROOT_FILE_SYSTEMS[name], self.cache, self.progress) for name in names
        }
        return built, tools, roots

    def kvm_selftests(self) -> Path:
        """Return the directory of KVM's selftests, for `tools` of boot(); there they are in KVM_SELFTESTS."""
        return kernel_selftests.build(kernel_selftests.KVM, self.cache, self.progress)

    def timer_selftests(self) -> Path:
        """Return the directory of the kernel's tests of timers, as kvm_selftests(); see TIMER_SELFTESTS."""
        return kernel_selftests.build(kernel_selftests.TIMERS, self.cache, self.progress)

    @contextmanager
    def boot(
        self,
        machine: str,
        *,
        flavour: str = "default",
        options: BootOptions = PLAIN_BOOT,
        tools: Sequence[Path] = (),
    ) -> Iterator[Machine]:
        """Boot a machine, after building what it needs; it ends with the `with` block.

        What is in the directories `tools` comes into GUEST_TOOLS too, of the guest and of the host. A boot
        that hangs is told, and tried once more (docs/lab.md, What the emulator gets wrong).
        """
        spec = machine_spec(machine, flavour, options)
        built, own_tools, roots = self.build(flavour, host=spec.nested)
        options = replace(options, deadline=max(options.deadline, FLAVOURS[flavour].deadline))

        def attempt() -> AbstractContextManager[Machine]:
            directory = self._new_run(machine)
            images = Images(
                kernel=built.image,
                guest_root=roots["guest"],
                host_root=roots.get("host"),
                payload=directory / "payload.tar",
                store=options.store,
            )
            return boot(spec, images, (own_tools, built.modules, *tools), directory, options)

        with ExitStack() as stack:
            try:
                running = stack.enter_context(attempt())
            except GuestHung as error:
                self.progress.say(f"{error}\n  booting {machine} once more")
                running = stack.enter_context(attempt())
            yield running

    def _new_run(self, machine: str) -> Path:
        runs = self.cache.directory("runs")
        for old in sorted(runs.iterdir())[:-_KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return runs / f"{stamp}-{os.getpid()}-{next(self._serial)}-{machine}"


def machine_spec(machine: str, flavour: str, options: BootOptions) -> MachineSpec:
    """Return the machine as it is booted with that kernel and these options."""
    extra = FLAVOURS[flavour].extra_mb
    spec = MACHINES[machine]
    # A host holds its guest's memory besides its own.
    spec = replace(spec, guest_mb=spec.guest_mb + extra, host_mb=spec.host_mb + 2 * extra)
    if options.cpus:
        spec = replace(spec, guest_cpus=options.cpus)
    return spec


def require_programs() -> None:
    """Raise MissingTool, naming the packages, if a program that the lab runs is not on this machine."""
    missing = {name: package for name, package in _PROGRAMS.items() if shutil.which(name) is None}
    if missing:
        raise MissingTool(missing)
