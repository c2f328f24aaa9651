"""What can be run: the papers' notebooks, and the pages of `concepts/` that are text notebooks."""

import ast
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook, tags_of
from .text_notebooks import SOURCE_MAP, is_text_notebook, read_text_notebook

_PAGES = "concepts"


@dataclass(frozen=True)
class Runnable:
    """A notebook of the book.

    Attributes:
        name: slug of a paper, or path of a page in the book without its ending, e.g.
            `concepts/evaluation`.
        path: source of the notebook, `.ipynb` or `.md`.
        implemented: False for a paper that the library does not implement; it is not run.
    """

    name: str
    path: Path
    implemented: bool = True

    @property
    def is_text(self) -> bool:
        """Whether the source is a page with code cells."""
        return self.path.suffix == ".md"

    def read(self) -> nbformat.NotebookNode:
        """The source as a notebook.

        Raises:
            UserError: it cannot be read.
        """
        if self.is_text:
            return read_text_notebook(self.path, f"{self.name}.md")
        return read_notebook(self.path)


def of_paper(paper: Paper) -> Runnable:
    """The notebook of a paper."""
    return Runnable(paper.slug, paper.path, paper.record.is_implemented)


def read_pages(root: Path) -> list[Runnable]:
    """The pages of `concepts/` that are text notebooks, by name.

    Raises:
        UserError: a page cannot be read.
    """
    pages = {}
    for path in (root / _PAGES).rglob("*.md"):
        name = path.relative_to(root).with_suffix("").as_posix()
        if is_text_notebook(path, f"{name}.md"):
            pages[name] = Runnable(name, path)
    return [pages[name] for name in sorted(pages)]


def read_runnables(root: Path) -> list[Runnable]:
    """The papers in the order of the tables, then the pages.

    Raises:
        UserError: a notebook or a page cannot be read.
    """
    return [*map(of_paper, read_papers(root)), *read_pages(root)]


def place(notebook: nbformat.NotebookNode, cell: int) -> str:
    """The place of a cell in its source: `cell 5`, or in a page the line of its fence, `cell at
    line 42`.

    Args:
        notebook: the source.
        cell: index of the cell.
    """
    lines = notebook.metadata.get(SOURCE_MAP)
    if lines:
        return f"cell at line {lines[cell]}"
    return f"cell {cell}"


def assigned_parameters(notebook: nbformat.NotebookNode) -> set[str]:
    """The names that the cells tagged `parameters` assign; none if one of them is no Python."""
    cells = [cell.source for cell in notebook.cells if "parameters" in tags_of(cell)]
    try:
        body = ast.parse("\n".join(cells)).body
    except SyntaxError:  # the cell fails with the same error when it is run
        return set()
    targets = []
    for node in body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}
