# SPDX-License-Identifier: Apache-2.0
"""QEMU's command lines: what each machine must have, and what none may have."""

from __future__ import annotations

import itertools
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cvmtune.core.errors import CvmtuneError
from cvmtune.lab.qemu import QEMU, STORE, processor_options, qemu_argv, qemu_version, start_guest_script
from cvmtune.lab.specs import GUEST, HOST, MACHINES, Images, Terminal

IMAGES = Images(
    kernel=Path("/cache/kernel/Image"),
    guest_root=Path("/cache/guest root/root.img"),
    payload=Path("/cache/runs/1/payload.tar"),
    host_root=Path("/cache/host/root.img"),
)
PORTS = {
    "plain": {GUEST: "socket,fd=3"},
    "vm": {HOST: "socket,fd=3", GUEST: "socket,fd=4", "console": "file,path=guest.console"},
    "cvm": {HOST: "socket,fd=3", GUEST: "socket,fd=4", "console": "file,path=guest.console"},
}
NESTED = ["vm", "cvm"]


def outermost(
    machine: str,
    *,
    console: str = "file,path=outer.console",
    append: Sequence[str] = (),
    host_append: Sequence[str] = (),
    terminal: Terminal | None = None,
    processor: Sequence[str] = (),
) -> list[str]:
    return qemu_argv(
        MACHINES[machine],
        IMAGES if MACHINES[machine].nested else replace(IMAGES, host_root=None),
        console=console,
        ports=PORTS[machine],
        append=append,
        host_append=host_append,
        terminal=terminal,
        processor=processor,
    )


def inner(machine: str, append: Sequence[str] = (), terminal: Terminal | None = None) -> list[str]:
    """The command of the nested guest's QEMU, out of the script."""
    _, command = start_guest_script(MACHINES[machine], append, terminal).splitlines()
    words = shlex.split(command)
    assert words[0] == "exec"
    return words[1:]


def values(argv: list[str], option: str) -> list[str]:
    """The arguments that follow each occurrence of an option."""
    return [value for name, value in itertools.pairwise(argv) if name == option]


def value(argv: list[str], option: str) -> str:
    (only,) = values(argv, option)
    return only


def drives(argv: list[str]) -> dict[str, str]:
    """The -drive options by their ids."""
    return {drive.partition("id=")[2].partition(",")[0]: drive for drive in values(argv, "-drive")}


def disks(argv: list[str]) -> list[str]:
    """The drives that disk devices are made of, in order."""
    return [
        device.partition("drive=")[2].partition(",")[0]
        for device in values(argv, "-device")
        if device.startswith("virtio-blk")
    ]


ALL_COMMANDS = [
    *[pytest.param(outermost(machine), id=machine) for machine in MACHINES],
    *[pytest.param(inner(machine), id=f"guest in {machine}") for machine in NESTED],
]


@pytest.mark.parametrize("argv", ALL_COMMANDS)
def test_root_is_the_last_disk_which_the_kernel_probes_first(argv: list[str]) -> None:
    assert disks(argv)[-1] == "root"
    assert "root=/dev/vda" in value(argv, "-append").split()


@pytest.mark.parametrize("argv", ALL_COMMANDS)
def test_every_drive_is_a_disk_with_its_name_as_serial_number(argv: list[str]) -> None:
    assert disks(argv) == list(drives(argv))
    for name in drives(argv):
        assert f"virtio-blk-device,drive={name},serial={name}" in values(argv, "-device")


@pytest.mark.parametrize("machine", MACHINES)
def test_no_image_is_ever_written_to(machine: str) -> None:
    for name, drive in drives(outermost(machine)).items():
        wanted = "snapshot=on" if name in ("root", "guest") else "readonly=on"
        assert wanted in drive.split(","), drive


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("plain", {"root": IMAGES.guest_root, "payload": IMAGES.payload}),
        *[
            (
                machine,
                {
                    "root": IMAGES.host_root,
                    "guest": IMAGES.guest_root,
                    "kernel": IMAGES.kernel,
                    "payload": IMAGES.payload,
                },
            )
            for machine in NESTED
        ],
    ],
)
def test_each_disk_holds_its_image(machine: str, expected: dict[str, Path]) -> None:
    found = drives(outermost(machine))
    assert found.keys() == expected.keys()
    for name, path in expected.items():
        assert found[name].startswith(f"file={path},format=raw,if=none,")


