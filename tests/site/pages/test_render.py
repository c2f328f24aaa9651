"""The site as a function of the book: nothing is read again, links follow pages that run."""

import shutil

import nbformat
from tests.small_book import write_sources

from prunebook.site.book import read_book
from prunebook.site.pages.render import render_site

WHY = """\
---
kernelspec: {name: python3, display_name: Python 3}
---
# Why numbers *differ*

Text, [types](types.md).
"""


def rendered(book) -> dict[str, str | bytes]:
    """A book with a page that runs, and pages with links to it, rendered."""
    write_sources(book.root)
    book.add("alpha", "1")
    for name, text in {
        "concepts/why.md": WHY,
        "concepts/details/LoRA.md": "# LoRA\n\n[why](../why.md) and [types](../types.md).\n",
        "index.md": "# Tiny\n\n[Why](concepts/why.md)\n\n<!-- papers -->\n",
    }.items():
        (book.root / name).parent.mkdir(exist_ok=True)
        (book.root / name).write_text(text)
    path = book.root / "papers" / "alpha.ipynb"
    source = nbformat.read(path, 4)
    source.cells[-1].source = "See [why](../concepts/why.md#x)."
    nbformat.write(source, path)
    return render_site(read_book(book.root))


def test_links_lead_to_the_notebook_of_a_page_that_runs(book):
    files = rendered(book)
    assert "concepts/why.md" not in files
    why = nbformat.reads(files["concepts/why.ipynb"], 4)
    assert "Text, [types](types.md)." in why.cells[0].source
    assert (
        files["concepts/details/LoRA.md"]
        == "# LoRA\n\n[why](../why.ipynb) and [types](../types.md).\n"
    )
    assert "[Why](concepts/why.ipynb)" in files["index.md"]
    alpha = nbformat.reads(files["papers/alpha.ipynb"], 4)
    assert "See [why](../concepts/why.ipynb#x)." in [cell.source for cell in alpha.cells]


def test_a_rendering_reads_nothing_and_is_always_the_same(book):
    first = rendered(book)
    read = read_book(book.root)
    shutil.rmtree(book.root)
    assert render_site(read) == first
    assert render_site(read) == first
