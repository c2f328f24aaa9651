"""Recorded runs: what is refused before a run, what is written, which run counts."""

import json
from pathlib import Path

import pytest
from tests.runs.recorded import CLAIM, TABLE, earlier, earlier_run, record, write
from tests.small_book import CHECKS, SHOWN, STATED, write_sources

from prunebook.catalog import read_papers
from prunebook.errors import UserError
from prunebook.runs.records import (
    check_recordable,
    read_runs,
    record_runs,
    run_of,
    runs_by_paper,
)
from prunebook.runs.run import run_notebooks


@pytest.fixture
def papers(book):
    """The one paper of a book, which has been run in a small and in a full run."""
    write_sources(book.root)
    book.add("alpha", SHOWN, CHECKS, claims=STATED)
    run_notebooks(book.root)
    run_notebooks(book.root, profile="full")
    return read_papers(book.root)


def test_a_record_is_one_file_with_the_fingerprint_of_the_quick_run(book, papers):
    fingerprints = check_recordable(book.root, "full", papers)
    (path,) = record_runs(book.root, papers, "full", fingerprints)
    assert path.relative_to(book.root) == Path("benchmarks/results/record-alpha-full-device.json")
    content = json.loads(path.read_text())
    assert (content["kind"], content["version"]) == ("prunebook-record", 2)
    assert (content["slug"], content["profile"]) == ("alpha", "full")
    assert content["quick"] == content["results"][0]["rows"]
    assert [claim["origin"] for claim in content["claims"]] == ["paper", "ours"]
    assert content["results"][0]["losses"] == {"Tiny": [[1.5, 2.5], [3.5, 4.5]]}
    # The losses of a draw stand on one line.
    assert "[1.5, 2.5]" in path.read_text()
    (run,) = read_runs(book.root)
    assert (run.results, run.claims) == (content["results"], content["claims"])
    assert (run.quick, run.version, run.file) == (tuple(content["quick"]), 2, path.name)


def test_what_cannot_be_recorded_is_refused_before_it_is_run(book, papers):
    with pytest.raises(UserError, match=r"^a run of profile 'quick' judges nothing"):
        check_recordable(book.root, "quick", papers)
    with pytest.raises(UserError, match=r"^nothing to record: none of the names is a paper"):
        check_recordable(book.root, "full", [])
    book.add("alpha", SHOWN, CHECKS, "1", claims=STATED)
    book.add("beta", SHOWN)
    message = (
        "^no up-to-date quick run of alpha, beta, which a record needs; run `prunebook run alpha "
        "beta` first$"
    )
    with pytest.raises(UserError, match=message):
        check_recordable(book.root, "full", read_papers(book.root))


def test_a_claim_without_origin_is_refused_before_it_is_run(book):
    write_sources(book.root)
    claim = 'import prunebook as pb\npb.not_testable("k", "a", paper="b", source="c", reason="d")'
    book.add("alpha", SHOWN, claim)
    run_notebooks(book.root)
    with pytest.raises(UserError, match=r"^papers/alpha\.ipynb: claim 'k' has no origin"):
        check_recordable(book.root, "full", read_papers(book.root))


def test_only_runs_that_are_up_to_date_are_recorded(book, papers):
    fingerprints = check_recordable(book.root, "full", papers)
    book.add("alpha", SHOWN, CHECKS, "1", claims=STATED)
    message = "^no up-to-date run with a table under profile 'full', so nothing is recorded$"
    with pytest.raises(UserError, match=message):
        record_runs(book.root, read_papers(book.root), "full", fingerprints)
    assert not (book.root / "benchmarks").exists()


def test_version_2_then_the_profile_then_the_day_counts(book):
    write(book.root, "a", earlier(earlier_run("alpha", "full"), earlier_run("beta", "quick")))
    write(book.root, "b", record("alpha", "other", date="2026-01-01"))
    write(book.root, "c", record("alpha", "other", date="2026-02-01"))
    write(book.root, "d", record("alpha", "full", date="2026-01-01"))
    write(book.root, "e", record("alpha", "unknown", date="2026-03-01"))
    write(book.root, "other", "[1]")
    assert len(read_runs(book.root)) == 6
    runs = runs_by_paper(book.root)
    # Records that disagree are all kept; profiles that the book does not have come last.
    assert [run.file for run in runs["alpha"]] == [f"{name}.json" for name in "decba"]
    assert [run.version for run in runs["beta"]] == [1]


def test_a_run_on_another_model_goes_last(book):
    profiles = book.root / "papers" / "profiles.yml"
    profiles.write_text("second: {like: full, default: {}}\nfull: {default: {}}\n")
    write(book.root, "a", record("alpha", "second"))
    write(book.root, "b", earlier(earlier_run("alpha", "full")))
    assert [run.profile for run in runs_by_paper(book.root)["alpha"]] == ["full", "second"]


def test_a_run_says_where_it_comes_from():
    run = run_of("alpha", "Alpha", "book", [TABLE], [CLAIM])
    assert run.origin == "Recorded on 2026-11-30 (profile book, CPU, 2 threads, commit abc)."
    assert not run.is_recorded
    bare = TABLE | {"protocol": {}, "commit": None}
    assert run_of("a", "A", "full", [bare], []).origin == "Recorded on 2026-11-30 (profile full)."


def test_a_faulty_record_is_one_line(book):
    write(book.root, "a", record(version=3))
    with pytest.raises(UserError, match=r"^benchmarks/results/a\.json: version: 3 is not 2"):
        read_runs(book.root)
