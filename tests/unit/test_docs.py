# SPDX-License-Identifier: Apache-2.0
"""Every command line of cvmtune that the documents show is one that cvmtune takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cvmtune import cli
from cvmtune.report import summary
from cvmtune.report.load import load
from cvmtune.report.record import Record
from tests.fakes.bound import RULES, TRIALS

TOP = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for path in (TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md")))
    if path.is_file()
]
FENCE = re.compile(r"\s*(```|~~~)")
# Before a command's name: a prompt, assignments to the environment.
PREFIX = re.compile(r"\$|sudo|\w+=.*")
OPERATOR = re.compile(r"[();<>|&]+")


def command_lines(document: str) -> Iterator[list[str]]:
    """The arguments of each call of cvmtune in the code blocks of a document."""
    inside = False
    text = ""
    for line in document.splitlines():
        if FENCE.match(line):
            inside = not inside
        elif inside:
            text += line.rstrip()
            if text.endswith("\\"):
                text = text[:-1]
                continue
            # What names no cvmtune may be in any language.
            yield from _calls(text) if "cvmtune" in text else ()
            text = ""


def _calls(line: str) -> Iterator[list[str]]:
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    try:
        found = list(words)
    except ValueError:  # no shell: an apostrophe in text
        return
    command: list[str] = []
    for word in [*found, ";"]:
        if OPERATOR.fullmatch(word):
            if command and Path(command[0]).name == "cvmtune":
                yield command[1:]
            command = []
        elif command or not PREFIX.fullmatch(word):
            command.append(word)


SHOWN = [
    pytest.param(argv, id=f"{path.name}: {shlex.join(argv)}")
    for path in DOCUMENTS
    for argv in command_lines(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("argv", SHOWN)
def test_shown_command_is_taken(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        arguments = cli.parser().parse_args(argv)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr().err  # noqa: PT017
        return
    assert set(getattr(arguments, "features", ())) <= set(TRIALS)


SUMMARIES = sorted((TOP / "docs/evidence").glob("*/summary.md"))


@pytest.mark.parametrize("path", SUMMARIES, ids=[path.parent.name for path in SUMMARIES])
def test_recorded_summary_is_what_the_tool_makes_of_the_recorded_run(path: Path) -> None:
    (recorded,) = path.parent.glob("results.json*")
    made = summary.files(load(recorded, RULES), RULES)
    assert path.read_text(encoding="utf-8") == made[summary.PAGE]
    # With all pictures of it, and no others.
    assert {one.name for one in path.parent.glob("*.svg")} == made.keys() - {summary.PAGE}


def test_the_example_of_a_result_file_is_one() -> None:
    text = (TOP / "docs/figures.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    record = msgspec.json.decode(example, type=Record)
    assert record.boots[0].runs[0].rounds


def test_pictures_that_readme_shows_are_there() -> None:
    pictures = re.findall(r"\]\((\S+\.(?:svg|png))\)", (TOP / "README.md").read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert (TOP / picture).is_file(), picture


def test_command_lines_are_found() -> None:
    document = """
`cvmtune inline` and cvmtune in text.

```sh
make prove
cvmtune prove   # a comment, it's one
.venv/bin/cvmtune lab run -- cat /proc/interrupts
$ CVMTUNE_CACHE=/data/x sudo cvmtune lab boot --machine plain \\
      --append nohlt | tail -1
cd cvmtune && cvmtune report results.json >table.txt; git clone https://example.org/cvmtune
echo 'cvmtune lab clean'
# cvmtune commented
```

    cvmtune: it's no command

~~~
cvmtune: missing on this machine; it's a message
git am /path/to/cvmtune/kernel/queue/6.12/*.patch
~~~
"""
    assert list(command_lines(document)) == [
        ["prove"],
        ["lab", "run", "--", "cat", "/proc/interrupts"],
        ["lab", "boot", "--machine", "plain", "--append", "nohlt"],
        ["report", "results.json"],
    ]
