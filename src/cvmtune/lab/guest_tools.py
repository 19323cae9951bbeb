# SPDX-License-Identifier: Apache-2.0
"""What runs inside a guest besides Python: test modules, helper programs and the queue's kselftests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import make_command, require_tools, run_make
from cvmtune.lab.kernel import Flavour, KernelInputs, gather_inputs, make_kernel
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.lab.progress import Progress, Step
from cvmtune.lab.project import kernel_directory

# Where the kselftests are that the queue adds and a guest runs. KVM has rules of its own for its tests.
_KSELFTESTS = "tools/testing/selftests/arm64"
_KSELFTEST_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-static", "-pthread")
_TOOLS = "tools"


def module_sources() -> list[Path]:
    """Return the files of kernel/modules, without what editors and kbuild may have left there."""
    top = kernel_directory() / "modules"
    return sorted(path for path in top.iterdir() if path.suffix in (".c", ".h") or path.name == "Makefile")


def build_guest_tools(flavour: Flavour, cache: Cache, progress: Progress) -> Path:
    """Return the directory of modules (.ko) and static arm64 programs made for that flavour's kernel.

    It is kept apart from the kernel, so that a change of a test does not cost a kernel build. Raises what
    kernel.build() does.
    """
    inputs = gather_inputs(flavour, cache, progress)
    sources = module_sources()

    def fill(directory: Path) -> None:
        require_tools(inputs.toolchain)
        with cache.lock(SourceTree.LOCK):
            _build(inputs, sources, directory / _TOOLS, cache, progress)

    return cache.get_or_fill("guest-tools", _key_material(inputs, sources), fill) / _TOOLS


def _key_material(inputs: KernelInputs, sources: list[Path]) -> Mapping[str, str]:
    digests = {f"file {path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    return {**inputs.key_material(), **digests}


def _build(inputs: KernelInputs, sources: list[Path], tools: Path, cache: Cache, progress: Progress) -> None:
    tree = SourceTree(cache)
    output = make_kernel(inputs, tree, cache, progress)
    # kbuild leaves its products beside the sources.
    copy = tree.scratch("modules")
    for source in sources:
        shutil.copy(source, copy)
    tools.mkdir()
    log = cache.directory("logs") / "guest-tools.log"
    log.unlink(missing_ok=True)
    with progress.step(f"building test modules and helpers ({inputs.flavour.name})") as step:
        make = make_command(cache, inputs.toolchain, f"KDIR={output}", f"OUT={tools}", "modules", "helpers")
        run_make(make, copy, log, "the test modules or helpers do not build", step)
        for module in copy.glob("*.ko"):
            shutil.copy(module, tools)
        _build_kselftests(inputs, tree, tools, log, step)


def _build_kselftests(inputs: KernelInputs, tree: SourceTree, tools: Path, log: Path, step: Step) -> None:
    added = (
        file for file in inputs.series.files if file.startswith(f"{_KSELFTESTS}/") and file.endswith(".c")
    )
    for name in sorted(added):
        source = tree.path / name
        # The tree of a flavour without the queue does not have it.
        if source.exists():
            step.note(name)
            argv = [inputs.toolchain.gcc, *_KSELFTEST_FLAGS, "-o", str(tools / source.stem), str(source)]
            run_make(argv, source.parent, log, f"{name} does not build", step)
