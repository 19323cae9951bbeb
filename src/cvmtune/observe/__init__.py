# SPDX-License-Identifier: Apache-2.0
"""What a running system is and what it does. It is only looked at; nothing here writes.

capture.py reads files, all else works on what it has read. So a machine that was captured once can be looked
at again, by a test or by somebody who was sent the file.
"""
