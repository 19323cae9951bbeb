# SPDX-License-Identifier: Apache-2.0
"""The kernel's own selftests, built for arm64 from the patched source.

KVM's run on the host of a nested machine, those of timers in any machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cvmtune.core.command import format_command
from cvmtune.lab.cache import Cache
from cvmtune.lab.kbuild import SETTINGS, Toolchain, make_command, require_tools, run_make
from cvmtune.lab.kernel import FLAVOURS, KernelInputs, gather_inputs
from cvmtune.lab.kernel_source import PACKAGE, SourceTree
from cvmtune.lab.patches import apply_patches
from cvmtune.lab.progress import Progress

_SOURCE = "tools/testing/selftests"
# Machines have no libc for arm64 that is ours, and no use for debug information.
_FLAGS = "-static -s"


@dataclass(frozen=True)
class Suite:
    """A directory of selftests with a Makefile.

    `name` is the directory's, below tools/testing/selftests as well as in what build() returns; in it a test
    has the name that the Makefile gives it, such as "steal_time" or "aarch64/psci_test". `variables` are for
    the Makefile, `products` is about how many files are made.
    """

    name: str
    title: str
    variables: tuple[str, ...]
    products: int


# Each Makefile has its own name for more compiler flags.
KVM = Suite("kvm", "KVM's selftests", (f"EXTRA_CFLAGS={_FLAGS}",), 1000)
# Without those that change the clock, suspend or crash: one of them cannot be linked statically.
TIMERS = Suite("timers", "the timers' selftests", (f"USERCFLAGS={_FLAGS}", "DESTRUCTIVE_TESTS="), 1000)


def build(suite: Suite, cache: Cache, progress: Progress) -> Path:
    """Return a directory with all that the suite's Makefile builds for arm64, in `suite.name` below it.

    The queue's own tests are among them. The flavour does not matter: what they know of the kernel is its
    headers for user space. Raises what kernel.build() does.
    """
    inputs = gather_inputs(FLAVOURS["default"], cache, progress)

    def fill(directory: Path) -> None:
        require_tools(inputs.toolchain)
        with cache.lock(SourceTree.LOCK):
            _build(suite, inputs, directory / "tests" / suite.name, cache, progress)

    return cache.get_or_fill(_kind(suite), _key_material(suite, inputs), fill) / "tests"


def programs(directory: Path) -> list[str]:
    """Return the names of the programs in a directory, paths relative to it, in order."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        # Beside them lie objects and lists of what these include, none of which can be run.
        if path.is_file() and os.access(path, os.X_OK) and path.suffix == ""
    )


def commands(
    suite: Suite, toolchain: Toolchain, tree: SourceTree, output: Path, cache: Cache
) -> list[list[str]]:
    """Return the commands that make the headers and the tests in `output`; they run in the source tree."""
    headers = make_command(cache, toolchain, f"O={output}", "headers")
    tests = make_command(
        cache,
        toolchain,
        *("-C", f"{_SOURCE}/{suite.name}", f"OUTPUT={output / suite.name}"),
        # Where the tests' Makefile has its generated headers made; without it that is the source.
        f"abs_objdir={output}",
        f"KHDR_INCLUDES=-isystem {output}/usr/include",
        *suite.variables,
    )
    return [headers, tests]


def _kind(suite: Suite) -> str:
    return f"{suite.name}-selftests"


def _key_material(suite: Suite, inputs: KernelInputs) -> Mapping[str, str]:
    return {
        "source": f"{PACKAGE} {inputs.source.version}",
        "compiler": inputs.toolchain.version(),
        "settings": format_command([*SETTINGS, *suite.variables]),
        **{f"patch {n}": patch.digest() for n, patch in enumerate(inputs.series.patches, start=1)},
    }


def _build(suite: Suite, inputs: KernelInputs, target: Path, cache: Cache, progress: Progress) -> None:
    tree = SourceTree(cache)
    tree.unpack(inputs.source, progress)
    apply_patches(inputs.series.patches, tree.path, tree.pristine)
    # Each time anew, so that no test stays which the Makefile no longer names; ccache makes that quick.
    output = tree.scratch(_kind(suite))
    # The make that generates headers there wants it to exist, and a plain Makefile where the tests come.
    (output / "tools").mkdir()
    (output / suite.name).mkdir()
    log = cache.directory("logs") / f"{_kind(suite)}.log"
    log.unlink(missing_ok=True)
    with progress.step(f"building {suite.title}", suite.products) as step:
        for argv in commands(suite, inputs.toolchain, tree, output, cache):
            run_make(argv, tree.path, log, f"{suite.title} do not build", step)
    for name in programs(output / suite.name):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(output / suite.name / name, target / name)
    shutil.rmtree(output)
