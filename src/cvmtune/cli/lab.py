# SPDX-License-Identifier: Apache-2.0
"""The commands of the lab."""

from __future__ import annotations

import argparse
from pathlib import Path

from cvmtune.cli.options import FLAVOURS, MACHINES, Commands, command, dry_run_option, output_options, seconds


def add(commands: Commands) -> None:
    """Add the parsers of `lab` and its actions."""
    lab = commands.add_parser("lab", help="build, boot and look into the lab's machines")
    actions = lab.add_subparsers(required=True, metavar="ACTION")

    parser = command(actions, "build", "build kernels, test tools and root file systems", _lab_build)
    parser.add_argument("--flavour", choices=FLAVOURS, action="append", help="which kernel; may be repeated")
    output_options(parser)

    parser = command(actions, "boot", "boot a machine, tell how long it took, end it", _lab_boot)
    _boot_options(parser)
    output_options(parser)

    parser = command(actions, "shell", "a shell in a machine; Ctrl-] leaves it", _lab_shell)
    _boot_options(parser)
    _where(parser)
    dry_run_option(parser)

    parser = command(actions, "run", "run a command in a machine and end with its status", _lab_run)
    _boot_options(parser)
    _where(parser)
    parser.add_argument("--timeout", type=seconds, default=600.0, metavar="S", help="seconds (default 600)")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="after --, with its arguments")
    dry_run_option(parser)

    parser = command(actions, "clean", "remove what the lab has cached", _lab_clean)
    parser.add_argument("part", nargs="?", help="only this part of the cache, e.g. rootfs; default: all")
    output_options(parser)

    queue = actions.add_parser("kernel", help="work on the patch queue")
    steps = queue.add_subparsers(required=True, metavar="STEP")
    parser = command(steps, "edit", "make a git tree with each patch as a commit", _lab_edit)
    parser.add_argument("--tree", type=Path, help="where (default: build/linux in the checkout)")
    parser = command(steps, "save", "write that tree's commits back as the queue", _lab_save)
    parser.add_argument("--tree", type=Path, help="where it is (default: build/linux in the checkout)")
    parser = command(steps, "check", "checkpatch, W=1, sparse, and that each patch builds", _lab_check)
    parser.add_argument("--quick", action="store_true", help="without building each patch by itself")


def _boot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", choices=MACHINES, default="cvm")
    parser.add_argument("--flavour", choices=FLAVOURS, default="default")
    parser.add_argument(
        "--append", action="append", default=[], metavar="WORD", help="for the guest's kernel"
    )


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--in", dest="where", choices=("guest", "host"), default="guest")


def _lab_build(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import lab

    flavours = arguments.flavour or ["default"]
    return lab.build(
        lab.open_lab(arguments.json), flavours, as_json=arguments.json, dry_run=arguments.dry_run
    )


def _lab_boot(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import lab

    return lab.boot(
        lab.open_lab(arguments.json),
        arguments.machine,
        arguments.flavour,
        arguments.append,
        as_json=arguments.json,
        dry_run=arguments.dry_run,
    )


def _lab_shell(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import lab

    return lab.shell(
        lab.open_lab(),
        arguments.machine,
        arguments.where,
        arguments.flavour,
        arguments.append,
        dry_run=arguments.dry_run,
    )


def _lab_run(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import lab

    return lab.run(
        lab.open_lab(),
        arguments.machine,
        arguments.where,
        arguments.flavour,
        arguments.append,
        arguments.argv,
        arguments.timeout,
        dry_run=arguments.dry_run,
    )


def _lab_clean(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import lab

    return lab.clean(
        lab.open_lab(arguments.json), arguments.part, as_json=arguments.json, dry_run=arguments.dry_run
    )


def _lab_edit(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import queue

    return queue.edit(arguments.tree)


def _lab_save(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import queue

    return queue.save(arguments.tree)


def _lab_check(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import queue

    return queue.check(quick=arguments.quick)
