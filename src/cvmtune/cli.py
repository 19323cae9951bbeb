# SPDX-License-Identifier: Apache-2.0
"""The command line: parsing and dispatch, nothing else.

Exit status: 0 done (of `prove`: every verdict PASS), 1 some verdict FAIL or UNDECIDED, 2 wrong usage, 3 the
lab or a file failed. `lab run` ends with the status of the command that it ran.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cvmtune import __version__
from cvmtune.core.errors import CvmtuneError

_MACHINES = ("plain", "vm", "cvm")
_FLAVOURS = ("default", "debug", "kcsan", "absent", "unpatched")
_LONGEST = 1e6  # seconds
_Handler = Callable[[argparse.Namespace], int]


def entry() -> None:
    """Console script."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = parser().parse_args(argv)
    handler: _Handler = arguments.handler
    try:
        return handler(arguments)
    except (CvmtuneError, OSError) as error:
        if arguments.verbose:
            traceback.print_exc()
        print(f"cvmtune: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, CvmtuneError) else CvmtuneError.exit_code
    except KeyboardInterrupt:
        print("cvmtune: interrupted", file=sys.stderr)
        return 130
    except Exception:
        # A mistake of ours. Its status must not be taken for a verdict's.
        traceback.print_exc()
        print("cvmtune: this is a fault of cvmtune itself; please report it", file=sys.stderr)
        return CvmtuneError.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="cvmtune",
        description="Performance features for Arm confidential VMs: prove them in a lab.",
    )
    top.add_argument("--version", action="version", version=f"cvmtune {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_prove(commands)
    _add_report(commands)
    _add_lab(commands)
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str, handler: _Handler
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--verbose", action="store_true", help="show where in the program an error arose")
    parser.set_defaults(handler=handler)
    return parser


def _add_prove(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "prove", "run the features' experiments, off and on, and judge them", _prove)
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help="of ipi, vtimer, cq-poll, wfx; default: all that the machine can have",
    )
    parser.add_argument("--machine", choices=_MACHINES, default="cvm")
    parser.add_argument(
        "--runs",
        type=_positive,
        metavar="N",
        help="pairs of rounds; default: as many as the feature's experiment says",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--path-length",
        action="store_true",
        help="count the instructions of the paths that the features touch, too",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "report", "show recorded results; nothing is run", _report)
    parser.add_argument(
        "results", type=Path, metavar="FILE", help="a result file, as written by prove --json"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--json", action="store_true", help="print the results, checked, as JSON")


def _add_lab(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lab = commands.add_parser("lab", help="build, boot and look into the lab's machines")
    actions = lab.add_subparsers(required=True, metavar="ACTION")

    parser = _command(actions, "build", "build kernels, test tools and root file systems", _lab_build)
    parser.add_argument("--flavour", choices=_FLAVOURS, action="append", help="which kernel; may be repeated")
    _output_options(parser)

    parser = _command(actions, "boot", "boot a machine, tell how long it took, end it", _lab_boot)
    _boot_options(parser)
    _output_options(parser)

    parser = _command(actions, "shell", "a shell in a machine; Ctrl-] leaves it", _lab_shell)
    _boot_options(parser)
    _where(parser)
    _dry_run(parser)

    parser = _command(actions, "run", "run a command in a machine and end with its status", _lab_run)
    _boot_options(parser)
    _where(parser)
    parser.add_argument("--timeout", type=_seconds, default=600.0, metavar="S", help="seconds (default 600)")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="after --, with its arguments")
    _dry_run(parser)

    parser = _command(actions, "clean", "remove what the lab has cached", _lab_clean)
    parser.add_argument("part", nargs="?", help="only this part of the cache, e.g. rootfs; default: all")
    _output_options(parser)

    queue = actions.add_parser("kernel", help="work on the patch queue")
    steps = queue.add_subparsers(required=True, metavar="STEP")
    parser = _command(steps, "edit", "make a git tree with each patch as a commit", _lab_edit)
    parser.add_argument("--tree", type=Path, help="where (default: build/linux in the checkout)")
    parser = _command(steps, "save", "write that tree's commits back as the queue", _lab_save)
    parser.add_argument("--tree", type=Path, help="where it is (default: build/linux in the checkout)")
    parser = _command(steps, "check", "checkpatch, W=1, sparse, and that each patch builds", _lab_check)
    parser.add_argument("--quick", action="store_true", help="without building each patch by itself")


def _output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    _dry_run(parser)


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the commands instead of running them")


def _boot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", choices=_MACHINES, default="cvm")
    parser.add_argument("--flavour", choices=_FLAVOURS, default="default")
    parser.add_argument(
        "--append", action="append", default=[], metavar="WORD", help="for the guest's kernel"
    )


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--in", dest="where", choices=("guest", "host"), default="guest")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    # Written so that "nan" is refused too; what poll(2) can wait ends at 24 days.
    if not 0 < (seconds := float(text)) <= _LONGEST:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, at most {_LONGEST:g}")
    return seconds


# Each handler imports what it needs: inside a guest there is neither a lab nor a plot.


def _prove(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import prove

    return prove.main(
        arguments.features,
        arguments.machine,
        arguments.runs,
        json=arguments.json,
        html=arguments.html,
        path_length=arguments.path_length,
        dry_run=arguments.dry_run,
    )


def _report(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import report

    return report.main(arguments.results, html=arguments.html, as_json=arguments.json)


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
