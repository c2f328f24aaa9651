"""Checking the catalogue: records, cells, links, methods, concept pages, contents and tables."""

import ast
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from ..errors import UserError
from ..files import write_atomic
from . import anatomy, contents, links, page_rules, placeholders
from .reader import Paper, in_order, notebook_paths, read_notebook, record_data, record_of, shown
from .registry import METHODS, Entry, places, read_registry
from .schema import Record, RecordError
from .tables import challenge_notes, papers_table

# field that no two papers share -> what it is
_UNIQUE = {"challenge": "the anchor", "arxiv": "the arXiv id", "openreview": "the OpenReview id"}
_WAITS = "waits until every record is sound and filled in; `prunebook check` lists what is missing"


@dataclass(frozen=True)
class Problem:
    """A fault of the catalogue: the file, relative to the book's folder, and one line about it."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass
class _Read:
    """What reading a notebook gave.

    Attributes:
        record: the record; None if it is not valid.
        method: the method that the record names, valid or not.
        runs: whether it names a method or an implementation, valid or not.
        open_places: a line for each place that is still to be filled in.
        faults: a line for each other fault.
    """

    record: Record | None = None
    method: str | None = None
    runs: bool = False
    open_places: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check(
    root: Path | str,
    names: Sequence[str] = (),
    write: bool = False,
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Problem]:
    """Everything that is wrong with the catalogue of a book, file by file.

    The README's table and the challenge page are compared where all records are filled in.

    Args:
        root: the book's folder.
        names: check these papers only, no concept page, and generated tables only to write them.
        write: mend what needs no author: strip outputs, bring the generated tables up to date.
        counts: slug -> verdict -> number of the paper's own claims, for the README's table.

    Raises:
        UserError: an unknown name, a file that cannot be written, or an unreadable method registry.
    """
    root = Path(root)
    registry = read_registry(root)
    paths = notebook_paths(root)
    slugs = [path.stem for path in paths]
    _check_names(names, slugs)
    problems = []
    papers = []
    drafts = False
    for path in paths:
        if write and (not names or path.stem in names):
            _strip(path)
        read = _read(path, registry)
        drafts = drafts or bool(read.open_places)
        if read.record is not None:
            papers.append(Paper(path, read.record))
        if not names or path.stem in names:
            problems += [Problem(shown(path), fault) for fault in [*read.faults, *read.open_places]]
            problems += _method(root, read.method, registry)
            problems += _implementation(root, read.record)
    if not names:
        problems += _concept_pages(root)
    problems += _contents(root, slugs, names)
    problems += [
        problem for problem in _taken(papers) if not names or Path(problem.file).stem in names
    ]
    if len(papers) < len(paths) or drafts:
        if names and write:
            problems.append(Problem("README.md", _WAITS))
    elif write or not names:
        problems += _tables(root, papers, write, counts)
    return problems


def _tables(
    root: Path,
    papers: Sequence[Paper],
    write: bool,
    counts: Mapping[str, Mapping[str, int]] | None,
) -> Iterator[Problem]:
    """What is wrong with the generated tables; arguments as for `check`."""
    papers = in_order(papers)
    table = functools.partial(papers_table, counts=counts)
    yield from _generated(root, "README.md", table, papers, write)
    yield from _generated(root, "challenge/challenge.md", challenge_notes, papers, write)


def _check_names(names: Sequence[str], slugs: Sequence[str]) -> None:
    """Refuse a name that is no paper's slug."""
    for name in names:
        if name not in slugs:
            allowed = ", ".join(slugs) or "none, the book is empty"
            raise UserError(f"unknown paper {name!r}; allowed: {allowed}")


def _read(path: Path, registry: Mapping[str, Entry]) -> _Read:
    """Read and check one notebook."""
    try:
        notebook = read_notebook(path)
    except UserError as error:
        return _Read(faults=[_without_file(error, path)])
    read = _read_record(notebook, path)
    if read.method is not None and read.method not in registry:
        allowed = ", ".join([*registry, "null"])
        read.faults.append(f"paper.method: {read.method!r} is no method; allowed: {allowed}")
    if read.record is not None:
        read.faults += links.record_link_faults(read.record)
    read.faults += anatomy.cell_faults(notebook, read.runs)
    if read.record is not None:
        read.faults += page_rules.rule_faults(notebook, read.record)
    read.faults += links.cell_link_faults(notebook, path)
    read.open_places += placeholders.cell_faults(notebook)
    return read


