"""Exports: each file is read back by a library that knows its format."""

import json
import xml.etree.ElementTree as ET

import jsonschema
import pytest
from tests.catalog.records import ADDRESS, hostile_record, parsed
from tests.tiny_book import other_record

from prunebook.catalog import parse_record
from prunebook.catalog.bibtex import bibtex
from prunebook.catalog.exports import make_entry, render_exports
from prunebook.catalog.feeds import feed

NOT_RUN = {
    "state": "not run yet",
    "verdicts": {},
    "beyond": {},
    "outcomes": [],
    "run": None,
    "results": [],
}
EXECUTED = {
    "state": "executed",
    "verdicts": {"holds": 3, "undertrained": 1},
    "beyond": {"tie": 1},
    "outcomes": [
        {
            "key": "k",
            "origin": "paper",
            "statement": "It is better",
            "paper": "7",
            "source": "Table 1",
            "ours": "8",
            "verdict": "holds",
            "reason": None,
            "runs": [
                {
                    "verdict": "holds",
                    "profile": "book",
                    "device": "CPU",
                    "model": "m",
                    "windows": 32,
                    "date": "2026-11-22",
                    "version": 2,
                    "recorded": True,
                }
            ],
        }
    ],
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


@pytest.fixture(scope="module")
def records():
    """Two records; the second came into the book a day later."""
    other = parse_record(other_record(added=parsed().added.replace(day=24)), "here")
    return [parsed(), other]


@pytest.fixture(scope="module")
def files(records):
    outcomes = (EXECUTED, NOT_RUN)
    entries = [
        make_entry(record, ADDRESS, outcome)
        for record, outcome in zip(records, outcomes, strict=True)
    ]
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
        "version": 2,
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
    assert not validator.is_valid({**catalog, "version": 1})


def test_the_sitemap_lists_all_pages(files):
    root = ET.fromstring(files["sitemap.xml"].encode())
    assert root.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}urlset"
    assert [url.findtext("{*}loc") for url in root] == [
        "https://x.org/book/",
        "https://x.org/book/concepts/types.html",
        "https://x.org/book/papers/wanda.html",
    ]


def test_the_feed_and_the_references_are_those_of_the_records(files, records):
    assert files["feed.xml"] == feed(ADDRESS, "The Pruning Book", records)
    assert files["references.bib"] == bibtex(records)


def test_a_hostile_record_stays_text():
    hostile = hostile_record()
    content = render_exports(ADDRESS, [make_entry(hostile, ADDRESS, NOT_RUN)], ["index"])[
        "catalog.json"
    ]
    assert json.loads(content)["papers"][0]["title"] == hostile.title
