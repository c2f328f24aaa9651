"""What the book publishes of each paper: its record, its notebook, and the claims and results in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook
from ..claims import CLAIM_MIME, RESULTS_MIME
from .executions import Execution, best_execution


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
        """The number of figures among the outputs."""
        return sum(any(mime.startswith("image/") for mime in data) for data in _bundles(self.notebook))


def read_published(root: Path) -> list[Published]:
    """All papers in the tables' order.

    Raises:
        UserError: a notebook, the profiles or an executed notebook's key cannot be read.
    """
    return [_published(root, paper) for paper in read_papers(root)]


def _published(root: Path, paper: Paper) -> Published:
    best = best_execution(root, paper) if paper.record.method is not None else None
    execution, current = best or (None, False)
    notebook = read_notebook(execution.path if execution else paper.path)
    bundles = _bundles(notebook)
    return Published(
        paper,
        notebook,
        execution,
        current,
        [data[CLAIM_MIME] for data in bundles if CLAIM_MIME in data],
        [data[RESULTS_MIME] for data in bundles if RESULTS_MIME in data],
    )


def _bundles(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The outputs of the notebook that have data: MIME type -> content."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data for output in outputs if "data" in output]
