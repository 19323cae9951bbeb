# SPDX-License-Identifier: Apache-2.0
"""`cvmtune report`: recorded results as tables, page, summary and JSON."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cvmtune.experiments.rounds import RawRun, Round, Series
from cvmtune.report.record import Record, encode
from cvmtune.report.schema import Verdict
from tests.fakes.command_line import status

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("cache")

# SGIs per IPI, off and on, of which the rule of feature 1 makes that verdict.
COUNTED = {Verdict.PASS: (1.0, 0.0), Verdict.FAIL: (1.0, 1.0), Verdict.UNDECIDED: (0.5, 0.0)}
SAID = "Hardware SGIs per IPI"


def write(directory: Path, *verdicts: Verdict) -> str:
    """A file of one run for each verdict, in which nothing is told of it."""

    def measured(state: str, value: float) -> Round:
        return Round(state, 0, (Series("sgi_per_ipi", SAID, "per IPI", "count", "lower", (value,)),))

    runs = [
        RawRun(
            "ipi",
            f"machine {number}",
            (measured("off", COUNTED[verdict][0]), measured("on", COUNTED[verdict][1])),
            {"kernel": "6.12"},
        )
        for number, verdict in enumerate(verdicts)
    ]
    path = directory / "results.json"
    path.write_text(encode(Record.of(runs, [], ())), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("verdict", Verdict)
def test_report_judges_the_rounds_and_ends_by_the_verdict(
    tmp_path: Path, capsys: Capture, verdict: Verdict
) -> None:
    path = write(tmp_path, Verdict.PASS, verdict)
    assert status("report", path) == (0 if verdict == "PASS" else 1)
    out = capsys.readouterr().out
    assert verdict in out
    assert SAID in out
    assert "sgi_per_ipi" not in out
    assert status("report", path, "--verbose") == (0 if verdict == "PASS" else 1)
    assert "sgi_per_ipi" in capsys.readouterr().out
    assert SAID in out


def test_report_of_a_compressed_file(tmp_path: Path, capsys: Capture) -> None:
    path = Path(write(tmp_path, Verdict.PASS))
    packed = tmp_path / "results.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert status("report", str(path)) == status("report", str(packed)) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_report_of_an_old_file_shows_the_verdicts_that_it_has(tmp_path: Path, capsys: Capture) -> None:
    (result,) = [{"feature": "ipi", "machine": "cvm", "metrics": [], "verdict": "FAIL", "why": "It says so."}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema": 1, "environment": {}, "results": [result]}))
    assert status("report", str(path)) == 1
    assert "It says so." in capsys.readouterr().out


@pytest.mark.parametrize(("verdict", "expected"), [(Verdict.PASS, 0), (Verdict.FAIL, 1)])
def test_report_as_json(tmp_path: Path, capsys: Capture, verdict: Verdict, expected: int) -> None:
    assert status("report", "--json", write(tmp_path, verdict)) == expected
    found = json.loads(capsys.readouterr().out)
    assert found["environment"] == {"kernel": "6.12"}
    (result,) = found["results"]
    assert (result["feature"], result["machine"], result["verdict"]) == ("ipi", "machine 0", verdict)
    (metric,) = result["metrics"]
    assert metric["off"] == {
        **{"n": 1, "mean": COUNTED[verdict][0], "median": COUNTED[verdict][0], "p99": COUNTED[verdict][0]},
        "samples": [COUNTED[verdict][0]],
    }


def test_report_writes_a_page(tmp_path: Path, capsys: Capture) -> None:
    assert status("report", write(tmp_path, Verdict.PASS), "--html", "report.html") == 0
    assert SAID in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the result file: No such file"),
        ("", "not a JSON file"),
        ("[]", "Expected `object`"),
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
    path = write(tmp_path, verdict)
    assert status("report", path, "--summary", "new/summary") == expected
    assert SAID in capsys.readouterr().out
    assert [one.name for one in (tmp_path / "new/summary").iterdir()] == ["summary.md"]
    assert f"| ipi, machine 0 | {verdict} |" in (tmp_path / "new/summary/summary.md").read_text()


def test_report_writes_page_summary_and_json_at_once(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, Verdict.PASS)
    assert status("report", path, "--html", "report.html", "--summary", ".", "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["verdict"] == "PASS"
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "summary.md").exists()


def test_report_writes_no_summary_unasked(tmp_path: Path) -> None:
    assert status("report", write(tmp_path, Verdict.PASS)) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_summary_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, Verdict.PASS)
    assert status("report", path, "--summary", path) == 3
    err = capsys.readouterr().err
    assert f"cannot make the directory: File exists ({path})" in err
    assert "Traceback" not in err


def test_page_that_cannot_be_written_is_status_3(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, Verdict.PASS)
    assert status("report", path, "--html", "/nonexistent/report.html") == 3
    assert "cannot write: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["msgspec", "matplotlib"])
def test_a_package_that_is_missing_is_named(tmp_path: Path, package: str) -> None:
    path = write(tmp_path, Verdict.PASS)
    script = f"import sys; sys.modules[{package!r}] = None; from cvmtune import cli; cli.entry()"
    argv = [sys.executable, "-c", script, "report", path, "--html", str(tmp_path / "report.html")]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert f"this needs the package {package}" in ended.stderr
