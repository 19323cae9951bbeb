# SPDX-License-Identifier: Apache-2.0
"""Kernel builds and checks of the queue, with programs that take no time and complain on command."""

from __future__ import annotations

import gzip
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cvmtune.core.errors import UsageError
from cvmtune.lab import (
    guest_tools,
    kbuild,
    kernel,
    kernel_checks,
    kernel_selftests,
    kernel_source,
    kernel_states,
)
from cvmtune.lab.cache import Cache
from cvmtune.lab.errors import BadConfig, BuildFailed, MissingTool
from cvmtune.lab.kernel import FLAVOURS
from cvmtune.lab.kernel_checks import run_checks
from cvmtune.lab.kernel_source import Source, SourceTree, find_source
from cvmtune.lab.kernel_states import StateBuilder
from cvmtune.lab.progress import SilentProgress

# Does what kbuild does to the files that we look at. Counts its runs, and obeys a file that tells it to fail.
MAKE = """\
#!{python}
import os, pathlib, sys
top = pathlib.Path({top!r})
with open(top / "runs", "a") as runs:
    print(sys.argv[-1], file=runs)
variables = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if sys.argv[-1] == "helpers":
    put(pathlib.Path("cvmtune_ipi.ko"), "module")
    put(pathlib.Path(variables["OUT"]) / "pingpong", "helper")
    sys.exit()
if "OUTPUT" in variables:
    program = pathlib.Path(variables["OUTPUT"]) / "aarch64/psci_test"
    put(program, pathlib.Path("init/main.c").read_text())
    put(program.with_suffix(".o"), "object")
    program.chmod(0o755)
    sys.exit()
out = pathlib.Path(variables["O"])
if sys.argv[-1] == "headers":
    sys.exit()
if sys.argv[-1] == "allnoconfig":
    asked = pathlib.Path(variables["KCONFIG_ALLCONFIG"]).read_text()
    put(out / ".config", "".join(line for line in asked.splitlines(True) if "DROPPED" not in line))
    sys.exit()
if (top / "fail").exists():
    print("  CC      kernel/fork.o")
    print("../kernel/fork.c:1:1: error: no such thing")
    sys.exit(2)
source = pathlib.Path("init/main.c").read_text()
put(out / "arch/arm64/boot/Image", source)
put(out / "System.map", "")
put(out / "include/config/kernel.release", "6.12.117\\n")
put(out / "modules.order", "drivers/a/mod.o\\n")
put(out / "drivers/a/mod.ko", "in-tree module")
"""
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
Subject: [PATCH] change

