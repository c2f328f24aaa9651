"""The explorer's HTML, before any browser sees it."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from tests.small_book import published

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.runs.executed import Execution
from prunebook.site.pages.landing import explorer, facets_of, landing_page


@pytest.fixture
def papers(book):
    """Two papers: `alpha` with three claims, `later` without implementation."""
    book.add("alpha", "1", title='A "<b>" title', authors=["Ann O'Thor"])
    book.add("later", "1", method=None, venue={"name": "arXiv", "year": 2023, "kind": "preprint"})
    execution = Execution(book.root, "key", "ci", 1.0, "2026-11-23", {})
    claims = [{"verdict": verdict} for verdict in ("fails", "holds", "fails")]
    alpha, later = read_papers(book.root)
    return [published(alpha, execution, claims=claims), published(later, execution)]


def test_facets_of_a_paper(papers):
    alpha, later = papers
    assert facets_of(alpha) == {
        "type": ["Unstructured"],
        "criteria": ["Wanda", "Other"],
        "budget": ["Sparsity"],
        "data": ["Calibration"],
        "retrain": ["Without"],
        "weight": ["Frozen"],
        "year": ["2024"],
        "venue": ["ICLR"],
        "kind": ["conference"],
        "runs": ["runs"],
        "verdict": ["holds", "fails"],
    }
    assert facets_of(later)["runs"] == ["not run yet"]
    assert facets_of(later)["kind"] == ["preprint"]
    assert facets_of(later)["verdict"] == []


def test_rows(papers):
    text = explorer(papers)
    assert "\n\n" not in text
    alpha, later = re.findall(r"<tr role=\"row\" data-facets.*</tr>", text)
    assert json.loads(html.unescape(re.search(r'data-facets="([^"]*)"', alpha)[1])) == facets_of(
        papers[0]
    )
    assert '<a class="pb-name" href="papers/alpha.html"><bdi>Alpha</bdi></a>' in alpha
    assert "<bdi>A &quot;&lt;b&gt;&quot; title</bdi>" in alpha
    assert "<span hidden><bdi>Ann O&#x27;Thor</bdi></span>" in alpha
    assert '<a href="concepts/criteria.html#criteria-wanda">Wanda</a>, ' in alpha
    assert re.sub("<[^>]*>", "", alpha).endswith("runs ✓holds here: 1 ✗does not hold here: 2")
    assert "<bdi>arXiv 2023 (preprint)</bdi>" in later
    assert re.sub("<[^>]*>", "", later).rstrip().endswith("not run yet")


def test_claims_beyond_the_paper_and_runs_that_disagree(papers):
    beyond = {"verdict": "tie", "origin": "ours"}
    split = {"verdict": "holds", "verdicts": [{"verdict": "holds"}, {"verdict": "fails"}]}
    alpha = replace(papers[0], claims=[split, beyond, beyond | {"verdicts": split["verdicts"]}])
    text = re.sub("<[^>]*>", "", explorer([alpha]))
    assert "runs ✓holds here: 1 ⇄claims with another verdict in another run: 1" in text
    assert facets_of(alpha)["verdict"] == ["holds"]


class _Boxes(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.boxes = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "input" and values["type"] == "checkbox":
            self.boxes.append((values["name"], values["value"]))


def test_a_box_for_each_value_that_a_paper_has(papers):
    expected = set()
    for paper in papers:
        for name, values in facets_of(paper).items():
            expected |= {(name, value) for value in values}
    boxes = _Boxes(explorer(papers)).boxes
    assert sorted(boxes) == sorted(expected)
    assert [value for name, value in boxes if name == "runs"] == ["runs", "not run yet"]


@pytest.mark.parametrize("count", [0, 2])
def test_the_landing_page_needs_one_marker(papers, count):
    text = "# T\n\n" + "<!-- papers -->\n\n" * count
    with pytest.raises(
        UserError, match=rf"index\.md: needs the marker <!-- papers --> once, has it {count} times"
    ):
        landing_page(text, papers)
