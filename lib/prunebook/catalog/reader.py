"""Reading papers out of their notebooks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat.validator import iter_validate

from ..errors import UserError
from ..notebook.stated import find_book, record_yaml
from .schema import Record, parse_record

_NO_RECORD = (
    "no record: the first cell must be a raw cell tagged 'record' that holds YAML under 'paper:'"
)


@dataclass(frozen=True)
class Paper:
    """A paper: its notebook's path and the record in it."""

    path: Path
    record: Record

    @property
    def slug(self) -> str:
        """The notebook's file name without its ending."""
        return self.record.slug


def find_root(start: Path | str | None = None) -> Path:
    """The book's folder: `start` (default: the working folder) or its nearest ancestor that is one.

    Raises:
        UserError: no such folder holds `papers/` and `_toc.yml`.
    """
    start = Path(start or ".").resolve()
    root = find_book(start)
    if root is None:
        raise UserError(
            f"no book at {start} or above it: a book's folder holds papers/ and _toc.yml"
        )
    return root


def shown(path: Path | str) -> str:
    """A notebook's path as messages give it: `papers/wanda.ipynb`."""
    path = Path(path)
    return f"{path.parent.name}/{path.name}"


def notebook_paths(root: Path) -> list[Path]:
    """The book's notebooks, by file name."""
    return sorted((Path(root) / "papers").glob("*.ipynb"))


def read_notebook(path: Path | str) -> nbformat.NotebookNode:
    """The notebook at `path`, checked against the format's own schema.

    Raises:
        UserError: it cannot be read, is no JSON, or is no notebook of format 4.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{shown(path)}: not a readable notebook: {error}") from error
    if not isinstance(content, dict) or content.get("nbformat") != 4:
        raise UserError(f"{shown(path)}: not a readable notebook: needs nbformat 4")
    fault = next(
        iter_validate(content, version=4, version_minor=content.get("nbformat_minor", 0)), None
    )
    if fault is not None:
        where = ".".join(map(str, fault.relative_path)) or "notebook"
        reason = str(fault.message).splitlines()[0]
        raise UserError(f"{shown(path)}: not a readable notebook: {where}: {reason}")
    return nbformat.reads(text, as_version=nbformat.NO_CONVERT)


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """The cell's tags."""
    return cell.metadata.get("tags", [])


def record_data(notebook: nbformat.NotebookNode, path: Path | str) -> Any:
    """What the YAML in the notebook's first cell holds under `paper:`.

    Args:
        notebook: the notebook of a paper.
        path: where it is, for the messages.

    Raises:
        UserError: no record cell, or bad YAML.
    """
    first = next(iter(notebook.cells), None)
    if first is None or first.cell_type != "raw" or "record" not in tags_of(first):
        raise UserError(f"{shown(path)}: {_NO_RECORD}")
    try:
        content = yaml.safe_load(record_yaml(first.source))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        if mark:
            problem = f"{problem} in line {mark.line + 1}"
        # YAML's own words do not say what authors meet most: a colon inside a text.
        if "':'" in problem or "mapping values" in problem:
            problem = f"{problem}; put texts with a colon in quotes"
        raise UserError(f"{shown(path)}: the record is no valid YAML: {problem}") from error
    if not isinstance(content, dict) or set(content) != {"paper"}:
        raise UserError(f"{shown(path)}: {_NO_RECORD}")
    return content["paper"]


def record_of(notebook: nbformat.NotebookNode, path: Path | str) -> Record:
    """The record in the notebook's first cell.

    Args:
        notebook: the notebook of a paper.
        path: where it is, for the messages; the file's name must be the slug.

    Raises:
        UserError: no record cell, bad YAML, a record that breaks the schema, or a slug unlike the
            file name.
    """
    return named_as_file(parse_record(record_data(notebook, path), shown(path)), path)


def named_as_file(record: Record, path: Path | str) -> Record:
    """The record, if its slug is the name of its notebook's file.

    Raises:
        UserError: it is not.
    """
    name = Path(path).stem
    if record.slug != name:
        raise UserError(
            f"{shown(path)}: paper.slug: {record.slug!r} must be the file's name, {name!r}"
        )
    return record


def read_paper(path: Path | str) -> Paper:
    """The paper whose notebook is at `path`.

    Raises:
        UserError: an unreadable notebook, no record cell, bad YAML, a record that breaks the
            schema, or a slug that is not the file's name.
    """
    return Paper(Path(path), record_of(read_notebook(path), path))


def read_papers(root: Path | str) -> list[Paper]:
    """All papers of the book at `root`, in the tables' order.

    Raises:
        UserError: as `read_paper`, for the first notebook at fault.
    """
    return in_order([read_paper(path) for path in notebook_paths(Path(root))])


def find_paper(root: Path | str, slug: str) -> Paper:
    """The paper with this slug; no other record is read.

    Raises:
        UserError: there is none, or as `read_paper`.
    """
    return read_paper(find_notebook(root, slug))


def find_notebook(root: Path | str, slug: str) -> Path:
    """The notebook of the paper with this slug.

    Raises:
        UserError: there is none.
    """
    paths = {path.stem: path for path in notebook_paths(Path(root))}
    if slug not in paths:
        raise UserError(
            f"unknown paper {slug!r}; allowed: {', '.join(paths) or 'none, the book is empty'}"
        )
    return paths[slug]


def in_order(papers: list[Paper]) -> list[Paper]:
    """The papers as every table lists them: latest year first, then by title, then by slug."""
    return sorted(
        papers, key=lambda paper: (-paper.record.year, paper.record.title.casefold(), paper.slug)
    )


def cell_sources(path: Path | str, tag: str) -> list[str]:
    """The sources of the notebook's cells that carry `tag`, in order.

    Raises:
        UserError: an unreadable notebook.
    """
    return [cell.source for cell in read_notebook(path).cells if tag in tags_of(cell)]


def challenge_note(path: Path | str) -> str:
    """The markdown of the notebook's challenge cell.

    Raises:
        UserError: an unreadable notebook, or not exactly one cell tagged `challenge`.
    """
    notes = cell_sources(path, "challenge")
    if len(notes) != 1:
        raise UserError(f"{shown(path)}: needs one cell tagged 'challenge', has {len(notes)}")
    return notes[0]
