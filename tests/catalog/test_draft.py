"""What is known of a paper: as YAML, as a docstring's reference, as a class's name."""

import datetime

import pytest
import yaml
from nbformat.v4 import new_notebook, new_raw_cell
from tests.tiny_book import record

from prunebook.catalog.draft import Draft, class_name_of, code_values, read_draft, record_values
from prunebook.catalog.schema import parse_record
from prunebook.catalog.templates import claims_yaml, notebook_cells, render
from prunebook.errors import UserError

SETTINGS = {
    "identifier": "2403.03853",
    "slug": "short-gpt",
    "title": "ShortGPT: Layers are Redundant",
    "authors": ["Xin Men", "Mingyu Xu", "Qingyu Zhang"],
    "year": 2025,
    "venue": "ACL",
    "venue_kind": "conference",
    "short": None,
    "tags": {},
}


def filled(method="short-gpt", lists="", **changes) -> str:
    """The text of the record's cell."""
    values = record_values(Draft(**{**SETTINGS, **changes}), method, lists)
    return render(notebook_cells("score")["record"].source, values)


def drafted(**changes):
    cell = new_raw_cell(filled(**changes), metadata={"tags": ["record"]})
    return read_draft(new_notebook(cells=[cell]), "papers/short-gpt.ipynb")


def test_the_record_holds_what_is_known():
    paper = drafted(method=None)
    assert (paper.title, paper.short, paper.year) == (SETTINGS["title"], "ShortGPT", 2025)
    assert paper.authors == SETTINGS["authors"]
    assert paper.venue.model_dump() == {"name": "ACL", "year": 2025, "kind": "conference"}
    assert (paper.arxiv, paper.openreview, paper.method) == ("2403.03853", None, None)
    assert (paper.challenge, paper.added) == ("short-gpt-2025", datetime.date.today())
    assert (paper.claims, paper.errata) == ([], [])


def test_a_method_brings_claims_and_errata():
    paper = drafted(lists=claims_yaml())
    assert paper.method == "short-gpt"
    assert [claim.key for claim in paper.claims] == ["beats-the-baseline", "zero-shot-accuracy"]
    assert [claim.not_testable is None for claim in paper.claims] == [True, False]
    assert len(paper.errata) == 1


def test_tags_are_given_or_asked_for():
    content = yaml.safe_load(filled(tags={"type": ["Structured-Depth"]}).strip("-\n"))
    tags = content["paper"]["tags"]
    assert tags["type"] == {"values": ["Structured-Depth"]}
    assert tags["budget"] == {
        "values": ["FILL-IN: one or more of Sparsity, Layer Numbers, Parameter, FLOPs"]
    }


def test_openreview():
    paper = drafted(identifier="09iOdaeOzp")
    assert (paper.arxiv, paper.openreview) == (None, "09iOdaeOzp")
    assert paper.url == "https://openreview.net/forum?id=09iOdaeOzp"


def test_texts_of_strangers_are_text_on_one_line():
    title = "<script>alert(1)</script>: {x: 1} # no\n [comment](a) 'quoted' \\n {{slug}}"
    people = ["Jane O'Neil", "null", "李 明", "a:\tb"]
    paper = drafted(title=title, authors=people, venue=" yes ")
    assert paper.title == title.replace("\n ", " ")
    assert paper.authors == ["Jane O'Neil", "null", "李 明", "a: b"]
    assert paper.venue.name == "yes"
    heading = code_values(paper, "m", "C")["heading"]
    assert "<script>" not in heading
    assert "[comment]" not in heading


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": " "}, "papers/short-gpt.ipynb: paper.title: must not be empty"),
        (
            {"title": "a\u202eb"},
            r"papers/short-gpt.ipynb: paper.title: .* holds the invisible character U\+202E",
        ),
        ({"slug": "gpt"}, "papers/short-gpt.ipynb: paper.slug: 'gpt' must be the file's name, "),
        ({"authors": []}, "papers/short-gpt.ipynb: paper.authors: must not be empty"),
        (
            {"year": 1066},
            "papers/short-gpt.ipynb: paper.year: 1066 must be greater than or equal to 1980",
        ),
        (
            {"venue_kind": "poster"},
            "papers/short-gpt.ipynb: paper.venue.kind: 'poster' is not allowed; allowed: ",
        ),
    ],
)
def test_what_the_schema_refuses(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        drafted(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Sun and Liu, A Simple and Effective Pruning Approach (arXiv 2306.11695)."),
        ({"authors": ["Mingjie Sun"]}, "Sun, A Simple "),
        ({"authors": ["Mingjie Sun", "Zhuang Liu", "Anna Bair"]}, "Sun et al., A Simple "),
        ({"arxiv": None}, "(OpenReview PxoFut3dWW)."),
        ({"title": 'A """ \\'}, r"Sun and Liu, A ''' \\ (arXiv"),
    ],
)
def test_the_reference_of_a_docstring(changes, expected):
    paper = parse_record(record(**changes), "x")
    assert expected in code_values(paper, "wanda", "Wanda")["reference"].replace("\n", " ")


def test_a_long_reference_has_lines_of_code():
    paper = parse_record(record(title="On the very long title of a paper " * 9), "x")
    lines = code_values(paper, "wanda", "Wanda")["reference"].splitlines()
    assert 80 < max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("H2O", "H2O"),
        ("LLM-Pruner", "LLMPruner"),
        ("ßeta", "Eta"),
        ("2:4 is enough", "DeeperLayers"),
        ("The Unreasonable Ineffectiveness", "DeeperLayers"),
    ],
)
def test_class_names(short, expected):
    paper = parse_record(record(short=short, slug="deeper-layers"), "x")
    assert class_name_of(paper) == expected
