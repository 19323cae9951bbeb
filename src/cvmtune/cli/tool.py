# SPDX-License-Identifier: Apache-2.0
"""The commands for a running system.

Each handler imports what it needs, as its system may lack the rest.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cvmtune.cli.options import Commands, command, json_option, output_options, seconds
from cvmtune.commands.site import Site
from cvmtune.features.registry import Registry


def add(commands: Commands, registry: Registry) -> None:
    """Add the commands' parsers."""
    _add_status(commands)
    _add_recommend(commands)
    _add_apply(commands, registry)
    _add_persist(commands, registry)


def _add_status(commands: Commands) -> None:
    parser = command(commands, "status", "which features this system has, what is on, what is risky", _status)
    json_option(parser)
    parser = command(commands, "verify", "whether what was applied is still in force", _verify)
    json_option(parser)


def _add_recommend(commands: Commands) -> None:
    parser = command(commands, "recommend", "watch this system, say what to set and why", _recommend)
    parser.add_argument("--seconds", type=seconds, default=10.0, metavar="S", help="how long (default 10)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the counters there")
    parser.add_argument("--counters", type=Path, metavar="FILE", help="go by counters that were kept")
    json_option(parser)


def _add_apply(commands: Commands, registry: Registry) -> None:
    parser = command(commands, "apply", "set a profile, a recommendation, or what the options say", _apply)
    _settings_options(parser, registry)
    output_options(parser)
    parser = command(commands, "rollback", "have all as it was before the first apply", _rollback)
    output_options(parser)


def _add_persist(commands: Commands, registry: Registry) -> None:
    parser = command(
        commands, "persist", "have settings applied at each boot; default: those applied", _persist
    )
    _settings_options(parser, registry)
    output_options(parser)
    parser = command(commands, "unpersist", "have nothing applied at boot any more", _unpersist)
    output_options(parser)


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
