"""Pages that are notebooks: those of papers, and pages of text that run."""

import json
from dataclasses import replace

import nbformat
import pytest
from tests.site.pages.made_up import ADDRESS, CLAIM, alpha_with_outcomes
from tests.small_book import TEXT_PAGE as PAGE
from tests.small_book import write_sources

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.notebook.claims import CLAIM_MIME
from prunebook.notebook.results import RESULTS_MIME
from prunebook.runs.executed import Execution
from prunebook.site.pages.cards import card
from prunebook.site.pages.notebooks import paper_page, text_page
from prunebook.site.published import read_published_pages

EXECUTION = Execution(None, "key", "book", 12.3, "2026-11-23", {})


@pytest.fixture
def alpha(book):
    """`alpha` as published with two claims and one table."""
    return alpha_with_outcomes(book)


@pytest.fixture
def write_page(book):
    """`write_page(text)` writes `concepts/why.md` into a book."""
    write_sources(book.root)

    def write(text: str) -> None:
        (book.root / "concepts" / "why.md").write_text(text)

    return write


def test_a_paper(alpha):
    v4 = nbformat.v4
    html = {"text/html": "<b>x</b>", "text/plain": "x"}
    cell = alpha.notebook.cells[3]
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="50%|####"),
        v4.new_output("stream", name="stdout", text="kept"),
        v4.new_output("display_data", {CLAIM_MIME: CLAIM, **html}),
        v4.new_output("display_data", {RESULTS_MIME: {}, **html}),
        v4.new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "w"}
        ),
    ]
    cell.metadata["papermill"] = {"duration": 1}
    alpha.notebook.metadata["papermill"] = {"input_path": "/somewhere"}
    before = json.dumps(alpha.notebook)
    result = paper_page(alpha, ADDRESS)
    assert [cell.cell_type for cell in result.cells][:3] == ["markdown"] * 3
    assert result.cells[0].source == "# Alpha"
    assert result.cells[1].source == card(alpha, ADDRESS)
    kept = result.cells[3].outputs
    assert [output.get("text") or dict(output.data) for output in kept] == ["kept", html, html]
    assert "papermill" not in json.dumps(result)
    assert json.dumps(alpha.notebook) == before
    nbformat.validate(result)


def test_a_page_in_the_site(write_page, book):
    """Not run, run, and run before its last change."""
    book.add("alpha", "1")
    write_page(PAGE)
    (published,) = read_published_pages(book.root)
    assert (published.name, published.execution, published.images, published.tables) == (
        "concepts/why",
        None,
        0,
        0,
    )
    papers = read_papers(book.root)
    notebook = text_page(published, papers)
    assert notebook.cells[0].source.startswith(
        "# Why numbers *differ*\n\n:::{note}\nThe code of this page has not"
    )
    assert notebook.cells[0].source.endswith("\n:::\n\nText, [types](types.md).")
    assert "[Alpha](../papers/alpha.ipynb)" in notebook.cells[2].source
    assert dict(notebook.metadata) == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "html_theme.sidebar_secondary.remove": True,
    }
    nbformat.validate(notebook)

    v4 = nbformat.v4
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}
    outputs = [
        v4.new_output("stream", name="stderr", text="noise"),
        v4.new_output("display_data", widget),
        v4.new_output("display_data", {"image/png": "aGk="}),
        v4.new_output("display_data", {"text/html": "<table></table>"}),
    ]
    published.notebook.cells[3].outputs = outputs
    ran = replace(published, execution=EXECUTION, current=True)
    notebook = text_page(ran, papers)
    assert notebook.cells[0].source == "# Why numbers *differ*\n\nText, [types](types.md)."
    line = (
        '<p class="pb-changed">Executed on <time>2026-11-23</time> with profile book in 12 s.</p>'
    )
    assert notebook.cells[-1].source == line
    assert notebook.cells[3].outputs == outputs[2:]
    assert (ran.images, ran.tables) == (1, 1)
    old = text_page(replace(ran, current=False), papers).cells
    assert ":::{note}\nThe outputs are from before the last change" in old[0].source
    assert old[-1].source == line


@pytest.mark.parametrize("text", ["No title.\n", "```{code-cell}\n# no title\n```\n", ""])
def test_a_page_without_a_title_is_refused(write_page, book, text):
    write_page(f"---\nkernelspec: {{name: python3, display_name: P}}\n---\n{text}")
    (published,) = read_published_pages(book.root)
    with pytest.raises(
        UserError, match=r"^concepts/why\.md: must begin with its title, '# \.\.\.'$"
    ):
        text_page(published, [])
