# SPDX-License-Identifier: Apache-2.0
"""What the documents show is true: command lines, links, figures of recorded results, parts of the cache."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cvmtune import cli
from cvmtune.lab import kernel_checks, kernel_selftests
from cvmtune.lab.kernel_source import SourceTree
from cvmtune.report import summary
from cvmtune.report.load import load
from cvmtune.report.record import Record
from tests.fakes.bound import RULES, TRIALS

TOP = Path(__file__).resolve().parents[2]
README = TOP / "README.md"
PAGES = [*sorted((TOP / "docs").glob("*.md")), *sorted((TOP / "docs/features").glob("*.md"))]
DOCUMENTS = [README, TOP / "CONTRIBUTING.md", TOP / "docs/evidence/README.md", *PAGES]
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


def test_readme_is_short_and_maps_the_pages() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    map_of_docs = text[text.index("\n## Documentation\n") :]
    linked = {(TOP / target).resolve() for target in LINK.findall(map_of_docs)}
    assert linked >= {*PAGES, TOP / "CONTRIBUTING.md"}


# Of a link its target, of an image as well; none in a code block has this form.
LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them; of equal headings the first one's."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "document", [pytest.param(path, id=str(path.relative_to(TOP))) for path in DOCUMENTS]
)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


SUMMARIES = sorted((TOP / "docs/evidence").glob("*/summary.md"))


@pytest.mark.parametrize("path", SUMMARIES, ids=[path.parent.name for path in SUMMARIES])
def test_recorded_summary_is_what_the_tool_makes_of_the_recorded_run(path: Path) -> None:
    (recorded,) = path.parent.glob("results.json*")
    made = summary.files(load(recorded, RULES), RULES)
    assert path.read_text(encoding="utf-8") == made[summary.PAGE]
    # With all pictures of it, and no others.
    assert {one.name for one in path.parent.glob("*.svg")} == made.keys() - {summary.PAGE}


def test_readme_shows_what_the_tool_makes_of_the_recorded_run() -> None:
    text = README.read_text(encoding="utf-8")
    (name,) = set(re.findall(r"\((docs/evidence/[^()\s]+/results\.json(?:\.gz)?)\)", text))
    _, _, rest = text.partition("<!-- results -->\n")
    shown, _, _ = rest.partition("<!-- /results -->")
    assert shown.strip() == summary.verdicts(load(TOP / name, RULES), RULES)


RATIO = re.compile(r"([\d.,]+) (?:\[([\d.,]+), ([\d.,]+)\]|\(([\d.,]+) to ([\d.,]+)\))")


def rounds_to(text: str, value: float) -> bool:
    """Whether the text is that value, rounded to the decimals that the text has."""
    decimals = len(text.partition(".")[2])
    return abs(float(text.replace(",", "")) - value) <= 0.5 * 10.0**-decimals + 1e-9


RECORDED = [
    pytest.param(name, shown, id=f"{page.name}: {Path(name).parent.name}")
    for page in PAGES
    for name, shown in re.findall(
        r"^<!-- result: made from (\S+) -->\n(.*?)^<!-- end of result -->$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
]


@pytest.mark.parametrize(("name", "shown"), RECORDED)
def test_ratios_shown_are_in_the_recorded_results(name: str, shown: str) -> None:
    results = load(TOP / name, RULES)
    effects = [one.effect for result in results.results for one in result.metrics if one.effect]
    found = RATIO.findall(shown)
    assert found
    for ratio, low, high, least, most in found:
        assert any(
            one.interval
            and (one.interval.kind == "95 %") == bool(low)
            and rounds_to(ratio, one.ratio)
            and rounds_to(low or least, one.interval.low)
            and rounds_to(high or most, one.interval.high)
            for one in effects
        ), ratio


def test_parts_of_the_cache_are_told() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (TOP / "src/cvmtune").rglob("*.py"))
    parts = set(re.findall(r"cache\.(?:get_or_fill|directory)\([\"']([\w-]+)[\"']", code))
    parts |= {SourceTree.LOCK, SourceTree.CHECKS, kernel_checks._KIND}
    parts |= {kernel_selftests._kind(one) for one in (kernel_selftests.KVM, kernel_selftests.TIMERS)}
    assert {"source", "kernel", "guest-tools", "database", "ccache", "logs", "runs"} <= parts
    lab = (TOP / "docs/lab.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^## The cache\n(.*?)^## ", lab, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `([\w-]+)` \|", told, re.MULTILINE)) == parts
    design = (TOP / "docs/design.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^## Caches\n(.*?)^## ", design, re.MULTILINE | re.DOTALL)
    assert {part for part in parts if f"`{part}`" in told} == parts


def test_the_example_of_a_result_file_is_one() -> None:
    text = (TOP / "docs/figures.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    record = msgspec.json.decode(example, type=Record)
    assert record.boots[0].runs[0].rounds


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
