import datetime

import pytest
from tests.tiny_book import other_record, record

from prunebook.catalog import CONCEPT_PAGES, VOCABULARY, RecordError, concept_anchor, parse_record
from prunebook.errors import UserError


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


TYPES = (
    "'Unstructured', 'Semi-structured', 'Structured', 'Structured-Depth', 'Head/Neuron', 'Other'"
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"slug": "Wanda 1"},
            "slug: 'Wanda 1' must be lower-case letters, digits and single dashes",
        ),
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
        ({"arxiv": "v1"}, "arxiv: 'v1' must be an arXiv id like 2306.11695"),
        ({"openreview": "a b"}, "openreview: 'a b' must be an OpenReview forum id like PxoFut3dWW"),
        (
            {"code.url": "git@x"},
            "code.url: 'git@x' must be an address that starts with http:// or https://, without "
            "quotes or brackets",
        ),
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
            {"tags.type.values": ["Other", "Other"]},
            "tags.type.values: ['Other', 'Other'] has a value twice",
        ),
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
        (
            {"challenge": "Wanda_2024"},
            "challenge: 'Wanda_2024' must be lower-case letters, digits and single dashes",
        ),
        (
            {"links": [{"label": "x", "url": "javascript:alert(1)"}]},
            "links[0].url: 'javascript:alert(1)' must be an address that starts with http:// or "
            "https://, without quotes or brackets",
        ),
        (
            {"code.url": "https://x.org/>)<script>"},
            "code.url: 'https://x.org/>)<script>' must be an address that starts with http:// or "
            "https://, without quotes or brackets",
        ),
        (
            {"title": "a\u202eb"},
            "title: 'a\\u202eb' holds the invisible character U+202E; remove it",
        ),
        (
            {"authors": ["A", "b\u2066"]},
            "authors: ['A', 'b\\u2066'] holds the invisible character U+2066; remove it",
        ),
        (
            {"tags.data.detail": "a\x1bb"},
            "tags.data.detail: 'a\\x1bb' holds the invisible character U+001B; remove it",
        ),
        (
            {"takeaway": "a\uffffb"},
            "takeaway: 'a\\uffffb' holds the invisible character U+FFFF; remove it",
        ),
        ({"added": "soon"}, "added: 'soon' must be a date, YYYY-MM-DD"),
        (
            {"corrections": [{"field": "tags.size", "listed": "x", "reason": "y"}]},
            "corrections[0].field: 'tags.size' must be title, venue, code, links or a tag field as "
            "tags.type",
        ),
        (
            {"corrections": [{"field": "tags.type", "listed": "x"}]},
            "corrections[0].reason: missing",
        ),
        ({"claims": [CLAIM | {"key": "A b"}]}, f"claims[0].key: 'A b' must be {SLUG}"),
        (
            {"claims": [CLAIM | {"origin": "theirs"}]},
            "claims[0].origin: 'theirs' is not allowed; allowed: 'paper', 'ours'",
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
    with pytest.raises(RecordError) as caught:
        parse_record(record(**changes), "papers/wanda.ipynb")
    assert str(caught.value) == f"papers/wanda.ipynb: paper.{message}"
    assert caught.value.problems == [f"paper.{message}"]


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


@pytest.mark.parametrize(
    ("facet", "value", "anchor"),
    [
        ("type", "Unstructured", "type-unstructured"),
        ("type", "Head/Neuron", "type-head-neuron"),
        ("criteria", "Angular Distance", "criteria-angular-distance"),
        ("data", "Data free", "data-data-free"),
        ("retrain", "Without", "retrain-without"),
    ],
)
def test_concept_anchor(facet, value, anchor):
    assert concept_anchor(facet, value) == anchor


def test_concept_anchors_are_unique_and_every_facet_has_a_page():
    anchors = [
        concept_anchor(facet, value) for facet, values in VOCABULARY.items() for value in values
    ]
    assert len(set(anchors)) == len(anchors) == 34
    assert list(CONCEPT_PAGES) == list(VOCABULARY)


def test_unknown_facet_and_value():
    with pytest.raises(
        UserError,
        match=r"^unknown facet 'kind'; allowed: type, criteria, budget, data, retrain, weight$",
    ):
        concept_anchor("kind", "Other")
    with pytest.raises(
        UserError, match=r"^unknown weight value 'frozen'; allowed: Frozen, Update, Other$"
    ):
        concept_anchor("weight", "frozen")
