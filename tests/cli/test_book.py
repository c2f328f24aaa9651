"""The commands that run, build and show the book: what they pass on, and their exit codes."""

import sys
from types import SimpleNamespace

import pytest
from tests.cli.calling import call, error


@pytest.fixture
def fake_book(book, monkeypatch):
    """Stands in for running, building and serving; keeps what the command passed on."""
    calls = []

    def run_notebooks(root, slugs, **settings):
        calls.append((root, slugs, settings))
        return SimpleNamespace(failed=[slug for slug in slugs if slug == "scaling"])

    fakes = {
        "runs.run": {"run_notebooks": run_notebooks},
        "site.build": {"build_site": lambda root: root / "_build" / "html"},
        "site.serve": {"serve": lambda root, port: calls.append((root, port))},
    }
    for name, functions in fakes.items():
        monkeypatch.setitem(sys.modules, f"prunebook.{name}", SimpleNamespace(**functions))
    return calls


def test_run(book, fake_book):
    call("run")
    call("run", "wanda", "scaling", "--profile", "full", "--jobs", "2", "--force", code=1)
    assert fake_book == [
        (
            book,
            [],
            {"profile": "quick", "jobs": None, "force": False, "since": None, "fail_fast": False},
        ),
        (
            book,
            ["wanda", "scaling"],
            {"profile": "full", "jobs": 2, "force": True, "since": None, "fail_fast": False},
        ),
    ]


def test_run_of_what_changed(book, fake_book):
    call("run", "--since", "main", "--fail-fast")
    call("run", "--only-changed")
    settings = [(settings["since"], settings["fail_fast"]) for _, _, settings in fake_book]
    assert settings == [("main", True), ("HEAD", False)]
    said = call("run", "--since", "main", "--only-changed", code=2).stderr
    assert said == "prunebook: --since main and --only-changed say two things; give one of them\n"


def test_a_quick_run_is_not_recorded(book, fake_book):
    said = call("run", "--record", code=2).stderr
    assert "a run of profile 'quick' judges nothing and is not recorded; use --profile book" in said
    assert fake_book == []


def test_a_run_without_a_quick_run_is_not_recorded(book, fake_book):
    said = call("run", "--record", "--profile", "book", code=2).stderr
    assert said == (
        "prunebook: no up-to-date quick run of wanda, which a record needs; run `prunebook run "
        "wanda` first\n"
    )
    assert fake_book == []


def test_the_papers_that_were_asked_for_are_recorded(book, fake_book, monkeypatch):
    recorded = []

    def record_runs(root, papers, profile, fingerprints):
        recorded.append(([paper.slug for paper in papers], profile, fingerprints))
        return [root / "a.json"]

    monkeypatch.setattr("prunebook.runs.records.record_runs", record_runs)
    monkeypatch.setattr(
        "prunebook.runs.records.check_recordable",
        lambda root, profile, papers: {paper.slug: [] for paper in papers},
    )
    said = call("run", "wanda", "concepts/why", "--record", "--profile", "book").stdout
    assert said == f"{book / 'a.json'}\n"
    call("run", "--record", "--profile", "book")
    # A paper without implementation has nothing to record.
    assert recorded == [(["wanda"], "book", {"wanda": []})] * 2
    assert len(fake_book) == 2


def test_build_and_serve(book, fake_book):
    assert call("build").stdout == f"{book / '_build' / 'html'}\n"
    call("serve", "--port", "8123")
    assert fake_book == [(book, 8123)]


def test_preview(book, fake_book, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = book / "_build" / "html" / "papers" / "wanda.html"
    assert call("preview", "wanda", "--no-open").stdout == f"{page}\n"
    assert opened == []
    assert call("preview", "wanda", "--profile", "full").stdout == f"{page}\n"
    assert opened == [page.as_uri()]
    assert fake_book == [(book, ["wanda"], {"profile": profile}) for profile in ("quick", "full")]
    assert call("preview", "scaling", code=1).stdout == ""  # the notebook failed
    assert (
        error("preview", "../index")
        == "prunebook: unknown paper '../index'; allowed: scaling, wanda"
    )
