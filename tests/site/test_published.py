"""What is read of a paper: outputs of its notebook, verdicts of its record."""

import shutil

import nbformat
from tests.small_book import CHECKS, SHOWN, STATED, notebook, write_sources

from prunebook.catalog import read_papers
from prunebook.notebook.claims import CLAIM_MIME
from prunebook.notebook.results import RESULTS_MIME
from prunebook.runs.executed import Execution
from prunebook.runs.records import check_recordable, record_runs
from prunebook.runs.run import run_notebooks
from prunebook.site import published as published_module
from prunebook.site.published import read_published

CLAIM = {
    "key": "k",
    "statement": "a",
    "paper": "b",
    "source": "c",
    "ours": "d",
    "verdict": "holds",
    "protocol": {"model": "m"},
}
RESULTS = {"rows": [{"a": 1}], "protocol": {"model": "m"}, "date": "2026-11-23", "commit": "abc"}


def test_published_reads_the_records_in_the_outputs(book, monkeypatch):
    book.add("alpha", "1")
    executed = notebook("alpha", "1")
    executed.cells[4].outputs = [
        nbformat.v4.new_output("display_data", {CLAIM_MIME: CLAIM, "text/plain": ""}),
        nbformat.v4.new_output("display_data", {"image/png": "aGk=", "text/plain": ""}),
        nbformat.v4.new_output("display_data", {RESULTS_MIME: RESULTS, "text/plain": ""}),
    ]
    path = book.root / "executed.ipynb"
    nbformat.write(executed, path)
    execution = Execution(path, "key", "ci", 1.0, "2026-11-23", {})
    monkeypatch.setattr(published_module, "best_execution", lambda root, paper: (execution, True))
    (alpha,) = read_published(book.root)
    (claim,) = alpha.claims
    assert (claim["key"], claim["verdict"], len(claim["verdicts"])) == ("k", "holds", 1)
    assert (alpha.results, alpha.images) == ([RESULTS], 1)
    assert (alpha.execution, alpha.current) == (execution, True)


def test_the_source_stays_beside_what_is_shown(book):
    book.add("alpha", "1")
    (alpha,) = read_published(book.root)
    assert alpha.source == nbformat.read(alpha.paper.path, nbformat.NO_CONVERT)
    assert alpha.notebook == alpha.source


def verdicts(paper):
    return [claim["verdict"] for claim in paper.claims]


def record(book):
    """Record the run of the book's papers under the profile `full`."""
    papers = read_papers(book.root)
    fingerprints = check_recordable(book.root, "full", papers)
    return record_runs(book.root, papers, "full", fingerprints)


def test_a_quick_run_shows_verdicts_of_the_record_and_judges_nothing(book):
    write_sources(book.root)
    book.add("alpha", SHOWN, CHECKS, claims=STATED)
    run_notebooks(book.root)
    (alpha,) = read_published(book.root)
    assert (alpha.judges, alpha.runs) == (False, ())
    assert verdicts(alpha) == ["not_judged", "not_judged"]
    assert alpha.judged_results == []
    run_notebooks(book.root, profile="full")
    record(book)
    # The run of this build is the one on record.
    (alpha,) = read_published(book.root)
    assert (alpha.judges, len(alpha.runs)) == (True, 1)
    shutil.rmtree(book.root / "_build" / "executed" / "full")
    (alpha,) = read_published(book.root)
    assert alpha.execution.profile == "quick"
    assert verdicts(alpha) == ["holds", "fails"]
    assert alpha.changes == {}
    assert alpha.claims[0]["recorded"].startswith("Recorded on 20")
    boxes = []
    for cell in alpha.notebook.cells:
        bundles = [output.get("data", {}) for output in cell.get("outputs", [])]
        boxes += [data["text/html"] for data in bundles if CLAIM_MIME in data]
    assert ["Recorded on" in box for box in boxes] == [True, True]
    assert not any("not judged" in box for box in boxes)
    assert alpha.judged_results[0]["protocol"] == {"model": "full-model"}
    shutil.rmtree(book.root / "_build" / "executed")
    (alpha,) = read_published(book.root)
    assert (alpha.execution, len(alpha.claims)) == (None, 2)  # boards need no execution


def test_a_record_of_other_quick_numbers_has_changed(book):
    write_sources(book.root)
    book.add("alpha", SHOWN, CHECKS, claims=STATED)
    run_notebooks(book.root)
    run_notebooks(book.root, profile="full")
    (path,) = record(book)
    path.write_text(path.read_text().replace("30.5\n", "40.5\n"))
    change = {path.name: "Tiny, perplexity: 30.5, was 40.5"}
    # The full run of this build is another one now, and stands first; the quick run is read beside.
    (alpha,) = read_published(book.root)
    assert [run.is_recorded for run in alpha.runs] == [False, True]
    assert alpha.changes == change
    shutil.rmtree(book.root / "_build" / "executed" / "full")
    (alpha,) = read_published(book.root)
    assert alpha.changes == change
    assert "Changed since it was recorded: Tiny, perplexity" in alpha.claims[0]["recorded"]
    # Where the quick run is not up to date, nothing can be said.
    book.add("alpha", SHOWN, CHECKS, "1", claims=STATED)
    (alpha,) = read_published(book.root)
    assert (alpha.current, alpha.changes) == (False, {})
