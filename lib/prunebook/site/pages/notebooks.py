"""Pages that are notebooks: those of the papers, and pages of text with code cells."""

import copy
from collections.abc import Collection, Sequence

import nbformat

from ...catalog import Address, Paper
from ...catalog.reader import tags_of
from ...errors import UserError
from ...notebook.claims import CLAIM_MIME
from ...notebook.results import RESULTS_MIME
from ..published import Published, PublishedPage
from .cards import card
from .text import adapt_links, fill_papers, run_line, with_note

# Settings of the front matter that only tools which read or run the source need.
_NOTEBOOK_SETTINGS = ("file_format", "jupytext", "kernelspec", "mystnb")
# Cells whose code is shown when asked for: tag -> the words that ask. Papermill adds the first.
_FOLDED = {
    "injected-parameters": "Show the values of this run",
    "claims": "Show the code behind these claims",
}
_WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def paper_page(published: Published, address: Address) -> nbformat.NotebookNode:
    """The notebook as a page: a card under the title in place of the record, outputs without noise.

    Args:
        published: the paper with its notebook, which is not changed.
        address: the book's public addresses, which the card's buttons lead to.
    """
    notebook = _tidy(published.notebook)
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    card_cell = nbformat.v4.new_markdown_cell(card(published, address), id="card")
    notebook.cells = [cells[0], card_cell, *cells[1:]]
    return notebook


def text_page(published: PublishedPage, papers: Sequence[Paper]) -> nbformat.NotebookNode:
    """The page as a notebook: with the state of its code and lists of papers, without noise.

    Args:
        published: the page, which is not changed.
        papers: all papers, in the tables' order.

    Raises:
        UserError: the page does not begin with a title, or has a marker for the papers of an
            unknown tag.
    """
    notebook = _tidy(published.notebook)
    name = f"{published.name}.md"
    settings = {
        key: value for key, value in published.settings.items() if key not in _NOTEBOOK_SETTINGS
    }
    notebook.metadata |= nbformat.from_dict(settings)
    for cell in _markdown_cells(notebook):
        cell.source = fill_papers(cell.source, name, papers)
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        raise UserError(f"{name}: must begin with its title, '# ...'")
    notebook.cells[0].source = with_note(notebook.cells[0].source, published)
    if published.execution:
        line = run_line(published.execution)
        notebook.cells.append(nbformat.v4.new_markdown_cell(line, id="executed"))
    return notebook


def finish(
    notebook: nbformat.NotebookNode, name: str, notebook_names: Collection[str], day_line: str
) -> str:
    """The content of the page's file: links adapted, the day of the last change at the end.

    Args:
        notebook: the page; its cells are changed.
        name: the page's path in the site without its ending, e.g. `papers/wanda`.
        notebook_names: the paths of all pages of text that are notebooks, without their ending.
        day_line: the line that tells the day; empty where the day is not known.
    """
    for cell in _markdown_cells(notebook):
        cell.source = adapt_links(cell.source, f"{name}.md", notebook_names)
    if day_line:
        notebook.cells.append(nbformat.v4.new_markdown_cell(day_line, id="changed"))
    return nbformat.writes(notebook)


def _markdown_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def _tidy(source: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy with the metadata that a page needs, and outputs without noise."""
    notebook = copy.deepcopy(source)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat = 4
    notebook.nbformat_minor = 5
    for index, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{index}")
        cell.metadata.pop("papermill", None)
        for tag in _FOLDED.keys() & tags_of(cell):
            cell.metadata |= {"tags": ["hide-input"], "mystnb": {"code_prompt_show": _FOLDED[tag]}}
        if cell.cell_type == "code":
            cell.outputs = [_cleaned(output) for output in cell.outputs if not _is_noise(output)]
    return notebook


def _is_noise(output: nbformat.NotebookNode) -> bool:
    """Is the output a progress bar: written to standard error, or a widget?"""
    return output.get("name") == "stderr" or _WIDGET_MIME in output.get("data", {})


def _cleaned(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output without the claims and results as data, which pages do not show."""
    for mime in (CLAIM_MIME, RESULTS_MIME):
        output.get("data", {}).pop(mime, None)
    return output
