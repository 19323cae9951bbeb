# SPDX-License-Identifier: Apache-2.0
"""What to set on a system, and why: pure functions from what it was seen to do."""
