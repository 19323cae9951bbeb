# SPDX-License-Identifier: Apache-2.0
"""The lab's kernels: one source, one patch queue, several flavours. One Image is host and guest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cvmtune.core.command import format_command
from cvmtune.lab import kconfig
from cvmtune.lab.cache import Cache, key_of
from cvmtune.lab.kbuild import SETTINGS, Toolchain, make_command, require_tools, run_make
from cvmtune.lab.kconfig import Option
from cvmtune.lab.kernel_source import PACKAGE, Source, SourceTree, find_source
from cvmtune.lab.patches import Series, apply_patches, read_series
from cvmtune.lab.progress import Progress
from cvmtune.lab.project import kernel_directory

_IMAGE = "Image"
_CONFIG = "config"
_MODULES = "modules"
_RELEASE = "release"
# In an output directory: the key of the kernel that it holds, complete; and the options asked for.
_BUILT_KEY = "cvmtune-key"
_ALLCONFIG = "cvmtune-allconfig"


@dataclass(frozen=True)
class Flavour:
    """A way to build the kernel.

    `fragments` are files of kernel/configs. `output` names kbuild's output directory: flavours that differ
    little share one, so that one is rebuilt from the other. `products` is about how many files a build from
    nothing makes, `megabytes` the size of its output directory. Without `patched` the queue is left out.

    What looks for errors is slow and large: `deadline` is how long a boot may take, in seconds, on a busy
    computer and under two layers of emulation, `extra_mb` the memory that its records need.
    """

    name: str
    purpose: str
    fragments: tuple[str, ...]
    output: str
    products: int
    megabytes: int
    deadline: float = 120.0
    extra_mb: int = 0
    patched: bool = True


_WITHOUT_FEATURES = ("base.config", "kvm.config", "nfs-rdma.config")
_DEFAULT = (*_WITHOUT_FEATURES, "cvmtune.config")

FLAVOURS: Mapping[str, Flavour] = {
    flavour.name: flavour
    for flavour in (
        Flavour("default", "what is measured", _DEFAULT, "default", 1840, 250),
        Flavour("absent", "the features not compiled in", _WITHOUT_FEATURES, "default", 1840, 250),
        # An output directory of its own: in the others' each change from or to it would look like one of the
        # queue, and rebuild them.
        Flavour(
            "unpatched",
            "the kernel as it comes, without the queue",
            _WITHOUT_FEATURES,
            "unpatched",
            1840,
            250,
            patched=False,
        ),
        Flavour(
            "debug",
            "locking, RCU and memory errors",
            (*_DEFAULT, "debug.config"),
            "debug",
            1870,
            400,
            400.0,
            512,
        ),
        Flavour("kcsan", "data races", (*_DEFAULT, "kcsan.config"), "kcsan", 1870, 400, 600.0, 512),
    )
}


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel in the cache. `release` is what `uname -r` says, `key` names its content.

    `modules` is a directory with those modules (.ko) that are part of the kernel's own source.
    """

    flavour: Flavour
    key: str
    image: Path
    config: Path
    modules: Path
    release: str


@dataclass(frozen=True)
class KernelInputs:
    """All that a kernel is made from."""

    flavour: Flavour
    source: Source
    series: Series
    options: tuple[Option, ...]
    toolchain: Toolchain

    def key_material(self) -> Mapping[str, str]:
        """Return what tells this kernel from any other."""
        return {
            "flavour": self.flavour.name,
            "source": f"{PACKAGE} {self.source.version}",
            "config": kconfig.to_text(self.options),
            "compiler": self.toolchain.version(),
            "settings": format_command(SETTINGS),
            **{f"patch {n}": patch.digest() for n, patch in enumerate(self.series.patches, start=1)},
        }


def gather_inputs(flavour: Flavour, cache: Cache, progress: Progress) -> KernelInputs:
    """Return what the flavour is made from as things stand now, fetching the source if it is not here."""
    directory = kernel_directory()
    source = find_source(cache, progress)
    series = read_series(directory, source.upstream)
    if not flavour.patched:
        series = replace(series, patches=())
    options = kconfig.read_fragments(directory / "configs" / name for name in flavour.fragments)
    return KernelInputs(flavour, source, series, options, Toolchain.here())


def build(flavour: Flavour, cache: Cache, progress: Progress) -> BuiltKernel:
    """Return the kernel, after building it if the cache does not have it.

    Raises MissingTool, NoSpace, PatchDoesNotApply, BadConfig or BuildFailed.
    """
    inputs = gather_inputs(flavour, cache, progress)
    material = inputs.key_material()

    def fill(directory: Path) -> None:
        require_tools(inputs.toolchain)
        with cache.lock(SourceTree.LOCK):
            tree = SourceTree(cache)
            _take_results(make_kernel(inputs, tree, cache, progress), directory)

    entry = cache.get_or_fill("kernel", material, fill, needs=flavour.megabytes * 1_000_000)
    return BuiltKernel(
        flavour,
        key_of(material),
        entry / _IMAGE,
        entry / _CONFIG,
        entry / _MODULES,
        (entry / _RELEASE).read_text().strip(),
    )


def make_kernel(inputs: KernelInputs, tree: SourceTree, cache: Cache, progress: Progress) -> Path:
    """Build in `tree`, whose lock the caller holds, and return kbuild's output directory.

    Nothing is built if that directory holds this very kernel.
    """
    flavour = inputs.flavour
    key = key_of(inputs.key_material())
    tree.unpack(inputs.source, progress)
    apply_patches(inputs.series.patches, tree.path, tree.pristine)
    output = tree.output(flavour.output)
    built_key = output / _BUILT_KEY
    if built_key.exists() and built_key.read_text() == key:
        return output
    built_key.unlink(missing_ok=True)
    output.mkdir(exist_ok=True)
    log = cache.directory("logs") / f"kernel-{flavour.name}.log"
    log.unlink(missing_ok=True)
    configure, compile_ = commands(flavour, inputs.toolchain, tree, cache)
    with progress.step(f"building the kernel ({flavour.name}: {flavour.purpose})", flavour.products) as step:
        (output / _ALLCONFIG).write_text(kconfig.to_text(inputs.options))
        run_make(configure, tree.path, log, f"the kernel ({flavour.name}) cannot be configured", step)
        kconfig.check(inputs.options, output / ".config")
        run_make(compile_, tree.path, log, f"the kernel ({flavour.name}) does not build", step)
    built_key.write_text(key)
    return output


def commands(flavour: Flavour, toolchain: Toolchain, tree: SourceTree, cache: Cache) -> list[list[str]]:
    """Return the commands that configure and build, in order; they run in the source tree."""
    output = tree.output(flavour.output)
    make = make_command(cache, toolchain, f"O={output.name}")
    return [
        [*make, f"KCONFIG_ALLCONFIG={output / _ALLCONFIG}", "allnoconfig"],
        [*make, "Image", "modules"],
    ]


def _take_results(output: Path, directory: Path) -> None:
    shutil.copy(output / "arch/arm64/boot/Image", directory / _IMAGE)
    shutil.copy(output / ".config", directory / _CONFIG)
    shutil.copy(output / "include/config/kernel.release", directory / _RELEASE)
    modules = directory / _MODULES
    modules.mkdir()
    for name in (output / "modules.order").read_text().split():
        module = (output / name).with_suffix(".ko")
        shutil.copy(module, modules / module.name)
