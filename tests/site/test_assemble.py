"""The site's sources on the disk, from notebooks with outputs put in by hand."""

from dataclasses import replace

import nbformat
import pytest
from tests.small_book import write_sources

from prunebook.errors import UserError
from prunebook.site.assemble import assemble
from prunebook.site.book import read_book
from prunebook.site.pages.cards import card


@pytest.fixture
def root(book):
    """The folder of a book with the paper `alpha`."""
    write_sources(book.root)
    book.add("alpha", "1")
    return book.root


def test_assemble(root):
    book = read_book(root)
    (alpha,) = book.papers
    site = assemble(book)
    assert site == root / "_build" / "site"
    index = (site / "index.md").read_text()
    assert '<table class="pb-papers"' in index
    assert 'href="papers/alpha.html"' in index
    assert "<!-- papers -->" not in index
    assert "(note-alpha)=" in (site / "challenge/challenge.md").read_text()
    assert (site / "_static" / "prunebook.css").is_file()
    assert (site / "_notebooks" / "alpha.ipynb").read_bytes() == alpha.paper.path.read_bytes()
    shown = nbformat.read(site / "papers" / "alpha.ipynb", 4)
    assert shown.cells[1].source == card(alpha, book.address)
    (site / "left-over").write_text("")
    assemble(book)
    assert not (site / "left-over").exists()


def test_pictures_are_copied(root):
    (root / "concepts" / "details").mkdir()
    (root / "concepts" / "details" / "a.png").write_bytes(b"picture")
    site = assemble(read_book(root))
    assert (site / "concepts" / "details" / "a.png").read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "index.md").write_text("# No marker"), "once, has it 0 times"),
        (
            lambda root: (root / "concepts" / "types.md").write_text("<!-- papers: none -->"),
            "names no tag",
        ),
        (lambda root: (root / "challenge/challenge.md").write_text("#"), "needs the markers"),
    ],
)
def test_a_bad_source_leaves_the_site_as_it_was(root, change, message):
    before = sorted(path.name for path in assemble(read_book(root)).iterdir())
    change(root)
    with pytest.raises(UserError, match=message):
        assemble(read_book(root))
    assert sorted(path.name for path in (root / "_build" / "site").iterdir()) == before


def test_a_page_tells_the_day_of_its_last_change(root):
    days = {"concepts/types.md": "2026-11-23", "papers/alpha.ipynb": "2026-11-24"}
    site = assemble(replace(read_book(root), last_changed=days))
    line = '<p class="pb-changed">Page last changed on <time>{}</time>.</p>'
    assert (site / "concepts/types.md").read_text() == f"# Types\n\n\n{line.format('2026-11-23')}\n"
    shown = nbformat.read(site / "papers" / "alpha.ipynb", 4)
    assert shown.cells[-1].source == line.format("2026-11-24")
    assert "last changed" not in (site / "index.md").read_text()
