# SPDX-License-Identifier: Apache-2.0
"""A feature as small as can be: one control, one setting, one experiment. It is in no kernel."""
