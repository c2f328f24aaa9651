"""A new paper from the template: notebook, contents, and for a method its source, test and registry
entry.

What only a reader of the paper can write is left as `FILL-IN`, which `prunebook check` refuses. All
files are written or none.
"""

import contextlib
import datetime
import keyword
import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from ..errors import UserError
from ..files import write_atomic
from . import contents
from .fields import SLUG
from .metadata import ARXIV_ID, OPENREVIEW_ID
from .placeholders import MARK
from .reader import (
    Paper,
    find_paper,
    in_order,
    read_notebook,
    read_papers,
    record_data,
    record_of,
    tags_of,
)
from .registry import FILE, METHODS, TESTS, read_registry, with_method
from .schema import Record, parse_record
from .tables import as_markdown
from .vocabulary import VOCABULARY

_TEMPLATE = Path(__file__).parent / "template"
_LONGEST_CLASS = 24
_RECORD_CELLS = ("record", "title", "challenge", "method", "see-also")


@dataclass(frozen=True)
class Draft:
    """What is known of a paper before its notebook is written.

    `identifier` is an arXiv or OpenReview id; `short` None stands for the title up to its colon;
    `tags` holds the values by facet, as far as they are known.
    """

    identifier: str
    slug: str
    title: str
    authors: Sequence[str]
    year: int
    venue: str
    kind: str
    short: str | None
    tags: Mapping[str, Sequence[str]]


def check_new(root: Path, identifier: str, slug: str, record_only: bool) -> list[Paper]:
    """Refuse what cannot become a new paper of the book at `root`; its papers, if it can.

    Raises:
        UserError: a malformed id or slug, one that the book has already, or a method that cannot be
            added.
    """
    if not (ARXIV_ID.fullmatch(identifier) or OPENREVIEW_ID.fullmatch(identifier)):
        allowed = (
            "an arXiv id without version, as 2306.11695, or an OpenReview forum id, as PxoFut3dWW"
        )
        raise UserError(f"{identifier!r} is no id of a paper; allowed: {allowed}")
    if not re.fullmatch(SLUG, slug):
        raise UserError(
            f"slug {slug!r} must be lower-case letters, digits and single dashes, as deeper-layers"
        )
    if (root / "papers" / f"{slug}.ipynb").exists():
        raise UserError(
            f"papers/{slug}.ipynb exists already; choose another --slug, or correct that notebook"
        )
    papers = read_papers(root)
    for paper in papers:
        if identifier in (paper.record.arxiv, paper.record.openreview):
            raise UserError(f"{identifier} is in the book already: papers/{paper.path.name}")
    if not record_only:
        _check_method(root, slug)
    return papers


def new_paper(root: Path, draft: Draft, record_only: bool) -> list[Path]:
    """Write the notebook of a new paper, its line in the contents and, if asked, the files of its
    method.

    Returns:
        What was written, relative to `root`.

    Raises:
        UserError: as `check_new`, a record that breaks the schema, a contents file that cannot be
            extended, or a file that cannot be written; then nothing has changed.
    """
    papers = check_new(root, draft.identifier, draft.slug, record_only)
    path = root / "papers" / f"{draft.slug}.ipynb"
    values = _record_values(draft, None if record_only else draft.slug)
    record = _read_draft(_render(_cells()["record"].source, values), path)
    cells = _filled(record, _cells(record_only), values)
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    order = in_order([*papers, Paper(path, record)])
    later = [paper.slug for paper in order[[paper.slug for paper in order].index(draft.slug) + 1 :]]
    listed = contents.with_paper(
        (root / contents.FILE).read_text(encoding="utf-8"), draft.slug, later
    )
    files = {path: nbformat.writes(notebook) + "\n", root / contents.FILE: listed}
    if not record_only:
        files |= _method_files(root, record, draft.tags)
    return _write_together(root, files)


