"""What the book exports: catalogue with outcomes, references, feed, sitemap, copies for Colab."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..catalog import Address, read_address
from ..catalog.exports import make_entry, render_exports
from ..files import write_atomic
from .book import read_page_names
from .buttons import COLAB_BRANCH, colab_notebook
from .published import Published, read_published
from .verdicts import counts_of, is_own


def export(root: Path, folder: Path) -> list[Path]:
    """Write the exports of the book at `root` into `folder` and return the files.

    Raises:
        UserError: a source cannot be read, the folder cannot be written, or the book's packages are
            not installed.
    """
    files = export_files(read_address(root), read_published(root), read_page_names(root))
    return [write_atomic(folder / name, content) for name, content in files.items()]


def export_files(
    address: Address, papers: Sequence[Published], page_names: Sequence[str]
) -> dict[str, str]:
    """File name -> content of each export.

    Args:
        address: the project's public addresses.
        papers: the papers in the tables' order.
        page_names: the site's pages without their ending, the landing page first.
    """
    entries = [
        make_entry(published.paper.record, address, _outcome(published)) for published in papers
    ]
    files = render_exports(address, entries, [page_names[0], *sorted(page_names[1:])])
    for published in papers:
        copied = colab_notebook(published.source, published.paper.record, address)
        files[f"{COLAB_BRANCH}/{published.paper.path.name}"] = nbformat.writes(copied) + "\n"
    return files


def _outcome(published: Published) -> dict[str, Any]:
    """State, verdict counts, execution, results and their profile, of a paper."""
    execution = published.execution
    run = None
    if execution is not None:
        shown = ("profile", "date", "seconds", "parameters")
        run = {name: getattr(execution, name) for name in shown}
    measured_under = None
    if published.runs:
        measured_under = published.runs[0].profile
    elif published.judges:
        measured_under = execution.profile
    return {
        "state": _state(published),
        "verdicts": counts_of(published.claims),
        "beyond": Counter(claim["verdict"] for claim in published.claims if not is_own(claim)),
        "outcomes": [_claim_outcome(claim) for claim in published.claims],
        "run": run,
        "results": [_table(result) for result in published.judged_results],
        "measured_under": measured_under,
    }


def _table(result: Mapping[str, Any]) -> dict[str, Any]:
    """A table as the catalogue has it: without the losses by window, which the records hold."""
    return {name: value for name, value in result.items() if name != "losses"}


def _claim_outcome(claim: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on one claim, and those of all runs."""
    names = ("key", "origin", "statement", "paper", "source", "ours", "verdict", "reason")
    return {name: claim.get(name) for name in names} | {"runs": claim.get("verdicts", [])}


def _state(published: Published) -> str:
    """The paper's state, in the words of the catalogue's schema."""
    if published.execution is None:
        return "not executed" if published.paper.record.is_implemented else "not run yet"
    return "executed" if published.current else "outdated"
