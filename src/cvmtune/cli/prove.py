# SPDX-License-Identifier: Apache-2.0
"""The commands that measure, and show what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from cvmtune.cli.options import MACHINES, Commands, command, minutes, positive
from cvmtune.features.registry import Registry


def add(commands: Commands, registry: Registry) -> None:
    """Add the commands' parsers."""
    _add_prove(commands, registry)
    _add_report(commands)


def _add_prove(commands: Commands, registry: Registry) -> None:
    parser = command(commands, "prove", "run the features' experiments, off and on, and judge them", _prove)
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help=f"of {', '.join(registry.trials)}; default: all that the machine can have, in short",
    )
    parser.add_argument("--machine", choices=MACHINES, default="cvm")
    parser.add_argument(
        "--runs",
        type=positive,
        metavar="N",
        help="pairs of rounds; default: as many as the feature's experiment says",
    )
    parser.add_argument(
        "--budget",
        type=minutes,
        metavar="MIN",
        help="minutes for measuring, building not counted; fewer rounds where they are short; "
        "default: 10 if neither features nor --runs are given, else as many as it takes",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--path-length",
        action="store_true",
        help="count the instructions of the paths that the features touch, too",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be measured")


def _add_report(commands: Commands) -> None:
    parser = command(commands, "report", "show recorded results; nothing is run", _report)
    parser.add_argument(
        "results", type=Path, metavar="FILE", help="a result file of prove --json; may be compressed by gzip"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument(
        "--summary", type=Path, metavar="DIR", help="write a page of Markdown and its pictures there"
    )
    parser.add_argument("--json", action="store_true", help="print the figures and verdicts as JSON")


def _prove(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import prove

    return prove.main(
        arguments.features,
        arguments.machine,
        arguments.runs,
        budget_min=arguments.budget,
        json=arguments.json,
        html=arguments.html,
        path_length=arguments.path_length,
        verbose=arguments.verbose,
        dry_run=arguments.dry_run,
        trials=arguments.registry.trials,
    )


def _report(arguments: argparse.Namespace) -> int:
    from cvmtune.commands import report

    return report.main(
        arguments.results,
        html=arguments.html,
        summary=arguments.summary,
        as_json=arguments.json,
        verbose=arguments.verbose,
        rules=arguments.registry.rules(),
    )
