# SPDX-License-Identifier: Apache-2.0
"""Raw results in; verdicts, tables, plots and pages out. Pure: it measures nothing and works offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvmtune.core.errors import CvmtuneError
from cvmtune.core.files import write_whole
from cvmtune.experiments.rounds import RawRun
from cvmtune.report.record import Record, encode
from cvmtune.report.rule import Rules
from cvmtune.report.schema import Results


def render(
    results: Results,
    rules: Rules,
    *,
    html: Path | None,
    json: Path | None,
    judged: Sequence[RawRun] = (),
    beside: Sequence[RawRun] = (),
) -> None:
    """Write the results as an HTML page, the runs that they are made from as a result file, or both.

    The rules say what the page is about; `beside` are the baselines. Each file appears whole or not at all,
    and replaces an older one. CvmtuneError if one cannot be written.
    """
    if json is not None:
        _write(json, encode(Record.of(judged, beside, results.results)))
    if html is not None:
        # Loaded only when a page is asked for: matplotlib takes most of a second.
        from cvmtune.report.html import page

        _write(html, page(results, rules))


def summarise(results: Results, rules: Rules, directory: Path) -> list[Path]:
    """Write the summary and its pictures into a directory, which may be new; return their paths."""
    from cvmtune.report import summary

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CvmtuneError(f"cannot make the directory: {error.strerror}", str(directory)) from error
    written = {directory / name: text for name, text in summary.files(results, rules).items()}
    for path, text in written.items():
        _write(path, text)
    return list(written)


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise CvmtuneError(f"cannot write: {error.strerror}", str(path)) from error
