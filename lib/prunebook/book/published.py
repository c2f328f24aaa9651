"""What the book publishes: each paper with its notebook, claims and results, and each page with code cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook
from ..claims import CLAIM_MIME, RESULTS_MIME
from .executions import Execution, best_execution
from .runnables import Runnable, of_paper, read_pages
from .text_notebooks import front_matter


@dataclass(frozen=True)
class Published:
    """A paper and its notebook: executed, or as in the sources where `execution` is None.

    `current` is False where the notebook, the library or the profile has changed since the execution.
    """

    paper: Paper
    notebook: nbformat.NotebookNode
    execution: Execution | None
    current: bool
    claims: list[dict[str, Any]]
    results: list[dict[str, Any]]

    @property
    def images(self) -> int:
        """The number of figures that the outputs show."""
        return _images(self.notebook)


@dataclass(frozen=True)
class PublishedPage:
    """A page of `concepts/` that is a text notebook: its name, its front matter, the rest as in `Published`."""

    name: str
    settings: dict[str, Any]
    notebook: nbformat.NotebookNode
    execution: Execution | None
    current: bool

    @property
    def images(self) -> int:
        """The number of figures that the outputs show."""
        return _images(self.notebook)

    @property
    def tables(self) -> int:
        """The number of outputs that show tables."""
        return sum("<table" in data.get("text/html", "") for data in _bundles(self.notebook))


def read_published(root: Path) -> list[Published]:
    """All papers in the tables' order.

    Raises:
        UserError: a notebook or the profiles cannot be read.
    """
    return [_published(root, paper) for paper in read_papers(root)]


def read_published_pages(root: Path) -> list[PublishedPage]:
    """All pages that are text notebooks, by name; errors as `read_published`."""
    return [
        PublishedPage(page.name, front_matter(page.path, f"{page.name}.md"), *_latest(root, page))
        for page in read_pages(root)
    ]


def _published(root: Path, paper: Paper) -> Published:
    notebook, execution, current = _latest(root, of_paper(paper))
    bundles = _bundles(notebook)
    return Published(
        paper,
        notebook,
        execution,
        current,
        [data[CLAIM_MIME] for data in bundles if CLAIM_MIME in data],
        [data[RESULTS_MIME] for data in bundles if RESULTS_MIME in data],
    )


def _latest(root: Path, runnable: Runnable) -> tuple[nbformat.NotebookNode, Execution | None, bool]:
    """The notebook to publish, its execution if it has one, and whether that is up to date."""
    best = best_execution(root, runnable) if runnable.implemented else None
    if best is None:
        return runnable.read(), None, False
    execution, current = best
    return read_notebook(execution.path), execution, current


def _bundles(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The outputs of the notebook that have data: MIME type -> content."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data for output in outputs if "data" in output]


def _images(notebook: nbformat.NotebookNode) -> int:
    return sum(any(mime.startswith("image/") for mime in data) for data in _bundles(notebook))
