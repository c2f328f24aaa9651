import pytest
from tests.tiny_book import notebook, other_record, record, write

from prunebook.catalog import challenge_notes, papers_table, parse_record, read_papers
from prunebook.catalog.tables import table_row
from prunebook.errors import UserError

TAGS = (
    "Type: [Unstructured](concepts/types.md#type-unstructured), "
    "[Semi-structured](concepts/types.md#type-semi-structured) <br> "
    "Criteria: [Wanda](concepts/criteria.md#criteria-wanda) <br> "
    "Budget: [Sparsity](concepts/budget.md#budget-sparsity) (layer) <br> "
    "Data: [Calibration](concepts/data.md#data-calibration) <br> "
    "Retrain: [Without](concepts/finetune.md#retrain-without) <br> "
    "Weight: [Frozen](concepts/weight_update.md#weight-frozen)"
)
WANDA = (
    "| [A Simple and Effective Pruning Approach](https://arxiv.org/abs/2306.11695) <br> *ICLR "
    f"2024* <br> Scores a weight by its size times the norm of its input. | {TAGS} | "
    "[Challenge](challenge/challenge.md#wanda-simple-2024) <br> "
    "[Reviews](https://openreview.net/forum?id=PxoFut3dWW) <br> [Blog](https://example.org/blog) "
    "| [official](https://github.com/locuslab/wanda) (MIT) <br> [notebook](papers/wanda.ipynb): "
    "runs |"
)
SCALING = (
    "| Scaling: Laws <br> *ICLR 2024* <br> Scores a weight by its size times the norm of its "
    f"input. | {TAGS} | [Challenge](challenge/challenge.md#scaling-2023) | no code <br> "
    "[notebook](papers/scaling.ipynb): not run yet |"
)
HEADER = "| Title & Take-away | Tags | Note | Code |\n|:--|:--|:--|:--|"


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
        title="A | B\nC *d* [e]",
        takeaway="1 < 2 & x_1 `y` $z$ ~w~ <br>",
        **{"tags.budget.detail": "50|75%", "code.url": "https://x.org/a|b(c)"},
    )
    assert changed.count("\n") == 0
    assert changed.startswith(r"| [A \| B C \*d\* \[e\]](https://arxiv.org/abs/2306.11695) <br> ")
    assert r" <br> 1 &lt; 2 &amp; x\_1 \`y\` \$z\$ \~w\~ &lt;br&gt; | Type" in changed
    assert r"(50\|75%)" in changed
    assert "[official](https://x.org/a%7Cb%28c%29)" in changed


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"venue.kind": "submission"}, "*ICLR 2024 (submission)*"),
        ({"code.official": False}, "[community](https://github.com/locuslab/wanda) (MIT)"),
        (
            {"code.license": None},
            "[official](https://github.com/locuslab/wanda) (no licence stated)",
        ),
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


def test_reviews_are_linked_once():
    url = "https://openreview.net/forum?id=PxoFut3dWW"
    assert row(arxiv=None).count(url) == 1
    assert row(links=[{"label": "Discussion", "url": url}]).count(url) == 1
    assert row().count(url) == 1


def test_challenge_notes_have_anchors_for_both_readers(book):
    page = "# Challenges\n<!-- notes:begin -->\n<!-- notes:end -->\n"
    expected = (
        "# Challenges\n<!-- notes:begin -->\n\n## 2024\n\n"
        '<a id="wanda-simple-2024"></a>\n\n(wanda-simple-2024)=\n'
        "### Wanda: A Simple and Effective Pruning Approach\n\nLimits of Wanda.\n\n## 2023\n\n"
        '<a id="scaling-2023"></a>\n\n(scaling-2023)=\n### Scaling: Laws\n\nLimits of Scaling.\n\n'
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
    content.cells[2].source = source
    write(book, other_record(), content)
    page = challenge_notes("<!-- notes:begin --><!-- notes:end -->", read_papers(book))
    assert page.endswith(f"### Scaling: Laws\n\n{text}\n\n<!-- notes:end -->")