def _read_record(notebook: nbformat.NotebookNode, path: Path) -> _Read:
    """The notebook's record with its faults; one that is not valid yet can name what it runs."""
    read = _Read()
    open_fields = {}
    try:
        data = record_data(notebook, path)
        open_fields = dict(placeholders.field_faults(data))
        read.open_places = list(open_fields.values())
        if isinstance(data, dict) and isinstance(data.get("method"), str):
            read.method = data["method"]
        if isinstance(data, dict):
            read.runs = read.method is not None or isinstance(data.get("implementation"), str)
        read.record = record_of(notebook, path)
    except RecordError as error:
        # What is still to be filled in is told once, as an open place.
        read.faults = [
            fault for fault in error.problems if fault.partition(": ")[0] not in open_fields
        ]
    except UserError as error:
        read.faults = [_without_file(error, path)]
    return read


def _strip(path: Path) -> None:
    """Rewrite a notebook that has outputs without them; an unreadable one is left to its faults."""
    try:
        notebook = read_notebook(path)
    except UserError:  # reported when it is checked
        return
    if anatomy.strip(notebook):
        write_atomic(path, nbformat.writes(notebook) + "\n")


def _without_file(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{shown(path)}: ")


def _method(root: Path, name: str | None, registry: Mapping[str, Entry]) -> Iterator[Problem]:
    """Faults of a method's files: one is missing, the class is, or a place is to be filled in."""
    if name not in registry or not (root / METHODS).is_dir():
        return
    entry = registry[name]
    for file in (entry.source, entry.test):
        if not (root / file).is_file():
            yield Problem(str(file), f"is missing: method {name!r} needs its source and its test")
            continue
        try:
            text = (root / file).read_text(encoding="utf-8")
            defined = {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
        except (OSError, ValueError, SyntaxError) as error:
            yield Problem(str(file), f"cannot be read: {' '.join(str(error).split())}")
            continue
        if file == entry.source and entry.class_name not in defined:
            yield Problem(
                str(file), f"defines no class {entry.class_name}, which REGISTRY names for {name!r}"
            )
        for fault in placeholders.line_faults(text):
            yield Problem(str(file), fault)


def _implementation(root: Path, record: Record | None) -> Iterator[Problem]:
    """Faults of the files of the module that a record names: one is missing."""
    if record is None or record.implementation is None or not (root / METHODS).is_dir():
        return
    _, room, module = record.implementation.split(".", 2)
    for file in places(room, module):
        if not (root / file).is_file():
            words = f"implementation {record.implementation} needs its source and its test"
            yield Problem(str(file), f"is missing: {words}")


def _concept_pages(root: Path) -> Iterator[Problem]:
    """Faults in the code of the concept pages, or a page that cannot be read."""
    for path in sorted((root / "concepts").glob("**/*.md")):
        name = path.relative_to(root).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            yield Problem(name, f"cannot be read: {error}")
            continue
        for fault in page_rules.text_page_faults(text):
            yield Problem(name, fault)


def _contents(root: Path, slugs: Sequence[str], names: Sequence[str]) -> Iterator[Problem]:
    """Notebooks missing in the table of contents, and entries without a notebook.

    Args:
        root: the book's folder.
        slugs: the papers that have a notebook.
        names: report these papers only; none: all.
    """
    try:
        listed = contents.listed_papers((root / contents.FILE).read_text(encoding="utf-8"))
    except OSError as error:
        yield Problem(contents.FILE, f"cannot be read: {error.strerror}")
        return
    except ValueError as error:  # no UTF-8, no YAML
        yield Problem(contents.FILE, str(error).removeprefix(f"{contents.FILE}: "))
        return
    for slug in sorted({*slugs} - {*listed}):
        if not names or slug in names:
            yield Problem(
                contents.FILE, f"does not list papers/{slug}; add the line `- file: papers/{slug}`"
            )
    if not names:
        for slug in sorted({*listed} - {*slugs}):
            yield Problem(
                contents.FILE, f"lists papers/{slug}, which has no notebook; remove the line"
            )


def _taken(papers: Sequence[Paper]) -> Iterator[Problem]:
    """Anchors and ids that two papers have."""
    for name, words in _UNIQUE.items():
        owners = {}
        for paper in papers:
            value = getattr(paper.record, name)
            if value is not None:
                owners.setdefault(value, []).append(paper)
        for value, (first, *others) in owners.items():
            for paper in others:
                message = f"paper.{name}: {value!r} is already {words} of {shown(first.path)}"
                yield Problem(shown(paper.path), message)


def _generated(
    root: Path,
    file: str,
    render: Callable[[str, Sequence[Paper]], str],
    papers: Sequence[Paper],
    write: bool,
) -> Iterator[Problem]:
    """Compare `file` with what `render` makes of it, or write that."""
    try:
        text = (root / file).read_text(encoding="utf-8")
        fresh = render(text, papers)
    except OSError as error:
        yield Problem(file, f"cannot be read: {error.strerror}")
        return
    except UserError as error:
        yield Problem(file, str(error).removeprefix(f"{file}: "))
        return
    if fresh == text:
        return
    if write:
        write_atomic(root / file, fresh)
    else:
        yield Problem(file, "does not match the notebooks; run `prunebook check --write`")
