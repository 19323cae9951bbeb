# SPDX-License-Identifier: Apache-2.0
"""What every other part of cvmtune rests on; nothing in here depends on anything above it."""
