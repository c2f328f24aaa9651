"""What the book publishes: papers with notebook, claims and results, and pages with code cells."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Paper, read_papers
from ..catalog.reader import read_notebook
from ..notebook.claims import CLAIM_MIME
from ..notebook.quick import QUICK
from ..notebook.results import RESULTS_MIME
from ..runs.executed import Execution, best_execution
from ..runs.notebooks import Runnable, of_paper, read_pages
from ..runs.quick_rows import bundles_of, fingerprint, first_change, outputs_of, read_quick_run
from ..runs.records import Run, ranked, run_of, runs_by_paper
from ..runs.text_notebooks import front_matter
from .verdicts import shown_claims, with_verdicts


@dataclass(frozen=True)
class Published:
    """A paper and its notebook.

    Attributes:
        paper: the paper with its record.
        source: the notebook as it stands in the sources.
        notebook: the notebook to show: the executed one, or the source where it was not executed.
        execution: how the notebook was executed; None where it was not.
        current: False where the notebook, the library or the profile has changed since then.
        claims: the claims with the verdicts that pages show.
        results: the tables of the execution.
        runs: the runs that judge, the one with the most power first: those on record, and that of
            the execution if it judges and is none of them.
        changes: file of a recorded run -> what has changed since it was recorded.
    """

    paper: Paper
    source: nbformat.NotebookNode
    notebook: nbformat.NotebookNode
    execution: Execution | None
    current: bool
    claims: list[dict[str, Any]]
    results: list[dict[str, Any]]
    runs: tuple[Run, ...] = ()
    changes: dict[str, str] = field(default_factory=dict)

    @property
    def judges(self) -> bool:
        """Did the execution judge the claims? A quick run does not."""
        return self.execution is not None and self.execution.profile != QUICK

    @property
    def judged_results(self) -> list[dict[str, Any]]:
        """The tables of the run with the most power; none where no run judges."""
        if self.runs:
            return self.runs[0].results
        if self.judges:
            return self.results
        return []

    @property
    def images(self) -> int:
        """The number of figures that the outputs show."""
        return _count_images(self.notebook)


@dataclass(frozen=True)
class PublishedPage:
    """A page of `concepts/` that is a text notebook.

    Attributes:
        name: the page's path in the book without its ending, e.g. `concepts/evaluation`.
        settings: the page's front matter.
        notebook: the notebook to show, as in `Published`.
        execution: how the notebook was executed; None where it was not.
        current: False where the page, the library or the profile has changed since then.
    """

    name: str
    settings: dict[str, Any]
    notebook: nbformat.NotebookNode
    execution: Execution | None
    current: bool

    @property
    def images(self) -> int:
        """The number of figures that the outputs show."""
        return _count_images(self.notebook)

    @property
    def tables(self) -> int:
        """The number of outputs that show tables."""
        return sum("<table" in data.get("text/html", "") for data in bundles_of(self.notebook))


def read_published(root: Path) -> list[Published]:
    """Read all papers, in the tables' order.

    Raises:
        UserError: a notebook, a record or the profiles cannot be read.
    """
    recorded = runs_by_paper(root)
    return [_read_paper(root, paper, recorded.get(paper.slug, [])) for paper in read_papers(root)]


def read_published_pages(root: Path) -> list[PublishedPage]:
    """Read all pages that are text notebooks, by name; errors as `read_published`."""
    published = []
    for page in read_pages(root):
        settings = front_matter(page.path, f"{page.name}.md")
        published.append(PublishedPage(page.name, settings, *_latest(root, page)))
    return published


def _read_paper(root: Path, paper: Paper, records: Sequence[Run]) -> Published:
    source = read_notebook(paper.path)
    notebook, execution, current = _latest(root, of_paper(paper))
    claims = outputs_of(notebook, CLAIM_MIME)
    results = outputs_of(notebook, RESULTS_MIME)
    runs = list(records)
    # A quick run judges nothing; and a run of this build may be on record already.
    is_recorded = any(run.results == results for run in records)
    if execution is not None and execution.profile != QUICK and results and not is_recorded:
        own = run_of(paper.slug, paper.record.short, execution.profile, results, claims)
        runs = ranked(root, [own, *records])
    changes = _changes(root, paper, records, execution, current, results)
    claims = shown_claims(claims, runs, paper.record, changes)
    if execution is not None:
        notebook = with_verdicts(notebook, claims)
    return Published(
        paper, source, notebook, execution, current, claims, results, tuple(runs), changes
    )


def _changes(
    root: Path,
    paper: Paper,
    records: Sequence[Run],
    execution: Execution | None,
    current: bool,
    results: Sequence[dict[str, Any]],
) -> dict[str, str]:
    """File of a recorded run -> the first number of the quick run that is another one now.

    It is empty where the quick run is not up to date, which pages say elsewhere.
    """
    records = [run for run in records if not run.is_earlier]
    if not records:
        return {}
    quick_rows = None
    if execution is not None and execution.profile == QUICK:
        if current:
            quick_rows = fingerprint(results)
    else:
        quick_run = read_quick_run(root, of_paper(paper))
        if quick_run is not None:
            quick_rows = quick_run[0]
    if quick_rows is None:
        return {}
    changes = {run.file: first_change(run.quick, quick_rows) for run in records}
    return {file: change for file, change in changes.items() if change}


def _latest(root: Path, runnable: Runnable) -> tuple[nbformat.NotebookNode, Execution | None, bool]:
    """The notebook to publish, its execution if it has one, and whether that is up to date."""
    best = None
    if runnable.implemented:
        best = best_execution(root, runnable)
    if best is None:
        return runnable.read(), None, False
    execution, current = best
    return read_notebook(execution.path), execution, current


def _count_images(notebook: nbformat.NotebookNode) -> int:
    return sum(any(mime.startswith("image/") for mime in data) for data in bundles_of(notebook))
