"""The record of a paper: what it holds, and what it must hold."""

import datetime

import pytest
from tests.catalog.checking import assert_refused
from tests.tiny_book import other_record, record

from prunebook.catalog import VOCABULARY, RecordError, parse_record


def test_a_good_record_keeps_its_values():
    paper = parse_record(record(), "papers/wanda.ipynb")
    assert paper.arxiv == "2306.11695"
    assert paper.runs_in[0].date == datetime.date(2026, 11, 23)
    assert paper.tags.type.values == ["Unstructured", "Semi-structured"]
    assert paper.facets()["budget"].detail == "layer"
    assert list(paper.facets()) == list(VOCABULARY)
    assert parse_record(paper.model_dump(), "again") == paper


@pytest.mark.parametrize(
    ("changes", "url", "reviews"),
    [
        ({}, "https://arxiv.org/abs/2306.11695", "https://openreview.net/forum?id=PxoFut3dWW"),
        ({"arxiv": None}, *["https://openreview.net/forum?id=PxoFut3dWW"] * 2),
        ({"arxiv": None, "openreview": None}, None, None),
    ],
)
def test_addresses(changes, url, reviews):
    paper = parse_record(record(**changes), "x")
    assert (paper.url, paper.reviews_url) == (url, reviews)


def test_heading_does_not_repeat_the_short_name():
    assert parse_record(record(), "x").heading == "Wanda: A Simple and Effective Pruning Approach"
    assert parse_record(other_record(), "x").heading == "Scaling: Laws"


def test_a_paper_runs_by_its_method_or_by_a_module():
    module = "prunebook.methods.flash_llm.tiled_csl"
    by_method = parse_record(record(), "x")
    by_module = parse_record(record(method=None, implementation=module), "x")
    neither = parse_record(record(method=None), "x")
    assert [paper.implemented_by for paper in (by_method, by_module, neither)] == [
        "wanda",
        module,
        None,
    ]
    assert [paper.is_implemented for paper in (by_method, by_module, neither)] == [
        True,
        True,
        False,
    ]
    with pytest.raises(
        RecordError, match=r"implementation: .* stands beside the method 'wanda'; leave one of"
    ):
        parse_record(record(implementation=module), "x")
    for other in ("tiled_csl", "prunebook.kernels", "prunebook.methods.flash-llm"):
        with pytest.raises(RecordError, match="must be a module of the library like prunebook"):
            parse_record(record(method=None, implementation=other), "x")


CLAIM = {
    "key": "beats-magnitude",
    "origin": "paper",
    "statement": "Wanda has a lower perplexity",
    "number": "7.26 against 17.29",
    "source": "Table 3",
}
ERRATUM = {"paper": "a", "code": "b", "effect": "none known", "source": "section 2; prune.py"}
SLUG = "lower-case letters, digits and single dashes"


def test_claims_and_errata():
    untestable = CLAIM | {"key": "speed", "not_testable": "no GPU"}
    paper = parse_record(record(claims=[CLAIM, untestable], errata=[ERRATUM]), "x")
    assert [claim.not_testable for claim in paper.claims] == [None, "no GPU"]
    assert paper.errata[0].effect == "none known"
    assert parse_record(paper.model_dump(), "again") == paper
    assert parse_record(record(), "x").claims == parse_record(record(), "x").errata == []


@pytest.mark.parametrize("field", sorted(CLAIM))
def test_a_claim_says_all(field):
    claim = {name: value for name, value in CLAIM.items() if name != field}
    with pytest.raises(RecordError, match=rf"^x: paper\.claims\[0\]\.{field}: missing$"):
        parse_record(record(claims=[claim]), "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tags.type.values": ["Other", "Other"]},
            "tags.type.values: ['Other', 'Other'] has a value twice",
        ),
        ({"claims": [CLAIM | {"key": "A b"}]}, f"claims[0].key: 'A b' must be {SLUG}"),
        (
            {"claims": [CLAIM | {"origin": "theirs"}]},
            "claims[0].origin: 'theirs' is not allowed; allowed: 'paper', 'ours', 'reviewers'",
        ),
        ({"claims": [CLAIM | {"number": 7.26}]}, "claims[0].number: 7.26 must be text (quote it)"),
        ({"claims": [CLAIM | {"not_testable": ""}]}, "claims[0].not_testable: must not be empty"),
        (
            {"claims": [CLAIM, CLAIM | {"key": "other"}, CLAIM]},
            "claims: claims 0 and 2 have the key 'beats-magnitude'; give each its own",
        ),
        (
            {"claims": [CLAIM | {"verdict": "holds"}]},
            "claims[0].verdict: unknown field; allowed: key, origin, statement, number, source, "
            "not_testable",
        ),
        ({"errata": [{**ERRATUM, "code": None}]}, "errata[0].code: None must be text (quote it)"),
        (
            {"errata": [{**ERRATUM, "why": "x"}]},
            "errata[0].why: unknown field; allowed: paper, code, effect, source",
        ),
    ],
)
def test_a_bad_field_gives_one_line(changes, message):
    assert_refused(changes, message)


@pytest.mark.parametrize("field", sorted(set(record()) - {"links", "runs_in"}))
def test_a_required_field_cannot_be_left_out(field):
    paper = record()
    del paper[field]
    with pytest.raises(RecordError, match=rf"^x: paper\.{field}: missing$"):
        parse_record(paper, "x")


def test_links_and_runtimes_may_be_left_out():
    paper = record()
    del paper["links"], paper["runs_in"]
    assert parse_record(paper, "x").links == []


def test_several_faults_are_all_kept_and_the_line_says_how_many():
    with pytest.raises(RecordError) as caught:
        parse_record(record(year=24, method=5), "x")
    assert caught.value.problems == [
        "paper.year: 24 must be greater than or equal to 1980",
        "paper.method: 5 must be text (quote it)",
    ]
    assert str(caught.value) == f"x: {caught.value.problems[0]} (and 1 more: see `prunebook check`)"


@pytest.mark.parametrize("data", [None, [], "text"])
def test_a_record_must_be_a_mapping(data):
    with pytest.raises(RecordError) as caught:
        parse_record(data, "x")
    assert str(caught.value) == f"x: paper: {data!r} must be a mapping of fields"
