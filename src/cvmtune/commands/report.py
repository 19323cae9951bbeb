# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: show what an earlier run recorded."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from cvmtune.report import render, summarise
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Verdict, load
from cvmtune.report.table import print_tables


def main(results_file: Path, *, html: Path | None, summary: Path | None, as_json: bool, rules: Rules) -> int:
    """Show a result file, as a page and a summary too if asked; return 0 if every verdict is PASS, else 1.

    The verdicts are those of the file; the rules say what else to tell of the experiments.
    """
    results = load(results_file)
    render(results, rules, html=html, json=None)
    if summary:
        summarise(results, rules, summary)
    if as_json:
        print(json.dumps(results.to_json(), indent=2))
    else:
        print_tables(results, Console())
    return 0 if all(result.verdict is Verdict.PASS for result in results.results) else 1
