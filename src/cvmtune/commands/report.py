# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: show what an earlier run recorded."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console

from cvmtune.report import render, summarise
from cvmtune.report.load import load
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Verdict
from cvmtune.report.screen import show


def main(
    results_file: Path, *, html: Path | None, summary: Path | None, as_json: bool, verbose: bool, rules: Rules
) -> int:
    """Show a result file, as a page and a summary too if asked; return 0 if every verdict is PASS, else 1.

    The rules judge the file's rounds, and say what else to tell of the experiments; a file without rounds
    has verdicts of its own. As JSON it is the figures, as tables have them, and no result file.
    """
    results = load(results_file, rules)
    render(results, rules, html=html, json=None)
    if summary:
        summarise(results, rules, summary)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())
    else:
        show(results, rules, Console(), verbose=verbose)
    return 0 if all(result.verdict is Verdict.PASS for result in results.results) else 1
