"""The README's table and the challenge page, generated from the records."""

from pathlib import Path

import pytest
from tests.tiny_book import notebook, other_record, record, write

from prunebook.catalog import challenge_notes, papers_table, parse_record, read_papers
from prunebook.catalog.tables import LONGEST_ROW, table_row
from prunebook.errors import UserError

WANDA = (
    "| [A Simple and Effective Pruning Approach](https://arxiv.org/abs/2306.11695) | ICLR 2024 | "
    "Unstructured, Semi-structured; Wanda | – | [page](papers/wanda.ipynb) | "
    "[official](https://github.com/locuslab/wanda) |"
)
SCALING = (
    "| Scaling: Laws | ICLR 2024 | Unstructured, Semi-structured; Wanda | – | "
    "[page](papers/scaling.ipynb), not run yet | none |"
)
HEADER = "| Paper | Venue | Tags | Claims | Page | Code |\n|:--|:--|:--|:--|:--|:--|"


def row(**changes) -> str:
    return table_row(parse_record(record(**changes), "x"))


def test_a_paper_runs_by_a_module_too():
    module = "prunebook.methods.flash_llm.tiled_csl"
    assert row(method=None, implementation=module) == row()


def test_the_table_is_grouped_by_year_and_keeps_the_text_around_it(book):
    text = "Before\n<!-- papers:begin -->\nold\n<!-- papers:end -->\nAfter\n"
    expected = (
        f"Before\n<!-- papers:begin -->\n\n### 2024\n\n{HEADER}\n{WANDA}\n\n"
        f"### 2023\n\n{HEADER}\n{SCALING}\n\n<!-- papers:end -->\nAfter\n"
    )
    papers = read_papers(book)
    assert papers_table(text, papers) == expected
    assert papers_table(expected, papers) == expected


def test_a_row_counts_the_papers_own_claims_by_verdict(book):
    text = "<!-- papers:begin --><!-- papers:end -->"
    counts = {"wanda": {"fails": 1, "holds": 3, "undertrained": 2}}
    table = papers_table(text, read_papers(book), counts)
    assert "Wanda | ✓3 ✗1 ◔2 | [page](papers/wanda.ipynb)" in table
    assert "Wanda | – | [page](papers/scaling.ipynb)" in table


def test_no_papers_leave_the_markers():
    text = "<!-- papers:begin -->\nold\n<!-- papers:end -->"
    assert papers_table(text, []) == "<!-- papers:begin -->\n\n<!-- papers:end -->"


@pytest.mark.parametrize(
    "text", ["", "<!-- papers:begin -->", "<!-- papers:end --><!-- papers:begin -->"]
)
def test_missing_markers(text):
    with pytest.raises(
        UserError, match=r"^README\.md: needs the markers <!-- papers:begin --> and "
    ):
        papers_table(text, [])
    with pytest.raises(
        UserError, match=r"^challenge/challenge\.md: needs the markers <!-- notes:begin --> and "
    ):
        challenge_notes(text, [])


def test_special_characters_cannot_break_the_row():
    changed = row(
        title="A | B\nC *d* [e] 1 < 2 & x_1 `y` $z$ ~w~ <br>",
        **{"venue.name": "<b>|", "code.url": "https://x.org/a|b(c)"},
    )
    assert changed.count("\n") == 0
    title = r"A \| B C \*d\* \[e\] 1 &lt; 2 &amp; x\_1 \`y\` \$z\$ \~w\~ &lt;br&gt;"
    assert changed.startswith(f"| [{title}](https://arxiv.org/abs/2306.11695) | ")
    assert r" | &lt;b&gt;\| 2024 | " in changed
    assert "[official](https://x.org/a%7Cb%28c%29)" in changed


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"venue.kind": "submission"}, " | ICLR 2024 (submission) | "),
        ({"code.official": False}, "[community](https://github.com/locuslab/wanda)"),
        ({"method": None}, "[page](papers/wanda.ipynb), not run yet"),
        (
            {"arxiv": None},
            "| [A Simple and Effective Pruning "
            "Approach](https://openreview.net/forum?id=PxoFut3dWW)",
        ),
    ],
)
def test_variants_of_a_row(changes, part):
    assert part not in WANDA
    assert part in row(**changes)


LONG_TITLE = f"Wanda and More: {'Very ' * 20}Long"


@pytest.mark.parametrize(
    ("changes", "tags"),
    [
        ({}, "Unstructured, Semi-structured; Wanda"),
        ({"code.url": f"https://example.org/{'a' * 90}"}, "Unstructured, Semi-structured"),
        ({"code.url": f"https://example.org/{'a' * 100}"}, "Unstructured, …"),
    ],
)
def test_a_row_is_short(changes, tags):
    short = row(title=LONG_TITLE, **changes)
    assert len(short) <= LONGEST_ROW == 250
    cells = short.split(" | ")
    assert cells[0] == "| [Wanda](https://arxiv.org/abs/2306.11695)"
    assert cells[2] == tags


def test_the_rows_of_the_book_are_short():
    papers = read_papers(Path(__file__).parents[2])
    assert max(len(table_row(paper.record)) for paper in papers) <= LONGEST_ROW


def test_challenge_notes_have_anchors_for_both_readers(book):
    page = "# Challenges\n<!-- notes:begin -->\n<!-- notes:end -->\n"
    expected = (
        "# Challenges\n<!-- notes:begin -->\n\n## 2024\n\n"
        '<a id="wanda-simple-2024"></a>\n\n(wanda-simple-2024)=\n'
        "### Wanda: A Simple and Effective Pruning Approach\n\n- Limits of Wanda.\n\n## 2023\n\n"
        '<a id="scaling-2023"></a>\n\n(scaling-2023)=\n### Scaling: Laws\n\n'
        "- Limits of Scaling.\n\n"
        "<!-- notes:end -->\n"
    )
    papers = read_papers(book)
    assert challenge_notes(page, papers) == expected
    assert challenge_notes(expected, papers) == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("No heading.\n\n## Later\n", "No heading.\n\n## Later"),
        ("\n### Mine\nText | $x_1$", "Text | $x_1$"),
        ("#hashtag", "#hashtag"),
    ],
)
def test_only_the_notes_own_first_heading_goes(book, source, text):
    (book / "papers" / "wanda.ipynb").unlink()
    content = notebook(other_record())
    content.cells[3].source = source
    write(book, other_record(), content)
    page = challenge_notes("<!-- notes:begin --><!-- notes:end -->", read_papers(book))
    assert page.endswith(f"### Scaling: Laws\n\n{text}\n\n<!-- notes:end -->")
