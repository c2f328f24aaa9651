"""BibTeX entries, as a library that knows the format reads them."""

import pytest
from pybtex.database import parse_string
from tests.catalog.records import hostile_record, parsed

from prunebook.catalog.bibtex import bibtex


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


def test_a_hostile_title_stays_text():
    (found,) = parse_string(bibtex([hostile_record()]), "bibtex").entries.values()
    assert r"\textbackslash{}input" in found.fields["title"]