---
diff --git a/init/main.c b/init/main.c
--- a/init/main.c
+++ b/init/main.c
@@ -1 +1 @@
-original
+patched
"""


class Lab:
    """A checkout's kernel/ directory, a source package and programs, all small."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.cache = Cache(top / "cache")
        self.kernel = top / "kernel"
        self.compiler = "gcc 12"
        for directory in ("configs", "queue/6.12", "modules"):
            (self.kernel / directory).mkdir(parents=True)
        for fragment in FLAVOURS["default"].fragments:
            symbol = fragment.removesuffix(".config").upper().replace("-", "_")
            (self.kernel / "configs" / fragment).write_text(f"CONFIG_{symbol}=y\n")
        (self.kernel / "queue/6.12/series.toml").write_text(
            'base = ">=6.12,<6.13"\n[[patch]]\nfile = "0001-change.patch"\npurpose = "change"\n'
        )
        (self.kernel / "queue/6.12/0001-change.patch").write_text(PATCH)
        (self.kernel / "modules/test.c").write_text("")
        (top / "linux/init").mkdir(parents=True)
        (top / "linux/init/main.c").write_text("original\n")
        with tarfile.open(top / "linux.tar", "w") as tar:
            tar.add(top / "linux", "linux-source-6.12")
        self.source = Source("6.12.117-1", top / "linux.tar")
        self.put_program("make", MAKE.format(python=sys.executable, top=str(top)))
        monkeypatch.setenv("PATH", str(top / "bin"), prepend=":")
        for module in (kernel, guest_tools):
            monkeypatch.setattr(module, "kernel_directory", lambda: self.kernel)
        for module in (kernel, guest_tools, kernel_checks, kernel_selftests, kernel_source):
            monkeypatch.setattr(module, "require_tools", lambda toolchain: None)
        monkeypatch.setattr(kernel, "find_source", lambda cache, progress: self.source)
        monkeypatch.setattr(kernel_source, "_TREE_BYTES", 0)
        monkeypatch.setattr(kbuild.Toolchain, "version", lambda toolchain: self.compiler)

    def put_program(self, name: str, text: str) -> None:
        """Put a script where it is found before any real program of that name."""
        path = self.top / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def build(self, flavour: str = "default") -> kernel.BuiltKernel:
        return kernel.build(FLAVOURS[flavour], self.cache, SilentProgress())

    def build_tools(self) -> Path:
        return guest_tools.build_guest_tools(FLAVOURS["default"], self.cache, SilentProgress())

    def change(self, file: str, old: str, new: str) -> None:
        """Replace text of a file in kernel/, once."""
        path = self.kernel / file
        path.write_text(path.read_text().replace(old, new, 1))

    def examined(self) -> list[str]:
        """Return what the programs of the checks have done since the last call."""
        path = self.top / "examined"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def runs(self) -> list[str]:
        """Return make's goals since the last call."""
        path = self.top / "runs"
        goals = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return goals


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_a_kernel_is_built_once(lab: Lab) -> None:
    built = lab.build()
    assert lab.runs() == ["allnoconfig", "modules"]
    assert built.image.read_text() == "patched\n"
    assert built.release == "6.12.117"
    assert (built.modules / "mod.ko").read_text() == "in-tree module"
    assert "CONFIG_KVM=y" in built.config.read_text()

    (lab.cache.root / "work/kernel/linux/init/main.c").write_text("a tree that must not be looked at")
    assert lab.build() == built
    assert lab.runs() == []


def change_patch(lab: Lab) -> None:
    (lab.kernel / "queue/6.12/0001-change.patch").write_text(PATCH.replace("+patched", "+patched again"))


def change_config(lab: Lab) -> None:
    (lab.kernel / "configs/base.config").write_text("CONFIG_BASE=m\n")


def change_compiler(lab: Lab) -> None:
    lab.compiler = "gcc 13"


def change_source(lab: Lab) -> None:
    lab.source = replace(lab.source, version="6.12.118-1")


@pytest.mark.parametrize("change", [change_patch, change_config, change_compiler, change_source])
def test_all_it_depends_on_is_in_its_key(lab: Lab, change: Callable[[Lab], None]) -> None:
    before = lab.build()
    change(lab)
    after = lab.build()
    assert after.key != before.key
    assert lab.runs() == ["allnoconfig", "modules"] * 2


def test_comments_in_fragments_rebuild_nothing(lab: Lab) -> None:
    before = lab.build()
    path = lab.kernel / "configs/base.config"
    path.write_text("# A better reason.\n" + path.read_text())
    assert lab.build() == before


def test_absent_is_default_without_our_features(lab: Lab) -> None:
    assert "CONFIG_CVMTUNE=y" in lab.build().config.read_text()
    absent = lab.build("absent")
    assert "CONFIG_CVMTUNE" not in absent.config.read_text()
    assert absent.image.read_text() == "patched\n", "absent means not compiled in, not unpatched"


def test_unpatched_takes_the_queue_away_and_gives_it_back(lab: Lab) -> None:
    unpatched = lab.build("unpatched")
    assert unpatched.image.read_text() == "original\n", "in a tree that no patch has touched"
    patched = lab.build()
    lab.runs()
    lab.cache.clean("kernel")
    assert lab.build("unpatched").image.read_text() == "original\n"
    assert lab.build() == patched
    assert patched.image.read_text() == "patched\n"
    assert lab.runs() == [], "each has kept its output directory"


def test_a_change_of_the_queue_is_nothing_to_the_unpatched_kernel(lab: Lab) -> None:
    before = lab.build("unpatched")
    change_patch(lab)
    assert lab.build("unpatched") == before


def test_an_option_that_kconfig_drops_is_an_error(lab: Lab) -> None:
    (lab.kernel / "configs/kvm.config").write_text("CONFIG_KVM=y\nCONFIG_DROPPED=y\n")
    with pytest.raises(BadConfig, match=r"CONFIG_DROPPED=y, wanted by kvm\.config, became n"):
        lab.build()
    assert lab.runs() == ["allnoconfig"]


