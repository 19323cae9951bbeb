# SPDX-License-Identifier: Apache-2.0
"""Every command line of cvmtune that the documents show is one that cvmtune takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmtune import cli
from cvmtune.report import summary
from cvmtune.report.load import load
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


def test_readme_shows_what_the_tool_makes_of_the_recorded_run() -> None:
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"^<!-- summary of (\S+) -->$", readme, re.MULTILINE)
    _, _, rest = readme.partition(f"<!-- summary of {name} -->\n")
    shown, _, _ = rest.partition("<!-- end of summary -->")
    assert shown.strip() == summary.page(load(TOP / name, RULES), RULES).strip()
    # Its pictures are those of the same run.
    pictures = re.findall(r"\]\((\S+\.svg)\)", readme)
    made = summary.files(load(TOP / name, RULES), RULES)
    assert pictures
    for picture in pictures:
        assert Path(picture).parent == Path(name).parent
        assert Path(picture).name in made


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
