"""What the book exports: the catalogue with each paper's outcome, references, feed, sitemap, copies
for Colab."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import read_address
from ..catalog.exports import make_entry, render_exports
from ..files import write_atomic
from ..runs.installed import versions_of
from .buttons import COLAB_BRANCH, colab_notebook
from .published import Published, read_published


def export(root: Path, folder: Path) -> list[Path]:
    """Write the exports of the book at `root` into `folder`, with the verdicts of the notebooks
    that have been run.

    Raises:
        UserError: a source cannot be read or the folder not written, or the book's packages are not
            installed.
    """
    return write_exports(root, read_published(root), folder)


def write_exports(root: Path, papers: Sequence[Published], folder: Path) -> list[Path]:
    """Write the exports of `papers` into `folder` and return the files; errors as `export`."""
    address = read_address(root)
    entries = [
        make_entry(published.paper.record, address, _outcome(published)) for published in papers
    ]
    files = render_exports(address, entries, toc_pages(root))
    for published in papers:
        copied = colab_notebook(published.paper, address)
        files[f"{COLAB_BRANCH}/{published.paper.path.name}"] = nbformat.writes(copied) + "\n"
    return [write_atomic(folder / name, content) for name, content in files.items()]


def _outcome(published: Published) -> dict[str, Any]:
    """State, verdict counts, execution, results and their profile, of a paper."""
    run = published.execution
    if run is not None:
        state = "executed" if published.current else "outdated"
    else:
        state = "not run yet" if published.paper.record.method is None else "not executed"
    measured = run if published.judges else published.record
    return {
        "state": state,
        "verdicts": Counter(claim["verdict"] for claim in published.claims),
        "run": run
        and {name: getattr(run, name) for name in ("profile", "date", "seconds", "parameters")},
        "results": published.judged_results,
        "measured_under": measured.profile if published.judged_results else None,
    }


def toc_pages(root: Path) -> list[str]:
    """The site's pages without their ending, the landing page first.

    Raises:
        UserError: the book's packages are not installed.
    """
    versions_of("sphinx-external-toc")
    from sphinx_external_toc.parsing import parse_toc_yaml

    contents = parse_toc_yaml(root / "_toc.yml")
    start = contents.root.docname
    return [start, *sorted(name for name in contents if name != start)]
