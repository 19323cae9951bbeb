# SPDX-License-Identifier: Apache-2.0
"""cvmtune builds, proves and tunes four performance features of confidential VMs on arm64."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cvmtune")
except PackageNotFoundError:  # run from a source tree, or from a guest's copy of it, without being installed
    __version__ = "0.1.0"
