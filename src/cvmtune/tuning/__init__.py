# SPDX-License-Identifier: Apache-2.0
"""The features' controls, one module each, under one contract (contract.py). Only knobs write sysfs."""
