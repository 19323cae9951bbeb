# SPDX-License-Identifier: Apache-2.0
"""The command line: parsing and dispatch, nothing else.

Exit status: 0 done (of `prove`: every verdict PASS; of `verify`: in force), 1 some verdict FAIL or UNDECIDED,
or not in force, 2 wrong usage, 3 the lab or a file failed (of `apply`: nothing is changed), 4 partly applied
and not taken back, 5 preconditions not met, 6 applied but for what may wait. `lab run` ends with the status
of the command that it ran.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from cvmtune import __version__
from cvmtune.cli import lab, prove, tool
from cvmtune.cli.options import Handler
from cvmtune.core.errors import CvmtuneError
from cvmtune.core.output import guarded, open_standard_descriptors
from cvmtune.features import REGISTRY
from cvmtune.features.registry import Registry

# What a system that is only tuned need not have (pyproject.toml).
_LAB_PACKAGES = ("rich", "jinja2", "markupsafe", "matplotlib", "msgspec", "scipy")


def entry() -> None:
    """Console script."""
    open_standard_descriptors()
    sys.exit(main())


def main(argv: Sequence[str] | None = None, registry: Registry = REGISTRY) -> int:
    """Run one command, with these features, and return its exit status; what it prints may be lost."""
    with guarded():
        return _run(argv, registry)


def _run(argv: Sequence[str] | None, registry: Registry) -> int:
    arguments = parser(registry).parse_args(argv)
    arguments.registry = registry
    handler: Handler = arguments.handler
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
    tool.add(commands, registry)
    prove.add(commands, registry)
    lab.add(commands)
    return top
