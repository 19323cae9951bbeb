# SPDX-License-Identifier: Apache-2.0
"""Running the kernel's make: with which tools, with which settings, and how far it is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.command import run
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import BuildFailed, MissingTool
from cvmtune.lab.progress import Step

# What make says of each file that it makes, when it is not silent: "  CC      kernel/smp.o".
_PRODUCT = re.compile(rb"^  [A-Z][A-Z0-9]* +(\S+)")
_POLL_SECONDS = 0.5
_CCACHE_SIZE = "5G"

# Programs that the build runs on this machine, and the Debian packages that have them.
_PROGRAMS = {
    "bc": "bc",
    "bison": "bison",
    "ccache": "ccache",
    "flex": "flex",
    "gcc": "gcc",
    "git": "git",
    "make": "make",
    "mmdebstrap": "mmdebstrap",
    "perl": "perl",
    "tar": "tar",
    "xz": "xz-utils",
}
# mmdebstrap needs it to check signatures; on Ubuntu it does not come by itself.
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HOST_LIBC = "/usr/include/stdio.h"

# What kbuild is told and a kernel depends on, the compiler aside.
SETTINGS = (
    "ARCH=arm64",
    # A git repository that surrounds the cache is none of the kernel's business.
    "LOCALVERSION=",
    # The same input gives the same Image.
    "KBUILD_BUILD_TIMESTAMP=2026-01-01",
    "KBUILD_BUILD_USER=cvmtune",
    "KBUILD_BUILD_HOST=lab",
    "KBUILD_BUILD_VERSION=1",
)


@dataclass(frozen=True)
class Toolchain:
    """The compiler for arm64. `cross` is the prefix of its programs' names, empty on an arm64 machine."""

    cross: str

    @classmethod
    def here(cls) -> Toolchain:
        """Return the one for this machine, installed or not (see require_tools)."""
        return cls("" if platform.machine() == "aarch64" else "aarch64-linux-gnu-")

    @property
    def gcc(self) -> str:
        return f"{self.cross}gcc"

    @property
    def packages(self) -> Mapping[str, str]:
        """The Debian packages of the compiler and of the library for static helper programs, by name."""
        if self.cross:
            return {self.gcc: "gcc-aarch64-linux-gnu", "libc.a": "libc6-dev-arm64-cross"}
        return {self.gcc: "gcc", "libc.a": "libc6-dev"}

    def version(self) -> str:
        """Return what tells this compiler from others; raises MissingTool if there is none."""
        if shutil.which(self.gcc) is None:
            require_tools(self)  # names all that is missing, not the compiler alone
        return run([self.gcc, "--version"]).check().stdout.splitlines()[0]

    def has_static_libc(self) -> bool:
        """Tell whether static programs can be linked."""
        # For a file that it cannot find, gcc answers with the mere name.
        return Path(run([self.gcc, "-print-file-name=libc.a"]).check().stdout.strip()).is_absolute()


def require_tools(toolchain: Toolchain) -> None:
    """Raise MissingTool naming everything that a kernel build needs and this machine has not, all at once."""
    missing = {program: package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not _KEYRING.exists():
        missing[str(_KEYRING)] = "debian-archive-keyring"
    if not Path(_HOST_LIBC).exists():
        missing[_HOST_LIBC] = "libc6-dev"
    if shutil.which(toolchain.gcc) is None:
        missing |= toolchain.packages
    elif not toolchain.has_static_libc():
        missing["libc.a"] = toolchain.packages["libc.a"]
    if missing:
        raise MissingTool(missing)


def make_command(cache: Cache, toolchain: Toolchain, *arguments: str) -> list[str]:
    """Return a make command with all that our builds share; it depends on nothing in the environment.

    Variables of make's command line reach the environment of what make runs: kbuild's scripts and ccache.
    """
    return [
        "make",
        f"-j{len(os.sched_getaffinity(0))}",
        *SETTINGS,
        f"CROSS_COMPILE={toolchain.cross}",
        f"CC=ccache {toolchain.gcc}",
        f"CCACHE_DIR={cache.directory('ccache')}",
        f"CCACHE_MAXSIZE={_CCACHE_SIZE}",
        # Results do not depend on where the cache is: kbuild names sources by relative paths.
        "CCACHE_NOHASHDIR=1",
        # kbuild has the compiler list what a file includes, so that ccache need not preprocess it to know.
        # That is a quarter of a first build's time.
        "CCACHE_DEPEND=1",
        *arguments,
    ]


def build_environment() -> dict[str, str]:
    """Return the environment for make, without the variables that would steer kbuild or come from a make."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C"}


def run_make(argv: Sequence[str], cwd: Path, log: Path, what: str, step: Step) -> None:
    """Run make with its output appended to `log`, and count what it makes as units of `step`.

    Raises BuildFailed saying `what` failed.
    """
    with _counting(log, step):
        completed = run(argv, cwd=cwd, env=build_environment(), log=log, capture=False)
    if completed.status:
        raise BuildFailed(what, log)


@contextmanager
def _counting(log: Path, step: Step) -> Iterator[None]:
    """While the block runs, tell `step` of what is written to `log`."""
    log.touch()
    over = threading.Event()
    with log.open("rb") as lines:
        lines.seek(0, os.SEEK_END)

        def count() -> None:
            last = False
            while not last:
                last = over.wait(_POLL_SECONDS)
                products = [match[1] for line in lines if (match := _PRODUCT.match(line))]
                if products:
                    step.advance(len(products))
                    step.note(products[-1].decode(errors="replace"))

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
