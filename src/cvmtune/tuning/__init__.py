# SPDX-License-Identifier: Apache-2.0
"""Settings and their knobs: set as one, journalled, taken back. What every knob keeps is in contract.py."""
