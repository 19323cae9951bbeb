# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel source: where it is got, and the one tree in which the lab builds kernels from it."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.command import run
from cvmtune.core.errors import UsageError
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import LabError
from cvmtune.lab.kbuild import Toolchain, require_tools
from cvmtune.lab.progress import Progress

SUITE = "bookworm"
PACKAGE = "linux-source-6.12"

_TARBALL = f"usr/src/{PACKAGE}.tar.xz"
_CHANGELOG = f"usr/share/doc/{PACKAGE}/changelog.Debian.gz"
# mmdebstrap's result and what it holds meanwhile: twice the tarball, and xz-utils with what it depends on.
_FETCH_BYTES = 600_000_000
_TREE_BYTES = 1_900_000_000
_OUTPUT = "out-"


@dataclass(frozen=True)
class Source:
    """A kernel source package's tarball. `version` is Debian's, e.g. "6.12.117-1~deb12u1"."""

    version: str
    tarball: Path

    @property
    def upstream(self) -> tuple[int, ...]:
        """The kernel's version as numbers: (6, 12, 117)."""
        return upstream(self.version)


def upstream(version: str) -> tuple[int, ...]:
    """Return the kernel version that a package's version begins with: "6.12.117-1" is (6, 12, 117)."""
    return tuple(int(part) for part in re.split(r"[-+~]", version)[0].split("."))


def mirror_arguments() -> list[str]:
    """Return where mmdebstrap shall get packages: its own default, Debian's mirror with the security updates.

    $CVMTUNE_DEBIAN_MIRROR overrides it: mmdebstrap's MIRROR arguments, quoted as in a shell. They must offer
    the security updates too, for that is where Debian 12 has linux-source-6.12.
    """
    mirror = os.environ.get("CVMTUNE_DEBIAN_MIRROR", "")
    try:
        return shlex.split(mirror)
    except ValueError as error:
        raise UsageError(f"cannot read {mirror!r}: {error}", "CVMTUNE_DEBIAN_MIRROR") from error


def fetch_command(target: Path) -> list[str]:
    """Return the command that unpacks the package into the tar archive `target`.

    Nothing of it is run, so it needs neither a chroot nor root: chrootless works for every user alike.
    """
    options = ("--quiet", "--mode=chrootless", "--variant=extract", f"--include={PACKAGE}")
    return ["mmdebstrap", *options, SUITE, str(target), *mirror_arguments()]


def find_source(cache: Cache, progress: Progress) -> Source:
    """Return the source that is installed on this machine, else the one in the cache, fetched if need be.

    The cached one stays what it is until it is cleaned (kind "source"), so that nothing changes unasked.
    """
    installed = Path("/") / _TARBALL
    if installed.is_file() and (version := _installed_version()):
        return Source(version, installed)

    def fetch(directory: Path) -> None:
        with progress.step(f"fetching {PACKAGE} from Debian"):
            require_tools(Toolchain.here())
            archive = directory / "package.tar"
            run(fetch_command(archive)).check()
            with tarfile.open(archive) as tar:
                (directory / "version").write_text(_version_in(tar))
                _take(tar, _TARBALL, directory / Path(_TARBALL).name)
            archive.unlink()

    material = {"package": PACKAGE, "suite": SUITE, "mirror": shlex.join(mirror_arguments())}
    entry = cache.get_or_fill("source", material, fetch, needs=_FETCH_BYTES)
    return Source((entry / "version").read_text(), entry / Path(_TARBALL).name)


class SourceTree:
    """A tree in which kernels are built. It lives on, so that a change of the queue rebuilds little.

    There are two: for the kernels that are booted, and for the checks of the queue. Who uses a tree holds the
    cache's lock of its name. Files in a tree are replaced, never written into: the trees share them.
    """

    LOCK = "work"
    CHECKS = "check-tree"

    def __init__(self, cache: Cache, name: str = LOCK) -> None:
        self._cache = cache
        self._top = cache.directory(name) / "kernel"
        self.path = self._top / "linux"
        # Where the patch queue keeps the tree's own versions of the files that it touches.
        self.pristine = self._top / "pristine"
        self._unpacked = self._top / "unpacked-version"

    def output(self, name: str) -> Path:
        """Return kbuild's output directory of that name.

        It lies inside the source, so that kbuild names sources by relative paths and ccache knows them again
        wherever the cache is.
        """
        return self.path / f"{_OUTPUT}{name}"

    def scratch(self, name: str) -> Path:
        """Return a new empty directory beside the tree, in place of one of that name that is there."""
        directory = self._top / name
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        return directory

    def unpack(self, source: Source, progress: Progress) -> None:
        """Make the tree that of `source`, unpatched, unless it is there already, patched or not."""
        if self._holds(source):
            return
        self._cache.check_space(_TREE_BYTES)
        self._remove()
        aside = self.scratch("unpacking")
        unpack(source, aside, progress)
        aside.rename(self.path)
        self._unpacked.write_text(source.version)

    def copy(self, source: Source, progress: Progress) -> None:
        """Make the tree that of `source`, unless it is there already, as a copy of the kernels' tree.

        The copy, made by links, takes next to no room. The caller holds the lock of this tree only.
        """
        if self._holds(source):
            return
        self._remove()
        with self._cache.lock(self.LOCK):
            original = SourceTree(self._cache)
            original.unpack(source, progress)
            with progress.step("copying the kernel source by links"):
                for each, target in ((original.path, self.path), (original.pristine, self.pristine)):
                    if each.exists():
                        shutil.copytree(each, target, symlinks=True, ignore=_outputs, copy_function=os.link)
        self._unpacked.write_text(source.version)

    def _holds(self, source: Source) -> bool:
        return self._unpacked.is_file() and self._unpacked.read_text() == source.version

    def _remove(self) -> None:
        self._unpacked.unlink(missing_ok=True)
        for stale in (self.path, self.pristine):
            if stale.exists():
                shutil.rmtree(stale)


def _outputs(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(_OUTPUT)]


def unpack(source: Source, directory: Path, progress: Progress) -> None:
    """Unpack the source, without the directory that the tarball wraps around it, into `directory`."""
    with progress.step(f"unpacking kernel source {source.version}"):
        run(["tar", "-C", str(directory), "--strip-components=1", "-xf", str(source.tarball)]).check()


def _installed_version() -> str | None:
    # Documentation is often left out of an installation, so that its changelog cannot be relied on here.
    if shutil.which("dpkg-query") is None:
        return None
    query = run(["dpkg-query", "--show", "--showformat=${Version}", PACKAGE])
    return query.stdout if query.status == 0 else None


def _version_in(tar: tarfile.TarFile) -> str:
    # A package that was unpacked but not installed is in no package database.
    file = tar.extractfile(f"./{_CHANGELOG}")
    first_line = gzip.decompress(file.read()).decode().splitlines()[0] if file else ""
    if match := re.match(r"\S+ \(([^)]+)\)", first_line):
        return match[1]
    raise LabError(f"no version in the changelog of {PACKAGE}: {first_line!r}", _CHANGELOG)


def _take(tar: tarfile.TarFile, member: str, target: Path) -> None:
    file = tar.extractfile(f"./{member}")
    if file is None:
        raise LabError(f"no {member} in the package", PACKAGE)
    with target.open("wb") as out:
        shutil.copyfileobj(file, out)
