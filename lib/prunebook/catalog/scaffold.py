"""A new paper from the templates: notebook and contents, and for a method its files and registry.

What only a reader of the paper can write is left as `FILL-IN`, which `prunebook check` refuses. All
files are written or none.
"""

import contextlib
import keyword
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nbformat

from ..errors import UserError
from . import contents
from .draft import Draft, class_name_of, code_values, read_draft, record_values
from .fields import SLUG
from .metadata import ARXIV_ID, OPENREVIEW_ID
from .reader import Paper, find_notebook, in_order, notebook_paths, read_notebook, tags_of
from .registry import names_of_room, places, read_registry, registry_file, with_entry
from .schema import Record
from .templates import claims_yaml, code_cells, file_text, notebook_cells, record_cells, render
from .writing import write_together


class _Home(NamedTuple):
    """Where a method or cache goes.

    Attributes:
        kind: which of `templates.KINDS` it is.
        room: its room of the library, `methods` or `caches`.
        module: its module there.
    """

    kind: str
    room: str
    module: str

    @property
    def files(self) -> tuple[Path, Path]:
        """Its source and its test, relative to the book."""
        return places(self.room, self.module)

    def class_name(self, record: Record) -> str:
        """The name of its class."""
        name = class_name_of(record)
        if self.room == "caches":
            name += "Cache"
        return name


def check_new(root: Path, identifier: str, slug: str, kind: str | None) -> list[Paper]:
    """Refuse what cannot become a new paper of the book.

    Args:
        root: folder of the book.
        identifier: arXiv or OpenReview id of the paper.
        slug: name of its notebook and its method.
        kind: which of `templates.KINDS` its method is; None for the record alone.

    Returns:
        The papers of the book as it is, drafts among them.

    Raises:
        UserError: a malformed id or slug, one that the book has already, or a method that cannot be
            added.
    """
    if not (ARXIV_ID.fullmatch(identifier) or OPENREVIEW_ID.fullmatch(identifier)):
        raise UserError(
            f"{identifier!r} is no id of a paper; allowed: an arXiv id without version, e.g. "
            "2306.11695, or an OpenReview forum id, e.g. PxoFut3dWW"
        )
    if not re.fullmatch(SLUG, slug):
        raise UserError(
            f"slug {slug!r} must be lower-case letters, digits and single dashes, e.g. "
            "deeper-layers"
        )
    if (root / "papers" / f"{slug}.ipynb").exists():
        raise UserError(
            f"papers/{slug}.ipynb exists already; choose another --slug, or correct that notebook"
        )
    papers = _papers_and_drafts(root)
    for paper in papers:
        if identifier in (paper.record.arxiv, paper.record.openreview):
            raise UserError(f"{identifier} is in the book already: papers/{paper.path.name}")
    if kind is not None:
        _find_home(root, slug, kind)
    return papers


def new_paper(root: Path, draft: Draft, kind: str | None) -> list[Path]:
    """Write the notebook of a new paper and its line in the contents, and the files of its method.

    Args:
        root: folder of the book.
        draft: what is known of the paper.
        kind: which of `templates.KINDS` its method is; None for the record alone.

    Returns:
        What was written, relative to `root`.

    Raises:
        UserError: as `check_new`, a record that breaks the schema, a contents file that cannot be
            extended, or a file that cannot be written; then nothing has changed.
    """
    papers = check_new(root, draft.identifier, draft.slug, kind)
    if kind is None:
        home = None
        cells = record_cells()
        filled = record_values(draft, None, "")
    else:
        home = _find_home(root, draft.slug, kind)
        cells = notebook_cells(kind)
        filled = record_values(draft, draft.slug, claims_yaml())
    path = root / "papers" / f"{draft.slug}.ipynb"
    # The record is filled in first: what it says goes into the other cells.
    first = cells.pop("record")
    first.source = render(first.source, filled)
    record = read_draft(_notebook([first]), path)
    notebook = _notebook([first, *_filled(cells, _values(record, home))])
    files = {
        path: nbformat.writes(notebook) + "\n",
        root / contents.FILE: _listed(root, papers, Paper(path, record)),
    }
    if home is not None:
        files |= _method_files(root, record, home)
    return write_together(root, files)


