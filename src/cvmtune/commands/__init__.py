# SPDX-License-Identifier: Apache-2.0
"""What each command of the command line does."""