@pytest.mark.parametrize("machine", NESTED)
def test_a_host_hands_its_own_disks_to_its_guest(machine: str) -> None:
    outer_disks = drives(outermost(machine))
    argv = inner(machine)
    files = [drive.removeprefix("file=").partition(",")[0] for drive in values(argv, "-drive")]
    for path in [*files, value(argv, "-kernel")]:
        directory, _, name = path.rpartition("/")
        assert directory == "/run/disk"
        assert name in outer_disks


def test_without_a_store_there_is_no_such_disk() -> None:
    for argv in (outermost("plain"), outermost("cvm"), inner("cvm")):
        assert STORE not in drives(argv)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_store_is_written_to_for_good(machine: str) -> None:
    images = replace(IMAGES, store=Path("/data/store"))
    spec = MACHINES[machine]
    argv = qemu_argv(spec, images, console="null", ports={}, processor=[])
    drive = drives(argv)[STORE]
    assert drive.startswith("file=/data/store,format=raw,if=none,")
    assert "snapshot" not in drive
    assert "readonly" not in drive
    assert disks(argv)[-1] == "root"


def test_a_host_hands_the_store_on_and_keeps_nothing_of_it() -> None:
    _, command = start_guest_script(MACHINES["cvm"], store=True).splitlines()
    argv = shlex.split(command)[1:]
    drive = drives(argv)[STORE]
    assert drive.startswith(f"file=/run/disk/{STORE},")
    assert "cache=none" in drive.split(",")
    assert disks(argv)[-1] == "root"


def test_a_guest_writes_to_its_root_and_nothing_else() -> None:
    argv = drives(inner("cvm"))
    assert "readonly=on" in argv["payload"]
    assert "readonly" not in argv["root"]


@pytest.mark.parametrize("argv", ALL_COMMANDS)
def test_no_network_and_nothing_that_nobody_asked_for(argv: list[str]) -> None:
    assert value(argv, "-nic") == "none"
    assert "-nodefaults" in argv
    assert "-no-user-config" in argv
    assert not [word for word in argv if "netdev" in word or "virtio-net" in word]


@pytest.mark.parametrize("argv", ALL_COMMANDS)
def test_a_panic_ends_the_emulator(argv: list[str]) -> None:
    assert "-no-reboot" in argv
    assert "panic=-1" in value(argv, "-append").split()


@pytest.mark.parametrize("argv", ALL_COMMANDS)
def test_chardevs_are_declared_before_what_uses_them(argv: list[str]) -> None:
    declared: list[str] = []
    for option, argument in itertools.pairwise(argv):
        if option == "-chardev":
            declared.append(argument.partition("id=")[2].partition(",")[0])
        elif option == "-serial":
            assert argument.removeprefix("chardev:") in declared
        elif option == "-device" and argument.startswith("virtserialport"):
            assert argument.partition("chardev=")[2].partition(",")[0] in declared
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_port_is_there_under_its_name(machine: str) -> None:
    argv = outermost(machine)
    devices = values(argv, "-device")
    ports = [device for device in devices if device.startswith("virtserialport")]
    assert ports == [f"virtserialport,chardev=port-{name},name={name}" for name in PORTS[machine]]
    for name, chardev in PORTS[machine].items():
        assert f"{chardev},id=port-{name}" in values(argv, "-chardev")
    assert devices.index("virtio-serial-device") < devices.index(ports[0])


