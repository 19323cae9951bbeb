# SPDX-License-Identifier: Apache-2.0
"""The lab: kernels, root file systems and machines on which the features are built, booted and proved.

It knows how to build, cache, boot and talk; what is tried in a machine, and what that shows, is not its
business.
"""
