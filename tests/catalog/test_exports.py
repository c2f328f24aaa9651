"""Exports: each file is read back by a library that knows its format."""

import json
import xml.etree.ElementTree as ET

import feedparser
import jsonschema
import pytest
from pybtex.database import parse_string
from tests.tiny_book import other_record, record

from prunebook.catalog import Address, parse_record
from prunebook.catalog.bibtex import bibtex
from prunebook.catalog.exports import make_entry, render_exports
from prunebook.catalog.feeds import feed

ADDRESS = Address("https://x.org/book/", "https://github.com/a/b", "trunk")
NOT_RUN = {"state": "not run yet", "verdicts": {}, "run": None, "results": []}
EXECUTED = {
    "state": "executed",
    "verdicts": {"holds": 3, "not_testable": 1},
    "run": {
        "profile": "ci",
        "date": "2026-11-22",
        "seconds": 12.5,
        "parameters": {"samples": 2, "device": "auto"},
    },
    "results": [
        {
            "rows": [{"label": "dense", "seed": None, "perplexity": 20.5}],
            "protocol": {"model": "m"},
            "versions": {"torch": "2.13.0"},
            "date": "2026-11-22",
            "commit": None,
        }
    ],
    "measured_under": "ci",
}
HOSTILE = '</title><script>alert(1)</script> & "quoted" ]]> \u200f{x}% \\input{y}'


def parsed(**changes):
    return parse_record(record(**changes), "here")


@pytest.fixture(scope="module")
def files():
    other = parse_record(other_record(added=parsed().added.replace(day=24)), "here")
    entries = [make_entry(parsed(), ADDRESS, EXECUTED), make_entry(other, ADDRESS, NOT_RUN)]
    return render_exports(ADDRESS, entries, ["index", "concepts/types", "papers/wanda"])


def test_the_names_are_fixed(files):
    assert sorted(files) == [
        "catalog.json",
        "catalog.schema.json",
        "feed.xml",
        "references.bib",
        "sitemap.xml",
    ]


def test_the_catalogue_has_the_records_and_their_outcome(files):
    catalog = json.loads(files["catalog.json"])
    assert {key: value for key, value in catalog.items() if key != "papers"} == {
        "schema": "https://x.org/book/catalog.schema.json",
        "version": 1,
        "title": "The Pruning Book",
        "site": "https://x.org/book/",
        "repository": "https://github.com/a/b",
        "branch": "trunk",
        "updated": "2026-11-24",
    }
    wanda, other = catalog["papers"]
    places = {
        "page": "https://x.org/book/papers/wanda.html",
        "notebook": "https://github.com/a/b/blob/trunk/papers/wanda.ipynb",
        "paper": "https://arxiv.org/abs/2306.11695",
    }
    assert wanda == {**parsed().model_dump(mode="json"), **places, **EXECUTED}
    assert other["slug"] == "scaling"
    assert other["paper"] is None
    assert {name: other[name] for name in NOT_RUN} == NOT_RUN


def test_the_catalogue_follows_its_schema(files):
    catalog, schema = (json.loads(files[name]) for name in ("catalog.json", "catalog.schema.json"))
    assert catalog["schema"] == schema["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(catalog)
    for change in (
        {"state": "runs"},
        {"verdicts": {"unsure": 1}},
        {"added": "yesterday"},
        {"arxiv": "2306"},
        {"tags": {**catalog["papers"][0]["tags"], "type": {"values": ["Round"], "detail": None}}},
        {"more": 1},
    ):
        broken = {**catalog, "papers": [{**catalog["papers"][0], **change}]}
        assert not validator.is_valid(broken), change
    assert not validator.is_valid({**catalog, "version": 2})


def entry(**changes):
    """The one entry of the references of one record, as a BibTeX library reads it."""
    library = parse_string(bibtex([parsed(**changes)]), "bibtex")
    (key,) = library.entries
    assert key == "wanda"
    return library.entries[key]


@pytest.mark.parametrize(
    ("venue", "kind", "field"),
    [
        (
            {"name": "ICLR", "year": 2024, "kind": "conference"},
            "inproceedings",
            ("booktitle", "ICLR"),
        ),
        (
            {"name": "A Workshop", "year": 2024, "kind": "workshop"},
            "inproceedings",
            ("booktitle", "A Workshop"),
        ),
        ({"name": "TMLR", "year": 2024, "kind": "journal"}, "article", ("journal", "TMLR")),
        ({"name": "arXiv", "year": 2024, "kind": "preprint"}, "misc", ("howpublished", "arXiv")),
        (
            {"name": "ICLR", "year": 2024, "kind": "submission"},
            "unpublished",
            ("note", "Submitted to ICLR"),
        ),
    ],
)
def test_the_type_of_an_entry_follows_its_venue(venue, kind, field):
    found = entry(venue=venue, year=2023)
    assert found.type == kind
    assert dict(found.fields) == {
        "title": "A Simple and Effective Pruning Approach",
        field[0]: field[1],
        "year": "2024",
        "eprint": "2306.11695",
        "archiveprefix": "arXiv",
        "url": "https://arxiv.org/abs/2306.11695",
    }
    assert [str(person) for person in found.persons["author"]] == ["Sun, Mingjie", "Liu, Zhuang"]


def test_an_entry_without_arxiv_has_the_reviews_address():
    found = entry(arxiv=None)
    assert "eprint" not in found.fields
    assert found.fields["url"] == "https://openreview.net/forum?id=PxoFut3dWW"


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("SparseGPT: Massive Models", "{SparseGPT}: Massive Models"),
        ("LLM-Pruner: On LLMs", "{LLM}-Pruner: On {LLMs}"),
        ("A T5 with N:M in H2O", "A {T5} with {N:M} in {H2O}"),
        ("The 2023 Plan", "The 2023 Plan"),
        ("50% & $x_1$ #2", r"50\% \& \$x\_1\$ \#2"),
        ("Ünïcode ÜNÏ", "Ünïcode {ÜNÏ}"),
        (
            "a { b\\c ~^ d",
            r"a \textbraceleft{} b\textbackslash{}c \textasciitilde{}\textasciicircum{} d",
        ),
    ],
)
def test_a_title_keeps_its_capitals_and_is_no_markup(title, expected):
    assert entry(title=title).fields["title"] == expected


