"""What the book publishes: each paper with its notebook, claims and results, and each page with
code cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook
from ..notebook.claims import CLAIM_MIME, QUICK, RESULTS_MIME
from ..runs.executed import Execution, best_execution
from ..runs.notebooks import Runnable, of_paper, read_pages
from ..runs.records import Run, best_runs
from ..runs.text_notebooks import front_matter
from .verdicts import shown_claims, with_verdicts


@dataclass(frozen=True)
class Published:
    """A paper and its notebook: executed, or as in the sources where `execution` is None.

    `current` is False where the notebook, the library or the profile has changed since the
    execution. `claims` have the verdicts that pages show; `results` are the tables of the
    execution. `record` is the recorded run that verdicts come from where the execution judges
    nothing or is missing.
    """

    paper: Paper
    notebook: nbformat.NotebookNode
    execution: Execution | None
    current: bool
    claims: list[dict[str, Any]]
    results: list[dict[str, Any]]
    record: Run | None = None

    @property
    def judges(self) -> bool:
        """Did the execution judge the claims? A quick run does not, nor does none."""
        return self.execution is not None and self.execution.profile != QUICK

    @property
    def judged_results(self) -> list[dict[str, Any]]:
        """The tables that boards may show: those of an execution that judges, or of the record."""
        if self.judges:
            return self.results
        return self.record.results if self.record else []

    @property
    def images(self) -> int:
        """The number of figures that the outputs show."""
        return _images(self.notebook)


@dataclass(frozen=True)
class PublishedPage:
    """A page of `concepts/` that is a text notebook: its name, its front matter, the rest as in
    `Published`."""

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
    records = best_runs(root)
    return [_published(root, paper, records.get(paper.slug)) for paper in read_papers(root)]


def read_published_pages(root: Path) -> list[PublishedPage]:
    """All pages that are text notebooks, by name; errors as `read_published`."""
    return [
        PublishedPage(page.name, front_matter(page.path, f"{page.name}.md"), *_latest(root, page))
        for page in read_pages(root)
    ]


def _published(root: Path, paper: Paper, record: Run | None) -> Published:
    notebook, execution, current = _latest(root, of_paper(paper))
    bundles = _bundles(notebook)
    claims = [data[CLAIM_MIME] for data in bundles if CLAIM_MIME in data]
    results = [data[RESULTS_MIME] for data in bundles if RESULTS_MIME in data]
    if execution is not None and execution.profile != QUICK:
        return Published(paper, notebook, execution, current, claims, results)
    claims = shown_claims(claims, record)
    if execution is not None:
        notebook = with_verdicts(notebook, claims)
    return Published(paper, notebook, execution, current, claims, results, record)


def _latest(root: Path, runnable: Runnable) -> tuple[nbformat.NotebookNode, Execution | None, bool]:
    """The notebook to publish, its execution if it has one, and whether that is up to date."""
    best = best_execution(root, runnable) if runnable.implemented else None
    if best is None:
        return runnable.read(), None, False
    execution, current = best
    return read_notebook(execution.path), execution, current


def _bundles(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The outputs of the notebook that have data: MIME type -> content."""
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    return [output.data for output in outputs if "data" in output]


def _images(notebook: nbformat.NotebookNode) -> int:
    return sum(any(mime.startswith("image/") for mime in data) for data in _bundles(notebook))
