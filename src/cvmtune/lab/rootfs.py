# SPDX-License-Identifier: Apache-2.0
"""Root file systems of the lab: Debian 12 for arm64, as ext4 images, cached by what they are made from.

Packages are unpacked only (mmdebstrap's variant `extract`): no maintainer script runs, so no emulation is
needed and a tree takes seconds.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cvmtune.core import command
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import BuildFailed
from cvmtune.lab.kernel_source import SUITE, mirror_arguments
from cvmtune.lab.progress import Progress

_GUEST_PYTHON = (3, 11)

# What /init, the agent and the experiments need; maintainer scripts do not run, so no package that lives by
# them.
_BASE = (
    "busybox-static",  # init's tools, one file
    "python3-minimal",  # the agent, and cvmtune itself
    "libpython3-stdlib",
    "kmod",  # loads the test modules
    "bash",  # the shell of `lab shell`
    "coreutils",
    "grep",
    "sed",
    "mount",
    "procps",
    "util-linux",  # taskset, chrt, rtcwake
    "iproute2",  # ip, rdma
)
_GUEST = (
    "rt-tests",  # hackbench, cyclictest
    "nfs-kernel-server",  # rpc.nfsd and its daemons; brings nfs-common, with mount.nfs4
    "fio",  # writes to that at a rate, times each write, verifies what it wrote
    "postgresql-15",  # the database of the experiment blackbox, with pgbench and pg_amcheck
)

# The database has a user of its own: as root its server refuses to run.
_PASSWD = "root:x:0:0:root:/root:/bin/bash\npostgres:x:100:100::/:/bin/bash\n"
_GROUP = "root:x:0:\npostgres:x:100:\n"


@dataclass(frozen=True)
class RootFs:
    """A root file system as data."""

    name: str
    packages: tuple[str, ...]
    size_mb: int


ROOT_FILE_SYSTEMS = {
    root.name: root
    for root in (
        RootFs("guest", (*_BASE, *_GUEST), 1024),
        RootFs("host", (*_BASE, "qemu-system-arm"), 1024),
    )
}


def key(root: RootFs) -> Mapping[str, str]:
    """Return what the image depends on. Debian's point releases are not part of it: `lab clean` asks for
    them."""
    return {
        "bytecode": str(_can_compile()),
        "suite": SUITE,
        "mirror": " ".join(mirror_arguments()),
        "packages": " ".join(root.packages),
        "size_mb": str(root.size_mb),
        "init": _init_text(),
        "users": _PASSWD + _GROUP,
    }


def build(root: RootFs, cache: Cache, progress: Progress) -> Path:
    """Return the image, after building it if the cache does not have it."""

    def fill(directory: Path) -> None:
        with progress.step(f"building the {root.name} root file system (Debian 12, arm64)"):
            _build(root, directory)

    return cache.get_or_fill("rootfs", key(root), fill) / "root.img"


def commands(root: RootFs, directory: Path) -> list[list[str]]:
    """Return the commands that make the image, in order; before the last, _finish_tree() does its part."""
    tree, tar = directory / "tree", directory / "root.tar"
    return [
        [
            *("mmdebstrap", "--quiet", "--mode=chrootless", "--arch=arm64", "--variant=extract"),
            *("--include=" + ",".join(root.packages), SUITE, str(tar), *mirror_arguments()),
        ],
        # The kernel makes the devices; an ordinary user could not.
        ["tar", "-C", str(tree), "--exclude=./dev/*", "-xf", str(tar)],
        # No journal: images are thrown away after each boot.
        [
            *("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0"),
            *("-d", str(tree), str(directory / "root.img"), f"{root.size_mb}M"),
        ],
    ]


def _build(root: RootFs, directory: Path) -> None:
    log = directory / "build.log"
    tree = directory / "tree"
    tree.mkdir()
    fetch, unpack, pack = commands(root, directory)
    _run(fetch, log)
    _run(unpack, log)
    _finish_tree(tree)
    if _can_compile():
        _compile(tree)
    _run(pack, log)
    shutil.rmtree(tree)
    (directory / "root.tar").unlink()


def _finish_tree(tree: Path) -> None:
    for name in ("proc", "sys", "run", "tmp", "dev", "etc", "root"):
        (tree / name).mkdir(exist_ok=True)
    init = tree / "init"
    init.write_text(_init_text())
    init.chmod(0o755)
    (tree / "etc/passwd").write_text(_PASSWD)
    (tree / "etc/group").write_text(_GROUP)
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    # exportfs fails without it; what is exported, its users name themselves.
    (tree / "etc/exports").touch()
    # Debian's /bin/sh is dash's, which is not among the packages.
    (tree / "bin/sh").symlink_to("bash")


def _can_compile() -> bool:
    """Tell whether this Python's bytecode is that of Debian 12's."""
    return sys.version_info[:2] == _GUEST_PYTHON


def _compile(tree: Path) -> None:
    """Compile the guest's Python library, as the maintainer script would have: every start would do it else.

    Under emulation that is most of the time which the agent takes to start.
    """
    library = tree / "usr/lib/python3.11"
    compileall.compile_dir(
        library,
        quiet=2,
        stripdir=str(tree),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=0,
    )


def _init_text() -> str:
    return resources.files("cvmtune.lab").joinpath("guest/init").read_text()


def _run(argv: list[str], log: Path) -> None:
    # Built by an ordinary user, the files belong to that user's number: in the lab's machines all run as
    # root.
    if command.run(argv, log=log, env=os.environ | {"LC_ALL": "C.UTF-8"}).status:
        raise BuildFailed(f"cannot build a root file system: {argv[0]} failed", log)
