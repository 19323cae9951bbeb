# SPDX-License-Identifier: Apache-2.0
"""KVM's own selftests, built for arm64 from the patched source: they run on the host of a nested machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cvmtune.core.command import format_command
from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import SETTINGS, Toolchain, make_command, require_tools, run_make
from cvmtune.lab.kernel import FLAVOURS, KernelInputs, gather_inputs
from cvmtune.lab.kernel_source import PACKAGE, SourceTree
from cvmtune.lab.patches import apply_patches
from cvmtune.lab.progress import Progress

# The directory that the payload puts below /opt/cvmtune; in it a test has the name that the Makefile gives
# it, such as "steal_time" or "aarch64/psci_test".
KVM_SELFTESTS = "kvm"

_SOURCE = "tools/testing/selftests/kvm"
# Added to the Makefile's own. Machines have no libc for arm64 that is ours, and no use for debug information.
_FLAGS = "-static -s"
_PRODUCTS = 820


def build_kvm_selftests(cache: Cache, progress: Progress) -> Path:
    """Return a directory with all that the selftests' Makefile builds for arm64, in KVM_SELFTESTS below it.

    The queue's own tests are among them. The flavour does not matter: what they know of the kernel is its
    headers for user space. Raises what kernel.build() does.
    """
    inputs = gather_inputs(FLAVOURS["default"], cache, progress)

    def fill(directory: Path) -> None:
        require_tools(inputs.toolchain)
        with cache.lock(SourceTree.LOCK):
            _build(inputs, directory / "tests" / KVM_SELFTESTS, cache, progress)

    return cache.get_or_fill("kvm-selftests", _key_material(inputs), fill) / "tests"


def programs(directory: Path) -> list[str]:
    """Return the names of the programs in a directory, paths relative to it, in order."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        # Beside them lie objects and lists of what these include, none of which can be run.
        if path.is_file() and os.access(path, os.X_OK) and path.suffix == ""
    )


def commands(toolchain: Toolchain, tree: SourceTree, output: Path, cache: Cache) -> list[list[str]]:
    """Return the commands that make the headers and the tests in `output`; they run in the source tree."""
    headers = make_command(cache, toolchain, f"O={output}", "headers")
    tests = make_command(
        cache,
        toolchain,
        *("-C", _SOURCE, f"OUTPUT={output / KVM_SELFTESTS}"),
        # Where the tests' Makefile has its generated headers made; without it that is the source.
        f"abs_objdir={output}",
        f"KHDR_INCLUDES=-isystem {output}/usr/include",
        f"EXTRA_CFLAGS={_FLAGS}",
    )
    return [headers, tests]


def _key_material(inputs: KernelInputs) -> Mapping[str, str]:
    return {
        "source": f"{PACKAGE} {inputs.source.version}",
        "compiler": inputs.toolchain.version(),
        "settings": format_command([*SETTINGS, _FLAGS]),
        **{f"patch {n}": patch.digest() for n, patch in enumerate(inputs.series.patches, start=1)},
    }


def _build(inputs: KernelInputs, target: Path, cache: Cache, progress: Progress) -> None:
    tree = SourceTree(cache)
    tree.unpack(inputs.source, progress)
    apply_patches(inputs.series.patches, tree.path, tree.pristine)
    # Each time anew, so that no test stays which the Makefile no longer names; ccache makes that quick.
    output = tree.scratch("kvm-selftests")
    # The make that generates headers there wants it to exist.
    (output / "tools").mkdir()
    log = cache.directory("logs") / "kvm-selftests.log"
    log.unlink(missing_ok=True)
    with progress.step("building KVM's selftests", _PRODUCTS) as step:
        for argv in commands(inputs.toolchain, tree, output, cache):
            run_make(argv, tree.path, log, "KVM's selftests do not build", step)
    for name in programs(output / KVM_SELFTESTS):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(output / KVM_SELFTESTS / name, target / name)
    shutil.rmtree(output)
