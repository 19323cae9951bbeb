# SPDX-License-Identifier: Apache-2.0
"""Experiments: each collects raw samples and counters, and judges nothing."""
