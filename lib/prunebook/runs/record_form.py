"""The form of recorded runs: what a file must hold, and one line for what is wrong with it.

A file of version 2 holds one run of one paper, `{"kind": "prunebook-record", "version": 2, ...}`.
A file of version 1 holds several runs, `{"kind": "prunebook-runs", "version": 1, "runs": [...]}`;
none is written any more.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from ..errors import UserError
from ..notebook.gaps import Gap
from ..notebook.judging import NOT_JUDGED
from ..notebook.quick import QUICK
from ..notebook.stated import ORIGINS
from ..notebook.tables import VERDICTS, is_number

KIND = "prunebook-record"
VERSION = 2
EARLIER_KIND = "prunebook-runs"
EARLIER_VERSION = 1
# The verdicts that a record may hold; a quick run, which judges nothing, is not recorded.
RECORDED_VERDICTS = tuple(verdict for verdict in VERDICTS if verdict != NOT_JUDGED)

_TEXT = "text"
_MAPPING = "a mapping"
_LIST = "a list of mappings"
_OPTIONAL = "text or null"
_DAY = "a day, YYYY-MM-DD"
_RUN_FIELDS = {
    "slug": _TEXT,
    "short": _TEXT,
    "profile": _TEXT,
    "results": _LIST,
    "claims": _LIST,
}
_RECORD_FIELDS = {
    **_RUN_FIELDS,
    "device": _OPTIONAL,
    "date": _DAY,
    "commit": _OPTIONAL,
    "versions": _MAPPING,
    "quick": _LIST,
}
_TABLE_FIELDS = {"rows": _LIST, "protocol": _MAPPING, "date": _DAY, "commit": _OPTIONAL}
_CLAIM_FIELDS = {
    "key": _TEXT,
    "statement": _TEXT,
    "paper": _TEXT,
    "source": _TEXT,
    "verdict": _TEXT,
    "protocol": _MAPPING,
}
_NUMBER = "a number"
_NUMBER_OR_NULL = "a number or null"
_EARLIER_GAP_FIELDS = {"mean": _NUMBER, "standard_error": _NUMBER}
_GAP_FIELDS = {
    **_EARLIER_GAP_FIELDS,
    "degrees_of_freedom": _NUMBER,
    "windows": _NUMBER,
    "draws": _NUMBER,
    "unit": _TEXT,
    "margin": _NUMBER_OR_NULL,
    "half_width": _NUMBER,
    "detectable": _NUMBER,
}
_BOUND_FIELDS = {
    "estimate": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
    "samples": _NUMBER,
    "at_least": _NUMBER_OR_NULL,
    "at_most": _NUMBER_OR_NULL,
}


def read_content(text: str, file: str) -> dict[str, Any] | None:
    """The content of a file of recorded runs, checked; None for a file of another kind.

    Args:
        text: the text of the file.
        file: its name, for the error.

    Raises:
        UserError: the text is no JSON, or the content is not of the form of its kind; the line
            names the file and the field.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: no readable JSON, perhaps cut short: {error}") from error
    if not isinstance(content, dict) or content.get("kind") not in (KIND, EARLIER_KIND):
        return None
    try:
        _check_finite(content, "")
        if content["kind"] == KIND:
            _check_version(content, VERSION)
            _check_run(content, "", _RECORD_FIELDS)
            if content["profile"] == QUICK:
                raise ValueError(f"profile: {QUICK!r} judges nothing; record book or full")
        else:
            _check_version(content, EARLIER_VERSION)
            _check_fields(content, "", {"runs": _LIST})
            for index, run in enumerate(content["runs"]):
                _check_run(run, f"runs[{index}].", _RUN_FIELDS)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    return content


def _check_version(content: Mapping[str, Any], version: int) -> None:
    if content.get("version") != version:
        given = content.get("version", "missing")
        raise ValueError(f"version: {given} is not {version}, which {content['kind']} has")