@pytest.mark.parametrize("machine", NESTED)
def test_the_guests_channels_are_ports_of_its_host(machine: str) -> None:
    argv = inner(machine)
    paths = {chardev.partition("path=")[2] for chardev in values(argv, "-chardev")}
    assert paths == {"/run/port/console", "/run/port/guest"}
    assert {path.rpartition("/")[2] for path in paths} <= PORTS[machine].keys()
    assert "virtserialport,chardev=agent,name=guest" in values(argv, "-device")


@pytest.mark.parametrize("machine", MACHINES)
def test_console_and_processor_are_passed_on(machine: str) -> None:
    argv = outermost(machine, console="socket,fd=9,logfile=x", processor=["-cpu", "max", "-accel", "tcg"])
    assert "socket,fd=9,logfile=x,id=console" in values(argv, "-chardev")
    assert value(argv, "-serial") == "chardev:console"
    assert (value(argv, "-cpu"), value(argv, "-accel")) == ("max", "tcg")


def test_only_cvm_has_a_protected_host() -> None:
    switch = "kvm-arm.mode=protected"
    having = {machine for machine in MACHINES if switch in value(outermost(machine), "-append").split()}
    assert having == {"cvm"}
    assert not [machine for machine in NESTED if any("kvm-arm" in word for word in inner(machine))]


def test_only_a_host_has_virtualisation() -> None:
    for machine, spec in MACHINES.items():
        argv = outermost(machine)
        assert ("virtualization=on" in value(argv, "-machine").split(",")) == spec.nested
        assert argv[0] == QEMU
    assert value(inner("cvm"), "-accel") == "kvm"


@pytest.mark.parametrize("machine", MACHINES)
def test_role_on_the_kernels_command_line(machine: str) -> None:
    role = HOST if MACHINES[machine].nested else GUEST
    assert f"cvmtune.role={role}" in value(outermost(machine), "-append").split()


def test_nested_guest_has_the_guests_role() -> None:
    words = value(inner("vm"), "-append").split()
    assert [word for word in words if word.startswith("cvmtune.role=")] == ["cvmtune.role=guest"]


def test_words_for_the_guest_reach_the_guest_alone() -> None:
    extra = ("nohlt", "dyndbg='file smp.c +p'")
    plain = value(outermost("plain", append=extra, host_append=("quiet",)), "-append")
    assert plain.endswith(" nohlt dyndbg='file smp.c +p'")
    for machine in NESTED:
        assert "nohlt" not in value(outermost(machine, append=extra), "-append").split()
        assert value(inner(machine, extra), "-append").endswith(" nohlt dyndbg='file smp.c +p'")


def test_words_for_the_host_reach_the_host_alone() -> None:
    words = value(outermost("cvm", host_append=("mitigations=off",)), "-append").split()
    assert words[-3:] == ["kvm-arm.mode=protected", "kvm-arm.cvm_vtimer=masked", "mitigations=off"]
    assert "mitigations=off" not in value(outermost("plain", host_append=("mitigations=off",)), "-append")


def test_host_may_be_told_otherwise_than_its_machine_says() -> None:
    """Of two options of the same name the kernel takes the later one."""
    words = value(outermost("cvm", host_append=("kvm-arm.cvm_vtimer=off",)), "-append").split()
    assert [word for word in words if "vtimer" in word] == [
        *("kvm-arm.cvm_vtimer=masked", "kvm-arm.cvm_vtimer=off")
    ]
    # Nothing of it where there is no monitor.
    assert "vtimer" not in value(outermost("vm"), "-append")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("where", [GUEST, HOST])
def test_the_shell_runs_in_one_role(machine: str, where: str) -> None:
    terminal = Terminal(where, 24, 80, "xterm-256color")
    kernels = {HOST if MACHINES[machine].nested else GUEST: outermost(machine, terminal=terminal)}
    if MACHINES[machine].nested:
        kernels[GUEST] = inner(machine, terminal=terminal)
    for role, argv in kernels.items():
        words = [word for word in value(argv, "-append").split() if word.startswith("cvmtune.")]
        shell = ["shell=" + role, "rows=24", "cols=80", "term=xterm-256color"] if role == where else []
        assert words == [f"cvmtune.{word}" for word in [f"role={role}", *shell]]


