"""Recorded runs: which of them the site shows, and which profile is not recorded."""

import json

import pytest

from prunebook.errors import UserError
from prunebook.runs.records import best_runs, check_recordable, read_runs


def recorded(slug, profile, date):
    """A recorded run as its file has it."""
    results = [{"date": date, "commit": "abc", "protocol": {"device": "cpu"}}]
    return {"slug": slug, "short": slug, "profile": profile, "results": results, "claims": []}


def write(book, name, *runs, version=1):
    folder = book.root / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": "prunebook-runs", "version": version, "runs": runs}
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_the_last_profile_and_then_the_last_day_is_shown(book):
    write(
        book, "a", recorded("alpha", "full", "2026-01-01"), recorded("beta", "quick", "2026-01-01")
    )
    write(
        book, "b", recorded("alpha", "quick", "2026-02-01"), recorded("beta", "quick", "2026-02-01")
    )
    (book.root / "benchmarks" / "results" / "other.json").write_text("[1]")
    assert len(read_runs(book.root)) == 4
    best = best_runs(book.root)
    assert best["alpha"].profile == "full"
    assert best["beta"].origin == "Recorded on 2026-02-01 (profile quick, cpu, commit abc)."


def test_a_record_of_another_form_is_refused(book):
    for version, run, message in (
        (2, recorded("alpha", "full", "2026-01-01"), "version 2 is not 1"),
        (1, {"slug": "alpha"}, "missing"),
    ):
        write(book, "a", run, version=version)
        with pytest.raises(UserError, match=f"^benchmarks/results/a.json is no .*: .*{message}"):
            read_runs(book.root)


def test_a_quick_run_is_not_recorded():
    check_recordable("book")
    with pytest.raises(UserError, match=r"^a run of profile 'quick' judges nothing"):
        check_recordable("quick")
