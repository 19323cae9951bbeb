# SPDX-License-Identifier: Apache-2.0
"""`python -m cvmtune` is the command `cvmtune`."""

from cvmtune.cli import entry

entry()