def test_an_author_whose_name_would_be_taken_apart_stays_whole():
    found = entry(authors=["J. Zico Kolter", "Gates and Sons, Inc.", "U Kang"])
    assert [str(person) for person in found.persons["author"]] == [
        "Kolter, J. Zico",
        "{Gates and Sons, Inc.}",
        "Kang, U",
    ]


def test_the_feed_lists_the_latest_first(files):
    parsed_feed = feedparser.parse(files["feed.xml"])
    assert not parsed_feed.bozo
    assert parsed_feed.version == "atom10"
    assert parsed_feed.feed.updated == "2026-11-24T00:00:00Z"
    assert parsed_feed.feed.links[0].href == "https://x.org/book/feed.xml"
    newest, oldest = parsed_feed.entries
    assert (newest.title, newest.published) == ("Scaling: Laws", "2026-11-24T00:00:00Z")
    assert oldest.id == oldest.link == "https://x.org/book/papers/wanda.html"
    assert oldest.title == "Wanda: A Simple and Effective Pruning Approach"
    assert oldest.summary == "Scores a weight by its size times the norm of its input."
    assert [author.name for author in oldest.authors] == ["Mingjie Sun", "Zhuang Liu"]
    assert [tag.term for tag in oldest.tags][:3] == [
        "type=Unstructured",
        "type=Semi-structured",
        "criteria=Wanda",
    ]


def test_papers_of_one_day_come_by_slug():
    records = [parse_record(record(slug=slug, challenge=slug), "here") for slug in ("b", "c", "a")]
    entries = feedparser.parse(feed(ADDRESS, "Book", records)).entries
    assert [entry.id.rsplit("/", 1)[1] for entry in entries] == ["a.html", "b.html", "c.html"]


def test_a_feed_without_papers_is_valid():
    found = feedparser.parse(feed(ADDRESS, "Book", []))
    assert (found.bozo, found.entries, found.feed.title) == (False, [], "Book")


def test_the_sitemap_lists_all_pages(files):
    root = ET.fromstring(files["sitemap.xml"].encode())
    assert root.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}urlset"
    assert [url.findtext("{*}loc") for url in root] == [
        "https://x.org/book/",
        "https://x.org/book/concepts/types.html",
        "https://x.org/book/papers/wanda.html",
    ]


def test_a_hostile_record_stays_text():
    hostile = parsed(title=HOSTILE, takeaway=HOSTILE, authors=[HOSTILE])
    (item,) = feedparser.parse(feed(ADDRESS, "Book", [hostile])).entries
    assert item.summary_detail.type == "text/plain"
    assert (
        ET.fromstring(feed(ADDRESS, "Book", [hostile]).encode()).findtext("{*}entry/{*}summary")
        == hostile.takeaway
    )
    (found,) = parse_string(bibtex([hostile]), "bibtex").entries.values()
    assert r"\textbackslash{}input" in found.fields["title"]
    content = render_exports(ADDRESS, [make_entry(hostile, ADDRESS, NOT_RUN)], ["index"])[
        "catalog.json"
    ]
    assert json.loads(content)["papers"][0]["title"] == hostile.title
