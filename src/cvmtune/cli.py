# SPDX-License-Identifier: Apache-2.0
"""The command line: parsing and dispatch, nothing else.

Exit status: 0 done (of `prove`: every verdict PASS; of `verify`: in force), 1 some verdict FAIL or UNDECIDED,
or not in force, 2 wrong usage, 3 the lab or a file failed (of `apply`: nothing is changed), 4 partly applied
and not taken back, 5 preconditions not met. `lab run` ends with the status of the command that it ran.
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
# What a system that is only tuned need not have (pyproject.toml).
_LAB_PACKAGES = ("rich", "jinja2", "markupsafe", "matplotlib")
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
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _LAB_PACKAGES:
            print(f"cvmtune: this needs the package {error.name}", file=sys.stderr)
            print("  next: pip install 'cvmtune[lab]', or make setup in a checkout", file=sys.stderr)
            return CvmtuneError.exit_code
        # A mistake of ours. Its status must not be taken for a verdict's.
        traceback.print_exc()
        print("cvmtune: this is a fault of cvmtune itself; please report it", file=sys.stderr)
        return CvmtuneError.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="cvmtune",
        description="Performance features for Arm confidential VMs: use them, or prove them in a lab.",
    )
    top.add_argument("--version", action="version", version=f"cvmtune {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_status(commands)
    _add_recommend(commands)
    _add_apply(commands)
    _add_persist(commands)
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


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands, "status", "which features this system has, what is on, what is risky", _status
    )
    _json(parser)
    parser = _command(commands, "verify", "whether what was applied is still in force", _verify)
    _json(parser)


def _add_recommend(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "recommend", "watch this system, say what to set and why", _recommend)
    parser.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="how long (default 10)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the counters there")
    parser.add_argument("--counters", type=Path, metavar="FILE", help="go by counters that were kept")
    _json(parser)


def _add_apply(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "apply", "set a profile, a recommendation, or what the options say", _apply)
    _settings_options(parser)
    _output_options(parser)
    parser = _command(commands, "rollback", "have all as it was before the first apply", _rollback)
    _output_options(parser)


def _add_persist(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands, "persist", "have settings applied at each boot; default: those applied", _persist
    )
    _settings_options(parser)
    _output_options(parser)
    parser = _command(commands, "unpersist", "have nothing applied at boot any more", _unpersist)
    _output_options(parser)


def _settings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        metavar="PROFILE|RECOMMENDATION",
        help="a profile's name or file (.toml), or what recommend --json printed (a file, .json)",
    )
    cpus = "a hex mask (c) or a list (2-3,6; CPU 3 alone: 3-3), off, all or all-but-first"
    for name, metavar, help in (
        ("ipi", "MASK", f"CPUs that poll for IPIs: {cpus}"),
        ("ipi-poll-us", "N", "how long they poll at most, in microseconds; 0: without end"),
        ("cq-poll", "CPU", "the CPU that polls RDMA's completion queues, off or last"),
        ("cq-idle-us", "N", "after so many microseconds without a completion it sleeps; 0: never"),
        ("wfx", "MASK", "ids of vCPUs whose WFx is not trapped, on a host: as --ipi"),
        ("wfx-guard", "on|off", "trap them while something else wants their CPU"),
    ):
        parser.add_argument(f"--{name}", dest=f"set {name}", metavar=metavar, help=help)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _add_prove(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "prove", "run the features' experiments, off and on, and judge them", _prove)
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help="of ipi, vtimer, cq-poll, wfx, blackbox; default: all that the machine can have, in short",
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
    parser.add_argument(
        "--summary", type=Path, metavar="DIR", help="write a page of Markdown and its pictures there"
    )
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
    _json(parser)
    _dry_run(parser)


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


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


def _status(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import site, status

    return status.main(site.local(), as_json=arguments.json)


def _verify(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import site, verify

    return verify.main(site.local(), as_json=arguments.json)


def _recommend(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import recommend, site

    return recommend.main(
        site.local(),
        arguments.seconds,
        record=arguments.record,
        counters=arguments.counters,
        as_json=arguments.json,
    )


def _apply(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import apply, site

    return apply.main(
        site.local(),
        arguments.what,
        _flags(arguments),
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )


def _rollback(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import rollback, site

    return rollback.main(site.local(), dry_run=arguments.dry_run, as_json=arguments.json)


def _persist(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import persist, site

    return persist.persist(
        site.local(),
        arguments.what,
        _flags(arguments),
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )


def _unpersist(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import persist, site

    return persist.unpersist(site.local(), dry_run=arguments.dry_run, as_json=arguments.json)


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings given as options, by name."""
    given = vars(arguments).items()
    return {
        key.partition(" ")[2]: value for key, value in given if key.startswith("set ") and value is not None
    }


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

    return report.main(
        arguments.results,
        html=arguments.html,
        summary=arguments.summary,
        as_json=arguments.json,
        rules=report.rules(),
    )


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