@pytest.mark.parametrize("append", [(), ("it's", 'a="b c"', "$(reboot)", "`x`", ";")])
def test_script_is_good_shell_and_quotes_words(append: tuple[str, ...]) -> None:
    script = start_guest_script(MACHINES["vm"], append)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert value(inner("vm", append), "-append").endswith(" ".join(append))


def test_script_leaves_the_number_of_the_process_that_becomes_the_emulator() -> None:
    first, second = start_guest_script(MACHINES["cvm"]).splitlines()
    assert first == "echo $$ >/run/cvmtune/guest.pid"
    assert second.startswith(f"exec {QEMU} ")


def test_threads_are_named_because_they_are_pinned_by_name() -> None:
    assert "debug-threads=on" in value(inner("cvm"), "-name").split(",")


def test_sizes_come_from_the_machine() -> None:
    spec = replace(MACHINES["vm"], guest_cpus=3, guest_mb=100, host_mb=900)
    outer = qemu_argv(spec, IMAGES, console="null", ports={}, processor=[])
    words = shlex.split(start_guest_script(spec))
    assert (value(outer, "-smp"), value(outer, "-m")) == ("3", "900")
    assert (value(words, "-smp"), value(words, "-m")) == ("3", "100")
    alone = qemu_argv(replace(spec, nested=False), IMAGES, console="null", ports={}, processor=[])
    assert value(alone, "-m") == "100"


def arm64_with_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(Path, "exists", lambda path: True)


@pytest.mark.parametrize(
    ("computer", "has_kvm", "expected"),
    [
        ("x86_64", True, ["-cpu", "max", "-accel", "tcg,thread=multi"]),
        ("aarch64", False, ["-cpu", "max", "-accel", "tcg,thread=multi"]),
        ("aarch64", True, ["-cpu", "host", "-accel", "kvm"]),
    ],
)
def test_only_an_arm64_computer_can_do_without_emulation(
    monkeypatch: pytest.MonkeyPatch, computer: str, has_kvm: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: computer)
    monkeypatch.setattr(Path, "exists", lambda path: has_kvm)
    assert processor_options(nested=False, icount=False, qemu_version=(7, 2)) == expected


@pytest.mark.parametrize(
    ("version", "cpu"), [((6, 2), "max"), ((7, 0), "max,lpa2=off"), ((10, 1), "max,lpa2=off")]
)
def test_a_host_is_always_emulated_and_without_lpa2(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], cpu: str
) -> None:
    arm64_with_kvm(monkeypatch)
    argv = processor_options(nested=True, icount=False, qemu_version=version)
    assert value(argv, "-cpu") == cpu
    assert value(argv, "-accel") == "tcg,thread=multi"


def test_time_by_instructions_needs_emulation_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    arm64_with_kvm(monkeypatch)
    argv = processor_options(nested=False, icount=True, qemu_version=(7, 2))
    assert value(argv, "-accel") == "tcg,thread=single"
    assert value(argv, "-icount").startswith("shift=0")


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright 2003-2022 version 9.9\n", (7, 2)),
        ("QEMU emulator version 10.0.50 (v10.0.0-1-gabc)\n", (10, 0)),
    ],
)
def test_version_of_the_emulator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, expected: tuple[int, ...]
) -> None:
    install(monkeypatch, tmp_path, says)
    assert qemu_version() == expected


def test_version_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "something else\n")
    with pytest.raises(CvmtuneError, match="cannot tell QEMU's version from 'something else'"):
        qemu_version()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CvmtuneError, match="cannot start qemu-system-aarch64"):
        qemu_version()


def install(monkeypatch: pytest.MonkeyPatch, directory: Path, says: str) -> None:
    program = directory / QEMU
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
