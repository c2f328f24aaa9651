"""Assemble the site's sources under `_build/site/`: pages as written, executed notebooks, boards,
exports."""

import copy
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import nbformat

from ..catalog import Address, Paper, challenge_notes, read_address
from ..catalog.reader import tags_of
from ..errors import UserError
from ..files import atomic_folder, write_atomic
from ..notebook.claims import CLAIM_MIME, RESULTS_MIME
from ..runs.records import read_runs
from .changed import changed_dates
from .exports import write_exports
from .pages.cards import card
from .pages.landing import landing_page, write_scripts
from .pages.leaderboard import leaderboard
from .pages.ordering import read_ordering
from .pages.scoreboard import scoreboard
from .pages.text import adapt_links, check_sources, fill_papers, name_papers, run_line, with_note
from .published import Published, PublishedPage

_STATIC = Path(__file__).parent / "static"
_CHALLENGES = "challenge/challenge.md"
_FILES = ("_config.yml", "_toc.yml", "index.md")
_FOLDERS = ("concepts", "challenge")
# for tools that read or run the source
_NOTEBOOK_SETTINGS = ("file_format", "jupytext", "kernelspec", "mystnb")
# cells whose code is shown when asked for: tag -> the words that ask; papermill adds the first kind
_FOLDED = {
    "injected-parameters": "Show the values of this run",
    "claims": "Show the code behind these claims",
}
_WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def assemble(root: Path, papers: Sequence[Published], pages: Sequence[PublishedPage] = ()) -> Path:
    """Write the site's sources and return their folder; it is replaced as a whole.

    Raises:
        UserError: a page or a folder of pages is missing, lacks the markers for what is generated,
            or has one for the papers of an unknown tag; or a page could have the build run
            something.
    """
    for name in (*_FILES, *_FOLDERS, _CHALLENGES):
        if not (root / name).exists():
            raise UserError(f"{name} is missing in {root}")
    site = root / "_build" / "site"
    with atomic_folder(site) as folder:
        for name in _FILES:
            shutil.copyfile(root / name, folder / name)
        for name in _FOLDERS:
            shutil.copytree(root / name, folder / name)
        check_sources(folder)
        shutil.copytree(_STATIC, folder / "_static")
        write_scripts(folder / "_scripts")
        write_atomic(folder / "index.md", landing_page(root, papers))
        notes = (root / _CHALLENGES).read_text(encoding="utf-8")
        records = [published.paper for published in papers]
        notebooks = {published.name for published in pages}
        write_atomic(
            folder / "_toc.yml",
            name_papers((root / "_toc.yml").read_text(encoding="utf-8"), records),
        )
        write_atomic(folder / _CHALLENGES, challenge_notes(notes, records))
        write_atomic(folder / "scoreboard.md", scoreboard(papers))
        board, figures = leaderboard(papers, read_runs(root), read_ordering(root))
        for name, content in {"leaderboard.md": board, **figures}.items():
            write_atomic(folder / name, content)
        # `html_extra_path` puts them at the site's root
        write_exports(root, papers, folder / "_exports")
        days = changed_dates(root)
        address = read_address(root)
        (folder / "_notebooks").mkdir()
        for published in papers:
            shutil.copyfile(published.paper.path, folder / "_notebooks" / published.paper.path.name)
            name = f"papers/{published.paper.slug}"
            _write_notebook(
                folder, name, page(published, address), notebooks, days.get(f"{name}.ipynb")
            )
        for published in pages:
            (folder / f"{published.name}.md").unlink()
            day = days.get(f"{published.name}.md")
            _write_notebook(folder, published.name, text_page(published, records), notebooks, day)
        for path in sorted(folder.rglob("*.md")):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(folder).as_posix()
            if name.startswith("concepts/"):
                text = fill_papers(text, name, records)
            day = days.get(name)
            write_atomic(
                path, adapt_links(text, name, notebooks) + (f"\n\n{_dated(day)}\n" if day else "")
            )
    return site


def _write_notebook(
    folder: Path,
    name: str,
    notebook: nbformat.NotebookNode,
    notebooks: Collection[str],
    day: str | None,
) -> None:
    """Write a page that is a notebook, with its links adapted to the pages that are `notebooks`."""
    for cell in _markdown(notebook):
        cell.source = adapt_links(cell.source, f"{name}.md", notebooks)
    if day:
        notebook.cells.append(nbformat.v4.new_markdown_cell(_dated(day), id="changed"))
    write_atomic(folder / f"{name}.ipynb", nbformat.writes(notebook))


def _dated(day: str) -> str:
    return f'<p class="pb-changed">Page last changed on <time>{day}</time>.</p>'


def _markdown(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def page(published: Published, address: Address) -> nbformat.NotebookNode:
    """The notebook as a page: a card under the title in place of the record, outputs without noise.

    Args:
        address: the book's public addresses, which the card's buttons lead to.
    """
    notebook = _tidy(published.notebook)
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    notebook.cells = [
        cells[0],
        nbformat.v4.new_markdown_cell(card(published, address), id="card"),
        *cells[1:],
    ]
    return notebook


def text_page(published: PublishedPage, papers: Sequence[Paper]) -> nbformat.NotebookNode:
    """The page as a notebook: with the state of its code, lists of the papers by tag, and outputs
    without noise.

    Raises:
        UserError: it does not begin with a title, or has a marker for the papers of an unknown tag.
    """
    notebook = _tidy(published.notebook)
    name = f"{published.name}.md"
    settings = {
        key: value for key, value in published.settings.items() if key not in _NOTEBOOK_SETTINGS
    }
    notebook.metadata |= nbformat.from_dict(settings)
    for cell in _markdown(notebook):
        cell.source = fill_papers(cell.source, name, papers)
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        raise UserError(f"{name}: must begin with its title, '# ...'")
    notebook.cells[0].source = with_note(notebook.cells[0].source, published)
    if published.execution:
        notebook.cells.append(
            nbformat.v4.new_markdown_cell(run_line(published.execution), id="executed")
        )
    return notebook


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
    """Progress bars: what was written to standard error, and widgets."""
    return output.get("name") == "stderr" or _WIDGET_MIME in output.get("data", {})


def _cleaned(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output without the records, which the scoreboard has and pages do not show."""
    for mime in (CLAIM_MIME, RESULTS_MIME):
        output.get("data", {}).pop(mime, None)
    return output