def add_method(root: Path, slug: str, kind: str) -> list[Path]:
    """Write the files of a method for a paper that has none, and its notebook's claims and code.

    Args:
        root: folder of the book.
        slug: the paper.
        kind: which of `templates.KINDS` the method is.

    Returns:
        What was written, relative to `root`.

    Raises:
        UserError: an unknown paper, one that has a method, or as `new_paper`; then nothing has
            changed.
    """
    path = find_notebook(root, slug)
    notebook = read_notebook(path)
    record = read_draft(notebook, path)
    if record.is_implemented:
        raise UserError(f"{slug} has a method already: {record.implemented_by}")
    home = _find_home(root, slug, kind)
    first = notebook.cells[0]
    first.source = _with_method(first.source, record)
    record = read_draft(notebook, path)
    if record.method != slug or "see-also" not in tags_of(notebook.cells[-1]):
        raise UserError(
            f"papers/{slug}.ipynb: needs the line `method: null` and 'see-also' as its last cell"
        )
    _insert(notebook, _filled(code_cells(kind), _values(record, home)))
    files = {path: nbformat.writes(notebook) + "\n", **_method_files(root, record, home)}
    return write_together(root, files)


def _papers_and_drafts(root: Path) -> list[Paper]:
    """The papers of the book, in the tables' order; what is to be filled in may be open.

    A notebook whose record cannot be read is left out: it is no matter of the new paper's.
    """
    papers = []
    for path in notebook_paths(root):
        with contextlib.suppress(UserError):  # `prunebook check` says what is wrong with it
            papers.append(Paper(path, read_draft(read_notebook(path), path)))
    return in_order(papers)


def _find_home(root: Path, slug: str, kind: str) -> _Home:
    """The place of a new method or cache.

    Raises:
        UserError: it has no place in the library.
    """
    room = {"cache": "caches"}.get(kind, "methods")
    registry = root / registry_file(room)
    if not registry.is_file():
        raise UserError(
            f"no library at {registry.parent}: a method needs a clone of the repository; try "
            "--record-only"
        )
    module = slug.replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UserError(
            f"slug {slug!r} cannot name a Python module; begin it with a letter, and use no keyword"
        )
    if slug in read_registry(root):
        raise UserError(f"method {slug!r} exists already; choose another --slug")
    home = _Home(kind, room, module)
    for file in home.files:
        if (root / file).exists():
            raise UserError(f"{file} exists already; choose another --slug")
    return home


def _values(record: Record, home: _Home | None) -> dict[str, str]:
    """What the templates are filled with after the record."""
    if home is None:
        return code_values(record, "", "")
    return code_values(record, home.module, home.class_name(record))


def _filled(
    cells: Mapping[str, nbformat.NotebookNode], values: Mapping[str, str]
) -> list[nbformat.NotebookNode]:
    """The cells of a template, filled in."""
    for cell in cells.values():
        cell.source = render(cell.source, values)
    return list(cells.values())


def _notebook(cells: list[nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """A notebook with these cells."""
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _listed(root: Path, papers: list[Paper], paper: Paper) -> str:
    """The table of contents with a new paper."""
    order = [each.slug for each in in_order([*papers, paper])]
    later = order[order.index(paper.slug) + 1 :]
    text = (root / contents.FILE).read_text(encoding="utf-8")
    return contents.with_paper(text, paper.slug, later)


def _method_files(root: Path, record: Record, home: _Home) -> dict[Path, str]:
    """Path -> text of the method's source, its test, and the registry with it."""
    values = _values(record, home)
    source, test = home.files
    registry = root / registry_file(home.room)
    return {
        root / source: render(file_text(home.kind, "method"), values),
        root / test: render(file_text(home.kind, "test"), values),
        registry: with_entry(
            registry.read_text(encoding="utf-8"),
            record.slug,
            home.module,
            values["class"],
            home.room,
            names_of_room(root, home.room),
        ),
    }


def _with_method(source: str, record: Record) -> str:
    """The text of a record with its method, and with claims and errata to fill in if it has none.

    Args:
        source: text of the record's cell, with a line `method: null`.
        record: what it says.
    """
    lists = claims_yaml()
    if record.claims or record.errata:
        lists = ""
    else:
        source = re.sub(r"(?m)^\s+(claims|errata): *\[\].*\n", "", source)

    def line(match: re.Match) -> str:
        indent = match[1]
        written = f"{indent}method: {record.slug}"
        if lists:
            written += "\n" + textwrap.indent(lists, indent)
        return written

    return re.sub(r"(?m)^([ \t]+)method:.*$", line, source)


def _insert(notebook: nbformat.NotebookNode, code: list[nbformat.NotebookNode]) -> None:
    """Put the cells of a method between the method section and the challenges.

    The cells of the errata follow the challenges.
    """
    errata = [cell for cell in code if cell.id.startswith("errata")]
    others = [cell for cell in code if cell not in errata]
    challenge = [cell for cell in notebook.cells if "challenge" in tags_of(cell)]
    *before, last = [cell for cell in notebook.cells if cell not in challenge]
    notebook.cells = [*before, *others, *challenge, *errata, last]