def test_a_failed_build_tells_why_and_is_tried_again(lab: Lab) -> None:
    (lab.top / "fail").touch()
    with pytest.raises(BuildFailed, match="error: no such thing") as error:
        lab.build()
    assert "does not build" in error.value.what
    assert "kernel/fork.c" in error.value.log.read_text()
    (lab.top / "fail").unlink()
    assert lab.build().image.exists()


def test_a_failed_build_is_not_taken_for_the_one_before(lab: Lab) -> None:
    lab.build()
    change_patch(lab)
    (lab.top / "fail").touch()
    with pytest.raises(BuildFailed):
        lab.build()
    (lab.kernel / "queue/6.12/0001-change.patch").write_text(PATCH)
    (lab.top / "fail").unlink()
    lab.cache.clean("kernel")
    lab.runs()
    lab.build()
    assert lab.runs() == ["allnoconfig", "modules"]


def test_the_queue_must_fit_the_source(lab: Lab) -> None:
    lab.source = replace(lab.source, version="6.13.1-1")
    with pytest.raises(UsageError, match=r">=6\.12,<6\.13, not for 6\.13\.1"):
        lab.build()


def test_guest_tools_are_rebuilt_without_the_kernel(lab: Lab) -> None:
    lab.build()
    tools = lab.build_tools()
    assert sorted(path.name for path in tools.iterdir()) == ["cvmtune_ipi.ko", "pingpong"]
    assert lab.build_tools() == tools
    assert lab.runs() == ["allnoconfig", "modules", "helpers"]
    (lab.kernel / "modules/test.c").write_text("changed")
    assert lab.build_tools() != tools
    assert lab.runs() == ["helpers"]


def test_kvm_selftests_are_those_of_the_patched_source_and_need_no_kernel(lab: Lab) -> None:
    lab.build("unpatched")
    lab.runs()
    tests = (
        kernel_selftests.build(kernel_selftests.KVM, lab.cache, SilentProgress()) / kernel_selftests.KVM.name
    )
    assert kernel_selftests.programs(tests) == ["aarch64/psci_test"]
    assert [path.name for path in tests.rglob("*") if path.is_file()] == ["psci_test"]
    assert (tests / "aarch64/psci_test").read_text() == "patched\n"
    assert "modules" not in lab.runs()
    kernel_selftests.build(kernel_selftests.KVM, lab.cache, SilentProgress())
    assert lab.runs() == []
    change_patch(lab)
    changed = (
        kernel_selftests.build(kernel_selftests.KVM, lab.cache, SilentProgress()) / kernel_selftests.KVM.name
    )
    assert (changed / "aarch64/psci_test").read_text() == "patched again\n"


def test_guest_tools_get_the_tree_of_their_kernel_back(lab: Lab) -> None:
    lab.build()
    change_patch(lab)
    lab.build()
    (lab.kernel / "queue/6.12/0001-change.patch").write_text(PATCH)
    lab.runs()
    lab.build_tools()
    assert lab.runs() == ["allnoconfig", "modules", "helpers"]
    assert SourceTree(lab.cache).path.joinpath("init/main.c").read_text() == "patched\n"


def test_commands_say_all_that_matters(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    configure, compile_ = kernel.commands(
        FLAVOURS["debug"], kbuild.Toolchain("aarch64-linux-gnu-"), SourceTree(cache), cache
    )
    assert configure[-1] == "allnoconfig"
    assert compile_[-2:] == ["Image", "modules"]
    for argument in ("O=out-debug", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=ccache aarch64-linux-gnu-gcc"):
        assert argument in configure
        assert argument in compile_


def test_an_arm64_machine_uses_its_own_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert kbuild.Toolchain.here().gcc == "gcc"
    assert kbuild.Toolchain.here().packages == {"gcc": "gcc", "libc.a": "libc6-dev"}


def test_all_missing_tools_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"make", "tar", "xz", "perl", "gcc"}
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name in present else None)
    with pytest.raises(MissingTool) as error:
        kbuild.require_tools(kbuild.Toolchain("aarch64-linux-gnu-"))
    install = error.value.next_step.removeprefix("sudo apt-get install ").split()
    compiler = {"gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"}
    assert compiler | {"bc", "bison", "ccache", "flex", "git", "mmdebstrap"} <= set(install)
    assert install == sorted(install)
    assert not {"make", "xz-utils", "perl"} & set(install)