def _check_run(run: Mapping[str, Any], place: str, fields: Mapping[str, str]) -> None:
    """Raise a `ValueError` for the first fault of a run, `place` being the way to its fields."""
    _check_fields(run, place, fields)
    if not run["results"]:
        raise ValueError(f"{place}results: must not be empty")
    for index, table in enumerate(run["results"]):
        _check_fields(table, f"{place}results[{index}].", _TABLE_FIELDS)
        _check_losses(table.get("losses", {}), f"{place}results[{index}].losses")
    for index, claim in enumerate(run["claims"]):
        _check_claim(claim, f"{place}claims[{index}].", earlier="quick" not in fields)


def _check_claim(claim: Mapping[str, Any], place: str, *, earlier: bool) -> None:
    """Raise a `ValueError` for the first fault of a claim, `earlier` for one of version 1."""
    _check_fields(claim, place, _CLAIM_FIELDS)
    if claim["verdict"] not in RECORDED_VERDICTS:
        allowed = ", ".join(RECORDED_VERDICTS)
        raise ValueError(f"{place}verdict: {claim['verdict']!r} is unknown; allowed: {allowed}")
    if not earlier and claim.get("origin") not in ORIGINS:
        allowed = ", ".join(ORIGINS)
        given = claim.get("origin") or "missing"
        raise ValueError(f"{place}origin: {given}; allowed: {allowed}")
    needed = "ours"
    if claim["verdict"] == "not_testable":
        needed = "reason"
    _check_fields(claim, place, {needed: _TEXT})
    gap_fields = _GAP_FIELDS
    if earlier:
        gap_fields = _EARLIER_GAP_FIELDS
    if claim.get("gap") is not None:
        _check_fields(claim["gap"], f"{place}gap.", gap_fields)
    if claim.get("bound") is not None:
        _check_fields(claim["bound"], f"{place}bound.", _BOUND_FIELDS)
    if claim.get("gap") is not None and not earlier:
        _check_verdict(claim, place)


def _check_verdict(claim: Mapping[str, Any], place: str) -> None:
    """Raise a `ValueError` unless the verdict of a claim is the one that its gap gives."""
    names = [field.name for field in dataclasses.fields(Gap)]
    gap = Gap(**{name: claim["gap"][name] for name in names if name in claim["gap"]})
    if claim["verdict"] == "not_testable":
        return
    follows = gap.refusal or gap.verdict
    if claim["verdict"] == "undertrained" and follows == "fails":
        return
    if claim["verdict"] != follows:
        raise ValueError(f"{place}verdict: {claim['verdict']!r}, and its gap gives: {follows}")


def _check_losses(losses: Any, place: str) -> None:
    """Raise a `ValueError` unless losses are lists of numbers, `[draws][windows]`, by label."""
    if not isinstance(losses, dict):
        raise ValueError(f"{place}: must be {_MAPPING}")
    for label, draws in losses.items():
        lists = isinstance(draws, list) and all(isinstance(row, list) for row in draws)
        if not lists or len({len(row) for row in draws}) != 1:
            raise ValueError(f"{place}.{label}: must be lists of one length, one for each draw")
        if not all(_fits(loss, _NUMBER) for loss in chain.from_iterable(draws)):
            raise ValueError(f"{place}.{label}: must hold numbers alone")


def _check_fields(content: Any, place: str, fields: Mapping[str, str]) -> None:
    """Raise a `ValueError` for the first field that is missing or of another type."""
    if not isinstance(content, dict):
        raise ValueError(f"{place.rstrip('.')}: must be {_MAPPING}")
    for name, needed in fields.items():
        if name not in content:
            raise ValueError(f"{place}{name}: missing")
        if not _fits(content[name], needed):
            raise ValueError(f"{place}{name}: must be {needed}")


def _fits(value: Any, needed: str) -> bool:
    """Is the value of the type that these words name?"""
    if needed == _MAPPING:
        return isinstance(value, dict)
    if needed == _LIST:
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    if needed in (_OPTIONAL, _NUMBER_OR_NULL) and value is None:
        return True
    if needed in (_NUMBER, _NUMBER_OR_NULL):
        return is_number(value)
    if not isinstance(value, str) or not value.strip():
        return False
    return needed != _DAY or re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None


def _check_finite(value: Any, place: str) -> None:
    """Raise a `ValueError` that names the first number which is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: {value} is no number that a run can measure")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{place}[{index}]")