def add_method(root: Path, slug: str) -> list[Path]:
    """Write the files of a method for a paper of the book that has none, and the code cells of its
    notebook.

    Returns:
        What was written, relative to `root`.

    Raises:
        UserError: an unknown paper, one that has a method, or as `new_paper`; then nothing has
            changed.
    """
    paper = find_paper(root, slug)
    if paper.record.method is not None:
        raise UserError(f"{slug} has a method already: {paper.record.method}")
    _check_method(root, slug)
    notebook = read_notebook(paper.path)
    first = notebook.cells[0]
    last = notebook.cells[-1]
    first.source = re.sub(r"(?m)^(\s+method:).*$", rf"\1 {slug}", first.source)
    record = record_of(notebook, paper.path)
    if record.method != slug or "see-also" not in tags_of(last):
        raise UserError(
            f"papers/{slug}.ipynb: needs the line `method: null` and 'see-also' as its last cell"
        )
    code = {name: cell for name, cell in _cells().items() if name not in _RECORD_CELLS}
    notebook.cells[-1:] = [*_filled(record, code, {}), last]
    tags = {name: facet.values for name, facet in record.facets().items()}
    files = {paper.path: nbformat.writes(notebook) + "\n", **_method_files(root, record, tags)}
    return _write_together(root, files)


def _check_method(root: Path, slug: str) -> None:
    """Refuse a method that has no place in the library."""
    if not (root / METHODS / FILE).is_file():
        raise UserError(
            f"no library at {root / METHODS}: a method needs a clone of the repository; try "
            "--record-only"
        )
    module = _module(slug)
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UserError(
            f"slug {slug!r} cannot name a Python module; begin it with a letter, and use no keyword"
        )
    if slug in read_registry(root):
        raise UserError(f"method {slug!r} exists already; choose another --slug")
    for file in (METHODS / f"{module}.py", TESTS / f"test_{module}.py"):
        if (root / file).exists():
            raise UserError(f"{file} exists already; choose another --slug")


def _module(slug: str) -> str:
    return slug.replace("-", "_")


def _class_name(record: Record) -> str:
    """The short name as a class's name, or the slug where that is none."""
    name = re.sub("[^0-9A-Za-z]+", "", record.short)
    if not name[:1].isalpha() or len(record.short) > _LONGEST_CLASS:
        name = "".join(part[:1].upper() + part[1:] for part in record.slug.split("-"))
    return name[0].upper() + name[1:]


def _cells(record_only: bool = False) -> dict[str, nbformat.NotebookNode]:
    """The cells of the template by id, not filled in."""
    make = {
        "raw": nbformat.v4.new_raw_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "code": nbformat.v4.new_code_cell,
    }
    text = (_TEMPLATE / "notebook.txt").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^=== (raw|markdown|code) (\S+) (\S+)\n", text)[1:]
    cells = {}
    for kind, tag, name, source in zip(*(iter(parts),) * 4, strict=True):
        if not record_only or name in _RECORD_CELLS:
            metadata = {} if tag == "-" else {"tags": [tag]}
            cells[name] = make[kind](source.strip("\n"), metadata=metadata, id=name)
    return cells


