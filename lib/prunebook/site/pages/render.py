"""The site's sources as a function of the book: every file that is made, not copied."""

from ..book import Book
from ..exports import export_files
from ..texts import LANDING
from .landing import landing_page
from .leaderboard import leaderboard
from .notebooks import finish, paper_page, text_page
from .scoreboard import scoreboard
from .text import adapt_links, fill_papers, name_papers


def render_site(book: Book) -> dict[str, str | bytes]:
    """Path in the site -> content.

    Raises:
        UserError: the landing page has not exactly one marker, a page with code cells has no title,
            or a page has a marker for the papers of an unknown tag.
    """
    board, figures = leaderboard(book.papers, book.recorded_runs, book.ordering_record)
    exports = export_files(book.address, book.papers, book.page_names)
    boards = {"leaderboard.md": board, "scoreboard.md": scoreboard(book.papers, book.page_names)}
    return {
        "_toc.yml": name_papers(book.contents, book.bare_papers),
        **_markdown_pages(book, boards),
        **_notebook_pages(book),
        **figures,
        # `html_extra_path` puts the exports at the site's root.
        **{f"_exports/{name}": content for name, content in exports.items()},
    }


def _markdown_pages(book: Book, boards: dict[str, str]) -> dict[str, str]:
    """Path -> text of the pages in Markdown: the written ones, filled, and the boards."""
    notebook_names = _notebook_names(book)
    pages = {}
    for name, text in {**book.texts, **boards}.items():
        if name.removesuffix(".md") in notebook_names:
            continue
        if name == LANDING:
            text = landing_page(text, book.papers)
        if name.startswith("concepts/"):
            text = fill_papers(text, name, book.bare_papers)
        text = adapt_links(text, name, notebook_names)
        day_line = _day_line(book, name)
        if day_line:
            text += f"\n\n{day_line}\n"
        pages[name] = text
    return pages


def _notebook_pages(book: Book) -> dict[str, str]:
    """Path -> content of the pages that are notebooks: the papers, and pages with code cells."""
    notebook_names = _notebook_names(book)
    pages = {}
    for published in book.papers:
        name = f"papers/{published.paper.slug}"
        notebook = paper_page(published, book.address)
        day_line = _day_line(book, f"{name}.ipynb")
        pages[f"{name}.ipynb"] = finish(notebook, name, notebook_names, day_line)
    for published in book.pages:
        name = published.name
        notebook = text_page(published, book.bare_papers)
        day_line = _day_line(book, f"{name}.md")
        pages[f"{name}.ipynb"] = finish(notebook, name, notebook_names, day_line)
    return pages


def _notebook_names(book: Book) -> set[str]:
    """The paths of the pages with code cells, without their ending."""
    return {page.name for page in book.pages}


def _day_line(book: Book, name: str) -> str:
    """The line that tells when a source was last changed; empty where that is not known."""
    day = book.last_changed.get(name)
    if day is None:
        return ""
    return f'<p class="pb-changed">Page last changed on <time>{day}</time>.</p>'
