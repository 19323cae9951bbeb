# SPDX-License-Identifier: Apache-2.0
"""Reads result files: of schema 2 the rounds are judged anew, of schema 1 there are only its own figures."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cvmtune.core.errors import CvmtuneError
from cvmtune.report import schema1
from cvmtune.report.evidence import Evidence, Judged
from cvmtune.report.judge import judge
from cvmtune.report.record import SCHEMA, Record
from cvmtune.report.rule import Rule, Rules
from cvmtune.report.schema import Results, Verdict

_GZIP = b"\x1f\x8b"


class _Head(msgspec.Struct):
    """What is asked first of a file: of another schema, no other complaint would make sense."""

    schema: Any = None


def load(path: Path, rules: Rules) -> Results:
    """Read the result file at `path`, which may be compressed by gzip; the rules judge its rounds.

    CvmtuneError, with the file, if it cannot be read or is none; what is wrong names the field.
    """
    data = _read(path)
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if type(schema) is not int or schema not in (schema1.SCHEMA, SCHEMA):
            known = f"{schema1.SCHEMA} and {SCHEMA}"
            raise CvmtuneError(f"schema {schema!r} is not known, only {known} are", str(path))
        if schema == schema1.SCHEMA:
            old: schema1.File = msgspec.json.decode(data, type=schema1.File)
            return old.now()
        record = msgspec.json.decode(data, type=Record)
    except msgspec.ValidationError as error:
        raise CvmtuneError(
            f"not a result file: {error}", str(path), "show it with the version that wrote it"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CvmtuneError(f"not a JSON file: {error}", str(path)) from error
    try:
        return _judged(record, rules)
    except CvmtuneError as error:
        raise CvmtuneError(error.what, f"{path}: {error.where}", error.next_step) from error


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CvmtuneError(f"damaged: {error}", str(path)) from error
    except OSError as error:
        raise CvmtuneError(f"cannot read the result file: {error.strerror}", str(path)) from error


def _judged(record: Record, rules: Rules) -> Results:
    judged, beside = record.runs()
    known = {run.feature: rules.get(run.feature, _UNKNOWN) for run in judged}
    results = judge(judged, beside, known)
    told = {(one.experiment, one.machine): one.verdict for one in record.verdicts}
    # In the order in which they were told: what was missed belongs to no boot.
    places = {one: place for place, one in enumerate(told)}
    ordered = sorted(results.results, key=lambda one: places.get((one.feature, one.machine), len(places)))
    return replace(results, results=tuple(ordered), notes=tuple(_told_otherwise(told, results)))


def _told_otherwise(told: Mapping[tuple[str, str], Verdict], results: Results) -> Iterator[str]:
    """Where the verdict is another than when the file was written."""
    for one in results.results:
        before = told.get((one.feature, one.machine), one.verdict)
        if before != one.verdict:
            what = f"{one.feature} on {one.machine}"
            yield f"{what}: this version judges {one.verdict}, the file says {before}."


def _no_rule(evidence: Evidence) -> Judged:
    return Verdict.UNDECIDED, "This version has no rule for the experiment."


_UNKNOWN = Rule(_no_rule, "")
