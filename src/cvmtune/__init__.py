# SPDX-License-Identifier: Apache-2.0
"""cvmtune builds, proves and tunes four performance features of confidential VMs on arm64."""

# Here, and not asked of the installed package: inside a guest it is not installed, and asking takes time.
__version__ = "0.1.0"
