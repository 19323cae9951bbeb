# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: recorded results as tables, page, summary and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvmtune.report.schema import Metric, Result, Results, Verdict
from cvmtune.report.stats import Stats
from tests.fakes.command_line import status

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")


def stats(value: float) -> Stats:
    return Stats(2, value, value, value, (value, value))


def results(*verdicts: Verdict) -> Results:
    metric = Metric(
        "sgi_per_ipi", "SGIs per IPI", "per IPI", "count", "lower", stats(1), stats(0), None, None
    )
    return Results(
        {"kernel": "6.12"},
        tuple(Result("ipi", "cvm", (metric,), verdict, "It says so.") for verdict in verdicts),
    )


def write(path: Path, content: Results) -> str:
    path.write_text(json.dumps(content.to_json()))
    return str(path)


@pytest.mark.parametrize("verdict", Verdict)
def test_report_shows_results_and_ends_by_the_verdict(
    tmp_path: Path, capsys: Capture, verdict: Verdict
) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS, verdict))
    assert status("report", path) == (0 if verdict == "PASS" else 1)
    out = capsys.readouterr().out
    assert verdict in out
    assert "sgi_per_ipi" in out
    assert "It says so." in out


@pytest.mark.parametrize(("verdict", "expected"), [(Verdict.PASS, 0), (Verdict.FAIL, 1)])
def test_report_as_json(tmp_path: Path, capsys: Capture, verdict: Verdict, expected: int) -> None:
    path = write(tmp_path / "results.json", results(verdict))
    assert status("report", "--json", path) == expected
    assert Results.from_json(json.loads(capsys.readouterr().out)) == results(verdict)


def test_report_writes_a_page(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS))
    assert status("report", path, "--html", "report.html") == 0
    assert "It says so." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the result file: No such file"),
        ("", "not a JSON file"),
        ("[]", "expected an object"),
        ('{"schema": 99}', "schema 99 is not known"),
        ('{"schema": 1, "environment": {}}', "missing"),
    ],
)
def test_file_that_is_no_result_is_status_3(
    tmp_path: Path, capsys: Capture, content: str | None, message: str
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert status("report", str(path)) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert str(path) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("verdict", "expected"), [(Verdict.PASS, 0), (Verdict.FAIL, 1)])
def test_report_writes_a_summary_beside_what_it_shows(
    tmp_path: Path, capsys: Capture, verdict: Verdict, expected: int
) -> None:
    path = write(tmp_path / "results.json", results(verdict))
    assert status("report", path, "--summary", "new/summary") == expected
    assert "It says so." in capsys.readouterr().out
    assert [one.name for one in (tmp_path / "new/summary").iterdir()] == ["summary.md"]
    assert f"| ipi | cvm | {verdict} |" in (tmp_path / "new/summary/summary.md").read_text()


def test_report_writes_page_summary_and_json_at_once(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS))
    assert status("report", path, "--html", "report.html", "--summary", ".", "--json") == 0
    assert Results.from_json(json.loads(capsys.readouterr().out)) == results(Verdict.PASS)
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "summary.md").exists()


def test_report_writes_no_summary_unasked(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS))
    assert status("report", path) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_summary_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS))
    assert status("report", path, "--summary", path) == 3
    err = capsys.readouterr().err
    assert f"cannot make the directory: File exists ({path})" in err
    assert "Traceback" not in err


def test_page_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "results.json", results(Verdict.PASS))
    assert status("report", path, "--html", "/nonexistent/report.html") == 3
    assert "cannot write: No such file" in capsys.readouterr().err
