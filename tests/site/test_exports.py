"""Exports of a book with outcomes."""

import json
from dataclasses import replace

import pytest
from tests.catalog.records import ADDRESS
from tests.site.pages.made_up import CLAIM
from tests.small_book import published, write_sources

from prunebook.catalog import read_papers
from prunebook.runs.executed import Execution
from prunebook.runs.records import run_of
from prunebook.site.exports import export, export_files


@pytest.fixture
def sources(book):
    write_sources(book.root)
    book.add("alpha", "1")
    book.add("later", method=None)
    (book.root / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n- file: papers/later\n- file: papers/alpha\n"
    )
    return book.root


def entry_of(root, execution, **fields) -> dict:
    """The entry in the catalogue of `alpha`, executed in this way."""
    paper = next(paper for paper in read_papers(root) if paper.slug == "alpha")
    files = export_files(ADDRESS, [published(paper, execution, **fields)], ["index"])
    (entry,) = json.loads(files["catalog.json"])["papers"]
    return entry


def test_export_writes_what_is_known(sources, tmp_path):
    files = export(sources, tmp_path / "out")
    names = ["catalog.json", "catalog.schema.json", "references.bib", "feed.xml", "sitemap.xml"]
    copies = ["colab/alpha.ipynb", "colab/later.ipynb"]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == names + copies
    states = {paper["slug"]: paper["state"] for paper in json.loads(files[0].read_text())["papers"]}
    assert states == {"alpha": "not executed", "later": "not run yet"}
    locations = files[4].read_text().split("<loc>")[1:]
    assert [location.split("<")[0] for location in locations] == [
        "https://tiny.example/book/",
        "https://tiny.example/book/papers/alpha.html",
        "https://tiny.example/book/papers/later.html",
    ]


@pytest.mark.parametrize(("current", "state"), [(True, "executed"), (False, "outdated")])
def test_an_execution_brings_verdicts_and_results(sources, current, state):
    run = Execution(sources, "key", "ci", 12.3, "2026-11-23", {"samples": 2})
    claims = [
        CLAIM | {"key": "a"},
        CLAIM | {"key": "b", "verdict": "fails", "origin": "paper"},
        CLAIM | {"key": "c", "origin": "ours"},
    ]
    results = [
        {
            "rows": [{"label": "dense"}],
            "protocol": {},
            "versions": {},
            "date": "2026-11-23",
            "commit": "c",
            "losses": {"dense": [[1.5]]},
        }
    ]
    entry = entry_of(sources, run, current=current, claims=claims, results=results)
    assert entry["state"] == state
    # Counts are of the paper's own claims.
    assert entry["verdicts"] == {"holds": 1, "fails": 1}
    assert entry["beyond"] == {"holds": 1}
    assert [outcome["key"] for outcome in entry["outcomes"]] == ["a", "b", "c"]
    assert entry["run"] == {
        "profile": "ci",
        "date": "2026-11-23",
        "seconds": 12.3,
        "parameters": {"samples": 2},
    }
    del results[0]["losses"]  # the records hold them
    assert entry["results"] == results
    assert entry["measured_under"] == "ci"


def test_a_quick_run_brings_the_results_of_the_record(sources):
    quick = Execution(sources, "key", "quick", 12.3, "2026-11-23", {"samples": 2})
    results = [
        {
            "rows": [{"label": "dense"}],
            "protocol": {},
            "versions": {},
            "date": "2026-11-20",
            "commit": "c",
        }
    ]
    record = replace(run_of("alpha", "Alpha", "book", results, [CLAIM]), file="a.json")
    verdict = {
        "verdict": "holds",
        "profile": "book",
        "device": None,
        "model": "m",
        "windows": 32,
        "date": "2026-11-20",
        "version": 2,
        "recorded": True,
    }
    claims = [CLAIM | {"verdicts": [verdict]}]
    entry = entry_of(sources, quick, claims=claims, runs=(record,))
    assert entry["results"] == results
    assert (entry["run"]["profile"], entry["measured_under"]) == ("quick", "book")
    assert entry["outcomes"][0]["runs"] == [verdict]


def test_exports_do_not_depend_on_the_day(sources, tmp_path):
    first, second = (
        {path.name: path.read_bytes() for path in export(sources, tmp_path / name)} for name in "ab"
    )
    assert first == second
