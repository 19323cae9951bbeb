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
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cvmtune import __version__
from cvmtune.commands.site import Site
from cvmtune.core.errors import CvmtuneError
from cvmtune.features import REGISTRY
from cvmtune.features.registry import Registry

_MACHINES = ("plain", "vm", "cvm")
_FLAVOURS = ("default", "debug", "kcsan", "absent", "unpatched")
# What a system that is only tuned need not have (pyproject.toml).
_LAB_PACKAGES = ("rich", "jinja2", "markupsafe", "matplotlib")
_LONGEST = 1e6  # seconds
_Handler = Callable[[argparse.Namespace], int]
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def entry() -> None:
    """Console script."""
    sys.exit(main())


def main(argv: Sequence[str] | None = None, registry: Registry = REGISTRY) -> int:
    """Run one command, with these features, and return its exit status."""
    arguments = parser(registry).parse_args(argv)
    arguments.registry = registry
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


def parser(registry: Registry = REGISTRY) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; options of settings are the features'."""
    top = argparse.ArgumentParser(
        prog="cvmtune",
        description="Performance features for Arm confidential VMs: use them, or prove them in a lab.",
    )
    top.add_argument("--version", action="version", version=f"cvmtune {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_status(commands)
    _add_recommend(commands)
    _add_apply(commands, registry)
    _add_persist(commands, registry)
    _add_prove(commands, registry)
    _add_report(commands)
    _add_lab(commands)
    return top


def _command(commands: _Commands, name: str, help: str, handler: _Handler) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--verbose", action="store_true", help="show where in the program an error arose")
    parser.set_defaults(handler=handler)
    return parser


def _add_status(commands: _Commands) -> None:
    parser = _command(
        commands, "status", "which features this system has, what is on, what is risky", _status
    )
    _json(parser)
    parser = _command(commands, "verify", "whether what was applied is still in force", _verify)
    _json(parser)


def _add_recommend(commands: _Commands) -> None:
    parser = _command(commands, "recommend", "watch this system, say what to set and why", _recommend)
    parser.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="how long (default 10)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the counters there")
    parser.add_argument("--counters", type=Path, metavar="FILE", help="go by counters that were kept")
    _json(parser)


def _add_apply(commands: _Commands, registry: Registry) -> None:
    parser = _command(commands, "apply", "set a profile, a recommendation, or what the options say", _apply)
    _settings_options(parser, registry)
    _output_options(parser)
    parser = _command(commands, "rollback", "have all as it was before the first apply", _rollback)
    _output_options(parser)


def _add_persist(commands: _Commands, registry: Registry) -> None:
    parser = _command(
        commands, "persist", "have settings applied at each boot; default: those applied", _persist
    )
    _settings_options(parser, registry)
    _output_options(parser)
    parser = _command(commands, "unpersist", "have nothing applied at boot any more", _unpersist)
    _output_options(parser)


def _settings_options(parser: argparse.ArgumentParser, registry: Registry) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        metavar="PROFILE|RECOMMENDATION",
        help="a profile's name or file (.toml), or what recommend --json printed (a file, .json)",
    )
    # The main setting of a feature first, and then what bounds it.
    for feature in registry.features:
        for one in sorted(feature.settings, key=lambda one: one is not feature.main):
            parser.add_argument(f"--{one.name}", dest=f"set {one.name}", metavar=one.metavar, help=one.help)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _add_prove(commands: _Commands, registry: Registry) -> None:
    parser = _command(commands, "prove", "run the features' experiments, off and on, and judge them", _prove)
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help=f"of {', '.join(registry.trials)}; default: all that the machine can have, in short",
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


def _add_report(commands: _Commands) -> None:
    parser = _command(commands, "report", "show recorded results; nothing is run", _report)
    parser.add_argument(
        "results", type=Path, metavar="FILE", help="a result file, as written by prove --json"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--summary", type=Path, metavar="DIR", help="write a page of Markdown and its pictures there"
    )
    parser.add_argument("--json", action="store_true", help="print the results, checked, as JSON")


def _add_lab(commands: _Commands) -> None:
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


def _site(arguments: argparse.Namespace) -> Site:
    """This machine, with the features to have."""
    from cvmtune.commands import site

    return replace(site.local(), registry=arguments.registry)


def _status(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import status

    return status.main(_site(arguments), as_json=arguments.json)


def _verify(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import verify

    return verify.main(_site(arguments), as_json=arguments.json)


def _recommend(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import recommend

    return recommend.main(
        _site(arguments),
        arguments.seconds,
        record=arguments.record,
        counters=arguments.counters,
        as_json=arguments.json,
    )


def _apply(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import apply

    return apply.main(
        _site(arguments),
        arguments.what,
        _flags(arguments),
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )


def _rollback(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import rollback

    return rollback.main(_site(arguments), dry_run=arguments.dry_run, as_json=arguments.json)


def _persist(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import persist

    return persist.persist(
        _site(arguments),
        arguments.what,
        _flags(arguments),
        dry_run=arguments.dry_run,
        as_json=arguments.json,
    )


def _unpersist(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import persist

    return persist.unpersist(_site(arguments), dry_run=arguments.dry_run, as_json=arguments.json)


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
