"""Assemble the site's sources under `_build/site/`: pages as written, executed notebooks, the scoreboard."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from ..catalog import challenge_notes
from ..catalog.reader import tags_of
from ..claims import CLAIM_MIME, RESULTS_MIME
from ..errors import UserError
from ..files import atomic_folder, write_atomic
from .cards import card, claim_counts, escape, tags
from .published import Published
from .scoreboard import scoreboard

PAPERS_MARKER = "<!-- papers -->"
_STATIC = Path(__file__).parent / "static"
_CHALLENGES = "challenge/challenge.md"
_FILES = ("_config.yml", "_toc.yml", "index.md")
_FOLDERS = ("concepts", "challenge")
_WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def assemble(root: Path, papers: Sequence[Published]) -> Path:
    """Write the site's sources and return their folder; it is replaced as a whole.

    Raises:
        UserError: a page or a folder of pages is missing, or lacks the markers for what is generated.
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
        shutil.copytree(_STATIC, folder / "_static")
        write_atomic(folder / "index.md", _index(root, papers))
        notes = (root / _CHALLENGES).read_text(encoding="utf-8")
        write_atomic(folder / _CHALLENGES, challenge_notes(notes, [published.paper for published in papers]))
        write_atomic(folder / "scoreboard.md", scoreboard(papers))
        (folder / "_notebooks").mkdir()
        for published in papers:
            name = f"{published.paper.slug}.ipynb"
            shutil.copyfile(published.paper.path, folder / "_notebooks" / name)
            write_atomic(folder / "papers" / name, nbformat.writes(page(published)))
    return site


def page(published: Published) -> nbformat.NotebookNode:
    """The notebook as a page: a card under the title in place of the record, outputs without noise."""
    notebook = copy.deepcopy(published.notebook)
    cells = [cell for cell in notebook.cells if "record" not in tags_of(cell)]
    notebook.cells = [cells[0], nbformat.v4.new_markdown_cell(card(published), id="card"), *cells[1:]]
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{index}")
        cell.metadata.pop("papermill", None)
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


def _index(root: Path, papers: Sequence[Published]) -> str:
    """The landing page with the table of papers at its marker."""
    text = (root / "index.md").read_text(encoding="utf-8")
    count = text.count(PAPERS_MARKER)
    if count != 1:
        raise UserError(f"index.md: needs the marker {PAPERS_MARKER} once, has it {count} times")
    rows = ["| Paper | What it does | Tags | Claims |", "|:--|:--|:--|:--|"]
    return text.replace(PAPERS_MARKER, "\n".join([*rows, *map(_index_row, papers)]))


def _index_row(published: Published) -> str:
    record = published.paper.record
    venue = escape(f"{record.venue.name} {record.venue.year}")
    name = f"[{escape(record.short)}](papers/{record.slug}.ipynb) {venue}"
    badges = " ".join(tags(record, facet) for facet in ("type", "criteria"))
    claims = claim_counts(published.claims, words=False) or "not run yet"
    return f"| {name} | {escape(record.takeaway)} | {badges} | {claims} |"
