"""Checking the catalogue: every notebook's record and anatomy, table of contents, generated tables."""

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from ..errors import UserError
from ..files import write_atomic
from .reader import Paper, in_order, notebook_paths, read_notebook, record_of, shown, tags_of
from .schema import Record, RecordError
from .tables import challenge_notes, papers_table

# The anatomy of a notebook: tag -> cell type, in order.
ANATOMY = {
    "record": "raw",
    "challenge": "markdown",
    "method": "markdown",
    "parameters": "code",
    "source": "code",
    "run": "code",
    "figure": "code",
    "claims": "code",
    "see-also": "markdown",
}
_REPEATABLE = ("source", "run", "figure", "claims")


@dataclass(frozen=True)
class Problem:
    """A fault of the catalogue: the file, relative to the book's folder, and one line about it."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def check(root: Path | str, write: bool = False) -> list[Problem]:
    """Everything that is wrong with the catalogue of the book at `root`, file by file.

    The README's table and the challenge page are compared only where all records can be read.

    Args:
        root: the book's folder.
        write: bring the README's table and the challenge page up to date, not report them as stale.
    Raises:
        UserError: a file cannot be written, or the method registry cannot be read.
    """
    root = Path(root)
    methods = method_names()
    problems, papers = [], []
    paths = notebook_paths(root)
    for path in paths:
        record, faults = _notebook(path, methods)
        problems += [Problem(shown(path), fault.removeprefix(f"{shown(path)}: ")) for fault in faults]
        if record is not None:
            papers.append(Paper(path, record))
    problems += _contents(root, paths)
    problems += _anchors(papers)
    if len(papers) == len(paths):
        papers = in_order(papers)
        problems += _generated(root, "README.md", papers_table, papers, write)
        problems += _generated(root, "challenge/challenge.md", challenge_notes, papers, write)
    return problems


def method_names(path: Path | None = None) -> list[str]:
    """The names of the methods: the keys of `REGISTRY` in `prunebook/methods`, read without running it.

    Raises:
        UserError: the file cannot be read or defines no `REGISTRY` dict.
    """
    path = path or Path(__file__).parents[1] / "methods" / "__init__.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read the method registry {path}: {error}") from error
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "REGISTRY" for target in targets):
            return [ast.literal_eval(key) for key in node.value.keys]
    raise UserError(f"{path} defines no REGISTRY")


def _notebook(path: Path, methods: Sequence[str]) -> tuple[Record | None, list[str]]:
    """The notebook's record, None if it has no valid one, and the notebook's faults."""
    try:
        notebook = read_notebook(path)
    except UserError as error:
        return None, [str(error)]
    record, faults = None, []
    try:
        record = record_of(notebook, path)
    except RecordError as error:
        faults += error.problems
    except UserError as error:
        faults.append(str(error))
    if record is not None and record.method is not None and record.method not in methods:
        allowed = ", ".join([*methods, "null"])
        faults.append(f"paper.method: {record.method!r} is no method; allowed: {allowed}")
    return record, [*faults, *_anatomy(notebook, record)]


def _anatomy(notebook: nbformat.NotebookNode, record: Record | None) -> Iterator[str]:
    """Faults of the notebook's cells: order, tags, types, outputs."""
    cells = notebook.cells
    if len(cells) < 2 or cells[1].cell_type != "markdown" or not cells[1].source.startswith("# "):
        yield "cell 1 must be a markdown cell with the title, '# ...'"
    order, found = list(ANATOMY), []
    for index, cell in enumerate(cells):
        tags = [tag for tag in tags_of(cell) if tag in ANATOMY]
        if len(tags) > 1:
            yield f"cell {index}: more than one of the tags {', '.join(tags)}"
        elif not tags and index > 0 and cell.cell_type != "markdown":
            allowed = ", ".join(tag for tag, cell_type in ANATOMY.items() if cell_type == cell.cell_type)
            yield f"cell {index}: a {cell.cell_type} cell without a tag; allowed: {allowed}"
        for tag in tags:
            if cell.cell_type != ANATOMY[tag]:
                yield f"cell {index}: a cell tagged '{tag}' must be {ANATOMY[tag]}, not {cell.cell_type}"
            if found and order.index(tag) < order.index(found[-1]):
                yield f"cell {index}: '{tag}' comes after '{found[-1]}'; the order is {', '.join(order)}"
            found.append(tag)
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            yield f"cell {index}: has outputs or an execution count; strip them"
    for tag, count in Counter(found).items():
        if count > 1 and tag not in _REPEATABLE:
            yield f"{count} cells tagged '{tag}'; one is allowed"
    runs = record is not None and record.method is not None
    for tag, cell_type in ANATOMY.items():
        if tag not in found and tag != "record" and (runs or cell_type != "code"):
            yield f"no cell tagged '{tag}'"
    if "see-also" in found and "see-also" not in tags_of(cells[-1]):
        yield "the cell tagged 'see-also' must be the last"


def _contents(root: Path, paths: Sequence[Path]) -> Iterator[Problem]:
    """Notebooks missing in the table of contents, and entries without a notebook."""
    try:
        contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        yield Problem("_toc.yml", "cannot be read: " + " ".join(str(error).split()))
        return
    listed = {Path(file).stem for file in _files(contents) if Path(file).parent == Path("papers")}
    slugs = {path.stem for path in paths}
    for slug in sorted(slugs - listed):
        yield Problem("_toc.yml", f"does not list papers/{slug}")
    for slug in sorted(listed - slugs):
        yield Problem("_toc.yml", f"lists papers/{slug}, which has no notebook")


def _files(contents) -> Iterator[str]:
    """Every `file:` of a table of contents, at any depth."""
    if isinstance(contents, dict):
        if isinstance(contents.get("file"), str):
            yield contents["file"]
        contents = list(contents.values())
    if isinstance(contents, list):
        for item in contents:
            yield from _files(item)


def _anchors(papers: Sequence[Paper]) -> Iterator[Problem]:
    first = {}
    for paper in papers:
        owner = first.setdefault(paper.record.challenge, paper)
        if owner is not paper:
            taken = shown(owner.path)
            message = f"paper.challenge: {paper.record.challenge!r} is already the anchor of {taken}"
            yield Problem(shown(paper.path), message)


def _generated(
    root: Path, file: str, render: Callable[[str, Sequence[Paper]], str], papers: Sequence[Paper], write: bool
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
