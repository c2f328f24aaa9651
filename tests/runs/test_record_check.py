"""Checking recorded runs: faults that can be mended, and notes that need a machine."""

from tests.runs.recorded import CLAIM, ROW, earlier, earlier_run, record, write
from tests.small_book import SHOWN, STATED, write_sources

from prunebook.catalog import read_papers
from prunebook.runs.record_check import check_records, read_all
from prunebook.runs.run import run_notebooks


def test_unreadable_files_and_papers_that_are_gone_are_faults(book):
    book.add("alpha", "1")
    write(book.root, "a", record(version=3))
    write(book.root, "b", "{")
    write(book.root, "c", record("gone"))
    write(book.root, "d", record("alpha"))
    runs, faults = read_all(book.root)
    assert [run.slug for run in runs] == ["gone", "alpha"]
    assert [fault.partition(": ")[0] for fault in faults] == [
        "benchmarks/results/a.json",
        "benchmarks/results/b.json",
    ]
    faults, notes = check_records(book.root, read_papers(book.root))
    assert faults[2:] == ["benchmarks/results/c.json: slug: 'gone' is no paper of the book"]
    assert notes == []


def test_a_quick_run_with_other_numbers_is_a_note(book):
    write_sources(book.root)
    book.add("alpha", SHOWN)
    run_notebooks(book.root)
    dense = {"label": "dense", "perplexity": 20.0}
    write(book.root, "same", record(quick=[dense, ROW]))
    write(book.root, "other", record(quick=[dense, ROW | {"perplexity": 40.0}]))
    write(book.root, "old", earlier(earlier_run()))
    faults, notes = check_records(book.root, read_papers(book.root))
    assert faults == []
    assert notes == [
        "benchmarks/results/other.json: changed since it was recorded (Tiny, perplexity: 30.5, was "
        "40); record it again: prunebook run alpha --profile book --record"
    ]


def test_a_claim_that_a_record_lacks_is_a_note(book):
    book.add("alpha", "1", claims=STATED)
    write(book.root, "a", record(claims=[CLAIM]))
    _, notes = check_records(book.root, read_papers(book.root))
    assert notes == ["benchmarks/results/a.json: claims: has no k2"]