class CountingStep:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""

    def advance(self, count: int = 1) -> None:
        self.count += count

    def note(self, text: str) -> None:
        self.last = text


def test_products_are_counted(tmp_path: Path) -> None:
    step = CountingStep()
    log = tmp_path / "log"
    log.write_text("  CC      from/before.o\n")
    says = tmp_path / "says"
    says.write_text("make: Entering\n  CC      a.o\n  HOSTCC  scripts/b\nwarning:\n  LD      vmlinux\n")
    kbuild.run_make(["cat", str(says)], tmp_path, log, "no", step)
    assert (step.count, step.last) == (3, "vmlinux")


def test_the_version_orders_as_numbers() -> None:
    assert Source("6.12.117-1~deb12u1", Path()).upstream == (6, 12, 117)
    assert Source("6.12~rc7-1~exp1", Path()).upstream == (6, 12)


def test_the_source_is_fetched_if_not_installed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    changelog = lab.top / "changelog.gz"
    changelog.write_bytes(gzip.compress(b"linux-6.12 (6.12.117-1~deb12u1) bookworm-security; urgency=low\n"))
    with tarfile.open(lab.top / "package.tar", "w") as tar:
        tar.add(lab.source.tarball, "./usr/src/linux-source-6.12.tar.xz")
        tar.add(changelog, "./usr/share/doc/linux-source-6.12/changelog.Debian.gz")
    lab.put_program(
        "mmdebstrap", f'#!/bin/sh\necho "$@" >> {lab.top}/fetched\ncp {lab.top}/package.tar "$6"\n'
    )
    monkeypatch.setattr(kernel_source, "_installed_version", lambda: None)
    monkeypatch.setattr(kernel_source, "_FETCH_BYTES", 0)
    monkeypatch.delenv("CVMTUNE_DEBIAN_MIRROR", raising=False)

    source = find_source(lab.cache, SilentProgress())
    assert source.version == "6.12.117-1~deb12u1"
    assert source.tarball.read_bytes() == lab.source.tarball.read_bytes()
    assert find_source(lab.cache, SilentProgress()) == source
    assert len((lab.top / "fetched").read_text().splitlines()) == 1, (
        "what is in the cache is not fetched again"
    )

    monkeypatch.setenv("CVMTUNE_DEBIAN_MIRROR", "'deb mirror bookworm main' other.list")
    find_source(lab.cache, SilentProgress())
    assert (lab.top / "fetched").read_text().endswith(" deb mirror bookworm main other.list\n")


CHECKED_PATCHES = {
    "0001-change.patch": """\
diff --git a/init/main.c b/init/main.c
--- a/init/main.c
+++ b/init/main.c
@@ -1 +1,2 @@
 original
+added
""",
    "0002-add.patch": """\
diff --git a/init/new.c b/init/new.c
new file mode 100644
--- /dev/null
+++ b/init/new.c
@@ -0,0 +1 @@
+new
diff --git a/tools/test.c b/tools/test.c
new file mode 100644
--- /dev/null
+++ b/tools/test.c
@@ -0,0 +1 @@
+test
""",
}
# Notes which state it builds, then says what the test wants said.
CHECKING_MAKE = """\
#!/bin/sh
for last; do :; done
case $last in
allnoconfig) ;;
*) echo "build" $(cat init/main.c init/new.c 2>/dev/null) >> {top}/examined
   echo "$@" > {top}/arguments
   cat {top}/says; exit $(cat {top}/status);;
esac
"""
# Notes what it is to check.
PERL = """\
#!/bin/sh
for last; do :; done
case $1 in
*checkpatch*) echo "checkpatch ${last##*/}" >> {top}/examined;;
*) echo "kernel-doc $last" >> {top}/examined;;
esac
"""
# As kbuild with C=1: makes what is not newer than its source, and finds a problem where the source has one.
INCREMENTAL_MAKE = """\
#!{python}
import pathlib, sys
top = pathlib.Path({top!r})
out = pathlib.Path(dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)["O"])
for goal in sys.argv[1:]:
    source = pathlib.Path(goal).with_suffix(".c")
    product = out / goal
    if not goal.endswith(".o") or (product.exists() and product.stat().st_mtime > source.stat().st_mtime):
        continue
    product.parent.mkdir(parents=True, exist_ok=True)
    product.touch()
    with open(top / "examined", "a") as examined:
        print("made", goal, file=examined)
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if "BUG" in line:
            print(f"../{{source}}:{{number}}:1: warning: {{line}}")
    if (top / "killed").exists():
        sys.exit(1)
"""


