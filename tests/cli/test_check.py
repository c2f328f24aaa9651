"""The command `check`: what it prints of papers, tables and records, and its exit code."""

from tests.cli.calling import call, error
from tests.runs import recorded
from tests.tiny_book import record, write


def test_check(book):
    parts = "record, cells, tags, links, contents, method and test"
    sound = f"2 papers checked, nothing to mend: {parts}, tables, records\n"
    assert call("check").stdout == sound
    write(book, record(**{"venue.name": "New venue"}))
    stale = "README.md: does not match the notebooks; run `prunebook check --write`\n"
    assert call("check", code=2).stdout == stale
    assert call("check", "wanda").stdout == f"1 paper checked, nothing to mend: {parts}\n"
    assert call("check", "--write").stdout == sound
    assert call("check").stdout == sound
    assert error("check", "wander") == "prunebook: unknown paper 'wander'; allowed: scaling, wanda"


def test_check_of_records(book):
    (book / "papers" / "profiles.yml").write_text("quick: {default: {}}\n")
    recorded.write(book, "gone", recorded.record("gone"))
    recorded.write(book, "broken", "{")
    lines = call("check", code=2).stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("benchmarks/results/broken.json: no readable JSON")
    assert lines[1] == "benchmarks/results/gone.json: slug: 'gone' is no paper of the book"
    # Papers alone are checked without the records.
    call("check", "wanda")


def test_a_note_is_no_fault(book, monkeypatch):
    monkeypatch.setattr(
        "prunebook.runs.record_check.check_records", lambda root, papers: ([], ["a.json: changed"])
    )
    assert call("check").stdout.splitlines()[0] == "note: a.json: changed"


def test_the_table_of_the_readme_has_the_recorded_counts(book):
    (book / "papers" / "profiles.yml").write_text("quick: {default: {}}\n")
    recorded.write(book, "a", recorded.earlier(recorded.earlier_run("wanda")))
    stale = "README.md: does not match the notebooks; run `prunebook check --write`\n"
    assert call("check", code=2).stdout == stale
    call("check", "--write")
    assert "✓1" in (book / "README.md").read_text()
