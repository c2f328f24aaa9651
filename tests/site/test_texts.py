"""Pages in Markdown; one whose front matter would have the build run code is refused unread."""

import pytest
from tests.small_book import write_sources

from prunebook.errors import UserError
from prunebook.site.book import read_book
from prunebook.site.texts import read_texts

EXECUTED = "file_format: mystnb\nmystnb: {execution_mode: force}\n"
# {{ ... }} is then a Jinja template with Sphinx at hand.
RENDERED = "myst: {enable_extensions: [substitution]}\n"


@pytest.fixture
def root(book):
    write_sources(book.root)
    return book.root


@pytest.mark.parametrize("page", ["index", "concepts/types", "challenge/challenge"])
@pytest.mark.parametrize(
    ("settings", "key"), [(EXECUTED, "mystnb"), (RENDERED, "myst"), ("a: 1\n", "a")]
)
def test_settings_that_run_code_are_refused(root, page, settings, key):
    path = root / f"{page}.md"
    path.write_text(f"---\n{settings}---\n{path.read_text()}")
    allowed = "file_format, html_theme.sidebar_secondary.remove, jupytext, kernelspec"
    with pytest.raises(
        UserError, match=rf"^{page}\.md: the front matter sets '{key}'; allowed: {allowed}$"
    ):
        read_book(root)


@pytest.mark.parametrize("opening", ["--- #", "----", "\ufeff---", "---"])
def test_front_matter_that_only_sphinx_would_read_is_refused(root, opening):
    (root / "concepts" / "types.md").write_text(
        f"{opening}\n{'' if opening == '---' else EXECUTED}---\n# T\n"
    )
    with pytest.raises(
        UserError, match=r"^concepts/types\.md: begins with '.*---.*', which opens no front matter"
    ):
        read_texts(root)


@pytest.mark.parametrize("ending", [".ipynb", ".rst"])
def test_pages_of_another_form_are_refused(root, ending):
    (root / "concepts" / f"types{ending}").write_text("{}")
    with pytest.raises(
        UserError, match=rf"^concepts/types\{ending}: is \{ending}; a page of text must be Markdown"
    ):
        read_texts(root)


def test_what_pages_may_set(root):
    settings = (
        "kernelspec: {name: python3}\nfile_format: mystnb\n"
        "html_theme.sidebar_secondary.remove: true\n"
    )
    (root / "concepts" / "types.md").write_text(
        f"---\n{settings}---\n# T\n\n---\n\nA rule above.\n"
    )
    (root / "concepts" / "budget.md").write_text("# B\n\n---\nmystnb: 1\n---\n")
    pages = ["challenge/challenge.md", "concepts/budget.md", "concepts/types.md", "index.md"]
    assert list(read_texts(root)) == pages
