# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: show what an earlier run recorded."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from cvmtune.report import render, summarise
from cvmtune.report.schema import load
from cvmtune.report.table import print_tables


def main(results_file: Path, *, html: Path | None, summary: Path | None, as_json: bool) -> int:
    """Show a result file, as a page and a summary too if asked; return 0 if every verdict is PASS, else 1."""
    results = load(results_file)
    render(results, html=html, json=None)
    if summary:
        summarise(results, summary)
    if as_json:
        print(json.dumps(results.to_json(), indent=2))
    else:
        print_tables(results, Console())
    return 0 if all(result.verdict == "PASS" for result in results.results) else 1
