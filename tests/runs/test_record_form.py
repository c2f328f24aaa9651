"""What is wrong with a file of recorded runs: one line with file and field."""

import copy
import json

import pytest
from tests.notebook.example_gaps import a_gap
from tests.runs.recorded import CLAIM, TABLE, earlier, earlier_run, record

from prunebook.errors import UserError
from prunebook.notebook.bounds import Bound
from prunebook.runs.record_form import read_content

GAP = a_gap(0.3, 0.1).to_dict()  # it holds: the t quantile is 2.228
TIE = a_gap(0.2, 0.1).to_dict()
BOUND = Bound(1.5, 1.0, 2.0, 20, at_least=0.5).to_dict()


def without(content, *path):
    """A copy without the field at the end of the path."""
    changed = copy.deepcopy(content)
    *parents, last = path
    target = changed
    for parent in parents:
        target = target[parent]
    del target[last]
    return changed


def test_sound_files_are_read_and_other_kinds_are_not():
    for content in (record(), earlier(earlier_run()), record(claims=[CLAIM | {"gap": GAP}])):
        assert read_content(json.dumps(content), "f.json") == content
    assert read_content('{"kind": "kernels"}', "f.json") is None
    assert read_content("[1]", "f.json") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(version=3), "version: 3 is not 2, which prunebook-record has"),
        (earlier() | {"version": 2}, "version: 2 is not 1, which prunebook-runs has"),
        (without(record(), "version"), "version: missing is not 2, which prunebook-record has"),
        (without(record(), "quick"), "quick: missing"),
        (record(short=" "), "short: must be text"),
        (record(date="yesterday"), "date: must be a day, YYYY-MM-DD"),
        (record(results=[]), "results: must not be empty"),
        (record(results=[without(TABLE, "rows")]), "results[0].rows: missing"),
        (record(claims=[CLAIM, without(CLAIM, "source")]), "claims[1].source: missing"),
        (record(claims=[CLAIM, 5]), "claims: must be a list of mappings"),
        (record(claims=[without(CLAIM, "ours")]), "claims[0].ours: missing"),
        (
            record(claims=[CLAIM | {"verdict": "unsure"}]),
            "claims[0].verdict: 'unsure' is unknown; allowed: holds, tie, fails, undertrained, "
            "not_testable",
        ),
        (
            record(claims=[CLAIM | {"verdict": "not_testable"}]),
            "claims[0].reason: must be text",
        ),
        (
            record(claims=[without(CLAIM, "origin")]),
            "claims[0].origin: missing; allowed: paper, ours, reviewers",
        ),
        (
            record(claims=[CLAIM | {"gap": without(GAP, "half_width")}]),
            "claims[0].gap.half_width: missing",
        ),
        (record(claims=[CLAIM | {"gap": 5}]), "claims[0].gap: must be a mapping"),
        (
            record(claims=[CLAIM | {"gap": GAP | {"windows": "8"}}]),
            "claims[0].gap.windows: must be a number",
        ),
        (
            record(claims=[CLAIM | {"gap": TIE}]),
            "claims[0].verdict: 'holds', and its gap gives: tie",
        ),
        (
            record(claims=[CLAIM | {"gap": GAP | {"windows": 7}}]),
            "claims[0].verdict: 'holds', and its gap gives: 7 windows; a verdict takes at least 8",
        ),
        (
            record(claims=[CLAIM | {"bound": without(BOUND, "low")}]),
            "claims[0].bound.low: missing",
        ),
        (record(profile="quick"), "profile: 'quick' judges nothing; record book or full"),
        (
            record(results=[TABLE | {"losses": {"a": [[1.0, 2.0], [1.0]]}}]),
            "results[0].losses.a: must be lists of one length, one for each draw",
        ),
        (
            record(results=[TABLE | {"losses": {"a": [[1.0, None]]}}]),
            "results[0].losses.a: must hold numbers alone",
        ),
        (earlier(without(earlier_run(), "profile")), "runs[0].profile: missing"),
    ],
)
def test_a_fault_is_one_line_with_file_and_field(content, message):
    with pytest.raises(UserError) as caught:
        read_content(json.dumps(content), "a/f.json")
    assert str(caught.value) == f"a/f.json: {message}"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_named(number):
    text = json.dumps(record()).replace("30.5}", f"{number}}}", 1)
    with pytest.raises(UserError, match=r"^f\.json: results\[0\]\.rows\[0\]\.perplexity: "):
        read_content(text, "f.json")


def test_a_file_that_was_cut_short_is_one_line():
    with pytest.raises(UserError, match=r"^f\.json: no readable JSON, perhaps cut short: "):
        read_content(json.dumps(record())[:-20], "f.json")
