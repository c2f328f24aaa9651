"""What is read of a paper: outputs of its notebook, verdicts of its record."""

import shutil

import nbformat
from tests.small_book import CLAIMS, SHOWN, notebook, write_sources

from prunebook.notebook.claims import CLAIM_MIME
from prunebook.notebook.results import RESULTS_MIME
from prunebook.runs.executed import Execution
from prunebook.runs.records import record_runs
from prunebook.runs.run import run_notebooks
from prunebook.site import published as published_module
from prunebook.site.published import read_published

CLAIM = {"key": "k", "verdict": "holds", "protocol": {"model": "m"}}
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
    assert (alpha.claims, alpha.results, alpha.images) == ([CLAIM], [RESULTS], 1)
    assert (alpha.execution, alpha.current) == (execution, True)


def test_the_source_stays_beside_what_is_shown(book):
    book.add("alpha", "1")
    (alpha,) = read_published(book.root)
    assert alpha.source == nbformat.read(alpha.paper.path, nbformat.NO_CONVERT)
    assert alpha.notebook == alpha.source


def test_a_quick_run_shows_verdicts_of_the_record_and_judges_nothing(book):
    write_sources(book.root)
    book.add("alpha", SHOWN, CLAIMS)
    run_notebooks(book.root)
    (alpha,) = read_published(book.root)
    assert (alpha.judges, alpha.recorded_run) == (False, None)
    assert [claim["verdict"] for claim in alpha.claims] == [
        "not_judged",
        "not_judged",
        "not_testable",
    ]
    assert alpha.judged_results == []
    run_notebooks(book.root, profile="full")
    record_runs(book.root, read_published(book.root), "full")
    shutil.rmtree(book.root / "_build" / "executed" / "full")
    (alpha,) = read_published(book.root)
    assert alpha.execution.profile == "quick"
    assert [claim["verdict"] for claim in alpha.claims] == ["holds", "fails", "not_testable"]
    assert alpha.claims[0]["recorded"].startswith("Recorded on 20")
    boxes = []
    for cell in alpha.notebook.cells:
        bundles = [output.get("data", {}) for output in cell.get("outputs", [])]
        boxes += [data["text/html"] for data in bundles if CLAIM_MIME in data]
    assert ["Recorded on" in box for box in boxes] == [True, True, True]
    assert not any("not judged" in box for box in boxes)
    assert alpha.judged_results[0]["protocol"] == {"model": "full-model"}
    shutil.rmtree(book.root / "_build" / "executed")
    (alpha,) = read_published(book.root)
    assert (alpha.execution, len(alpha.claims)) == (None, 3)  # boards need no execution