@pytest.fixture
def checked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for path in (lab.kernel / "queue/6.12").iterdir():
        path.unlink()
    series = 'base = ">=6.12,<6.13"\n'
    for name, text in CHECKED_PATCHES.items():
        (lab.kernel / "queue/6.12" / name).write_text(text)
        series += f'[[patch]]\nfile = "{name}"\npurpose = "test"\n'
    (lab.kernel / "queue/6.12/series.toml").write_text(series)
    lab.put_program("make", CHECKING_MAKE.replace("{top}", str(lab.top)))
    lab.put_program("perl", PERL.replace("{top}", str(lab.top)))
    lab.put_program("sparse", "#!/bin/sh\n")
    (lab.top / "says").touch()
    (lab.top / "status").write_text("0")
    return lab


def problems(checked: Lab, *, quick: bool = True) -> dict[str, tuple[str, ...]]:
    results = run_checks(checked.cache, SilentProgress(), quick=quick)
    return {f"{result.check} {result.subject}": result.problems for result in results if not result.ok}


def test_what_is_checked(checked: Lab) -> None:
    results = run_checks(checked.cache, SilentProgress(), quick=False)
    assert [(result.check, result.subject, result.ok) for result in results] == [
        ("checkpatch", "0001-change.patch", True),
        ("checkpatch", "0002-add.patch", True),
        ("checkpatch", "test.c", True),
        ("kernel-doc", "init/new.c", True),
        ("kernel-doc", "tools/test.c", True),
        ("build", "0001-change.patch", True),
        ("build", "0002-add.patch", True),
    ]


OF_THE_SECOND = ["checkpatch 0002-add.patch", "kernel-doc init/new.c", "kernel-doc tools/test.c"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (
            lambda lab: lab.change("queue/6.12/0001-change.patch", "diff", "Message\n\ndiff"),
            ["checkpatch 0001-change.patch"],
        ),
        (
            lambda lab: lab.change("queue/6.12/0002-add.patch", "+new", "+other"),
            [*OF_THE_SECOND, "build original added other"],
        ),
        (
            lambda lab: lab.change("queue/6.12/0002-add.patch", "+test", "+other"),
            [*OF_THE_SECOND, "build original added new"],
        ),
        (
            lambda lab: lab.change("queue/6.12/0001-change.patch", "+added", "+other"),
            ["checkpatch 0001-change.patch", "build original other", "build original other new"],
        ),
        (lambda lab: lab.change("modules/test.c", "", "int x;"), ["checkpatch test.c"]),
        (change_config, ["build original added", "build original added new"]),
        (change_compiler, ["build original added", "build original added new"]),
        (
            lambda lab: lab.put_program("sparse", "#!/bin/sh\necho newer\n"),
            ["build original added", "build original added new"],
        ),
    ],
)
def test_what_has_passed_is_checked_again_only_after_a_change(
    checked: Lab, change: Callable[[Lab], None], again: list[str]
) -> None:
    first = run_checks(checked.cache, SilentProgress(), quick=False)
    everything = checked.examined()
    assert len(everything) == len(first)
    assert run_checks(checked.cache, SilentProgress(), quick=False) == first
    assert checked.examined() == []
    change(checked)
    assert run_checks(checked.cache, SilentProgress(), quick=False) == first
    assert sorted(checked.examined()) == sorted(again)


def test_quick_leaves_little_to_a_full_run(checked: Lab) -> None:
    assert problems(checked) == {}
    checked.examined()
    assert problems(checked, quick=False) == {}
    assert checked.examined() == ["build original added"]


