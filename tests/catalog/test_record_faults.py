"""Every kind of fault of a record in one line: what was given, what is allowed."""

import datetime

import pytest
from tests.catalog.checking import assert_refused

from prunebook.catalog.record_faults import TWICE, describe

TYPES = (
    "'Unstructured', 'Semi-structured', 'Structured', 'Structured-Depth', 'Head/Neuron', 'Other'"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": "  "}, "title: must not be empty"),
        ({"title": 3}, "title: 3 must be text (quote it)"),
        ({"authors": []}, "authors: must not be empty"),
        ({"authors": "Me"}, "authors: 'Me' must be a list"),
        ({"authors": ["Me", 7]}, "authors[1]: 7 must be text (quote it)"),
        ({"year": "2024"}, "year: '2024' must be a whole number"),
        ({"year": 24}, "year: 24 must be greater than or equal to 1980"),
        ({"venue": None}, "venue: None must be a mapping of fields"),
        (
            {"venue.kind": "blog"},
            "venue.kind: 'blog' is not allowed; allowed: 'conference', 'workshop', 'journal', "
            "'preprint', 'submission'",
        ),
        ({"arxiv": 2306.11695}, "arxiv: 2306.11695 must be text (quote it)"),
        ({"code.official": "yes"}, "code.official: 'yes' must be true or false"),
        ({"links": [{"url": "https://x.org", "label": ""}]}, "links[0].label: must not be empty"),
        (
            {"links": [{"label": "x", "url": "https://x", "at": 1}]},
            "links[0].at: unknown field; allowed: label, url",
        ),
        (
            {"stars": 5},
            "stars: unknown field; allowed: slug, title, short, authors, year, venue, arxiv, "
            "openreview, code, links, takeaway, tags, runs_in, challenge, added, corrections, "
            "claims, errata, method, implementation",
        ),
        (
            {"tags.kind": {}},
            "tags.kind: unknown field; allowed: type, criteria, budget, data, retrain, weight",
        ),
        ({"tags.type.note": "x"}, "tags.type.note: unknown field; allowed: values, detail"),
        ({"tags.type": "Other"}, "tags.type: 'Other' must be a mapping of fields"),
        (
            {"tags.type.values": ["Dense"]},
            f"tags.type.values[0]: 'Dense' is not allowed; allowed: {TYPES}",
        ),
        ({"tags.type.values": []}, "tags.type.values: must not be empty"),
        (
            {
                "runs_in": [
                    {"runtime": "vllm", "status": "maybe", "date": datetime.date(2026, 1, 2)}
                ]
            },
            "runs_in[0].status: 'maybe' is not allowed; allowed: 'tested', 'documented', 'removed'",
        ),
        (
            {"runs_in": [{"runtime": "vllm", "status": "tested", "date": "today"}]},
            "runs_in[0].date: 'today' must be a date, YYYY-MM-DD",
        ),
        ({"added": "soon"}, "added: 'soon' must be a date, YYYY-MM-DD"),
        (
            {"corrections": [{"field": "tags.type", "listed": "x"}]},
            "corrections[0].reason: missing",
        ),
    ],
)
def test_a_fault_says_what_is_allowed(changes, message):
    assert_refused(changes, message)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"type": "missing", "loc": ("tags", "type")}, "paper.tags.type: missing"),
        (
            {"type": TWICE, "loc": ("claims",), "msg": "two are alike"},
            "paper.claims: two are alike",
        ),
        (
            {"type": "less_than_equal", "loc": ("years", 2), "msg": "Input should be at most 9"},
            "paper.years[2]: 10 must be at most 9",
        ),
    ],
)
def test_faults_as_pydantic_tells_them(fault, line):
    assert describe({"input": 10, **fault}, {}) == line