def _render(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _record_values(draft: Draft, method: str | None) -> dict[str, str]:
    """What the template's record is filled with, as YAML."""
    on_arxiv = ARXIV_ID.fullmatch(draft.identifier) is not None
    title, short, venue, *authors = (
        " ".join(text.split())
        for text in (draft.title, draft.short or "", draft.venue, *draft.authors)
    )
    fields = {
        "slug": draft.slug,
        "title": title,
        "short": short or title.partition(":")[0],
        "authors": authors,
        "year": draft.year,
        "venue": {"name": venue, "year": draft.year, "kind": draft.kind},
        "arxiv": draft.identifier if on_arxiv else None,
        "openreview": None if on_arxiv else draft.identifier,
        "added": datetime.date.today(),
        "method": method,
    }
    return {
        **{name: _yaml(value) for name, value in fields.items()},
        "tags": "\n".join(_tag_lines(draft.tags)),
    }


def _tag_lines(tags: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for facet, allowed in VOCABULARY.items():
        values = list(tags.get(facet, ())) or [f"{MARK}: one or more of {', '.join(allowed)}"]
        yield f"    {facet}: {{values: {_yaml(values)}}}"


def _yaml(value: Any) -> str:
    """The value on one line, for a place inside a document."""
    text = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    )
    return text.strip()[1:-1]


def _read_draft(source: str, path: Path) -> Record:
    """The record in a cell; what is to be filled in stands for any allowed value."""
    cell = nbformat.v4.new_raw_cell(source, metadata={"tags": ["record"]})
    data = record_data(nbformat.v4.new_notebook(cells=[cell]), path)
    tags = {facet: {"values": [VOCABULARY[facet][0]]} for facet in VOCABULARY}
    return parse_record({**data, "code": None, "tags": tags}, "the record")


def _filled(
    record: Record, cells: Mapping[str, nbformat.NotebookNode], values: Mapping[str, str]
) -> list[nbformat.NotebookNode]:
    """The cells of the template, filled in with the record and with `values`."""
    values = {**values, "class": _class_name(record), "url": record.url}
    for name, cell in cells.items():
        cell.source = _render(cell.source, {**values, "heading": as_markdown(record.heading)})
        if name == "record":
            cell.source = cell.source.strip()
    return list(cells.values())


def _method_files(root: Path, record: Record, tags: Mapping[str, Sequence[str]]) -> dict[Path, str]:
    """Path -> text of the method's source, its test and the registry with it."""
    module = _module(record.slug)
    class_name = _class_name(record)
    registry = root / METHODS / FILE
    facets = {
        name: list(tags.get(name, ())) or [f"{MARK}: as in the record"]
        for name in ("type", "criteria", "weight")
    }
    quoted = {name: ", ".join(f'"{value}"' for value in values) for name, values in facets.items()}
    values = {
        "slug": record.slug,
        "module": module,
        "class": class_name,
        "reference": _reference(record),
        "facets": "\n".join(f'        "{name}": [{values}],' for name, values in quoted.items()),
    }
    return {
        root / METHODS / f"{module}.py": _render(
            (_TEMPLATE / "method.txt").read_text(encoding="utf-8"), values
        ),
        root / TESTS / f"test_{module}.py": _render(
            (_TEMPLATE / "test.txt").read_text(encoding="utf-8"), values
        ),
        registry: with_method(
            registry.read_text(encoding="utf-8"), record.slug, module, class_name
        ),
    }


def _reference(record: Record) -> str:
    """The paper as a docstring cites it: `Sun et al., A Simple and ... (arXiv 2306.11695)`."""
    names = [author.split()[-1] for author in record.authors]
    people = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    place = f"arXiv {record.arxiv}" if record.arxiv else f"OpenReview {record.openreview}"
    text = f"{people}, {record.title} ({place})".replace("\\", r"\\").replace('"""', "'''")
    return textwrap.fill(text, width=115, break_long_words=False)


def _write_together(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Write all files or none: each under a temporary name, then renamed; on failure what was
    renamed is put back.

    Raises:
        UserError: a file cannot be written.
    """
    staged = {}
    kept = {}
    done = []
    try:
        for path, text in files.items():
            staged[path] = write_atomic(path.with_name(f".{path.name}.new"), text)
            if path.exists():
                kept[path] = write_atomic(path.with_name(f".{path.name}.old"), path.read_bytes())
        for path, temporary in staged.items():
            os.replace(temporary, path)
            done.append(path)
    except BaseException as error:
        for path in done:
            if path in kept:
                os.replace(kept[path], path)
            else:
                path.unlink()
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write {error.filename2 or error.filename}: {error.strerror}"
            ) from error
        raise
    finally:
        for temporary in (*staged.values(), *kept.values()):
            with contextlib.suppress(FileNotFoundError):  # renamed already
                temporary.unlink()
    return [path.relative_to(root) for path in files]