def test_what_others_have_interrupted_is_not_lost(checked: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(builder: StateBuilder, applied: int) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StateBuilder, "build", interrupt)
        with pytest.raises(KeyboardInterrupt):
            problems(checked)
    passed = checked.examined()
    assert problems(checked) == {}
    assert not set(passed) & set(checked.examined())


def test_what_has_not_passed_is_checked_again(checked: Lab) -> None:
    (checked.top / "status").write_text("2")
    assert problems(checked) != {}
    (checked.top / "status").write_text("0")
    assert problems(checked) == {}
    (checked.top / "status").write_text("2")
    assert problems(checked) == {}  # it has passed, and nothing that it depends on has changed


def test_each_state_of_the_queue_is_built(checked: Lab) -> None:
    assert problems(checked, quick=False) == {}
    builds = [line for line in checked.examined() if line.startswith("build")]
    assert builds == ["build original added", "build original added new"]
    assert (checked.top / "arguments").read_text().endswith(" W=1 C=1 init/main.o init/new.o\n")


def test_a_patch_that_cannot_change_the_kernel_is_not_built(checked: Lab) -> None:
    for _ in range(3):
        checked.change("queue/6.12/0002-add.patch", "/init/new.c", "/tools/new.c")
    results = run_checks(checked.cache, SilentProgress(), quick=False)
    assert [result.subject for result in results if result.check == "build"] == ["0001-change.patch"]


@pytest.fixture
def incremental(checked: Lab) -> Lab:
    """A queue whose second patch leaves alone what the first one changes, and a make that makes little."""
    checked.put_program("make", INCREMENTAL_MAKE.format(python=sys.executable, top=str(checked.top)))
    return checked


WARNING = "../init/main.c:2:1: warning: BUG"


def made(lab: Lab) -> list[str]:
    return [line for line in lab.examined() if line.startswith("made")]


def test_only_what_changes_is_made(incremental: Lab) -> None:
    assert problems(incremental, quick=False) == {}
    assert made(incremental) == ["made init/main.o", "made init/new.o"]
    incremental.change("queue/6.12/0002-add.patch", "+new", "+other")
    assert problems(incremental, quick=False) == {}
    assert made(incremental) == ["made init/new.o"]


def test_a_problem_of_a_patch_shows_until_it_is_mended(incremental: Lab) -> None:
    incremental.change("queue/6.12/0001-change.patch", "+added", "+BUG")
    expected = {"build 0001-change.patch": (WARNING,), "build 0002-add.patch": (WARNING,)}
    for _ in range(3):
        assert problems(incremental, quick=False) == expected
    assert problems(incremental, quick=True) == {"build 0002-add.patch": (WARNING,)}
    incremental.change("queue/6.12/0001-change.patch", "+BUG", "+added")
    assert problems(incremental, quick=False) == {}


def test_a_new_problem_shows_in_a_tree_that_was_clean(incremental: Lab) -> None:
    assert problems(incremental, quick=False) == {}
    incremental.change("queue/6.12/0001-change.patch", "+added", "+BUG")
    assert list(problems(incremental, quick=False)) == ["build 0001-change.patch", "build 0002-add.patch"]
    incremental.change("queue/6.12/0001-change.patch", "+BUG", "+added")
    incremental.change("queue/6.12/0002-add.patch", "+new", "+BUG")
    assert problems(incremental, quick=False) == {
        "build 0002-add.patch": ("../init/new.c:1:1: warning: BUG",)
    }


def test_a_problem_that_a_later_patch_mends_is_that_of_its_patch(incremental: Lab) -> None:
    incremental.change("queue/6.12/0001-change.patch", "+added", "+BUG")
    incremental.change(
        "queue/6.12/0002-add.patch",
        "diff",
        "diff --git a/init/main.c b/init/main.c\n--- a/init/main.c\n+++ b/init/main.c\n"
        "@@ -1,2 +1,2 @@\n original\n-BUG\n+mended\ndiff",
    )
    for _ in range(2):
        assert problems(incremental, quick=False) == {"build 0001-change.patch": (WARNING,)}


def test_a_problem_of_a_build_that_was_cut_short_shows(incremental: Lab) -> None:
    incremental.change("queue/6.12/0001-change.patch", "+added", "+BUG")
    (incremental.top / "killed").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_states, "silent_failure", Interruption.happens)
        patch.setattr(StateBuilder, "_is_ours", lambda builder, line: False)
        with pytest.raises(Interruption):
            problems(incremental, quick=False)
    (incremental.top / "killed").unlink()
    assert problems(incremental, quick=False)["build 0001-change.patch"] == (WARNING,)


class Interruption(BaseException):
    """As a Ctrl-C between a build and a look at what it said."""

    @classmethod
    def happens(cls, completed: object) -> list[str]:
        raise cls


def test_warnings_of_what_the_queue_adds_count(checked: Lab) -> None:
    ours = [
        "../init/main.c:2:5: warning: sparse says",
        "../init/new.c:1:1: warning: gcc says [-Wextra]",
        "init/new.c:1: warning: kernel-doc says",
    ]
    upstream = [
        "../init/main.c:1:1: warning: was there before",
        "../kernel/other.c:2:2: warning: a file that the queue leaves alone",
    ]
    (checked.top / "says").write_text("\n".join(["  CC      init/main.o", *ours, *upstream, *ours, ""]))
    assert problems(checked) == {"build 0002-add.patch": tuple(ours)}


def test_what_only_a_later_patch_touches_is_not_ours_yet(checked: Lab) -> None:
    queue = checked.kernel / "queue/6.12"
    (queue / "0001-change.patch").write_text(CHECKED_PATCHES["0002-add.patch"])
    (queue / "0002-add.patch").write_text(CHECKED_PATCHES["0001-change.patch"])
    (checked.top / "says").write_text("../init/main.c:1:1: warning: was there before\n")
    assert problems(checked, quick=False) == {}


def test_a_failed_build_is_a_problem_wherever_it_failed(checked: Lab) -> None:
    (checked.top / "says").write_text("../kernel/other.c:1:1: error: no\nmake: *** [other.o] Error 1\n")
    (checked.top / "status").write_text("2")
    assert problems(checked) == {
        "build 0002-add.patch": ("../kernel/other.c:1:1: error: no", "make: *** [other.o] Error 1")
    }


def test_a_build_that_fails_in_silence_is_a_problem(checked: Lab) -> None:
    (checked.top / "status").write_text("2")
    assert list(problems(checked)) == ["build 0002-add.patch"]


def test_any_word_of_checkpatch_or_kernel_doc_is_a_problem(checked: Lab) -> None:
    checked.put_program(
        "perl", '#!/bin/sh\ncase "$*" in *0001*|*new.c) echo "CHECK: $1";; *test.c) exit 1;; esac\n'
    )
    found = problems(checked)
    assert found["checkpatch 0001-change.patch"] == ("CHECK: scripts/checkpatch.pl",)
    assert found["kernel-doc init/new.c"] == ("CHECK: scripts/kernel-doc",)
    assert found["kernel-doc tools/test.c"] == (
        "perl scripts/kernel-doc -none -Werror tools/test.c ended with status 1",
    )
    assert "checkpatch 0002-add.patch" not in found


def test_the_kernels_tree_is_left_alone(checked: Lab) -> None:
    make = (checked.top / "bin/make").read_text()
    checked.put_program("make", MAKE.format(python=sys.executable, top=str(checked.top)))
    checked.build()
    checked.put_program("make", make)
    tree = SourceTree(checked.cache).path
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert problems(checked, quick=False) == {}
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before
    copy = SourceTree(checked.cache, SourceTree.CHECKS).path
    assert {path.name for path in copy.iterdir()} == {"init", "tools", "out-checked"}
    checked.change("queue/6.12/0001-change.patch", "+added", "+other")
    assert problems(checked, quick=False) == {}
    assert (tree / "init/main.c").read_text() == "original\nadded\n"
    assert (copy / "init/main.c").read_text() == "original\nother\n"


def test_another_source_is_copied_anew(checked: Lab) -> None:
    assert problems(checked) == {}
    checked.examined()
    change_source(checked)
    assert problems(checked) == {}
    assert len(checked.examined()) == 6


def test_sparse_is_asked_for(checked: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MissingTool, match="sparse"):
        run_checks(checked.cache, SilentProgress(), quick=True)
